"""What must hold in every run: invariants, bills, limits, deadlines, order, statistics and hooks."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbeddedBatch,
    EmbedError,
    Failed,
    Finished,
    InputError,
    InvalidRequestError,
    NotFoundError,
    ObservedRequest,
    QuotaExceededError,
    RateLimitError,
    SparseVector,
    Started,
)
from tests.simulation.actors import MARK, Call, Caller
from tests.simulation.neighbours import PATIENCE, is_fault
from tests.simulation.scenario import FINAL
from tests.simulation.service import MODEL, REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pinecone_embed_async import EmbedClient
    from tests.simulation.neighbours import Recorder, Stalls
    from tests.simulation.scenario import ClientPlan, Scenario
    from tests.simulation.service import Exchange, Service

INSTANT = 1e-6
"""Tolerance in seconds: sums of floating-point times differ in the last digits."""

GRACE = 5.0
"""Seconds that requests on the wire may take once a job has ended."""

KEY = "pcsk_simulated_secret"

JOB_ERRORS = (
    AuthenticationError,
    NotFoundError,
    RateLimitError,
    QuotaExceededError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
)
"""Errors that may end a job before all its inputs were tried."""


@dataclass(frozen=True)
class Violation:
    """A violated invariant.

    Attributes:
        check: the invariant in a word or two, the same for every seed.
        details: what was seen.
    """

    check: str
    details: str

    def __str__(self) -> str:
        return f"{self.check}: {self.details}"


class Judge:
    """Watches a run, and checks its outcome.

    Args:
        scenario: the run's scenario.
        service: the simulated service, with its journal.

    Attributes:
        violations: violated invariants.
    """

    def __init__(self, scenario: Scenario, service: Service) -> None:
        self._scenario = scenario
        self._service = service
        self._clients: list[tuple[ClientPlan, EmbedClient[Any], Recorder]] = []
        self._deadlines: dict[str, float] = {}
        self._is_any_job_ended = False
        self._over: dict[tuple[str, str], list[Exchange]] = defaultdict(list)
        self.violations: list[Violation] = []

    def watch(self, clients: list[tuple[ClientPlan, EmbedClient[Any], Recorder]], calls: Sequence[Call]) -> None:
        """Check every request when it is sent, and every client whenever the time is about to advance."""
        self._clients = clients
        for call in calls:
            deadline = math.inf
            if call.plan.timeout is not None and call.plan.kind != "one" and not call.plan.common:
                deadline = call.plan.at + call.plan.timeout
            for text in call.texts:
                # An odd text, such as an empty one, may be an input of several calls.
                self._deadlines[text] = max(deadline, self._deadlines.get(text, -math.inf))
        self._service.on_send = self._at_sending

    def found(self, check: str, details: object) -> None:
        """Record a violation."""
        if len(self.violations) < 20:
            self.violations.append(Violation(check, str(details)))

    def at_rest(self) -> None:
        """Check, while everything waits, that every permit is on the wire, and that no request waits for a free one."""
        for number, (_, client, _) in enumerate(self._clients):
            due = client._runtime.options.gate._limiter.next_at
            if due + INSTANT < _now():
                self.found("starves", f"a request of client {number} could go at {due}, and waits at {_now()}")
            counted, seen = client._runtime.engine.network.in_flight, len(self._service.journal.active[number])
            if counted != seen:
                self.found("permits", f"client {number} has {counted} in flight, {seen} are on the wire, at {_now()}")
            if self._scenario.service.bills and self._clients[number][0].quota != "backend":
                self._check_bills_counted(number)

    # While it runs.

    def _limiter_of(self, client: int) -> str:
        return "shared" if self._clients[client][0].quota == "shared" else str(client)

    def _at_sending(self, exchange: Exchange) -> None:
        now, plan = exchange.sent, self._clients[exchange.client][0]
        active = len(self._service.journal.active[exchange.client])
        if active > plan.max_concurrency:
            self.found("in flight", f"{active} of {plan.max_concurrency} by client {exchange.client} at {now}")
        if len(exchange.texts) > plan.max_batch_size:
            self.found("batch size", f"{len(exchange.texts)} of {plan.max_batch_size} inputs in {exchange.number}")
        deadline = min((self._deadlines.get(text, math.inf) for text in exchange.texts), default=math.inf)
        if now > deadline + INSTANT:
            self.found("sent after the deadline", f"request {exchange.number} at {now}, deadline {deadline}")
        if plan.quota != "backend" and not self._service.is_healed:
            self._check_pause(exchange)
            self._check_quota(exchange)

    def _check_bills_counted(self, client: int) -> None:
        """Check that no absurd bill counts for more than the request can have cost."""
        limiter, exchanges = self._limiter_of(client), self._service.journal.exchanges
        for quota in self._clients[client][1].statistics().quotas:
            since = _now() - 1.01 * self._window_of(client)
            most = sum(
                _most_tokens(one)
                for one in exchanges
                if one.input_type == quota.input_type
                and self._limiter_of(one.client) == limiter
                and self._end_of(one) > since
            )
            if quota.used > most:
                self.found("counted long", f"{quota.used} {quota.input_type} of {most} possible at {_now()}")

    def _window_of(self, client: int) -> float:
        quota = self._scenario.service.quota
        return 60.0 if quota is None or self._clients[client][0].quota == "none" else quota.window

    def _siblings(self, exchange: Exchange) -> Iterable[Exchange]:
        """The requests before it under the same limit of tokens."""
        limiter = self._limiter_of(exchange.client)
        for other in self._service.journal.exchanges[: exchange.number - 1]:
            if other.input_type == exchange.input_type and self._limiter_of(other.client) == limiter:
                yield other

    def _check_pause(self, exchange: Exchange) -> None:
        for other in self._siblings(exchange):
            if other.rejection is None or "month" in other.rejection[1] or other.fault == "quota_exceeded":
                continue
            at, _, asked = other.rejection
            if asked is not None and at + INSTANT < exchange.sent < at + asked - INSTANT:
                self.found(
                    "pause", f"{exchange.number} sent at {exchange.sent}, {other.number} was to wait {asked} s from {at}"
                )

    def _check_quota(self, exchange: Exchange) -> None:
        length = self._window_of(exchange.client)
        statistics = self._clients[exchange.client][1].statistics().quotas
        own = [one for one in statistics if (one.model, one.input_type) == (MODEL, exchange.input_type)]
        if not own:
            self.found("limits by input type", f"none is known for {exchange.input_type}")
            return
        now, quota = exchange.sent, own[0]
        siblings = list(self._siblings(exchange))
        if any(self._ended_now(other, now) for other in siblings):
            # Its bill may be counted at this very instant, or not yet.
            return
        counted = [other for other in siblings if other.is_delivered and self._end_of(other) > now - length + INSTANT]
        billed = sum(min(other.reported or 0, _most_tokens(other)) for other in counted)
        if quota.used < billed:
            self.found("counted short", f"{quota.used} used, {billed} billed in the window of {exchange.number} at {now}")
        if quota.source in ("given", "named") and quota.limit is not None and quota.used > quota.limit:
            # Each limit is probed by itself. Requests sent at one instant each see the usage of all of them: one of them
            # may be the probe.
            over = self._over[self._limiter_of(exchange.client), exchange.input_type]
            probes = self._probes(exchange)
            is_alone = len(probes) == 1 and quota.used - probes[0] <= quota.limit
            is_alone |= not any(other.fate == "under way" for other in over)
            if len(exchange.texts) > 1 and (quota.source == "given" or not is_alone):
                self.found(
                    "over the quota", f"{quota.used} of {quota.limit} ({quota.source}) with {exchange.number} at {now}"
                )
            over.append(exchange)
        if quota.paused > INSTANT:
            self.found("pause", f"{exchange.number} sent at {now}, {quota.paused} s before the end of a pause")

    def _probes(self, exchange: Exchange) -> list[int]:
        """The tokens of requests that probe whether a limit has been raised."""
        key = MODEL, exchange.input_type
        permits = self._clients[exchange.client][1]._runtime.options.gate._limiter._open
        return [permit.tokens for permit in permits if permit.is_probe and permit.key == key]

    def _end_of(self, exchange: Exchange) -> float:
        return exchange.ended if exchange.ended is not None else math.inf

    def _ended_now(self, exchange: Exchange, now: float) -> bool:
        return abs(self._end_of(exchange) - now) < INSTANT

    # Afterwards.

    def check(self, calls: Sequence[Call]) -> None:
        """Check the outcomes of the calls."""
        singles = [caller.outcome for call in calls for caller in call.callers]
        # Single texts of different calls may share a request, and so a job.
        self._is_any_job_ended = any(_ends_job(outcome) for outcome in singles)
        for call in calls:
            if call.plan.kind == "embed":
                self._check_embed(call)
            elif call.plan.kind == "one":
                for caller, text in zip(call.callers, call.texts, strict=True):
                    self._check_one(call, caller, text)
            else:
                self._check_stream(call)
        self._check_bills(calls)
        for number in range(len(self._clients)):
            self._check_statistics(number, calls)

    def check_end(self, tasks: Iterable[asyncio.Task[Any]], timers: Iterable[asyncio.TimerHandle]) -> None:
        """Check that nothing is left behind."""
        for task in tasks:
            self.found("left behind", f"task {task.get_name()}")
        for timer in timers:
            self.found("left behind", f"timer {timer}")
        for number, (_, client, _) in enumerate(self._clients):
            statistics = client.statistics()
            if statistics.in_flight or statistics.waiting:
                self.found("left behind", f"{statistics.in_flight} in flight, {statistics.waiting} waiting, client {number}")
            for quota in statistics.quotas:
                if quota.used or quota.waiting or quota.is_waiting:
                    self.found("left behind", f"{quota.used} used, {quota.waiting} waiting, client {number}")

    def check_left(self, log: Iterable[str], stalls: Stalls) -> None:
        """Check that there is one warning for each neighbour that went on for too long when cancelled, and no other."""
        warned = sum("it is left running" in line for line in log)
        # One that ends at the very moment at which it is left may be counted either way.
        least, most = stalls.went_on(PATIENCE + INSTANT), stalls.went_on(PATIENCE - INSTANT)
        if not least <= warned <= most:
            self.found("left behind", f"{warned} warnings of {least} to {most} neighbours that went on")

    def check_silence(self, said: Iterable[str]) -> None:
        """Search messages and reprs for the key and the texts."""
        for line in said:
            if KEY in line or MARK in line:
                self.found("secrets", line.replace(MARK, "<a text>").replace(KEY, "<the key>")[:200])

    def patience(self, client: int, call: Call | None = None) -> float:
        """Seconds that a call, or closing, may take longer since a neighbour swallows its cancellation."""
        plan = self._scenario.clients[client]
        calls = [call.plan] if call is not None else [one for one in self._scenario.calls if one.client == client]
        stays = "stays" in (plan.cache, plan.backend) or any(one.source_stays for one in calls)
        return PATIENCE if stays else 0.0

    def _right_row(self, call: Call, text: str, row: Any) -> bool:
        indices, values = self._service.texts.row(text, call.plan.input_type, call.plan.variant)
        if isinstance(row, SparseVector):
            return bool(row.indices.tolist() == indices and row.values.tolist() == values)
        found: list[float] = row.tolist()
        return found == values

    def _check_early(self, call: Call, caller: Caller) -> None:
        """Check that a call fails before its deadline, without an attempt, only if nothing could be sent until then."""
        error, plan, ended = caller.outcome, call.plan, _end(caller)
        if plan.timeout is None or not isinstance(error, DeadlineExceededError) or error.attempts:
            return
        deadline = caller.began + plan.timeout
        if ended >= deadline - INSTANT:
            return
        if error.retry_after is None or ended + error.retry_after < deadline - INSTANT:
            self.found(
                "failed early", f"call {call.number} at {ended}, deadline {deadline}, can go in {error.retry_after} s"
            )
        limiter = self._limiter_of(plan.client)
        like = [one for one in self._service.journal.exchanges if self._limiter_of(one.client) == limiter]
        is_given = self._scenario.clients[plan.client].quota != "none"
        if not is_given and not any(one.rejection is not None and self._end_of(one) <= ended + INSTANT for one in like):
            self.found("failed early", f"call {call.number} at {ended}, and nothing had been rejected")
        # A back end's grants from before its pause may still be used.
        if error.__cause__ is not None and self._scenario.clients[plan.client].quota != "backend":
            for one in like:
                if one.input_type == plan.input_type and ended + INSTANT < one.sent < deadline - INSTANT:
                    self.found("failed early", f"call {call.number} at {ended}, and {one.number} went at {one.sent}")

    def _check_ended(self, call: Call, caller: Caller) -> bool:
        """Whether a call ended with a result or an error of its own, in its time."""
        error, plan = caller.outcome, call.plan
        self._check_time(call, caller)
        if isinstance(error, asyncio.CancelledError):
            if caller.cancelled_at is None:
                self.found("cancelled by nobody", f"call {call.number}")
            return False
        own = is_fault(error) and (plan.source_fails_at, plan.text_fails_at) != (None, None)
        if isinstance(error, BaseException) and not own and not isinstance(error, EmbedError):
            self.found("error", f"call {call.number} raised {type(error).__name__}: {error}")
        return isinstance(error, EmbedError) or not isinstance(error, BaseException)

    def _check_time(self, call: Call, caller: Caller) -> None:
        """Whether a call ended by its deadline, at once when it was cancelled, and soon when its client was closed."""
        plan, ended = call.plan, _end(caller)
        patience = self.patience(plan.client, call) + INSTANT
        if caller.cancelled_at is not None and ended > caller.cancelled_at + patience:
            self.found("cancelled late", f"call {call.number}: {ended - caller.cancelled_at} s")
        if plan.kind == "stream":
            return
        if plan.timeout is not None and ended > caller.began + plan.timeout + patience:
            self.found("deadline", f"call {call.number} took {ended - caller.began} s, not {plan.timeout}")
        self._check_early(call, caller)
        closed_at = self._scenario.clients[plan.client].closed_at
        if closed_at is not None and ended > max(closed_at, caller.began) + GRACE + patience:
            self.found("closing", f"call {call.number} ended at {ended}, its client was closed at {closed_at}")

    def _check_embed(self, call: Call) -> None:
        if not self._check_ended(call, call):
            return
        error = call.outcome if isinstance(call.outcome, EmbedError) else None
        if _has_progress_raised(call) and not is_fault(getattr(error, "__cause__", None)):
            self.found("progress", f"call {call.number} did not raise what its progress raised")
        result = call.outcome if error is None else error.partial
        if result is None:
            is_sources = call.plan.source_fails_at is not None and "the source of the inputs raised" in str(error)
            if not is_sources and not isinstance(
                error, (ClosedError, DeadlineExceededError, ConfigurationError, InputError)
            ):
                self.found("partial", f"call {call.number} raised {type(error).__name__} without one")
            return
        if error is not None and error.failures != result.failures:
            self.found("partial", f"call {call.number}: its failures are not the error's")
        self._check_result(call, call.inputs, result, error)
        if call.progress and call.plan.progress == "follows" and not call.plan.dedupe:
            last = call.progress[-1]
            failed = sum(len(failure.indices) for failure in result.failures)
            if (last.done, last.failed) != (int(result.embedded.sum()), failed):
                self.found("progress", f"call {call.number}: {last}, but {result!r} and {failed} failed")

    def _check_result(self, call: Call, inputs: Sequence[str | None], result: Any, error: EmbedError | None) -> None:
        """Check that each item is embedded rightly, failed for a reason, or not tried since the job ended."""
        if len(result) != len(inputs):
            self.found("rows", f"call {call.number} has {len(result)} rows for {len(inputs)} inputs")
            return
        self._check_fates(call, inputs, result)
        not_tried = result.not_tried.tolist()
        for index in np.flatnonzero(result.embedded).tolist():
            text = inputs[index]
            if text is None or not self._right_row(call, text, result[index]):
                self.found("rows", f"call {call.number}: row {index} is not that of its input")
        if isinstance(result, DenseEmbeddings) and not np.isnan(result.vectors[~result.embedded]).all():
            self.found("rows", f"call {call.number}: rows without a vector hold numbers")
        if not_tried:
            ends = [error, *(failure.error for failure in result.failures), *(what for _, _, what in call.batches)]
            is_ended = any(_ends_job(one) for one in ends)
            may_end = self._was_ended_early(call) or call.plan.on_error == "return" or _has_progress_raised(call)
            if not is_ended and not may_end and not self._is_faulty_job(call):
                self.found("lost", f"call {call.number}: {not_tried} not tried, and the job did not end: {ends}")
        is_causeless = not result.failures and not not_tried and not _has_progress_raised(call)
        if error is not None and is_causeless and call.plan.kind == "embed":
            self.found("error", f"call {call.number} raised {type(error).__name__}, but nothing failed")

    def _check_fates(self, call: Call, inputs: Sequence[str | None], result: Any) -> None:
        fates = result.embedded.astype(np.intp)
        fates[result.not_tried] += 1
        batches = [getattr(what, "batch", None) or what for _, _, what in call.batches]
        failures = [failure for what in (result, *batches) for failure in getattr(what, "failures", ())]
        met = [call.outcome, *(failure.error for failure in failures), *(what for _, _, what in call.batches)]
        # Requests on the wire when a job ended had one attempt, whatever its answer.
        is_ended = self._was_ended_early(call) or any(_ends_job(error) for error in met)
        for failure in result.failures:
            fates[list(failure.indices)] += 1
            for index in failure.indices:
                self._check_failure(call, inputs[index], failure.error, is_ended=is_ended)
        if (fates != 1).any():
            self.found("fates", f"call {call.number}: {fates.tolist()}")

    def _is_closed(self, call: Call) -> bool:
        return self._scenario.clients[call.plan.client].closed_at is not None

    def _is_faulty_job(self, call: Call) -> bool:
        """Whether the parameters, rather than an input, may have been refused, as far as the client can see."""
        return any(fault.startswith("status=4") for fault in self._scenario.service.faults)

    def _check_failure(self, call: Call, text: str | None, error: EmbedError, *, is_ended: bool) -> None:
        if text is None:
            if not isinstance(error, InputError):
                self.found("cause", f"call {call.number}: what is no text failed with {type(error).__name__}")
            return
        is_refused = REFUSED in text or self._is_faulty_job(call)
        if isinstance(error, InvalidRequestError) and not is_refused and not is_ended:
            self.found("cause", f"call {call.number}: an input that is not refused failed with {type(error).__name__}")
        if isinstance(error, InvalidRequestError) and is_refused and not is_ended and not self._was_sent_alone(call, text):
            self.found("cause", f"call {call.number}: an input failed as refused and was never sent alone")
        if isinstance(error, RateLimitError) and not self._was_ended_early(call):
            self._check_given_up(call, error)

    def _was_sent_alone(self, call: Call, text: str) -> bool:
        key = (text,), call.plan.client, call.plan.input_type, call.plan.variant
        sent = self._service.journal.exchanges
        return any((one.texts, one.client, one.input_type, one.variant) == key for one in sent)

    def _was_ended_early(self, call: Call) -> bool:
        """Whether a job may have been ended by something other than its requests."""
        plan = self._scenario.clients[call.plan.client]
        is_final = any(fault in FINAL for fault in self._scenario.service.faults)
        is_backend_odd = plan.backend_fails > 0 or plan.backend != "works"
        is_limited = plan.closed_at is not None or is_backend_odd or call.plan.timeout is not None
        return is_limited or is_final or self._is_probe_lost(call) or _has_progress_raised(call)

    def _was_left_ended(self, call: Call) -> bool:
        """Whether a stream was left before it could say that rejections had ended it: complete batches come first then."""
        sent = [one for one in self._service.journal.exchanges if one.client == call.plan.client]
        return call.has_left and any(one.rejection is not None for one in sent)

    def _is_probe_lost(self, call: Call) -> bool:
        """Whether the client could not find out if it is the inputs that are refused, perhaps since the job ended."""
        probes = [one for one in self._service.journal.exchanges if one.texts == ("probe",)]
        return any(one.client == call.plan.client and not one.is_delivered for one in probes)

    def _check_given_up(self, call: Call, error: EmbedError) -> None:
        """Check that a job ended with a rejection only if nothing under the same limit was accepted for long."""
        plan = self._scenario.clients[call.plan.client]
        last = max((self._end_of(one) for one in self._accepted_like(call)), default=-math.inf)
        waited = _end(call) - last
        # The pause that it would have had to wait for counts too, and rejections may ask for 120 s and be backed off for 20.
        if waited + 140 + plan.initial_backoff < plan.max_elapsed:
            self.found("given up", f"call {call.number}: {type(error).__name__} {waited} s after the last acceptance")

    def _accepted_like(self, call: Call) -> Iterable[Exchange]:
        limiter = self._limiter_of(call.plan.client)
        for one in self._service.journal.exchanges:
            is_like = one.input_type == call.plan.input_type and self._limiter_of(one.client) == limiter
            if one.is_delivered and is_like and self._end_of(one) <= _end(call):
                yield one

    def _check_one(self, call: Call, caller: Caller, text: str) -> None:
        if not self._check_ended(call, caller):
            return
        if isinstance(caller.outcome, EmbedError):
            error = caller.outcome
            for failure in error.failures:
                if list(failure.indices) != [0]:
                    self.found("failures", f"call {call.number}: {failure.indices} of a single text")
            self._check_failure(call, text, error, is_ended=self._was_ended_early(call) or self._is_any_job_ended)
        elif not self._right_row(call, text, caller.outcome):
            self.found("rows", f"call {call.number}: the vector is not that of its text")

    def _check_stream(self, call: Call) -> None:
        plan = call.plan
        seen: dict[int, int] = {}
        ended_by: EmbedError | None = None
        starts: list[int] = []
        failed = embedded = 0
        for asked, given, what in call.batches:
            batch = what if isinstance(what, EmbeddedBatch) else getattr(what, "batch", None)
            deadline = math.inf if plan.timeout is None else call.began + plan.timeout + self.patience(plan.client, call)
            if given > max(asked, deadline) + INSTANT:
                self.found(
                    "deadline", f"stream {call.number} yielded a batch at {given}, asked at {asked}, deadline {deadline}"
                )
            if batch is None:
                if isinstance(what, EmbedError):
                    ended_by = what
                continue
            starts.append(batch.start)
            error = what if isinstance(what, EmbedError) else None
            # With `on_error="return"` the batch has the error that the job met first.
            met = (error, *(failure.error for failure in batch.failures))
            ended_by = next((one for one in met if _ends_job(one)), ended_by)
            self._check_batch(call, batch, error)
            embedded += int(batch.embeddings.embedded.sum())
            failed += sum(len(failure.indices) for failure in batch.failures)
            for row in range(len(batch)):
                seen[batch.start + row] = seen.get(batch.start + row, 0) + 1
        if any(count > 1 for count in seen.values()):
            self.found("rows", f"stream {call.number} yielded an item twice")
        is_whole = ended_by is None and not self._was_ended_early(call) and not self._was_left_ended(call)
        if plan.ordered and is_whole and starts != sorted(starts):
            self.found("order", f"stream {call.number} yielded {starts}")
        self._check_read_ahead(call)
        if not self._check_ended(call, call):
            return
        self._check_stream_end(call, seen, ended_by, embedded, failed)

    def _check_stream_end(
        self, call: Call, seen: dict[int, int], ended_by: EmbedError | None, embedded: int, failed: int
    ) -> None:
        plan = call.plan
        if _has_progress_raised(call) and call.outcome is None and not call.has_left:
            is_raised = any(is_fault(getattr(what, "__cause__", None)) for _, _, what in call.batches)
            if not is_raised and ended_by is None:
                self.found("progress", f"stream {call.number} did not raise what its progress raised")
        if call.has_left or call.outcome is not None or ended_by is not None or _has_progress_raised(call):
            return
        is_over = self._is_closed(call) or plan.timeout is not None or self._is_faulty_job(call)
        read = len(self.call_items_read(call))
        if len(seen) < read and not is_over:
            self.found("lost", f"stream {call.number} yielded {len(seen)} of {read} items, and ended without an error")
        if plan.progress == "follows" and len(seen) == read and read:
            last = call.progress[-1] if call.progress else None
            if last is None or (last.done, last.failed) != (embedded, failed):
                self.found("progress", f"stream {call.number}: {last}, but {embedded} embedded and {failed} failed")

    @staticmethod
    def call_items_read(call: Call) -> list[Any]:
        """The items that a stream's source yielded."""
        stops = [stop for stop in (call.plan.source_fails_at, call.plan.text_fails_at) if stop is not None and stop >= 0]
        return call.items[: min(stops, default=len(call.items))]

    def _check_batch(self, call: Call, batch: Any, error: EmbedError | None) -> None:
        items = call.items[batch.start : batch.start + len(batch)]
        if list(batch.items) != items:
            self.found("rows", f"stream {call.number}: the batch at {batch.start} has other items")
            return
        self._check_result(call, call.inputs[batch.start : batch.start + len(batch)], batch.embeddings, error)

    def _check_read_ahead(self, call: Call) -> None:
        client = self._scenario.clients[call.plan.client]
        window = call.plan.window or 2 * client.max_concurrency
        texts = bad = 0
        for index, pull in enumerate(call.pulls):
            batches = bad - pull.delivered_bad + (texts - pull.delivered_texts) // client.max_batch_size
            is_text = index < len(call.inputs) and call.inputs[index] is not None
            texts, bad = texts + is_text, bad + (not is_text)
            # An item that is no text ends the batch before it, and both are delivered together.
            if batches > window + 1:
                self.found("read ahead", f"stream {call.number}: {batches} batches of {window} at item {index}")
                return

    def _check_bills(self, calls: Sequence[Call]) -> None:
        """Check that an input is billed twice only where an answer was lost or unreadable."""
        wanted: Counter[tuple[str, str, int]] = Counter()
        for call in calls:
            texts = set(call.texts) if call.plan.dedupe else call.texts
            for text in texts:
                wanted[text, call.plan.input_type, call.plan.variant] += 1
        got: Counter[tuple[str, str, int]] = Counter()
        for exchange in self._service.journal.exchanges:
            if exchange.is_delivered and MARK in exchange.texts[0]:
                for text in exchange.texts:
                    got[text, exchange.input_type, exchange.variant] += 1
        for (text, input_type, variant), count in got.items():
            if count > wanted[text, input_type, variant] and MARK in text:
                more = f"{count} times for {wanted[text, input_type, variant]} inputs"
                self.found("billed twice", f"{input_type} {variant}, {more}: {text[:30].replace(MARK, '')}")

    def _check_statistics(self, number: int, calls: Sequence[Call]) -> None:
        """Check that the client's counts, its hooks and the service's journal agree."""
        plan, client, recorder = self._clients[number]
        statistics = client.statistics()
        own = [one for one in self._service.journal.exchanges if one.client == number]
        is_disturbed = plan.closed_at is not None or any(
            call.plan.client == number
            and (
                call.plan.cancellation
                or call.plan.timeout
                or call.plan.progress == "raises"
                or call.has_left
                or call.plan.leaves_after is not None
            )
            for call in calls
        )
        rejections = sum(self._is_rejection(one) for one in own)
        # A status counts though its body never came; whether the status had come is not noted.
        unread = sum(one.rejection is None and one.fate.startswith("429 ") for one in own)
        if rejections < statistics.rejections <= rejections + unread:
            rejections = statistics.rejections
        counts = {
            "attempts": (statistics.attempts, len(own)),
            "rejections": (statistics.rejections, rejections),
            "tokens": (statistics.tokens, sum(one.reported or 0 for one in own if one.is_delivered)),
            "answers": (statistics.answers, sum(one.is_delivered for one in own)),
        }
        for name, (said, seen) in counts.items():
            if said != seen and (not is_disturbed or (said > seen and name != "attempts")):
                self.found("statistics", f"client {number} says {said} {name}, the service saw {seen}")
        if plan.hooks != "none":
            self._check_hooks(number, recorder, statistics)

    @staticmethod
    def _is_rejection(exchange: Exchange) -> bool:
        return exchange.rejection is not None and exchange.fault not in ("month_quota_spent", "quota_exceeded")

    def _check_hooks(self, number: int, recorder: Recorder, statistics: Any) -> None:
        begun: dict[int, Any] = {}
        ended: dict[int, Finished | Failed] = {}
        for event in recorder.events:
            place = id(event.subject)
            if isinstance(event, Started):
                if place in begun:
                    self.found("hooks", f"client {number}: something started twice")
                begun[place] = event.subject
            elif place not in begun or place in ended:
                self.found("hooks", f"client {number}: {type(event).__name__} outside of its subject's life")
            if isinstance(event, (Finished, Failed)):
                ended[place] = event
        if begun.keys() != ended.keys():
            self.found("hooks", f"client {number}: {len(begun)} started, {len(ended)} ended")
        requests = [one for one in ended.values() if isinstance(one.subject, ObservedRequest)]
        sums = {
            "attempts": (sum(one.attempts for one in requests), statistics.attempts),
            "tokens": (sum(one.tokens for one in requests), statistics.tokens),
            "inputs": (sum(one.embedded for one in requests), statistics.inputs),
        }
        for name, (observed, counted) in sums.items():
            if observed != counted:
                self.found("hooks", f"client {number}: {observed} {name} by the hooks, {counted} by the statistics")


def _ends_job(error: object) -> bool:
    # Where nothing readable, or nothing at all, has ever come, any answer may.
    return isinstance(error, JOB_ERRORS) or (isinstance(error, EmbedError) and getattr(error, "ends_job", False))


def _has_progress_raised(call: Call) -> bool:
    return call.plan.progress == "raises" and len(call.progress) >= 3


def _most_tokens(exchange: Exchange) -> int:
    """The most that a request can have cost: a token a byte, and some around each text. A bill counts for no more."""
    return sum(len(text.encode()) + 18 for text in exchange.texts)


def _end(caller: Caller) -> float:
    return math.inf if caller.ended is None else caller.ended


def _now() -> float:
    return asyncio.get_running_loop().time()
