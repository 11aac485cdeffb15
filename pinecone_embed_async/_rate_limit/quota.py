"""The quota that the caller passes, its statistics, and the protocol of quota back ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import msgspec

from pinecone_embed_async import _checks
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._models import KNOWN_MODELS, PLANS, QUOTA_WINDOW, tokens_per_minute

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pinecone_embed_async._wire import VectorType

PlanName = Literal["starter", "builder", "standard", "enterprise"]

Priority = Literal["interactive", "bulk"]

OutcomeKind = Literal["accepted", "rejected", "failed", "unused"]

Key = tuple[str, str]
"""The model and input type that tokens count for."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The rate limits to stay under.

    Tokens count separately for each model and input type, requests count for all together. Limits that are `None` are
    learned from the service's rejections.

    ```python
    half_of_a_plan = Quota(500_000, requests_per_second=50, requests_per_minute=1000)
    client = EmbedClient("multilingual-e5-large", quota=half_of_a_plan)
    ```

    Attributes:
        tokens_per_minute: tokens per window.
        requests_per_second: requests per second. Source of the default: the limits in the service's documentation (2025-10).
        requests_per_minute: requests per window. Source: the same.
        window: length of a window in seconds: 60 at the service, possibly less at an emulator.

    Raises:
        ConfigurationError: a limit is not an integer ≥ 1, or `window` is not a number of seconds > 0.
    """

    tokens_per_minute: int | None = None
    requests_per_second: int | None = 100
    requests_per_minute: int | None = 2000
    window: float = QUOTA_WINDOW

    def __post_init__(self) -> None:
        for name in ("tokens_per_minute", "requests_per_second", "requests_per_minute"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checks.whole(name, value, ", or None to learn it"))
        object.__setattr__(self, "window", _checks.seconds("window", self.window))


class LimiterOptions(msgspec.Struct, frozen=True):
    """The known limits of a quota; `None` for a limit to be learned.

    Attributes:
        tokens_per_minute: tokens per window of each model and input type, without a plan.
        requests_per_second: requests per second of the project.
        requests_per_minute: requests per window of the project.
        window: length of a window in seconds.
        plan: the plan that gives the tokens; `None` if none does.
        vector_type: vector type of models that this package does not know.
    """

    tokens_per_minute: int | None = None
    requests_per_second: int | None = None
    requests_per_minute: int | None = None
    window: float = QUOTA_WINDOW
    plan: str | None = None
    vector_type: VectorType | None = None

    def tokens(self, key: Key) -> int | None:
        """Tokens per window of a model and input type."""
        if self.plan is None:
            return self.tokens_per_minute
        known = KNOWN_MODELS.get(key[0])
        return tokens_per_minute(self.plan, self.vector_type if known is None else known.vector_type, key[1])


def limiter_options(quota: object, vector_type: VectorType | None = None) -> LimiterOptions:
    """The limiter options of a quota.

    Args:
        quota: a `Quota`, tokens per minute, the name of a plan, or `None` to learn everything.
        vector_type: vector type of models that this package does not know.

    Raises:
        ConfigurationError: `quota` is none of these.
    """
    if quota is None:
        return LimiterOptions()
    if isinstance(quota, str) and quota in PLANS:
        return msgspec.structs.replace(limiter_options(Quota()), plan=quota, vector_type=vector_type)
    if _checks.as_integer(quota) is not None:
        quota = Quota(_checks.whole("quota", quota))
    if not isinstance(quota, Quota):
        plans = ", ".join(f'"{name}"' for name in PLANS)
        got = _checks.short(quota) if isinstance(quota, str) else type(quota).__name__
        raise ConfigurationError(
            f"quota must be {plans}, a number of tokens per minute, a Quota or a SharedQuota, got {got}"
        )
    return LimiterOptions(quota.tokens_per_minute, quota.requests_per_second, quota.requests_per_minute, quota.window)


@dataclass(frozen=True, slots=True)
class QuotaDemand:
    """A request's demand on a quota.

    Attributes:
        model: name of the model.
        input_type: `""` if the request carries none.
        tokens: estimated tokens of the whole request.
        least: tokens of the smallest request that can be cut from it.
        priority: interactive requests go before bulk ones.
        flow: requests of one flow are served in order; flows share evenly.
        within: seconds after which a grant is useless; `None` for never. A back end that knows of a longer pause may raise a
            `DeadlineExceededError` with the `retry_after` of that pause.

    Raises:
        ConfigurationError: `tokens` or `least` is not an integer ≥ 1, `least` is larger than `tokens`, the priority is
            unknown, the flow is not hashable, or `within` is not a number of seconds ≥ 0.
    """

    model: str
    input_type: str
    tokens: int
    least: int
    priority: Priority = "bulk"
    flow: Hashable = None
    within: float | None = None

    def __post_init__(self) -> None:
        for name in ("model", "input_type"):
            object.__setattr__(self, name, _checks.text(name, getattr(self, name)))
        for name in ("tokens", "least"):
            object.__setattr__(self, name, _checks.whole(name, getattr(self, name)))
        if self.least > self.tokens:
            raise ConfigurationError(f"least must be at most tokens, which is {self.tokens}, got {self.least}")
        object.__setattr__(self, "priority", _checks.one_of("priority", self.priority, get_args(Priority)))
        try:
            hash(self.flow)
        except TypeError:
            raise ConfigurationError(f"flow must be hashable, such as a text, got {type(self.flow).__name__}") from None
        if self.within is not None:
            object.__setattr__(self, "within", _checks.seconds("within", self.within, may_be_0=True))


@dataclass(frozen=True, slots=True, eq=False)
class QuotaGrant:
    """The right to send one request now.

    Attributes:
        tokens: maximum number of tokens of the request, which is cut to it; not more than it asked for.
        ticket: identifies the grant for the back end.
    """

    tokens: int
    ticket: Any = None


@dataclass(frozen=True, slots=True)
class QuotaOutcome:
    """The outcome of a request that was granted.

    Attributes:
        kind: `"accepted"` by the service; `"rejected"` because of a limit; `"failed"` for another reason, in which case the
            service may have counted the request; `"unused"` if it was not sent.
        tokens: tokens billed, or, if none were, the tokens of the request; 0 if unused.
        message: message of a rejection, which may name the limit; otherwise empty.
        retry_after: seconds to wait that a rejection asked for; `None` if it did not.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    kind: OutcomeKind
    tokens: int
    message: str = ""
    retry_after: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", _checks.one_of("kind", self.kind, get_args(OutcomeKind)))
        object.__setattr__(self, "tokens", _checks.whole("tokens", self.tokens, least=0))
        object.__setattr__(self, "message", _checks.text("message", self.message))
        if self.retry_after is not None:
            object.__setattr__(self, "retry_after", _checks.seconds("retry_after", self.retry_after, may_be_0=True))


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """The token limit of a model and input type, and its usage.

    Attributes:
        model: name of the model.
        input_type: `""` if requests carry none.
        limit: tokens per window; `None` if unknown.
        source: source of the limit: `"given"`, `"named"` by a rejection, `"found"` by trial, or `"unknown"`.
        used: tokens that count now, including those of requests in flight.
        window: length of a window in seconds.
        waiting: number of requests waiting for a permit.
        is_waiting: whether they wait for this limit, rather than for requests in flight to end.
        waited: seconds during which requests had to wait for the limit.
        rejections: number of requests that the service rejected.
        paused: remaining seconds of the pause after a rejection.
    """

    model: str
    input_type: str
    limit: int | None
    source: str
    used: int
    window: float
    waiting: int
    is_waiting: bool
    waited: float
    rejections: int
    paused: float


class QuotaBackend(Protocol):
    """A source of grants for one quota: a `SharedQuota`, a `SqliteQuota`, or your own, such as a server in a cluster."""

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        """Wait for the right to send a request.

        Raises:
            asyncio.CancelledError: the caller was cancelled and has no grant.
            DeadlineExceededError: optional: no grant can come `within` the time of the demand.
        """

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Report the outcome of a request, exactly once per grant. Not a coroutine, because the call may be cancelled."""
