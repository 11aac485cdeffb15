import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, LimiterOptions
from pinecone_embed_async._rate_limit.adaptive_limit import CAME_FREE, SOON, Refill
from pinecone_embed_async._rate_limit.rejections import NamedLimit

from .world import KEY, Service, Work, World

LENGTH = 60.0
SIZE = 9600


def refilled(times: int, *, wait: float = 3.0, tokens: int = 1000) -> Refill:
    """Requests that are rejected one after another, each accepted after a wait."""
    refill, now, total = Refill(LENGTH), 2.0, 50_000
    for _ in range(times):
        refill.rejected(1000, total, now)
        now += wait
        refill.accepted(tokens, now)
        total += tokens
    return refill


def test_tokens_that_repeatedly_come_free_are_an_even_refill_at_that_rate() -> None:
    assert refilled(3).tokens(53_000, 11.0, least=3000) == pytest.approx(3000 / 9 * LENGTH)


def test_tokens_before_the_first_rejection_do_not_count_for_the_rate() -> None:
    refill = refilled(CAME_FREE)
    assert refill.tokens(50_000, 8.0, least=0) == 1000, "at least one request"


def test_one_acceptance_may_be_a_window_that_turned() -> None:
    assert refilled(CAME_FREE - 1).tokens(90_000, 40.0, least=0) is None


def test_tokens_that_come_free_late_may_be_another_window() -> None:
    assert refilled(5, wait=SOON * LENGTH + 1).tokens(90_000, 90.0, least=0) is None


def test_tokens_for_a_request_of_a_fourth_of_the_limit_come_free_in_time() -> None:
    assert refilled(3, wait=LENGTH / 4).tokens(53_000, 48.0, least=3000) == pytest.approx(3000 / 46 * LENGTH)


def test_an_accepted_small_request_does_not_count() -> None:
    assert refilled(5, tokens=499).tokens(90_000, 40.0, least=0) is None
    assert refilled(5, tokens=500).tokens(90_000, 40.0, least=0) is not None


def test_tokens_must_come_free_twice_within_a_fourth_of_a_window_and_in_some_time() -> None:
    assert refilled(2, wait=15.0).tokens(90_000, 40.0, least=0) is not None
    assert refilled(2, wait=15.1).tokens(90_000, 40.0, least=0) is None
    assert refilled(1).tokens(90_000, 40.0, least=0) is None
    # At the time of the first rejection.
    assert refilled(2).tokens(90_000, 2.0, least=0) is None


def test_the_rate_is_measured_over_enough_tokens() -> None:
    refill = refilled(3)
    assert refill.tokens(53_000, 11.0, least=8000) is None
    assert refill.tokens(58_000, 27.0, least=8000) is not None


def test_reset() -> None:
    refill = refilled(5)
    refill.reset()
    assert refill.tokens(90_000, 40.0, least=0) is None
    refill.rejected(1000, 90_000, 50.0)
    refill.accepted(1000, 53.0)
    assert refill.tokens(99_000, 60.0, least=0) is None


@dataclass
class BucketService(Service):
    """A bucket that evenly refills `tokens` per window."""

    burst: float = math.inf
    level: float = math.inf
    at: float = 0.0

    def arrive(self, now: float, tokens: int) -> NamedLimit | None:
        limit = self.tokens(now)
        self.level = min(self.level + (now - self.at) * limit / self.window, self.burst, limit)
        self.at = now
        if tokens > self.level:
            self.rejected.append(now)
            return NamedLimit("tokens per minute", int(limit))
        self.level -= tokens
        self.accepted.append((now, tokens))
        return None

    def part_used(self, start: float, end: float) -> float:
        used = sum(tokens for at, tokens in self.accepted if start <= at < end)
        return used / sum(self.tokens(at) / self.window for at in range(int(start), int(end)))

    def part_rejected(self, start: float, end: float) -> float:
        rejected = sum(start <= at < end for at in self.rejected)
        return rejected / (rejected + sum(start <= at < end for at, _ in self.accepted))


def send_to(service: BucketService, seconds: float, *, seed: int = 0) -> World:
    world = World(LimiterOptions(), service, seed=seed)
    world.add(Work(Flow(ConcurrencyLimiter(8), KEY, "bulk"), 10**9, SIZE, 100))
    world.run(seconds)
    return world


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("burst", [math.inf, 4 * SIZE])
@pytest.mark.parametrize("limit", [250_000, 1_000_000])
def test_an_unnamed_quota_that_refills_evenly_is_used(limit: int, burst: float, seed: int) -> None:
    service = BucketService(lambda _: limit, burst=burst, text=False)
    send_to(service, 600, seed=seed)
    assert service.part_used(180, 600) >= 0.8
    assert service.part_rejected(180, 600) <= 0.15


def halved_from_200_to_400(now: float) -> float:
    return 250_000 if 200 <= now < 400 else 500_000


def smaller_than_a_request_from_200_on(now: float) -> float:
    return 500_000 if now < 200 else SIZE - 100


@pytest.mark.parametrize(
    ("limit", "times"),
    [(halved_from_200_to_400, ((220, 400), (460, 800))), (smaller_than_a_request_from_200_on, ((320, 800),))],
)
def test_a_quota_that_refills_evenly_may_change(
    limit: Callable[[float], float], times: tuple[tuple[float, float], ...]
) -> None:
    service = BucketService(limit, text=False)
    send_to(service, 800)
    for start, end in times:
        assert service.part_used(start, end) >= 0.5, (start, end)
