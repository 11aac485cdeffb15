"""Calls whose deadline comes before a known pause ends: they fail at once, and say when to come again."""

import asyncio
import copy
import pickle
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import (
    DeadlineExceededError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    Quota,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    RateLimitError,
    RetryPolicy,
    SharedQuota,
    SqliteCache,
    SqliteQuota,
)
from pinecone_embed_async.emulator import Emulator
from tests.clients import dense_client
from tests.clock import settle

ASKED = 30.0
SOON = 0.5
"""Seconds in which a call that sends nothing has failed, on a busy machine too; far less than its deadline."""

PATIENT = 10.0


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EmbedClient[DenseEmbeddings]]:
    async with dense_client(emulator, parameters={"input_type": "query"}) as client:
        yield client


async def pause(emulator: Emulator, client: EmbedClient[Any]) -> None:
    """Let the service ask for a pause."""
    emulator.inject(f"rate_limited={ASKED:.0f}")
    with pytest.raises(DeadlineExceededError):
        await client.embed_one("the first", timeout=PATIENT)
    emulator.clear_faults()


def assert_says_when_to_come_again(error: BaseException | None, least: float = ASKED - 5) -> None:
    assert isinstance(error, DeadlineExceededError)
    assert error.retry_after is not None
    # Up to half a second more, lest all come back together.
    assert least < error.retry_after <= ASKED + 0.5
    assert isinstance(error.__cause__, RateLimitError)
    assert error.__cause__.status == 429
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - it was pickled here
        assert (other.retry_after, str(other), str(other.__cause__)) == (error.retry_after, str(error), str(error.__cause__))
    assert len(str(error)) < 400


def sent(emulator: Emulator) -> int:
    return emulator.statistics().requests


async def test_the_call_that_is_told_to_wait_too_long_fails_at_once(
    emulator: Emulator, client: EmbedClient[DenseEmbeddings]
) -> None:
    emulator.inject(f"rate_limited={ASKED:.0f}")
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="the last attempt failed with RateLimitError: 429") as caught:
        await client.embed(["text"], timeout=PATIENT)
    assert time.monotonic() - begun < SOON
    assert sent(emulator) == 1
    assert_says_when_to_come_again(caught.value)


@pytest.mark.parametrize("lasts", [0.2, PATIENT])
async def test_later_calls_fail_at_once_without_a_request(
    emulator: Emulator, client: EmbedClient[DenseEmbeddings], lasts: float
) -> None:
    await pause(emulator, client)
    before, begun = sent(emulator), time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"no request can be sent for \d+\.\d s") as one:
        await client.embed_one("text", timeout=lasts)
    with pytest.raises(DeadlineExceededError) as many:
        await client.embed(["text", "another"], timeout=lasts)
    with pytest.raises(DeadlineExceededError) as stream:
        async with client.stream(["text", "another"], timeout=lasts) as batches:
            async for _ in batches:
                pass
    kept = await client.embed(["text"], timeout=lasts, on_error="return")
    assert time.monotonic() - begun < (lasts if lasts == PATIENT else 4 * lasts)
    assert sent(emulator) == before
    for caught in (one, many, stream):
        assert_says_when_to_come_again(caught.value)
        assert caught.value.attempts == 0
    assert many.value.partial.not_tried.tolist() == [0, 1]
    assert kept.not_tried.tolist() == [0]


async def test_another_input_type_is_not_affected(emulator: Emulator, client: EmbedClient[DenseEmbeddings]) -> None:
    await pause(emulator, client)
    assert len(await client.embed(["text"], input_type="passage", timeout=PATIENT)) == 1


async def test_calls_with_time_or_without_a_deadline_wait(emulator: Emulator) -> None:
    async with dense_client(emulator, parameters={"input_type": "query"}, retry=RetryPolicy(initial_backoff=0.01)) as client:
        emulator.inject("rate_limited=1")
        first = asyncio.create_task(client.embed(["first"], timeout=PATIENT))
        second = asyncio.create_task(client.embed_one("second"))
        assert (await first).embedded.all()
        assert len(await second) == 1024


async def test_what_was_embedded_before_is_kept(emulator: Emulator) -> None:
    async with dense_client(emulator, parameters={"input_type": "query"}, max_batch_size=2, max_concurrency=1) as client:
        emulator.inject(f"rate_limited={ASKED:.0f}", when=lambda request: "c" in request.inputs)
        with pytest.raises(DeadlineExceededError) as caught:
            await client.embed([*"abcdef"], timeout=PATIENT)
        assert caught.value.partial.embedded.tolist() == [True, True, False, False, False, False]
        assert [list(failure.indices) for failure in caught.value.failures] == [[2, 3]]
        assert caught.value.partial.not_tried.tolist() == [4, 5]
        assert sent(emulator) == 2
        assert_says_when_to_come_again(caught.value)
        assert_says_when_to_come_again(caught.value.failures[0].error)


