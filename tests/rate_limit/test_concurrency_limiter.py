"""Which requests of one client may be in flight together."""

from pinecone_embed_async._rate_limit import (
    ConcurrencyLimiter,
    Flow,
    Limiter,
    LimiterOptions,
    PermitRequest,
    Priority,
    Reservation,
)
from pinecone_embed_async._rate_limit.limiter import KEPT


class Harness:
    """Requests permits, and keeps the reservations that were made."""

    def __init__(self, concurrency: ConcurrencyLimiter) -> None:
        self.concurrency = concurrency
        self.limiter = Limiter(LimiterOptions())
        self.reservations: list[Reservation] = []
        self._flows: dict[Priority, Flow[PermitRequest]] = {name: Flow(name, name) for name in ("interactive", "bulk")}

    def request(self, priority: Priority, now: float, times: int = 1) -> None:
        for _ in range(times):
            self.limiter.enqueue(
                PermitRequest(self._flows[priority], self.concurrency, None, 0, 0, self.reservations.append), now
            )

    def end(self, priority: Priority, now: float) -> None:
        reservation = next(reservation for reservation in self.reservations if reservation.flow.priority == priority)
        self.reservations.remove(reservation)
        self.limiter.accepted(reservation, 0, now)

    def in_flight(self) -> dict[str, int]:
        return {
            name: sum(reservation.flow.priority == name for reservation in self.reservations)
            for name in ("interactive", "bulk")
        }


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
    harness.limiter.give_back(harness.reservations[1], 0.1)
    assert harness.reservations[2].flow.priority == "bulk"
    assert harness.concurrency.in_flight == 2
