"""Clients under quotas, against the emulator with shortened windows."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Literal

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from pinecone_embed_async import (
    ConfigurationError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    Event,
    Failed,
    InputError,
    MockResponse,
    MockTransport,
    Progress,
    Quota,
    RateLimitError,
    RetryPolicy,
    SharedQuota,
    TransportRequest,
    TransportResponse,
)
from pinecone_embed_async._rate_limit import QuotaDemand, QuotaGrant, QuotaOutcome
from pinecone_embed_async.emulator import EmbedRequest, EmulatedModel, Emulator, ServiceQuota
from pinecone_embed_async.emulator._tokens import count_tokens
from tests.rate_limit.cluster import Cluster
from tests.service import Service

SMALL = EmulatedModel("small", default_dimension=4, supported_dimensions=(4,))
QUICK = RetryPolicy(initial_backoff=0.02, max_backoff=0.05)
KIND = pytest.mark.parametrize("kind", ["fixed", "sliding"])


def texts(count: int, name: str = "a") -> list[str]:
    """Of 12 tokens each."""
    return [f"{name} {'river ' * 8}{number}" for number in range(count)]


class Log:
    """The requests that an emulator has accepted, in their order."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self._changed = asyncio.Event()

    def latency(self, request: EmbedRequest) -> float:
        self.requests.append((request.inputs[0].split()[0], sum(map(count_tokens, request.inputs))))
        self._changed.set()
        return 0.005

    def tokens(self, start: int = 0, stop: int | None = None) -> Counter[str]:
        had = Counter[str]()
        for name, tokens in self.requests[start:stop]:
            had[name] += tokens
        return had

    def first(self, name: str) -> int:
        return [one for one, _ in self.requests].index(name)

    def last(self, name: str) -> int:
        return len(self.requests) - 1 - [one for one, _ in reversed(self.requests)].index(name)

    async def until_quiet(self, seconds: float) -> None:
        """Wait until nothing was accepted for so long."""
        while True:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except TimeoutError:
                return


def emulator_of(log: Log | None = None, **quota: Any) -> Emulator:
    return Emulator(models=[SMALL], quota=ServiceQuota(**quota), latency=log.latency if log is not None else 0.0)


def client_of(emulator: Emulator, **options: Any) -> EmbedClient[DenseEmbeddings]:
    options = {"max_batch_size": 10, "retry": QUICK, **options}
    return EmbedClient("small", vector_type="dense", api_key=emulator.api_key, base_url=emulator.url, **options)


def embedded_rows(error: EmbedError) -> int:
    """Rows that an error has in hand."""
    assert isinstance(error.partial, DenseEmbeddings)
    return int((~np.isnan(error.partial.vectors).any(axis=1)).sum())


def rejected(emulator: Emulator) -> int:
    return emulator.statistics().by_status.get(429, 0)


