import asyncio
import dataclasses
import pickle
import time
import uuid
from typing import Any, Protocol

import pytest
import ray

from pinecone_embed_async import (
    ConfigurationError,
    EmbedClient,
    Quota,
    QuotaDemand,
    QuotaOutcome,
    TokenStatistics,
    TransportError,
)
from pinecone_embed_async.emulator import Emulator
from pinecone_embed_async.integrations._ray import quota as quota_module
from pinecone_embed_async.integrations._ray.quota import ClusterQuota, _Holder
from tests.integrations.ray.conftest import Cluster
from tests.integrations.ray.workers import holding, start

pytestmark = pytest.mark.timeout(180)

LIMITS = Quota(1000, requests_per_second=None, requests_per_minute=None, window=60.0)
DEMAND = QuotaDemand("multilingual-e5-large", "passage", 900, 900)


class NewQuota(Protocol):
    def __call__(self, quota: Quota | None = LIMITS, **options: Any) -> ClusterQuota: ...


@pytest.fixture
def new_quota(cluster: Cluster) -> NewQuota:
    """Makes quotas of other names."""

    def make(quota: Quota | None = LIMITS, **options: Any) -> ClusterQuota:
        return ClusterQuota(quota, name=uuid.uuid4().hex, **options)

    return make


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> ClusterQuota:
    """A quota that does not end with a test: each asks it for the tokens of another model."""
    return ClusterQuota(LIMITS, namespace="shared")


def demand_for(model: str) -> QuotaDemand:
    return dataclasses.replace(DEMAND, model=model)


def seen(quota: ClusterQuota, demand: QuotaDemand) -> TokenStatistics:
    (found,) = (of for of in quota.statistics() if of.model == demand.model)
    return found


async def kill(actor: Any) -> None:
    """Kill an actor for good. Ray returns at once, and the actor may still answer for a moment: wait until it does not."""
    await asyncio.to_thread(ray.kill, actor)
    with pytest.raises(ray.exceptions.RayActorError):
        while True:
            await actor.terms.remote()


Workers = tuple[Any, Any]


@pytest.fixture(scope="module")
def workers(cluster: Cluster) -> Workers:
    """Two, for one test after the other."""
    return start(), start()


async def test_workers_in_several_processes_share_one_quota(new_quota: NewQuota, workers: Workers) -> None:
    quota = new_quota()
    one, two = await holding(quota, *workers)
    assert await one.acquire.remote(900) == 900
    waiting = two.acquire.remote(900)
    while quota.statistics()[0].waiting != 1:
        await asyncio.sleep(0.05)
    await one.settle.remote("unused", 0)
    assert await waiting == 900
    await two.settle.remote("accepted", 300)
    while quota.statistics()[0].used != 300:
        await asyncio.sleep(0.05)


async def test_a_killed_worker_s_grants_come_back(new_quota: NewQuota, workers: Workers) -> None:
    quota = new_quota(Quota(1000, window=0.5), lease=1.0)
    one, two = await holding(quota, start(), workers[1])
    assert await one.acquire.remote(900) == 900
    waiting = two.acquire.remote(900)
    one.die.remote()
    assert await waiting == 900
    await two.settle.remote("unused", 0)


async def test_a_worker_that_lives_keeps_its_grants(new_quota: NewQuota, workers: Workers) -> None:
    quota = new_quota(Quota(1000, window=1.0), lease=0.5)
    (worker,) = await holding(quota, workers[0])
    assert await worker.acquire.remote(900) == 900
    await asyncio.sleep(2.0)
    assert quota.statistics()[0].used == 900
    await worker.settle.remote("accepted", 100)
    while quota.statistics()[0].used > 100:
        await asyncio.sleep(0.05)


async def test_more_may_wait_than_ray_s_actors_take_by_default(new_quota: NewQuota, workers: Workers) -> None:
    quota = new_quota()
    one, two = await holding(quota, *workers)
    assert await one.acquire.remote(1000) == 1000
    many = two.many.remote(1100, 1000)
    while quota.statistics()[0].waiting < 1100:
        await asyncio.sleep(0.1)
    await one.settle.remote("unused", 0)
    assert await many == 1100


async def test_a_cancelled_wait_leaves_nothing(shared: ClusterQuota) -> None:
    demand = demand_for("of a cancelled wait")
    grant = await shared.acquire(demand)
    waiting = asyncio.get_running_loop().create_task(shared.acquire(demand))
    while (await asyncio.to_thread(seen, shared, demand)).waiting != 1:
        await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    while (await asyncio.to_thread(seen, shared, demand)).waiting:
        await asyncio.sleep(0.05)
    shared.settle(grant, QuotaOutcome("unused", 0))
    shared.settle(await shared.acquire(demand), QuotaOutcome("unused", 0))


async def test_a_client_sends_under_it(emulator: Emulator, new_quota: NewQuota) -> None:
    quota = new_quota(Quota(100_000))
    async with EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url, quota=quota) as client:
        result = await client.embed([f"text {number}" for number in range(200)], input_type="passage")
    while (await asyncio.to_thread(quota.statistics))[0].used != result.usage.total_tokens:
        await asyncio.sleep(0.05)


