import asyncio
import random

import pytest

from pinecone_embed_async import ConfigurationError, DeadlineExceededError, Quota, SharedQuota
from pinecone_embed_async._rate_limit import QuotaDemand, QuotaGrant, QuotaOutcome
from pinecone_embed_async._rate_limit.shared_quota import LONGEST_ASKED_PAUSE, MOST_FLOWS
from pinecone_embed_async.emulator._quota import tokens_per_minute_text
from tests.clock import FakeClock, settle


def demand(tokens: int = 10, *, least: int = 1, flow: object = None, interactive: bool = False) -> QuotaDemand:
    return QuotaDemand("m", "passage", tokens, least, "interactive" if interactive else "bulk", flow)


def quota_of(tokens: int, clock: FakeClock | None = None) -> tuple[SharedQuota, FakeClock]:
    clock = clock or FakeClock()
    return SharedQuota(Quota(tokens), clock=clock, draw=lambda: 1.0), clock


async def test_it_grants_free_tokens_and_the_rest_once_they_come_free() -> None:
    quota, clock = quota_of(100)
    first = await quota.acquire(demand(80))
    second = await quota.acquire(demand(80))
    assert (first.tokens, second.tokens) == (80, 20)
    quota.settle(first, QuotaOutcome("accepted", 80))
    waits = asyncio.create_task(quota.acquire(demand(80)))
    await settle()
    assert not waits.done()
    clock.advance(60)
    assert (await waits).tokens == 80


@pytest.mark.parametrize(
    ("outcome", "used"),
    [
        (QuotaOutcome("accepted", 60), 60),
        (QuotaOutcome("failed", 80), 80),
        (QuotaOutcome("rejected", 80, "", None), 0),
        (QuotaOutcome("unused", 0), 0),
    ],
)
async def test_an_outcome_is_settled_once(outcome: QuotaOutcome, used: int) -> None:
    quota, clock = quota_of(100)
    grant = await quota.acquire(demand(80))
    for _ in range(2):
        quota.settle(grant, outcome)
        assert quota.statistics()[0].used == used
    clock.advance(60)
    assert quota.statistics()[0].used == 0


async def test_requests_that_fail_do_not_limit_how_many_may_be_in_flight() -> None:
    quota, clock = quota_of(1_000_000)
    for _ in range(40):
        quota.settle(await quota.acquire(demand()), QuotaOutcome("failed", 10))
        clock.advance(1)
    # The clients have limits of their own, which fall when the service is overloaded.
    grants = await asyncio.gather(*[asyncio.wait_for(quota.acquire(demand()), 10) for _ in range(100)])
    assert [grant.tokens for grant in grants] == [10] * 100


async def test_the_named_limit_and_retry_after_of_a_rejection_are_obeyed() -> None:
    quota, clock = quota_of(1000)
    text = tokens_per_minute_text(500, "m", "passage")
    quota.settle(await quota.acquire(demand(80)), QuotaOutcome("rejected", 80, text, 7.0))
    (known,) = quota.statistics()
    assert (known.limit, known.source) == (500, "named")
    assert known.paused == 7.5
    waits = asyncio.create_task(quota.acquire(demand(80)))
    await settle()
    clock.advance(7.4)
    await settle()
    assert not waits.done()
    clock.advance(0.1)
    quota.settle(await waits, QuotaOutcome("rejected", 80, text, 10_000.0))
    assert quota.statistics()[0].paused <= LONGEST_ASKED_PAUSE + 0.5


async def test_a_demand_is_refused_if_a_pause_lasts_beyond_its_deadline() -> None:
    quota, clock = quota_of(1000)
    quota.settle(await quota.acquire(demand()), QuotaOutcome("rejected", 10, "", 30.0))
    with pytest.raises(DeadlineExceededError):
        await quota.acquire(QuotaDemand("m", "passage", 10, 1, within=30.0))
    waits = asyncio.create_task(quota.acquire(QuotaDemand("m", "passage", 10, 1, within=31.0)))
    await settle()
    clock.advance(30.5)
    assert (await waits).tokens == 10


async def test_interactive_demands_go_before_bulk_ones() -> None:
    quota, clock = quota_of(100)
    quota.settle(await quota.acquire(demand(100)), QuotaOutcome("accepted", 100))
    order = list[str]()

    async def wait(name: str, *, interactive: bool) -> None:
        grant = await quota.acquire(demand(60, least=60, interactive=interactive))
        order.append(name)
        quota.settle(grant, QuotaOutcome("accepted", 60))

    tasks = [asyncio.create_task(wait(name, interactive=name == "interactive")) for name in ("bulk", "interactive")]
    await settle()
    clock.advance(60)
    await settle()
    clock.advance(60)
    await asyncio.gather(*tasks)
    assert order == ["interactive", "bulk"]


async def test_flows_share_evenly() -> None:
    quota, clock = quota_of(1000)
    had = {"a": 0, "b": 0}

    async def send(name: str, size: int) -> None:
        while True:
            grant: QuotaGrant = await quota.acquire(demand(size, least=size, flow=name))
            had[name] += grant.tokens
            quota.settle(grant, QuotaOutcome("accepted", grant.tokens))
            await asyncio.sleep(0)

    # The quota is used up at first, so that both wait from the start.
    quota.settle(await quota.acquire(demand(1000)), QuotaOutcome("accepted", 1000))
    tasks = [asyncio.create_task(send("a", 20)), asyncio.create_task(send("b", 200))]
    await settle()
    for _ in range(200):
        clock.advance(random.Random(0).uniform(1, 5))
        await settle()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert sum(had.values()) > 5000
    assert had["a"] > 0
    assert had["b"] > 0


async def test_flows_without_waiting_requests_are_forgotten() -> None:
    quota, _ = quota_of(10**9)
    for number in range(MOST_FLOWS):
        quota.settle(await quota.acquire(demand(flow=number)), QuotaOutcome("unused", 0))
    assert len(quota._flows) == MOST_FLOWS
    for number in range(3 * MOST_FLOWS):
        quota.settle(await quota.acquire(demand(flow=number)), QuotaOutcome("unused", 0))
    assert len(quota._flows) <= MOST_FLOWS


async def test_arguments_are_checked() -> None:
    for options in ({"clock": 7}, {"draw": 0.5}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            SharedQuota(100, **options)
    quota = SharedQuota(100)
    with pytest.raises(ConfigurationError, match="demand"):
        await quota.acquire(10)  # type: ignore[arg-type]
    grant = await quota.acquire(demand())
    with pytest.raises(ConfigurationError, match="outcome"):
        quota.settle(grant, "accepted")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="grant must be a QuotaGrant"):
        quota.settle(10, QuotaOutcome("unused", 0))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="another ticket"):
        quota.settle(QuotaGrant(10), QuotaOutcome("unused", 0))


def test_repr() -> None:
    async def use() -> None:
        quota, _ = quota_of(100)
        await quota.acquire(demand(80))
        assert repr(quota) == (
            "<SharedQuota <RateLimitGate <Limiter 0 waiting; m passage: <TokenLimit 80 used, limit 100 (given)>>>>"
        )

    asyncio.run(use())