@KIND
async def test_hardly_anything_is_rejected_when_the_quota_is_known(kind: Literal["fixed", "sliding"]) -> None:
    async with (
        emulator_of(tokens_per_window=1000, requests_per_window=40, window=0.5, kind=kind) as emulator,
        client_of(emulator, quota=Quota(1000, requests_per_minute=40, window=0.5)) as client,
    ):
        begun = time.monotonic()
        result = await client.embed(texts(300))
        took = time.monotonic() - begun
        assert len(result) == 300
        assert result.usage.total_tokens == sum(map(count_tokens, texts(300)))
        assert rejected(emulator) == 0
        assert took >= 0.5 * (result.usage.total_tokens // 1000 - 1)
        (quota,) = client.statistics().quotas
        assert (quota.model, quota.input_type) == ("small", "")
        assert (quota.limit, quota.source, quota.window) == (1000, "given", 0.5)
        assert quota.rejections == 0
        assert 0 < quota.used <= 1000
        assert client.statistics().waited == quota.waited > 0.5


async def test_a_job_that_fits_into_the_window_does_not_wait() -> None:
    async with (
        emulator_of(tokens_per_window=10_000, window=30.0) as emulator,
        client_of(emulator, quota=Quota(10_000, window=30.0)) as client,
    ):
        await client.embed(texts(100))
        assert client.statistics().waited == 0


async def test_the_limit_that_a_rejection_names_becomes_the_budget() -> None:
    async with (
        emulator_of(tokens_per_window=1000, window=0.5) as emulator,
        client_of(emulator, quota=Quota(window=0.5), retry=RetryPolicy(max_attempts=1)) as client,
    ):
        await client.embed(texts(300))
        (quota,) = client.statistics().quotas
        # A rejection costs none of a request's attempts, of which there is one.
        assert quota.rejections == rejected(emulator) > 0
        assert (quota.limit, quota.source) in {(1000, "named"), (None, "unknown")}
        assert rejected(emulator) <= 12


async def test_a_limit_without_a_text_is_found() -> None:
    async with (
        emulator_of(tokens_per_window=1000, window=0.5, text=False) as emulator,
        client_of(emulator, quota=Quota(window=0.5)) as client,
    ):
        result = await client.embed(texts(300))
        assert len(result) == 300
        assert rejected(emulator) > 0


async def test_the_wait_that_a_rejection_asks_for_is_obeyed() -> None:
    async with (
        emulator_of(tokens_per_window=200, window=1.0, text=False, retry_after="seconds") as emulator,
        client_of(emulator, quota=Quota(window=1.0), max_concurrency=1) as client,
    ):
        log = Log()
        emulator.latency = log.latency
        job = asyncio.create_task(client.embed(texts(30)))
        while not client.statistics().rejections:  # noqa: ASYNC110 - the client has no event for it
            await asyncio.sleep(0.001)
        (quota,) = client.statistics().quotas
        assert 0.9 < quota.paused <= 1 + QUICK.initial_backoff
        await job


async def test_two_bulk_calls_of_a_client_get_about_half_each_while_both_run() -> None:
    log = Log()
    async with (
        emulator_of(log, tokens_per_window=1500, window=0.25) as emulator,
        client_of(emulator, quota=Quota(1500, window=0.25), max_concurrency=4) as client,
    ):
        tenth = asyncio.Event()

        def progress(state: Progress) -> None:
            if state.done >= 40:
                tenth.set()

        first = asyncio.create_task(client.embed(texts(400, "a"), progress=progress))
        await tenth.wait()
        await asyncio.gather(first, client.embed(texts(400, "b")))
    had = log.tokens(log.first("b"), min(log.last("a"), log.last("b")) + 1)
    assert 0.4 <= had["a"] / sum(had.values()) <= 0.6


async def test_a_call_with_large_requests_gets_its_share_beside_one_with_small_ones() -> None:
    log = Log()
    async with (
        emulator_of(log, tokens_per_window=1500, window=0.25) as emulator,
        client_of(emulator, quota=Quota(1500, window=0.25), max_concurrency=4) as client,
    ):
        long = [f"b {'river ' * 58}{number}" for number in range(75)]
        await asyncio.gather(client.embed(texts(400, "a")), client.embed(long))
    had = log.tokens(max(log.first("a"), log.first("b")), min(log.last("a"), log.last("b")) + 1)
    assert 0.35 <= had["a"] / sum(had.values()) <= 0.65


async def test_an_interactive_call_takes_the_next_tokens_that_come_free() -> None:
    log = Log()
    async with (
        emulator_of(log, tokens_per_window=600, window=1.0) as emulator,
        client_of(emulator, quota=Quota(600, window=1.0)) as client,
    ):
        bulk = asyncio.create_task(client.embed(texts(150, "bulk")))
        await log.until_quiet(0.2)
        statistics = client.statistics()
        assert statistics.waiting > 0
        assert statistics.quotas[0].waiting > 0
        before = len(log.requests)
        await client.embed_one("one")
        assert log.first("one") == before
        bulk.cancel()
        await asyncio.wait([bulk])
        assert client.statistics().waiting == 0


@KIND
async def test_clients_that_share_a_quota_never_exceed_it_together(kind: Literal["fixed", "sliding"]) -> None:
    log = Log()
    shared = SharedQuota(Quota(1500, window=0.25))
    async with (
        emulator_of(log, tokens_per_window=1500, window=0.25, kind=kind) as emulator,
        client_of(emulator, quota=shared) as one,
        client_of(emulator, quota=shared) as other,
    ):
        results = await asyncio.gather(one.embed(texts(400, "a")), other.embed(texts(400, "b")))
        assert [len(result) for result in results] == [400, 400]
        assert rejected(emulator) == 0
        # What is used comes free while one looks; nobody waits any more.
        seen = [one.statistics().quotas, other.statistics().quotas, shared.statistics()]
        assert len({quota.waited for quotas in seen for quota in quotas}) == 1
    had = log.tokens(max(log.first("a"), log.first("b")), min(log.last("a"), log.last("b")) + 1)
    assert 0.35 <= had["a"] / sum(had.values()) <= 0.65
    assert "1500 (given)" in repr(shared)


async def test_what_one_client_learns_from_a_rejection_all_know() -> None:
    shared = SharedQuota(Quota(window=5.0))
    async with (
        emulator_of(tokens_per_window=100, window=5.0) as emulator,
        client_of(emulator, quota=shared) as one,
        client_of(emulator, quota=shared) as other,
    ):
        await one.embed(texts(5))
        waits = asyncio.create_task(one.embed(texts(5)))
        while not one.statistics().rejections:  # noqa: ASYNC110 - a client without hooks has no event for it
            await asyncio.sleep(0.001)
        assert other.statistics().quotas[0].limit == 100
        with pytest.raises(TimeoutError):
            await other.embed(texts(5), timeout=0.2)
        assert rejected(emulator) == 1
        waits.cancel()
        await asyncio.wait([waits])


HUGE = "river " * 200


async def test_an_input_that_no_window_holds_is_an_error_before_anything_is_sent_and_the_others_are_embedded() -> None:
    log = Log()
    async with (
        emulator_of(log, tokens_per_window=100, window=0.2) as emulator,
        client_of(emulator, quota=Quota(100, window=0.2)) as client,
    ):
        result = await client.embed([*texts(3), HUGE, *texts(4)], on_error="return")
        (failure,) = result.failures
        assert failure.indices == range(3, 4)
        assert isinstance(failure.error, InputError)
        assert failure.error.index == 3
        assert "but the quota allows only 100 in a whole window" in str(failure.error)
        assert np.isnan(result.vectors).any(axis=1).tolist() == [False] * 3 + [True] + [False] * 4
        assert "river" not in log.tokens()
        assert rejected(emulator) == 0
        with pytest.raises(InputError) as alone:
            await client.embed(HUGE)
        assert alone.value.index == 0


async def test_an_input_that_turns_out_too_large_on_the_way_fails_alone() -> None:
    async with (
        emulator_of(tokens_per_window=100, window=0.2) as emulator,
        client_of(emulator, quota=Quota(window=0.2)) as client,
    ):
        result = await client.embed([HUGE, *texts(5)], on_error="return")
        assert [failure.indices for failure in result.failures] == [range(1)]
        assert isinstance(result.failures[0].error, InputError)
        assert result.usage.total_tokens == sum(map(count_tokens, texts(5)))


async def test_without_one_acceptance_for_long_the_job_ends_with_everything_embedded_in_hand() -> None:
    log = Log()
    policy = RetryPolicy(max_elapsed=0.4, initial_backoff=0.02, max_backoff=0.05)
    async with (
        emulator_of(log, text=False) as emulator,
        client_of(emulator, quota=Quota(window=0.2), retry=policy, max_concurrency=2) as client,
    ):

        def shut(request: EmbedRequest) -> float:
            if len(log.requests) >= 5:
                emulator.quota = ServiceQuota(tokens_per_window=1, window=0.2, text=False)
            return log.latency(request)

        emulator.latency = shut
        begun = time.monotonic()
        with pytest.raises(RateLimitError) as ended:
            await client.embed(texts(1000))
        took = time.monotonic() - begun
        assert embedded_rows(ended.value) == 10 * len(log.requests) >= 50
        # Not once more for each of the hundred requests.
        assert took < 5 * policy.max_elapsed


async def test_a_job_that_would_wait_for_the_limit_of_requests_beyond_max_elapsed_ends_at_once() -> None:
    policy = RetryPolicy(max_elapsed=2.0, initial_backoff=0.02, max_backoff=0.05)
    quota = Quota(requests_per_second=None, requests_per_minute=None, window=30.0)
    async with (
        emulator_of(requests_per_window=5, window=30.0) as emulator,
        client_of(emulator, quota=quota, retry=policy, max_concurrency=2) as client,
    ):
        begun = time.monotonic()
        with pytest.raises(RateLimitError, match="requests per minute") as ended:
            await client.embed(texts(100))
        assert time.monotonic() - begun < policy.max_elapsed
        assert embedded_rows(ended.value) == 50


async def test_a_job_waits_for_the_limit_of_requests_if_that_is_soon_enough() -> None:
    policy = RetryPolicy(max_elapsed=1.3, initial_backoff=0.02, max_backoff=0.05)

    async def embed(known: int | None) -> None:
        async with (
            emulator_of(requests_per_window=5, window=0.4) as emulator,
            client_of(
                emulator,
                quota=Quota(requests_per_second=None, requests_per_minute=known, window=0.4),
                retry=policy,
                max_concurrency=2,
            ) as client,
        ):
            result = await client.embed(texts(250))
            assert len(result) == 250

    # Given or learned, and with many windows longer than it may be without an acceptance.
    await asyncio.gather(embed(5), embed(None))


async def test_overloads_lower_what_is_in_flight_and_it_recovers() -> None:
    async with emulator_of() as emulator, client_of(emulator, max_concurrency=8) as client:
        emulator.inject("status=503", times=3)
        await client.embed(texts(30))
        assert client.statistics().concurrency < 8
        await client.embed(texts(600))
        assert client.statistics().concurrency == 8


async def test_another_quota_deals_out_every_turn_and_is_told_of_each_what_became_of_it() -> None:
    cluster, log = Cluster(tokens=60), Log()
    async with emulator_of(log) as emulator, client_of(emulator, quota=cluster) as client:
        result = await client.embed(texts(50))
        assert len(result) == 50
        assert cluster.kinds() == {"accepted": len(log.requests)}
        assert all(demand.model == "small" and demand.priority == "bulk" for demand in cluster.demands)
        assert len({demand.flow for demand in cluster.demands}) == 1
        # Told what was billed, and never for more than was granted, as far as that could be known.
        assert [outcome.tokens for _, outcome in cluster.outcomes] == [tokens for _, tokens in log.requests]
        assert all(outcome.tokens <= grant.tokens for grant, outcome in cluster.outcomes)
        await client.embed_one("one")
        assert cluster.demands[-1].priority == "interactive"
        assert client.statistics().quotas == ()


async def test_another_quota_is_told_of_failures_and_rejections() -> None:
    cluster = Cluster(tokens=1000)
    async with emulator_of() as emulator, client_of(emulator, quota=cluster, max_concurrency=1) as client:
        emulator.inject("status=503")
        await client.embed(texts(5))
        assert cluster.kinds() == {"failed": 1, "accepted": 1}
        emulator.quota = ServiceQuota(requests_per_window=1, window=0.2)
        await client.embed(texts(5))
        await client.embed(texts(5))
        kinds = cluster.kinds()
        assert kinds["accepted"] == 3
        assert kinds["rejected"] == rejected(emulator) > 0
        message = next(outcome.message for _, outcome in cluster.outcomes if outcome.kind == "rejected")
        assert "requests per minute (1)" in message


async def test_another_quota_is_told_of_what_was_cancelled() -> None:
    cluster = Cluster(tokens=1000)
    async with emulator_of() as emulator, client_of(emulator, quota=cluster, max_concurrency=1) as client:
        emulator.hold()
        job = asyncio.create_task(client.embed(texts(40)))
        await emulator.wait_for_requests(1)
        while len(cluster.grants) < 2:  # noqa: ASYNC110 - one is on the wire, and one waits for its place there
            await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        emulator.release()
        # What was on the wire may have been counted.
        assert cluster.kinds() == {"failed": 1, "unused": 1}
        assert client.statistics().in_flight == 0


class Broken(Cluster):
    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        if len(self.grants) >= 2:
            raise ConnectionError("the cluster is away")
        return await super().acquire(demand)


async def test_another_quota_that_fails_ends_the_job_with_everything_embedded_in_hand() -> None:
    cluster = Broken(tokens=1000)
    async with emulator_of() as emulator, client_of(emulator, quota=cluster) as client:
        with pytest.raises(
            ConfigurationError, match="the quota passed to the client failed: ConnectionError: the cluster is"
        ) as ended:
            await client.embed(texts(50))
        assert embedded_rows(ended.value) == 20
        assert cluster.kinds() == {"accepted": 2}


async def test_a_shared_quota_can_be_asked_as_another_quota_is() -> None:
    class Facade:
        """As whoever deals out a quota to several processes would be built around one."""

        def __init__(self) -> None:
            self.quota = SharedQuota(Quota(500, window=0.3))

        async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
            return await self.quota.acquire(demand)

        def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
            self.quota.settle(grant, outcome)

    facade = Facade()
    async with (
        emulator_of(tokens_per_window=500, window=0.3, kind="sliding") as emulator,
        client_of(emulator, quota=facade) as client,
    ):
        await client.embed(texts(100))
        assert rejected(emulator) == 0
        assert facade.quota.statistics()[0].waited > 0


async def test_a_session_that_is_closed_during_a_backoff_ends_the_call_with_an_error_of_ours() -> None:
    async with emulator_of() as emulator, aiohttp.ClientSession() as session:
        policy = RetryPolicy(initial_backoff=0.2, max_backoff=0.2)
        async with client_of(emulator, session=session, retry=policy, max_concurrency=1) as client:
            emulator.inject("status=503", times=10)
            job = asyncio.create_task(client.embed(texts(5)))
            while not client.statistics().retries:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.001)
            await session.close()
            with pytest.raises(ConfigurationError, match="the session passed to the client must be open, but is closed"):
                await job