async def test_an_actor_that_was_killed_for_good_is_started_again(new_quota: NewQuota) -> None:
    quota = new_quota()
    quota.settle(await quota.acquire(DEMAND), QuotaOutcome("unused", 0))
    await kill(quota.start())
    assert (await quota.acquire(DEMAND)).tokens == 900


async def test_it_is_started_once_for_all_that_ask_at_once(new_quota: NewQuota) -> None:
    quota = new_quota()
    quota.settle(await quota.acquire(DEMAND), QuotaOutcome("unused", 0))
    await kill(quota.start())
    small = QuotaDemand("multilingual-e5-large", "passage", 100, 100)
    grants = await asyncio.gather(*(quota.acquire(small) for _ in range(5)))
    assert [grant.tokens for grant in grants] == [100] * 5
    assert (await asyncio.to_thread(quota.statistics))[0].used == 500


async def test_and_for_whoever_looks_at_its_statistics(new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = new_quota()
    quota.settle(await quota.acquire(DEMAND), QuotaOutcome("accepted", 900))
    ended = quota.start()
    await kill(ended)
    # As if it had ended just after it was found.
    found, start = iter([ended]), quota.start
    monkeypatch.setattr(quota, "start", lambda: next(found, None) or start())
    # What the one before has given is not known any more.
    assert await asyncio.to_thread(quota.statistics) == ()
    assert next(found, None) is None


async def test_a_worker_that_was_taken_for_dead_while_it_waits_asks_again(new_quota: NewQuota) -> None:
    quota = new_quota(lease=0.5)
    first = await quota.acquire(DEMAND)
    # It gives no sign of life, as if its event loop stood still.
    silent = _Holder(quota, beat=60.0)
    waiting = asyncio.get_running_loop().create_task(silent.acquire(DEMAND))
    # Twice as long as it may be silent.
    await asyncio.sleep(1.0)
    quota.settle(first, QuotaOutcome("unused", 0))
    number, tokens = await waiting
    assert tokens == 900
    silent.settle(number, QuotaOutcome("unused", 0))


class Fragile(str):
    """A text that can be pickled, but not read again."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


async def test_what_fails_in_the_actor_is_an_error_of_the_package(shared: ClusterQuota) -> None:
    with pytest.raises(TransportError, match="the actor that serves the quota cannot be reached: RayTaskError"):
        await shared.acquire(dataclasses.replace(DEMAND, flow=Fragile("flow")))


async def test_an_actor_that_died_is_restarted_and_does_not_give_what_was_given_before(new_quota: NewQuota) -> None:
    window = 3.0
    quota = new_quota(Quota(1000, window=window))
    grant = await quota.acquire(DEMAND)
    quota.settle(grant, QuotaOutcome("accepted", 900))
    began = time.monotonic()
    await asyncio.to_thread(ray.kill, quota.start(), no_restart=False)
    assert (await quota.acquire(DEMAND)).tokens == 900
    assert time.monotonic() - began >= window


async def test_an_actor_that_nobody_uses_ends(new_quota: NewQuota) -> None:
    quota = new_quota(idle=0.5)
    quota.settle(await quota.acquire(DEMAND), QuotaOutcome("accepted", 900))
    actor = quota.start()
    with pytest.raises(ray.exceptions.RayActorError):
        while True:
            await asyncio.sleep(0.1)
            await actor.terms.remote()
    assert (await quota.acquire(DEMAND)).tokens == 900


async def test_a_name_stands_for_one_quota(new_quota: NewQuota) -> None:
    quota = new_quota()
    name = quota._name
    assert ClusterQuota(LIMITS, name=name).statistics() == ()
    assert ClusterQuota(name=name) == quota
    with pytest.raises(ConfigurationError, match=f"the actor '{name}' serves .*choose another name"):
        ClusterQuota("standard", name=name)
    assert repr(quota) == f"<ClusterQuota '{name}' {LIMITS!r}>"


async def test_a_copy_is_the_same_quota(shared: ClusterQuota) -> None:
    demand = demand_for("of a copy")
    copy = pickle.loads(pickle.dumps(shared))  # noqa: S301 - its own
    assert copy == shared
    assert hash(copy) == hash(shared)
    grant = await copy.acquire(demand)
    assert seen(shared, demand).used == 900
    copy.settle(grant, QuotaOutcome("unused", 0))


@pytest.mark.parametrize("options", [{"lease": 0}, {"idle": -1.0}, {"lease": True}, {"idle": float("inf")}])
async def test_wrong_figures_are_told(options: dict[str, Any], new_quota: NewQuota) -> None:
    with pytest.raises(ConfigurationError, match="must be a number of seconds > 0"):
        new_quota(**options)
    for name in ("name", "namespace"):
        with pytest.raises(ConfigurationError, match=f"{name} must be a str that is not empty, got an empty text"):
            ClusterQuota(LIMITS, **{name: ""})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="quota must be"):
        ClusterQuota("gold")  # type: ignore[arg-type]


async def test_an_actor_that_cannot_be_had_is_an_error_of_the_package(
    new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = new_quota()
    actor = quota.start()
    await kill(actor)
    # As if it died again and again.
    with monkeypatch.context() as patch:
        patch.setattr(quota_module, "FIRST_WAIT", 0.01)
        patch.setattr(quota, "start", lambda: actor)
        with pytest.raises(TransportError, match="the actor that serves the quota cannot be reached: "):
            await quota.acquire(DEMAND)
