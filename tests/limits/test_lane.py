"""Which requests of one client may be in flight together."""

from pinecone_embed_async._limits import Ask, Flow, Grant, Lane, Limiter, LimiterOptions, Priority
from pinecone_embed_async._limits._limiter import KEPT


class Desk:
    """Asks for turns and keeps those that were given."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.limiter = Limiter(LimiterOptions())
        self.grants: list[Grant] = []
        self._flows: dict[Priority, Flow[Ask]] = {name: Flow(name, name) for name in ("interactive", "bulk")}

    def ask(self, priority: Priority, now: float, times: int = 1) -> None:
        for _ in range(times):
            self.limiter.ask(Ask(self._flows[priority], self.lane, None, 0, 0, self.grants.append), now)

    def end(self, priority: Priority, now: float) -> None:
        grant = next(grant for grant in self.grants if grant.flow.priority == priority)
        self.grants.remove(grant)
        self.limiter.accepted(grant, 0, now)

    def in_flight(self) -> dict[str, int]:
        return {name: sum(grant.flow.priority == name for grant in self.grants) for name in ("interactive", "bulk")}


def test_bulk_work_has_all_places_where_nobody_interacts() -> None:
    desk = Desk(Lane(4))
    desk.ask("bulk", 0.0, times=10)
    assert desk.in_flight() == {"interactive": 0, "bulk": 4}


def test_an_interactive_request_finds_a_place_once_one_has_come_before() -> None:
    desk = Desk(Lane(4))
    desk.ask("bulk", 0.0, times=10)
    desk.ask("interactive", 1.0)
    assert desk.in_flight() == {"interactive": 0, "bulk": 4}
    desk.end("bulk", 1.1)
    assert desk.in_flight() == {"interactive": 1, "bulk": 3}
    desk.end("interactive", 1.2)
    assert desk.in_flight() == {"interactive": 0, "bulk": 3}
    desk.ask("interactive", 2.0)
    assert desk.in_flight() == {"interactive": 1, "bulk": 3}


def test_the_place_is_given_back_to_bulk_work_after_a_while() -> None:
    desk = Desk(Lane(2))
    desk.ask("interactive", 0.0)
    desk.ask("bulk", 0.0, times=10)
    desk.end("interactive", 0.1)
    desk.end("bulk", KEPT - 0.1)
    assert desk.in_flight() == {"interactive": 0, "bulk": 1}
    desk.end("bulk", KEPT)
    assert desk.in_flight() == {"interactive": 0, "bulk": 2}


def test_a_single_place_is_not_kept() -> None:
    desk = Desk(Lane(1))
    desk.ask("interactive", 0.0)
    desk.ask("bulk", 0.0)
    desk.end("interactive", 0.1)
    assert desk.in_flight() == {"interactive": 0, "bulk": 1}


def test_bulk_work_does_not_starve_where_interactive_requests_take_every_place() -> None:
    desk = Desk(Lane(3))
    desk.ask("bulk", 0.0, times=100)
    now, bulk = 0.0, 0
    for _ in range(600):
        now += 0.1
        desk.ask("interactive", now, times=3)
        served = desk.in_flight()
        priority: Priority = "bulk" if served["bulk"] else "interactive"
        bulk += priority == "bulk"
        desk.end(priority, now)
    # One each five seconds, by ageing, besides those that were in flight at first.
    assert bulk >= 3 + 60 // 5 - 2


def test_turns_that_are_given_back_free_their_places() -> None:
    desk = Desk(Lane(2))
    desk.ask("interactive", 0.0)
    desk.ask("bulk", 0.0, times=3)
    desk.limiter.give_back(desk.grants[1], 0.1)
    assert desk.grants[2].flow.priority == "bulk"
    assert desk.lane.in_flight == 2
