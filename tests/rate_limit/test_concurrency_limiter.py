"""Which requests of one client may be in flight together."""

import pytest

from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, LimiterOptions, Priority
from pinecone_embed_async._rate_limit.concurrency import KEPT
from pinecone_embed_async._rate_limit.limiter import Limiter
from pinecone_embed_async._rate_limit.permit import LimiterPermit


class Harness:
    """Requests permits, and keeps those that were granted."""

    def __init__(self, concurrency: ConcurrencyLimiter) -> None:
        self.concurrency = concurrency
        self.limiter = Limiter(LimiterOptions())
        self._permits: list[LimiterPermit] = []
        self._flows: dict[Priority, Flow] = {name: Flow(concurrency, None, name) for name in ("interactive", "bulk")}

    @property
    def permits(self) -> list[LimiterPermit]:
        self._permits += [permit for permit in self.limiter.decided if permit.is_granted]
        self.limiter.decided.clear()
        return self._permits

    def request(self, priority: Priority, now: float, times: int = 1) -> None:
        for _ in range(times):
            self.limiter.enqueue(LimiterPermit(self._flows[priority], None, 0, 0), now)

    def end(self, priority: Priority, now: float) -> None:
        permit = next(permit for permit in self.permits if permit.flow.priority == priority)
        self.permits.remove(permit)
        self.limiter.accepted(permit, 0, now)

    def in_flight(self) -> dict[str, int]:
        return {name: sum(permit.flow.priority == name for permit in self.permits) for name in ("interactive", "bulk")}


def test_bulk_work_takes_all_places_without_interactive_requests() -> None:
    harness = Harness(ConcurrencyLimiter(4))
    harness.request("bulk", 0.0, times=10)
    assert harness.in_flight() == {"interactive": 0, "bulk": 4}


def test_a_place_is_kept_for_interactive_requests_once_one_has_come() -> None:
    harness = Harness(ConcurrencyLimiter(4))
    harness.request("bulk", 0.0, times=10)
    harness.request("interactive", 1.0)
    assert harness.in_flight() == {"interactive": 0, "bulk": 4}
    harness.end("bulk", 1.1)
    assert harness.in_flight() == {"interactive": 1, "bulk": 3}
    harness.end("interactive", 1.2)
    assert harness.in_flight() == {"interactive": 0, "bulk": 3}
    harness.request("interactive", 2.0)
    assert harness.in_flight() == {"interactive": 1, "bulk": 3}


def test_the_last_free_place_is_kept_however_many_interactive_requests_are_in_flight() -> None:
    harness = Harness(ConcurrencyLimiter(8))
    harness.request("interactive", 0.0, times=5)
    harness.request("bulk", 0.0, times=10)
    assert harness.in_flight() == {"interactive": 5, "bulk": 2}
    harness.request("interactive", 0.1)
    assert harness.in_flight() == {"interactive": 6, "bulk": 2}
    harness.end("interactive", 0.2)
    harness.end("bulk", 0.3)
    assert harness.in_flight() == {"interactive": 5, "bulk": 2}


@pytest.mark.parametrize("places", [2, 8])
def test_one_bulk_request_is_in_flight_even_if_interactive_requests_leave_a_single_place(places: int) -> None:
    harness = Harness(ConcurrencyLimiter(places))
    harness.request("interactive", 0.0, times=places)
    harness.request("bulk", 0.0, times=10)
    harness.end("interactive", 0.1)
    assert harness.in_flight() == {"interactive": places - 1, "bulk": 1}


def test_bulk_work_that_has_aged_takes_the_kept_place_even_beside_an_answer_that_does_not_come() -> None:
    harness = Harness(ConcurrencyLimiter(4))
    harness.request("interactive", 0.0, times=3)
    harness.request("bulk", 0.0, times=10)
    assert harness.in_flight() == {"interactive": 3, "bulk": 1}
    for tenth in range(1, 120):
        harness.request("interactive", tenth / 10)
        harness.end("interactive", tenth / 10)
    # One every five seconds besides the first, but never the last place.
    assert harness.in_flight() == {"interactive": 1, "bulk": 3}


@pytest.mark.parametrize(("places", "others"), [(2, 1), (8, 7)])
def test_bulk_work_that_has_aged_leaves_one_place_if_it_has_all_others(places: int, others: int) -> None:
    limiter = ConcurrencyLimiter(places)
    limiter.asked("interactive", 0.0)
    for _ in range(others):
        assert limiter.has_room("bulk", 1.0, has_aged=True)
        limiter.count("bulk", 1)
    assert not limiter.has_room("bulk", 1.0, has_aged=True)
    assert limiter.has_room("interactive", 1.0)


def test_the_kept_place_returns_to_bulk_work_after_a_while() -> None:
    harness = Harness(ConcurrencyLimiter(2))
    harness.request("interactive", 0.0)
    harness.request("bulk", 0.0, times=10)
    harness.end("interactive", 0.1)
    harness.end("bulk", KEPT - 0.1)
    assert harness.in_flight() == {"interactive": 0, "bulk": 1}
    harness.end("bulk", KEPT)
    assert harness.in_flight() == {"interactive": 0, "bulk": 2}


def test_a_single_place_is_not_kept() -> None:
    harness = Harness(ConcurrencyLimiter(1))
    harness.request("interactive", 0.0)
    harness.request("bulk", 0.0)
    harness.end("interactive", 0.1)
    assert harness.in_flight() == {"interactive": 0, "bulk": 1}


def test_bulk_work_is_not_starved_when_interactive_requests_take_every_place() -> None:
    harness = Harness(ConcurrencyLimiter(3))
    harness.request("bulk", 0.0, times=100)
    now, bulk = 0.0, 0
    for _ in range(600):
        now += 0.1
        harness.request("interactive", now, times=3)
        served = harness.in_flight()
        priority: Priority = "bulk" if served["bulk"] else "interactive"
        bulk += priority == "bulk"
        harness.end(priority, now)
    # One every five seconds, by ageing, besides those in flight at first.
    assert bulk >= 3 + 60 // 5 - 2


def test_permits_given_back_free_their_places() -> None:
    harness = Harness(ConcurrencyLimiter(2))
    harness.request("interactive", 0.0)
    harness.request("bulk", 0.0, times=3)
    harness.limiter.give_back(harness.permits[1], 0.1)
    assert harness.permits[2].flow.priority == "bulk"
    assert harness.concurrency.in_flight == 2


def test_it_halves_once_for_requests_in_flight_together() -> None:
    concurrency = ConcurrencyLimiter(8)
    for _ in range(8):
        concurrency.overloaded(sent=0.0, now=1.0)
    assert concurrency.limit == 4
    concurrency.overloaded(sent=1.0, now=2.0)
    assert concurrency.limit == 2


def test_it_stays_between_1_and_the_maximum() -> None:
    concurrency = ConcurrencyLimiter(3)
    for second in range(20):
        concurrency.overloaded(sent=float(second), now=float(second))
        assert concurrency.limit >= 1
    assert concurrency.limit == 1
    for _ in range(1000):
        concurrency.succeeded()
    assert concurrency.limit == 3


@pytest.mark.parametrize("most", [2, 8, 64])
def test_it_recovers_by_one_with_about_a_limits_worth_of_responses(most: int) -> None:
    concurrency = ConcurrencyLimiter(most)
    concurrency.overloaded(sent=0.0, now=0.0)
    half = concurrency.limit
    answers = 0
    while concurrency.limit == half:
        concurrency.succeeded()
        answers += 1
    assert half <= answers <= half + 1