async def test_a_call_that_waits_when_the_pause_begins_fails_then(emulator: Emulator) -> None:
    async with dense_client(emulator, parameters={"input_type": "query"}, max_concurrency=1) as client:
        emulator.inject(f"rate_limited={ASKED:.0f}")
        emulator.hold()
        first = asyncio.create_task(client.embed(["first"]))
        await emulator.wait_for_requests(1)
        waiting = asyncio.create_task(client.embed(["waiting"], timeout=PATIENT))
        await settle()
        emulator.release()
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            await waiting
        assert time.monotonic() - begun < SOON
        assert_says_when_to_come_again(caught.value)
        assert not first.done()
        first.cancel()
        await asyncio.wait([first])


async def test_of_single_calls_that_share_a_request_only_those_without_time_fail(emulator: Emulator) -> None:
    async with dense_client(emulator, parameters={"input_type": "query"}, retry=RetryPolicy(initial_backoff=0.01)) as client:
        emulator.inject("rate_limited=1")
        calls = [
            asyncio.create_task(client.embed_one(text, timeout=wait))
            for text, wait in zip("abc", (0.9, 20, None), strict=True)
        ]
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            await calls[0]
        assert time.monotonic() - begun < 0.8
        assert [(tuple(one.indices), one.error) for one in caught.value.failures] in ([], [((0,), caught.value)])
        emulator.clear_faults()
        late, begun = asyncio.create_task(client.embed_one("d", timeout=0.5)), time.monotonic()
        await asyncio.wait([late])
        assert time.monotonic() - begun < 0.4
        assert isinstance(late.exception(), DeadlineExceededError)
        assert [len(vector) for vector in await asyncio.gather(*calls[1:])] == [1024, 1024]


async def test_cached_texts_are_served_during_a_pause(emulator: Emulator, tmp_path: Path) -> None:
    cache = SqliteCache(tmp_path / "cache.db")
    async with dense_client(emulator, parameters={"input_type": "query"}, cache=cache, max_batch_size=1) as client:
        known = await client.embed(["known", "too"])
        await pause(emulator, client)
        before = sent(emulator)
        assert np.array_equal(await client.embed_one("known", timeout=0.2), known[0])
        assert (await client.embed(["known", "too"], timeout=0.2)).embedded.all()
        mixed = await client.embed(["new", "known"], timeout=0.5, on_error="return")
        assert mixed.embedded.tolist() == [False, True]
        async with client.stream(["new", "known", "newer", "too"], timeout=PATIENT, on_error="return") as batches:
            found = [batch.embeddings.embedded.all() async for batch in batches]
        assert found == [False, True, False, True]
        assert sent(emulator) == before


async def test_a_given_quota_that_is_used_up_for_longer_than_the_call_lasts(emulator: Emulator) -> None:
    async with dense_client(emulator, parameters={"input_type": "query"}, quota=Quota(100, window=60.0)) as client:
        await client.embed(["word " * 90])
        before, begun = sent(emulator), time.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.embed(["word " * 60], timeout=PATIENT)
        assert time.monotonic() - begun < SOON
        assert sent(emulator) == before
        assert caught.value.retry_after == pytest.approx(60, abs=5)
        assert caught.value.__cause__ is None


async def test_clients_that_share_a_quota_know_of_each_others_pauses(emulator: Emulator) -> None:
    quota = SharedQuota()
    async with (
        dense_client(emulator, quota=quota, parameters={"input_type": "query"}) as one,
        dense_client(emulator, quota=quota, parameters={"input_type": "query"}) as other,
    ):
        await pause(emulator, one)
        before = sent(emulator)
        with pytest.raises(DeadlineExceededError) as caught:
            await other.embed_one("text", timeout=PATIENT)
        assert sent(emulator) == before
        assert_says_when_to_come_again(caught.value)


