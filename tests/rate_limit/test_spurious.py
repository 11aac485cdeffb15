import dataclasses
import random

import pytest

from pinecone_embed_async._rate_limit import Backoff, ConcurrencyLimiter, Flow, LimiterOptions
from pinecone_embed_async._rate_limit.rejections import (
    ACCEPTED_PER_SPURIOUS,
    MOST_SPURIOUS,
    SOON,
    NamedLimit,
    SpuriousRejections,
)

from .world import KEY, Service, Work, World

LENGTH = 60.0


def rejections_after(accepted: int = MOST_SPURIOUS * ACCEPTED_PER_SPURIOUS) -> SpuriousRejections:
    rejections = SpuriousRejections(LENGTH)
    for number in range(accepted):
        rejections.accepted(number / accepted, 1000)
    return rejections


def test_a_rejection_is_spurious_if_those_beside_and_after_it_are_accepted() -> None:
    rejections = rejections_after()
    rejections.begin(10.0, 1000, 10.1)
    assert not rejections.are_likely(10.2), "no response to the requests beside it yet"
    rejections.accepted(10.05, 1000)
    assert rejections.are_likely(10.2)
    rejections.accepted(10.5, 1000)
    assert rejections.judge(10.6)
    assert not rejections.judge(10.6), "it is judged once"


def test_without_requests_beside_it_the_next_one_decides() -> None:
    rejections = rejections_after()
    rejections.begin(10.0, 1000, 10.1)
    rejections.accepted(10.5, 900)
    assert rejections.judge(10.6)


def test_a_suspicion_lasts_for_a_twelfth_of_a_window() -> None:
    rejections = rejections_after()
    rejections.begin(10.0, 1000, 10.0)
    rejections.accepted(10.0, 500)
    assert rejections.are_likely(15.0)
    assert not rejections.are_likely(15.1)


@pytest.mark.parametrize(("accepted", "most"), [(0, 1), (96, 2), (98, 3), (1000, 4)])
def test_one_rejection_may_be_spurious_and_one_more_for_each_fifty_accepted_up_to_four(accepted: int, most: int) -> None:
    for rejected in (most, most + 1):
        rejections = rejections_after(accepted)
        rejections.begin(10.0, 1000, 10.1)
        for _ in range(rejected - 1):
            rejections.add(9.5)
        for _ in range(rejected):
            rejections.accepted(9.5 if rejected > 1 else 10.0, 1000)
        # Those accepted beside it count, too.
        assert rejections.are_likely(10.2) == (rejected == most)


def test_a_rejection_that_was_not_spurious_leaves_as_many_to_be_spurious() -> None:
    rejections = rejections_after(0)
    rejections.begin(10.0, 1000, 10.1)
    assert not rejections.judge(10.6)
    rejections.begin(11.0, 1000, 11.1)
    rejections.accepted(11.0, 1000)
    assert rejections.judge(11.6)


def test_a_burst_rejected_together_is_not_spurious() -> None:
    rejections = rejections_after()
    rejections.begin(10.0, 1000, 10.1)
    for sent in (10.01, 10.02, 10.03):
        rejections.add(sent)
    rejections.accepted(10.05, 1000)
    rejections.accepted(10.5, 1000)
    assert not rejections.judge(10.6)


def test_an_acceptance_after_tokens_may_have_come_free_does_not_count() -> None:
    rejections = rejections_after()
    rejections.begin(10.0, 1000, 10.1)
    rejections.accepted(10.05, 1000)
    rejections.accepted(10.2 + SOON * LENGTH, 1000)
    assert not rejections.judge(10.3 + SOON * LENGTH)


def test_accepted_small_requests_do_not_count_for_a_large_one() -> None:
    rejections = rejections_after()
    rejections.begin(10.0, 1000, 10.1)
    for sent in (10.01, 10.02, 10.5):
        rejections.accepted(sent, 400)
    assert not rejections.judge(10.6)


def test_many_rejections_are_not_spurious() -> None:
    rejections, verdicts = rejections_after(), list[bool]()
    for at in range(10, 20):
        rejections.begin(at, 1000, at + 0.1)
        rejections.accepted(at + 0.2, 1000)
        verdicts.append(rejections.judge(at + 0.3))
    assert verdicts == [True] * MOST_SPURIOUS + [False] * (10 - MOST_SPURIOUS)


def test_a_burst_that_is_ruled_out_is_not_spurious() -> None:
    rejections = rejections_after()
    rejections.begin(10.0, 1000, 10.1)
    rejections.rule_out()
    rejections.accepted(10.5, 1000)
    assert not rejections.judge(10.6)


@dataclasses.dataclass
class SpuriousService(Service):
    """Rejects every `every`-th request without a reason."""

    every: int = 500
    arrivals: int = 0

    def arrive(self, now: float, tokens: int) -> NamedLimit | None:
        self.arrivals += 1
        if self.every and self.arrivals % self.every == 0:
            self.rejected.append(now)
            return NamedLimit("tokens per minute", 1)
        return super().arrive(now, tokens)

    def accepted_in(self, start: float, end: float) -> int:
        return sum(tokens for at, tokens in self.accepted if start <= at < end)


def send_for(seconds: float, service: SpuriousService, *, asked: float | None = None, seed: int = 0) -> SpuriousService:
    """Send requests of 960 tokens for some seconds, eight in flight, with a round trip of 20 ms."""
    backoff = None if asked is None else Backoff(0.5, 20.0, random.Random(seed).random, asked)
    world = World(LimiterOptions(), service, seed=seed, travel=(0.02, 0.02), backoff=backoff)
    world.add(Work(Flow(ConcurrencyLimiter(8), KEY, "bulk"), 10**9, 960, 10))
    world.run(seconds)
    return service


@pytest.mark.parametrize(("asked", "ratio"), [(None, 0.7), (1.0, 0.45)])
def test_spurious_rejections_cost_only_their_pauses(asked: float | None, ratio: float) -> None:
    rejections = send_for(120, SpuriousService(text=False), asked=asked)
    # Without any, each quarter is like the others.
    none = send_for(30, SpuriousService(text=False, every=0))
    assert rejections.accepted_in(0, 120) >= ratio * 4 * none.accepted_in(0, 30)
    assert rejections.accepted_in(90, 120) >= 0.9 * rejections.accepted_in(0, 30)


@pytest.mark.parametrize("kind", ["fixed", "sliding"])
def test_a_quota_is_found_and_used_beside_spurious_rejections(kind: str) -> None:
    limit = 960 * 2000
    service = send_for(300, SpuriousService(lambda _: limit, text=False, kind=kind))  # type: ignore[arg-type]
    assert service.accepted_in(120, 300) >= 0.75 * 3 * limit
    assert len(service.rejected) <= 0.02 * service.arrivals


@pytest.mark.parametrize("phase", [0.0, 57.0, 59.5, 59.9])
def test_a_window_that_turns_right_after_the_rejection_does_not_hide_the_quota(phase: float) -> None:
    limit = 960 * 200
    service = send_for(300, SpuriousService(lambda _: limit, text=False, kind="fixed", phase=phase, every=0))
    assert service.accepted_in(60, 300) >= 0.8 * 4 * limit
    assert len(service.rejected) <= 0.1 * service.arrivals
