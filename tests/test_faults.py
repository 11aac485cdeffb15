"""Each fault once in the middle of a job, and for ever; docs/faults.md says what is to come of it, and is held to it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import (
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    Progress,
    QuotaExceededError,
    RateLimitError,
    RetryPolicy,
    SparseEmbeddings,
    SparseVector,
)
from pinecone_embed_async._sending.retry import Verdict, judge
from pinecone_embed_async._wire import Redactor, error_from_response
from pinecone_embed_async.emulator import EmbedRequest, EmulatedModel, Emulator, Fault, FaultName, FaultRule, Outlook
from pinecone_embed_async.emulator._transport_faults import _status

MODELS = {
    "dense": EmulatedModel("tiny", default_dimension=4, supported_dimensions=(4,)),
    "sparse": EmulatedModel("tiny-sparse", vector_type="sparse"),
}
TEXTS = ["zero", "one", "two", "three words here", "four", "five", "six", "seven", "eight", "nine"]
STRUCK = "three words here"
ATTEMPTS = 3
POLICY = RetryPolicy(max_attempts=ATTEMPTS, max_elapsed=20, initial_backoff=0.001, max_backoff=0.01)
CONTENT = {"status=400", "status=413", "status=422", "error_in_200=400"}
"""What a request of several inputs may be halved for; here it has one."""

Result = DenseEmbeddings | SparseEmbeddings


@dataclass(frozen=True)
class Row:
    """A row of the table in docs/faults.md.

    Attributes:
        fault: as the emulator takes it.
        outcome: `harmless`, `retried`, `fails its inputs` or `ends the job`.
        billed_again: whether an attempt is billed whose rows cannot be used.
        error: what the call ends with if the fault goes on; empty if it does not end.
    """

    fault: str
    outcome: str
    billed_again: bool
    error: str

    @property
    def name(self) -> FaultName:
        return FaultName(self.fault.partition("=")[0])


PAGE = Path(__file__).parent.parent / "docs" / "faults.md"
CELLS = re.compile(r"^\| `([^`]+)` \|[^|]*\| ([a-z ]+) \| (yes|no) \| (?:`(\w+)`|–) \|$", re.MULTILINE)
ROWS = [Row(fault, outcome, again == "yes", error) for fault, outcome, again, error in CELLS.findall(PAGE.read_text())]


def test_every_fault_is_on_the_page_and_every_row_is_read() -> None:
    assert {row.name for row in ROWS} == set(FaultName)
    assert len(ROWS) == len({row.fault for row in ROWS}) == PAGE.read_text().count("\n| `")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_the_page_agrees_with_what_the_emulator_says_of_its_faults(row: Row) -> None:
    fault = Fault(row.name, row.fault.partition("=")[2])
    outlooks = {"harmless": Outlook.HARMLESS, "retried": Outlook.RETRYABLE}
    assert outlooks.get(row.outcome, Outlook.TERMINAL) is fault.outlook


@pytest.mark.parametrize("body", ["json", "html", "empty", "cut"])
def test_what_the_emulator_says_of_a_status_is_what_the_client_makes_of_it(body: str) -> None:
    redactor = Redactor("key")
    for status in range(300, 600):
        fault = Fault(FaultName.STATUS, f"{status},{body}")
        refused = _status(fault)
        sent = refused.body if isinstance(refused.body, bytes) else b""
        error = error_from_response(status, refused.headers, sent, redactor=redactor, now=0)
        assert (judge(error) is Verdict.FINAL) == (fault.outlook is Outlook.TERMINAL), str(fault)


def fault_of(row: Row) -> Fault:
    """The fault, with a value that makes it quick: the page has the emulator's defaults."""
    quick = {
        FaultName.CONNECTION_REFUSED: 0,
        FaultName.GZIP_BOMB: 4,
        FaultName.GIGANTIC_BODY: 4,
        FaultName.SLOW_DRIP: 0.05,
    }
    return Fault(row.name, quick.get(row.name, row.fault.partition("=")[2]))


def vector_type_of(fault: Fault) -> str:
    return "dense" if fault.applies_to("dense") else "sparse"


def client_of(emulator: Emulator, vector_type: str, **options: Any) -> EmbedClient[Any]:
    options = {"vector_type": vector_type, "max_concurrency": 1, "max_batch_size": 2, "retry": POLICY, **options}
    return EmbedClient(
        MODELS[vector_type].name,
        api_key=emulator.api_key,
        base_url=emulator.url,
        max_answer_bytes=2**20,
        **options,
    )


def is_rejection(row: Row) -> bool:
    return row.error == "RateLimitError"


def is_struck(request: EmbedRequest) -> bool:
    return STRUCK in request.inputs