async def test_an_absurd_bill_does_not_stop_the_job() -> None:
    bills = iter([10**9])

    def answer() -> web.Response:
        usage = {"total_tokens": next(bills, 10)}
        return web.json_response({"vector_type": "dense", "data": [{"values": [1.0]}], "usage": usage})

    async with (
        Service(last=answer) as service,
        service.client(quota=Quota(10_000, window=30.0), max_batch_size=1) as client,
    ):
        result = await client.embed([f"text {number}" for number in range(20)], timeout=10.0)
    assert result.embedded.all()
    # What the service says is passed on as it is.
    assert result.usage.total_tokens == 10**9 + 19 * 10


class CancellingTransport:
    """Cancels the task of each request once its answer was read, when that task yields next."""

    def __init__(self, inner: MockTransport) -> None:
        self.inner = inner

    @contextlib.asynccontextmanager
    async def send(self, request: TransportRequest) -> AsyncIterator[TransportResponse]:
        async with self.inner.send(request) as response:
            yield response
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)


async def test_an_answer_is_kept_and_counts_with_its_bill_even_if_its_request_is_cancelled_as_it_is_decoded() -> None:
    def answer(request: TransportRequest) -> MockResponse:
        # So large that its decoding yields to the event loop.
        return MockResponse.embeddings([[0.5] * 2048 for _ in request.json()["inputs"]], tokens=300)

    transport = CancellingTransport(MockTransport(answer))
    seen: list[Event] = []
    options: dict[str, Any] = {"transport": transport, "quota": 100_000, "look_up_model": False, "hooks": [seen.append]}
    async with EmbedClient("a-model", api_key="any", vector_type="dense", decoder="msgspec", **options) as client:
        result = await client.embed(["text"] * 20)
        (quota,) = client.statistics().quotas
    assert result.embedded.all()
    assert (result.vectors == 0.5).all()
    assert quota.used == result.usage.total_tokens == 300
    assert not [event for event in seen if isinstance(event, Failed)]
