import asyncio
from dataclasses import dataclass, field

from pinecone_embed_async import Quota, QuotaDemand, QuotaOutcome
from pinecone_embed_async.integrations._ray.quota_server import QuotaServer, Terms
from tests.clock import FakeClock, settle

LEASE = 8.0
IDLE = 100.0
UNUSED = QuotaOutcome("unused", 0)


@dataclass
class Desk:
    """A dealer of 1,000 tokens in 10 seconds, under a clock that the test turns."""

    is_resumed: bool = False
    clock: FakeClock = field(default_factory=FakeClock)
    left: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        terms = Terms(Quota(1000, requests_per_second=None, requests_per_minute=None, window=10.0), LEASE, IDLE)
        self.dealer = QuotaServer(
            terms,
            leave=lambda: self.left.append(self.clock.now),
            is_resumed=self.is_resumed,
            clock=self.clock,
            draw=lambda: 0.0,
        )

    def ask(self, worker: str, number: int, tokens: int, flow: str = "") -> asyncio.Task[int | None]:
        demand = QuotaDemand("multilingual-e5-large", "passage", tokens, tokens, flow=flow)
        return asyncio.get_running_loop().create_task(self.dealer.acquire(worker, number, demand))

    @property
    def used(self) -> int:
        return self.dealer.statistics()[0].used


def accepted(tokens: int) -> QuotaOutcome:
    return QuotaOutcome("accepted", tokens)


async def test_what_one_worker_uses_another_has_not() -> None:
    desk = Desk()
    assert await desk.ask("one", 0, 900) == 900
    waiting = desk.ask("two", 0, 900)
    await settle()
    assert not waiting.done()
    desk.dealer.settle("one", 0, accepted(900))
    for _ in range(4):
        desk.clock.advance(2.5)
        desk.dealer.renew("two", 1, (0,))
    await settle()
    assert await waiting == 900


async def test_what_a_worker_does_not_use_another_has_at_once() -> None:
    desk = Desk()
    await desk.ask("one", 0, 900)
    waiting = desk.ask("two", 0, 900)
    await settle()
    desk.dealer.settle("one", 0, UNUSED)
    assert await waiting == 900


async def test_workers_share_evenly() -> None:
    desk = Desk()
    await desk.ask("one", 0, 1000)
    tasks = {
        (worker, number): desk.ask(worker, number, 250, flow="the same")
        for worker, count in (("one", 8), ("two", 4))
        for number in range(1, count + 1)
    }
    await settle()
    desk.dealer.settle("one", 0, UNUSED)
    await settle()
    # The thousand tokens that the first had and gave back are not held against it.
    assert sorted(place for place, task in tasks.items() if task.done()) == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]


async def test_a_dead_worker_s_grants_count_as_used_for_a_window_and_then_come_back() -> None:
    desk = Desk()
    await desk.ask("one", 0, 900)
    waiting = desk.ask("two", 0, 900)
    await settle()
    for _ in range(4):
        desk.clock.advance(2.0)
        desk.dealer.renew("two", 1, (0,))
    await settle()
    # Now its lease is over: from now on they count for a window.
    assert desk.used == 900
    assert not waiting.done()
    for _ in range(5):
        desk.clock.advance(1.9)
        desk.dealer.renew("two", 1, (0,))
    await settle()
    assert not waiting.done()
    desk.clock.advance(0.6)
    await settle()
    assert await waiting == 900


async def test_signs_of_life_keep_what_a_worker_holds() -> None:
    desk = Desk()
    await desk.ask("one", 0, 900)
    for _ in range(10):
        desk.clock.advance(LEASE - 1)
        desk.dealer.renew("one", 1, (0,))
    desk.dealer.settle("one", 0, accepted(100))
    assert desk.used == 100


async def test_a_dead_worker_waits_no_more() -> None:
    desk = Desk()
    await desk.ask("one", 0, 1000)
    waiting = desk.ask("two", 0, 500)
    await settle()
    for _ in range(2):
        desk.clock.advance(LEASE / 2)
        desk.dealer.renew("one", 1, (0,))
    assert await waiting is None
    desk.dealer.settle("one", 0, UNUSED)
    assert desk.used == 0