async def undisturbed(vector_type: str) -> tuple[Result, int]:
    """The right rows, and what they cost."""
    async with Emulator(models=MODELS.values()) as emulator, client_of(emulator, vector_type) as client:
        result: Result = await client.embed(TEXTS)
        return result, emulator.statistics().tokens_billed


def assert_rows_are_right(result: Result, right: Result) -> None:
    """What is embedded is embedded rightly, and each input has come to one end."""
    failed = [index for failure in result.failures for index in failure.indices]
    embedded = np.flatnonzero(result.embedded).tolist()
    assert sorted([*failed, *embedded, *result.not_tried.tolist()]) == list(range(len(TEXTS)))
    for index in embedded:
        found, wanted = result[index], right[index]
        if isinstance(found, SparseVector):
            assert isinstance(wanted, SparseVector)
            assert found.indices.tolist() == wanted.indices.tolist()
            assert found.values.tolist() == wanted.values.tolist()
        else:
            np.testing.assert_array_equal(found, wanted)


@dataclass(frozen=True)
class Run:
    """What a job with a fault has come to."""

    result: Result
    error: EmbedError | None
    extra_attempts: int
    billed_again: bool

    @property
    def outcome(self) -> str:
        if self.error is None:
            return "retried" if self.extra_attempts else "harmless"
        return "ends the job" if self.result.not_tried.size else "fails its inputs"


async def job(emulator: Emulator, row: Row) -> Run:
    """Embed `TEXTS`; afterwards the faults are switched off, and the same client embeds them all."""
    vector_type = vector_type_of(fault_of(row))
    right, cost = await undisturbed(vector_type)
    batch = 1 if row.fault in CONTENT else 2
    # Rejections by a limit cost no attempt; only time ends them.
    policy = replace(POLICY, max_elapsed=0.1) if is_rejection(row) else POLICY
    patience = 0.25 if "stalled" in row.fault else 60.0
    options = {"max_batch_size": batch, "retry": policy, "attempt_timeout": patience}
    async with client_of(emulator, vector_type, **options) as client:
        error: EmbedError | None = None
        try:
            result = await client.embed(TEXTS)
        except EmbedError as caught:
            error, result = caught, caught.partial
        await emulator.wait_until_idle()
        seen, said = emulator.statistics(), client.statistics()
        emulator.clear_faults()
        assert (await client.embed(TEXTS)).embedded.all()
    assert_rows_are_right(result, right)
    assert said.in_flight == said.waiting == 0
    assert said.inputs == int(result.embedded.sum())
    # What was answered well has been used, and nothing of it was asked for again.
    assert seen.answered_well == Counter(TEXTS[index] for index in np.flatnonzero(result.embedded))
    if result.embedded.all() and row.name is not FaultName.MISSING_USAGE:
        assert result.usage.total_tokens == cost
    requests = int(result.embedded.sum()) // batch + len(result.failures)
    return Run(result, error, said.attempts - requests, seen.answered != seen.answered_well)


def assert_failed(run: Run, row: Row) -> None:
    """The struck request's inputs have failed with the page's error, and no others have."""
    error = run.error
    assert type(error).__name__ == row.error
    assert error is not None
    assert error.failures == run.result.failures
    (failure,) = run.result.failures
    assert type(failure.error) is type(error)
    assert failure.error.message in error.message
    assert failure.error.attempts == error.attempts
    assert list(failure.indices) == ([3] if row.fault in CONTENT else [2, 3])
    assert run.result.embedded[:2].all()
    if run.outcome == "ends the job":
        # The request behind it was waiting for a permit, and may have been sent or not.
        assert run.result.not_tried.tolist()[-4:] == [6, 7, 8, 9]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
async def test_a_fault_that_comes_once_costs_what_the_page_says(row: Row) -> None:
    async with Emulator(models=MODELS.values()) as emulator:
        emulator.inject(fault_of(row), when=is_struck)
        run = await job(emulator, row)
    assert run.outcome == row.outcome
    assert run.billed_again == row.billed_again
    if run.outcome in {"harmless", "retried"}:
        # New connections are refused a little longer than asked for: until the emulator listens again.
        more = ATTEMPTS - 1 if row.name is FaultName.CONNECTION_REFUSED else 1
        assert run.extra_attempts in ({0} if run.outcome == "harmless" else range(1, more + 1))
    else:
        assert_failed(run, row)
        assert run.extra_attempts == 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
