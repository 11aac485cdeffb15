"""Decides about retries: the verdict on an error, the wait before the next attempt, and when to give up.

The functions here compute from the errors and times passed in; tenacity runs the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async import _checks
from pinecone_embed_async._errors import (
    ApiError,
    AuthenticationError,
    ConnectionProblem,
    EmbedError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    ServiceError,
    TransportError,
)
from pinecone_embed_async._rate_limit import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async._planning import Attempts

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 530)})
"""HTTP statuses worth a retry; 520 to 529 come from content delivery networks that cannot reach the origin."""

RETRYABLE_CODES = frozenset(
    {
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_REQUESTS",
        "UNAVAILABLE",
        "ABORTED",
        "INTERNAL",
        "DEADLINE_EXCEEDED",
        "UNKNOWN",
    }
)


class Verdict(Enum):
    """What an error means for its request."""

    FINAL = auto()
    """Another attempt would fail in the same way."""
    RETRY = auto()
    """Another attempt may succeed, after a wait."""
    AT_ONCE = auto()
    """The attempt most likely never reached the service, so another one follows at once."""
    RATE_LIMITED = auto()
    """The request is fine but over a rate limit, so every request under that limit waits."""


def judge(error: EmbedError) -> Verdict:
    """The verdict on an error by itself; see `record_failure`."""
    if isinstance(error, (TransportError, ResponseError)):
        return Verdict.RETRY
    if not isinstance(error, ApiError) or isinstance(error, (QuotaExceededError, AuthenticationError)):
        return Verdict.FINAL
    if isinstance(error, RateLimitError):
        return Verdict.RATE_LIMITED
    if error.status in RETRYABLE_STATUSES or error.code in RETRYABLE_CODES:
        return Verdict.RETRY
    return Verdict.FINAL


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a request is tried. All times are in seconds.

    A rejection for going over a rate limit (429) is not a failure of the request and does not count as an attempt. After
    one, `max_elapsed` counts from the last request that the service accepted under the same limit, if that was later than
    the first attempt of the rejected request. So a job larger than a minute's quota waits for the next minute, and it ends
    if the service accepts nothing under that limit for `max_elapsed`.

    ```python
    impatient = RetryPolicy(max_attempts=3, max_elapsed=20.0, max_backoff=2.0)
    client = EmbedClient("multilingual-e5-large", retry=impatient)
    ```

    Attributes:
        max_attempts: maximum number of attempts of a request; 1 for no retries.
        max_elapsed: how long after the first attempt a request may be tried again.
        initial_backoff: upper bound of the first wait, doubled with every failure ("full jitter": each wait is drawn
            uniformly from 0 to the bound). With 0, a request waits only if the service asks for it.
        max_backoff: maximum upper bound of such a wait.
        max_retry_after: maximum wait that the service's `Retry-After` can ask for.

    Raises:
        ConfigurationError: `max_attempts` is not an integer ≥ 1, or a time is not a number of seconds ≥ 0.
    """

    max_attempts: int = 8
    max_elapsed: float = 300.0
    initial_backoff: float = 0.5
    max_backoff: float = 20.0
    max_retry_after: float = 120.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_attempts", _checks.whole("max_attempts", self.max_attempts))
        for name in ("max_elapsed", "initial_backoff", "max_backoff", "max_retry_after"):
            object.__setattr__(self, name, _checks.seconds(name, getattr(self, name), may_be_0=True))

    def backoff(self, failures: int, error: EmbedError, random: Callable[[], float]) -> float:
        """Seconds to wait after the `failures`-th failure.

        Full jitter. A wait that the service asks for is extended by up to `initial_backoff`, so that requests that were
        rejected together are not retried together.

        Args:
            failures: failures so far, from 1.
            error: the last of them.
            random: draws uniformly from [0, 1).
        """
        return backoff_after(error, self, random).seconds(failures)


def backoff_after(error: EmbedError, policy: RetryPolicy, draw: Callable[[], float]) -> Backoff:
    """The wait after an error, according to a policy; `draw` draws uniformly from [0, 1)."""
    retry_after = error.retry_after if isinstance(error, ApiError) else None
    return Backoff(policy.initial_backoff, policy.max_backoff, draw, retry_after, policy.max_retry_after)


UNREACHED_SECONDS = 10.0
"""How long to try to make the first connection: long enough for a service or a network that is starting up."""

UNREADABLE_ANSWERS = 8
"""Number of consecutive unreadable answers, before any readable one, that ends the job: these cannot come from the
service."""