async def test_one_that_was_taken_for_dead_and_lives_may_ask_again_and_its_late_word_counts_nothing() -> None:
    desk = Desk()
    await desk.ask("one", 0, 400)
    desk.clock.advance(LEASE)
    desk.dealer.settle("one", 0, accepted(100))
    assert desk.used == 400
    assert await desk.ask("one", 1, 600) == 600


async def test_who_waits_may_take_it_back() -> None:
    desk = Desk()
    await desk.ask("one", 0, 1000)
    waiting = desk.ask("one", 1, 500)
    await settle()
    desk.dealer.settle("one", 1, UNUSED)
    assert await waiting is None
    assert desk.dealer.statistics()[0].waiting == 0


async def test_a_grant_that_comes_as_it_is_taken_back_is_given_to_the_next() -> None:
    desk = Desk()
    await desk.ask("one", 0, 1000)
    waiting = desk.ask("one", 1, 1000)
    await settle()
    desk.dealer.settle("one", 0, UNUSED)
    # The grant is on its way: whoever waits has not run yet.
    desk.dealer.settle("one", 1, UNUSED)
    assert await waiting is None
    assert await desk.ask("two", 0, 1000) == 1000
    assert desk.used == 1000


async def test_the_same_call_once_more_has_the_same_grant() -> None:
    desk = Desk()
    assert await desk.ask("one", 0, 600) == 600
    assert await desk.ask("one", 0, 600) == 600
    assert desk.used == 600
    first = desk.ask("one", 1, 600)
    await settle()
    second = desk.ask("one", 1, 600)
    await settle()
    assert await first is None
    desk.dealer.settle("one", 0, UNUSED)
    assert await second == 600
    assert desk.used == 600


async def test_what_was_settled_and_the_word_was_lost_comes_back_with_the_next_sign_of_life() -> None:
    desk = Desk()
    await desk.ask("one", 0, 300)
    await desk.ask("one", 1, 300)
    waiting = desk.ask("one", 2, 900)
    await settle()
    desk.dealer.renew("one", 3, (1,))
    assert await waiting is None
    # It may have been sent, so it is counted for a window.
    assert desk.used == 600
    desk.clock.advance(LEASE - 1)
    desk.dealer.renew("one", 3, (1,))
    desk.clock.advance(10.0 - (LEASE - 1))
    assert desk.used == 300


async def test_a_rejection_is_news_for_all() -> None:
    desk = Desk()
    assert await desk.ask("one", 0, 100) == 100
    text = (
        "Request failed. You've reached the max embedding tokens per minute (500) model 'multilingual-e5-large' and input "
        "type 'passage' for the current project. To increase this limit, upgrade your plan."
    )
    desk.dealer.settle("one", 0, QuotaOutcome("rejected", 100, text, 3.0))
    waiting = desk.ask("two", 0, 900)
    await settle()
    assert not waiting.done()
    desk.clock.advance(3.0)
    assert await waiting == 500


async def test_a_restarted_one_gives_nothing_for_a_window() -> None:
    desk = Desk(is_resumed=True)
    waiting = desk.ask("one", 0, 500)
    await settle()
    desk.clock.advance(5.0)
    desk.dealer.renew("one", 1, (0,))
    await settle()
    assert not waiting.done()
    desk.clock.advance(5.0)
    assert await waiting == 500


async def test_it_leaves_when_nobody_has_asked_for_long() -> None:
    desk = Desk()
    await desk.ask("one", 0, 500)
    desk.clock.advance(50.0)
    desk.dealer.settle("one", 0, accepted(500))
    desk.clock.advance(IDLE - 1)
    assert desk.left == []
    desk.clock.advance(1)
    assert desk.left == [1150.0]


async def test_it_does_not_leave_while_somebody_waits() -> None:
    desk = Desk()
    await desk.ask("one", 0, 1000)
    desk.ask("two", 0, 1000)
    await settle()
    for _ in range(60):
        desk.clock.advance(LEASE / 2)
        desk.dealer.renew("one", 1, (0,))
        desk.dealer.renew("two", 1, (0,))
    assert desk.left == []
    desk.dealer.settle("one", 0, UNUSED)
    await settle()