async def test_a_fault_that_goes_on_ends_as_the_page_says_and_the_other_rows_are_kept(row: Row) -> None:
    async with Emulator(models=MODELS.values(), faults=FaultRule(fault_of(row), when=is_struck)) as emulator:
        run = await job(emulator, row)
    assert run.billed_again == row.billed_again
    if not row.error:
        assert run.error is None
        return
    assert_failed(run, row)
    assert run.error is not None
    if row.outcome != "retried":
        assert run.outcome == row.outcome
        assert run.error.attempts == 1
        return
    assert run.outcome == "fails its inputs"
    assert run.error.attempts == run.extra_attempts + 1
    assert run.error.attempts > ATTEMPTS if is_rejection(row) else run.error.attempts == ATTEMPTS


# Switched on and off while a call runs.


async def test_faults_that_end_during_a_call_end_in_rows() -> None:
    right, _ = await undisturbed("dense")
    patient = RetryPolicy(max_attempts=100, initial_backoff=0.001, max_backoff=0.01)
    async with (
        Emulator(models=MODELS.values(), faults="status=503") as emulator,
        client_of(emulator, "dense", retry=patient, max_concurrency=4) as client,
    ):
        call = asyncio.create_task(client.embed(TEXTS))
        await emulator.wait_for_answers(12)
        assert not call.done()
        emulator.faults = None
        assert_rows_are_right(await call, right)
        assert client.statistics().inputs == len(TEXTS)


async def test_a_client_most_of_whose_requests_fail_sends_one_at_a_time_until_enough_succeed() -> None:
    options: dict[str, Any] = {"max_batch_size": 1, "max_concurrency": 4}
    async with (
        Emulator(models=MODELS.values(), faults="status=503") as emulator,
        client_of(emulator, "dense", **options) as client,
    ):
        assert (await client.embed([f"text {number}" for number in range(40)], on_error="return")).failures
        assert client.statistics().retry_budget == 0
        emulator.faults, emulator.latency = None, 0.005
        emulator.reset_statistics()
        await client.embed([f"text {number}" for number in range(49)])
        assert client.statistics().retry_budget == 49
        assert emulator.statistics().max_in_flight == 1
        await client.embed([f"text {number}" for number in range(40)])
        assert emulator.statistics().max_in_flight > 1


async def test_faults_that_begin_during_a_call_keep_what_was_embedded_before() -> None:
    right, _ = await undisturbed("dense")
    async with Emulator(models=MODELS.values()) as emulator, client_of(emulator, "dense") as client:

        def begin(progress: Progress) -> None:
            if progress.done == 4:
                emulator.faults = "month_quota_spent"

        with pytest.raises(QuotaExceededError) as caught:
            await client.embed(TEXTS, progress=begin)
        partial = caught.value.partial
        assert partial is not None
        assert_rows_are_right(partial, right)
        assert partial.embedded.tolist() == [True] * 4 + [False] * 6
        assert list(caught.value.failures[0].indices) == [4, 5]


async def test_one_fault_after_another_during_a_call() -> None:
    right, _ = await undisturbed("dense")
    names = ["cut_off_body", "nan_values", "rate_limited=0", "closed_before_headers", "white_space"]
    async with Emulator(models=MODELS.values()) as emulator, client_of(emulator, "dense") as client:
        for name in names:
            emulator.inject(name)
        result = await client.embed(TEXTS)
        assert emulator.statistics().faults == {Fault(*name.split("=")).name.value: 1 for name in names}
        assert client.statistics().retries == 4
    assert_rows_are_right(result, right)
    assert result.embedded.all()


async def test_a_service_that_is_down_for_a_while_is_waited_for() -> None:
    right, _ = await undisturbed("dense")
    patient = RetryPolicy(max_attempts=100, initial_backoff=0.001, max_backoff=0.01)
    async with Emulator(models=MODELS.values()) as emulator, client_of(emulator, "dense", retry=patient) as client:
        emulator.refuse_connections()
        call = asyncio.create_task(client.embed(TEXTS))
        async with asyncio.timeout(10):
            while client.statistics().retries < 5:  # noqa: ASYNC110 - the server does not hear of what it refuses
                await asyncio.sleep(0)
        await emulator.accept_connections()
        assert_rows_are_right(await call, right)


async def test_a_limit_that_never_ends_ends_the_call_in_the_time_that_the_policy_allows() -> None:
    policy = RetryPolicy(max_elapsed=0.2, initial_backoff=0.001, max_backoff=0.01)
    async with Emulator(models=MODELS.values(), faults="rate_limited") as emulator:
        async with client_of(emulator, "dense", retry=policy) as client:
            with pytest.raises(RateLimitError) as caught:
                await client.embed(TEXTS)
        assert emulator.statistics().tokens_billed == 0
    assert caught.value.partial is not None
    assert not caught.value.partial.embedded.any()