class FirstContact(msgspec.Struct):
    """Whether a client has reached its service; distinguishes a wrong set-up from transient errors.

    Until the service has answered, an error most likely means a wrong set-up, and every request would fail in all its
    attempts. After that, the error may come from a single bad node.

    Attributes:
        is_policy_given: whether the caller passed a retry policy, which then decides how often and how long to connect.
        is_connected: whether there has been a connection.
        is_answered: whether there has been an answer of any kind.
        is_understood: whether an answer could be read.
        unreadable: number of unreadable answers.
    """

    is_policy_given: bool = False
    is_connected: bool = False
    is_answered: bool = False
    is_understood: bool = False
    unreadable: int = 0

    def answered(self) -> None:
        """Record an answer that may or may not be readable."""
        self.is_connected = self.is_answered = True

    def record(self, error: EmbedError | None) -> None:
        """Record the error of an attempt; `None` for an answer that was read."""
        if error is None or (isinstance(error, ApiError) and error.code is not None):
            self.is_connected = self.is_answered = self.is_understood = True
        elif isinstance(error, TransportError):
            self.is_connected |= error.problem not in (ConnectionProblem.SETUP, ConnectionProblem.UNREACHED)
        elif isinstance(error, (ApiError, ResponseError)):
            self.answered()
            self.unreadable += isinstance(error, ResponseError)

    def is_hopeless(self, error: EmbedError) -> bool:
        """Whether every other request would fail with this error too."""
        if isinstance(error, TransportError):
            return error.problem is ConnectionProblem.SETUP and not self.is_answered and not self.is_policy_given
        if isinstance(error, ResponseError):
            return not self.is_understood and self.unreadable >= UNREADABLE_ANSWERS
        return False

    def is_unreached(self, error: EmbedError) -> bool:
        """Whether this is a failure to connect, and there has never been a connection."""
        could_not_connect = isinstance(error, TransportError) and error.problem is ConnectionProblem.UNREACHED
        return could_not_connect and not self.is_connected and not self.is_policy_given

    def mark_ends_job(self, error: EmbedError) -> None:
        """Mark an error as ending the job if it ends a request."""
        if isinstance(error, (TransportError, ResponseError)):
            error.ends_job = True
        if isinstance(error, ResponseError):
            error.args = (f"{error.message}; none of {self.unreadable} answers could be read: check base_url and the proxy",)


def record_failure(attempts: Attempts, error: EmbedError, contact: FirstContact) -> Verdict:
    """Record the error of an attempt, and return the verdict on it, which depends on `attempts` and `contact` too."""
    verdict = judge(error)
    if contact.is_hopeless(error):
        verdict = Verdict.FINAL
        contact.mark_ends_job(error)
    elif contact.is_unreached(error):
        # Marked now, in case this is the last error of the request.
        contact.mark_ends_job(error)
    elif is_stale_connection(attempts, error):
        verdict, attempts.was_retried_at_once = Verdict.AT_ONCE, True
    attempts.last_error = error
    error.attempts = attempts.attempts
    if verdict in (Verdict.RETRY, Verdict.AT_ONCE):
        attempts.failures += 1
    return verdict


def is_stale_connection(attempts: Attempts, error: EmbedError | None) -> bool:
    """Whether this is the first time that the request met a closed idle connection, which shows no overload."""
    was_idle = isinstance(error, TransportError) and error.problem is ConnectionProblem.IDLE
    return was_idle and not attempts.was_retried_at_once


def final_error(
    attempts: Attempts,
    policy: RetryPolicy,
    *,
    now: float,
    wait: float,
    last_acceptance: float | None,
    deadline: float | None,
    contact: FirstContact,
) -> EmbedError | None:
    """The error to end with instead of waiting `wait` seconds for another attempt; `None` to go on.

    Args:
        attempts: the attempts so far.
        policy: the bounds.
        now: the current time.
        wait: seconds until the next attempt would start.
        last_acceptance: when the service last accepted a request under the same limit.
        deadline: clock time at which the requests end; a wait that would reach it is not started.
        contact: whether the client has reached its service.
    """
    last = attempts.last_error
    if last is None or attempts.is_last or attempts.failures >= policy.max_attempts:
        return last
    if deadline is not None and now + wait >= deadline:
        # Other requests need not wait for the back-off of this one.
        is_asked = judge(last) is Verdict.RATE_LIMITED or (isinstance(last, ApiError) and last.retry_after is not None)
        message = f"the next attempt would start in {wait:.1f} s, after the deadline of the call"
        return attempts.out_of_time(message, wait if is_asked and wait > 0 else None)
    since = now if attempts.first_sent is None else attempts.first_sent
    if contact.is_unreached(last) and now + wait - since > UNREACHED_SECONDS:
        return last
    if judge(last) is Verdict.RATE_LIMITED and last_acceptance is not None:
        since = max(since, last_acceptance)
    return last if now + wait - since > policy.max_elapsed else None


class RetryBudget:
    """Slows a client down when most of its requests fail.

    Source: "Retry Throttling" in gRPC's proposal A6, a bucket that failures drain and successes fill, with `maxTokens` 100
    and `tokenRatio` 1. When the bucket is low, gRPC stops retrying; this client sends one request at a time instead.

    Attributes:
        tokens: tokens left, from 0 to `CAPACITY`.
    """

    CAPACITY = 100

    def __init__(self) -> None:
        self.tokens = self.CAPACITY

    def __repr__(self) -> str:
        return f"<RetryBudget {self.tokens}/{self.CAPACITY}{', low' if self.is_low else ''}>"

    @property
    def is_low(self) -> bool:
        """Whether less than half is left."""
        return self.tokens < self.CAPACITY / 2

    def record(self, error: EmbedError | None) -> None:
        """Record the outcome of an attempt; only failures of the service and of the connection count as failures."""
        if error is None:
            if self.tokens < self.CAPACITY:
                self.tokens += 1
        elif isinstance(error, (ServiceError, TransportError)):
            self.tokens = max(0, self.tokens - 1)