async def test_processes_that_share_a_quota_know_of_each_others_pauses(emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    async with (
        SqliteQuota(path) as quota,
        SqliteQuota(path) as another,
        dense_client(emulator, quota=quota, parameters={"input_type": "query"}) as one,
        dense_client(emulator, quota=another, parameters={"input_type": "query"}) as other,
    ):
        emulator.inject(f"rate_limited={ASKED:.0f}")
        with pytest.raises(DeadlineExceededError) as first:
            await one.embed(["first"], timeout=PATIENT)
        assert_says_when_to_come_again(first.value)
        before, begun = sent(emulator), time.monotonic()
        for call in (other.embed_one("text", timeout=PATIENT), other.embed(["text"], timeout=PATIENT)):
            with pytest.raises(DeadlineExceededError, match="no request can be sent for") as caught:
                await call
            assert caught.value.retry_after == pytest.approx(ASKED, abs=5)
        patient = asyncio.create_task(other.embed_one("patient"))
        shared = asyncio.create_task(other.embed_one("another", timeout=PATIENT))
        with pytest.raises(DeadlineExceededError):
            await shared
        assert time.monotonic() - begun < PATIENT / 2
        assert not patient.done()
        patient.cancel()
        await asyncio.wait([patient])
        assert sent(emulator) == before
        # What was given up waits for nothing any more, once that is written.
        async with asyncio.timeout(10):
            while any(figures.waiting for figures in await quota.statistics()):
                pass


class PausedQuota:
    """A back end that grants nothing, and says for how long if it is asked for less."""

    def __init__(self) -> None:
        self.asked: list[float | None] = []

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        self.asked.append(demand.within)
        if demand.within is not None and demand.within < ASKED:
            raise DeadlineExceededError("paused", retry_after=ASKED)
        await asyncio.Event().wait()
        raise AssertionError

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        raise AssertionError


async def test_a_quota_of_ones_own_may_know_of_pauses(emulator: Emulator) -> None:
    quota = PausedQuota()
    async with dense_client(emulator, quota=quota, parameters={"input_type": "query"}) as client:
        calls = [
            asyncio.create_task(client.embed_one(text, timeout=lasts)) for text, lasts in (("a", 5), ("b", 50), ("c", None))
        ]
        with pytest.raises(DeadlineExceededError, match="paused") as caught:
            await calls[0]
        assert caught.value.retry_after == ASKED
        await settle()
        assert [call.done() for call in calls] == [True, False, False]
        asked = [0 if within is None else round(within) for within in quota.asked]
        assert asked == [5, 50]
        for call in calls[1:]:
            call.cancel()
        await asyncio.wait(calls)


async def test_a_quota_that_is_asked_directly_knows_of_its_pause() -> None:
    quota = SharedQuota()
    grant = await quota.acquire(QuotaDemand("model", "query", 10, 1))
    quota.settle(grant, QuotaOutcome("rejected", 10, "too many tokens", retry_after=ASKED))
    with pytest.raises(DeadlineExceededError) as caught:
        await quota.acquire(QuotaDemand("model", "query", 10, 1, within=5.0))
    assert str(caught.value.__cause__) == "429: too many tokens"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(quota.acquire(QuotaDemand("model", "query", 10, 1, within=50.0)), 0.05)


async def test_a_deadline_that_passes_for_another_reason_knows_of_no_time(emulator: Emulator) -> None:
    async with dense_client(emulator, parameters={"input_type": "query"}) as client:
        emulator.hold()
        for call in (client.embed_one("text", timeout=0.05), client.embed(["text"], timeout=0.05)):
            with pytest.raises(DeadlineExceededError) as caught:
                await call
            assert (caught.value.retry_after, caught.value.__cause__) == (None, None)
        emulator.release()


async def test_a_failure_before_the_deadline_is_the_cause(emulator: Emulator) -> None:
    retry = RetryPolicy(initial_backoff=30.0, max_backoff=30.0)
    async with dense_client(emulator, parameters={"input_type": "query"}, retry=retry, draw=lambda: 0.5) as client:
        emulator.inject("status=503")
        with pytest.raises(DeadlineExceededError) as caught:
            await client.embed(["text"], timeout=0.3)
        assert str(caught.value.__cause__).startswith("503")
        assert caught.value.retry_after is None
        emulator.inject("status=503,json,20")
        with pytest.raises(DeadlineExceededError) as caught:
            await client.embed(["text"], timeout=0.3)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 20


@pytest.mark.parametrize(("fault", "least"), [("rate_limited=30", 30.0), ("rate_limited", 1e-9)])
async def test_a_rejection_that_ends_a_job_says_when_to_come_again(emulator: Emulator, fault: str, least: float) -> None:
    async with dense_client(emulator, parameters={"input_type": "query"}, retry=RetryPolicy(max_elapsed=0.0)) as client:
        emulator.inject(fault)
        with pytest.raises(RateLimitError) as caught:
            await client.embed(["text"])
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= least


def test_a_cause_of_another_library_does_not_keep_an_error_from_being_pickled() -> None:
    error = EmbedError("`progress` raised")
    error.__cause__ = RuntimeError(lambda: None)
    assert pickle.loads(pickle.dumps(error)).__cause__ is None  # noqa: S301 - it was pickled here
