"""The tenacity loop over the attempts of a request; what it does is decided in `retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tenacity

from pinecone_embed_async._errors import RateLimitError
from pinecone_embed_async._sending.retry import Verdict, final_error, record_failure
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._planning import Attempts
    from pinecone_embed_async._rate_limit import Key
    from pinecone_embed_async._sending.engine import Engine
    from pinecone_embed_async._telemetry import RequestObservation


class RetryLoop(SilentStruct):
    """Tells tenacity whether and when to make another attempt.

    Args:
        engine: the client's shared state for sending.
        attempts: the attempts so far; updated here.
        key: key of the request at the rate limiter; `None` if it is not rate-limited.
        deadline: clock time at which the requests end; `None` for no deadline.
        observation: reports to the hooks; `None` without hooks.
    """

    _engine: Engine
    _attempts: Attempts
    _key: Key | None = None
    _deadline: float | None = None
    _observation: RequestObservation | None = None
    _verdict: Verdict = Verdict.FINAL
    _final: EmbedError | None = None

    def __repr__(self) -> str:
        return f"<RetryLoop of {self._attempts!r}>"

    def retrying(self) -> tenacity.AsyncRetrying:
        """The loop over attempts, which must return their error instead of raising it."""
        return tenacity.AsyncRetrying(
            sleep=self._sleep,
            stop=self._stop,
            wait=self._wait,
            retry=tenacity.retry_if_result(self._should_retry),
            before_sleep=self._count,
            retry_error_callback=lambda _: self._final,
        )

    def _should_retry(self, error: EmbedError | None) -> bool:
        if error is None:
            return False
        self._verdict = record_failure(self._attempts, error, self._engine.contact)
        return self._verdict is not Verdict.FINAL

    def _wait(self, _: tenacity.RetryCallState) -> float:
        last = self._attempts.last_error
        if self._verdict is Verdict.RATE_LIMITED or last is None:
            return self._engine.gate.wait_left(self._key)
        if self._verdict is Verdict.AT_ONCE:
            return 0.0
        return self._engine.options.retry.backoff(self._attempts.failures, last, self._engine.options.draw)

    def _stop(self, call: tenacity.RetryCallState) -> bool:
        self._final = final_error(
            self._attempts,
            self._engine.options.retry,
            now=self._engine.clock.time(),
            wait=call.upcoming_sleep,
            last_acceptance=self._engine.gate.last_acceptance(self._key),
            deadline=self._deadline,
            contact=self._engine.contact,
        )
        if isinstance(self._final, RateLimitError):
            # The client may wait longer than the service asked for, and usually the service asks for nothing.
            self._final.retry_after = max(self._final.retry_after or 0.0, call.upcoming_sleep) or None
        return self._final is not None

    def _count(self, call: tenacity.RetryCallState) -> None:
        attempts = self._attempts
        self._engine.counters.retries += 1
        if self._observation is not None and attempts.last_error is not None:
            # During a pause, the request waits in the queue for permits.
            backoff = 0.0 if self._verdict is Verdict.RATE_LIMITED else call.upcoming_sleep
            self._observation.retried(attempts.attempts, attempts.last_error, backoff)

    async def _sleep(self, delay: float) -> None:
        # During a pause, the request waits in the queue for permits instead, which keeps the order.
        if self._verdict is Verdict.RETRY:
            await self._engine.clock.sleep(delay)
