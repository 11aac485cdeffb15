"""The quotas of the emulated service. Pure, with the time passed in."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceQuota:
    """The limits of a project; by default there are none.

    The service documents 250,000 to 3,000,000 tokens per minute, 100 requests per second, 2,000 requests per minute and, on
    the smaller plans, 5,000,000 or 10,000,000 tokens per month. It does not document whether a minute is a fixed window, a
    sliding window, or a bucket that refills evenly.

    Attributes:
        tokens_per_window: Tokens per window for each pair of model and input type. A mapping sets the limit for each input
            type; input types that are not in it have no limit.
        requests_per_second: The project's requests per second.
        requests_per_window: The project's requests per window.
        tokens_per_month: Total tokens of each model; never refilled.
        window: Length of a window in seconds.
        kind: `fixed` windows follow one another from the first request on; a `sliding` window ends now; a `bucket` of tokens
            starts full and refills evenly, by `tokens_per_window` per window, while requests are counted in sliding windows.
        burst: Most tokens a bucket holds. `None` for a whole window's, as in a token bucket; a small number for a leaky
            bucket, which accepts only small bursts.
        text: Whether refusals have a message that names the limit.
        retry_after: Whether refusals have `Retry-After`, in seconds or as an HTTP date. The monthly limit's never do.
    """

    tokens_per_window: int | Mapping[str, int] | None = None
    requests_per_second: int | None = None
    requests_per_window: int | None = None
    tokens_per_month: int | None = None
    window: float = 60.0
    kind: Literal["fixed", "sliding", "bucket"] = "fixed"
    burst: int | None = None
    text: bool = True
    retry_after: Literal["seconds", "date"] | None = None

    def __post_init__(self) -> None:
        """Check the window and the burst.

        Raises:
            ValueError: `window` is not a positive finite number, or `burst` is below 1 or given without a bucket.
        """
        if not (self.window > 0 and math.isfinite(self.window)):
            raise ValueError(f"window must be a positive number of seconds, not {self.window!r}")
        if self.burst is not None and self.burst < 1:
            raise ValueError(f"burst must be at least 1 token, not {self.burst!r}")
        if self.burst is not None and self.kind != "bucket":
            raise ValueError(f"burst requires the kind 'bucket', not {self.kind!r}")

    def token_limit(self, input_type: str) -> int | None:
        """The tokens per window for an input type; `None` for no limit."""
        limit = self.tokens_per_window
        if limit is None or isinstance(limit, int):
            return limit
        return limit.get(input_type)


@dataclass(frozen=True, slots=True)
class QuotaRefusal:
    """Why a request is refused.

    Attributes:
        message: The documented message, with the limit in it.
        wait: Seconds until the request would be accepted if no other arrived; `None` if it never would.
    """

    message: str
    wait: float | None


@dataclass(slots=True)
class _Usage:
    """Charges to one limit, with their times in seconds, oldest first, and the missing tokens of a bucket.

    A bucket uses fractions, so that many small refills add up to exactly one large refill.
    """

    charges: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0
    missing: Fraction = Fraction(0)
    refilled_at: float = 0.0

    def charge(self, now: float, amount: int) -> None:
        self.charges.append((now, amount))
        self.total += amount
        self.missing += amount

    def refill(self, now: float, limit: int, window: float) -> None:
        """Refill the bucket for the time since the last refill, at `limit` per `window`."""
        if self.missing:
            passed = Fraction(now) - Fraction(self.refilled_at)
            self.missing = max(Fraction(0), self.missing - passed * limit / Fraction(window))
        self.refilled_at = now

    def wait_for_bucket(self, now: float, amount: int, limit: int, window: float, burst: int) -> float:
        """Return the seconds until a bucket of size `burst` holds `amount`: 0 if it does, infinity if it never will."""
        # Older charges would not count in a window either, should the kind change.
        self._forget(now - window)
        lacks = self.missing + amount - burst
        if lacks <= 0:
            return 0.0
        if amount > burst or not limit:
            return math.inf
        due = Fraction(now) + lacks * Fraction(window) / limit
        wait = float(due - Fraction(now))
        while Fraction(now + wait) < due:
            wait += math.ulp(now + wait)
        return wait

    def wait(self, now: float, amount: int, limit: int, window: float, anchor: float | None) -> float:
        """Return the seconds until `amount` fits: 0 if it fits now, infinity if it never does.

        With an `anchor`, the windows are fixed and follow one another from there.
        """
        start = now - window if anchor is None else anchor + math.floor((now - anchor) / window) * window
        self._forget(start if anchor is None else math.nextafter(start, -math.inf))
        if self.total + amount <= limit:
            return 0.0
        if amount > limit:
            return math.inf
        if anchor is not None:
            return start + window - now
        used = self.total
        for time, charged in self.charges:
            used -= charged
            if used + amount <= limit:
                return time + window - now
        return math.inf

    def _forget(self, until: float) -> None:
        while self.charges and self.charges[0][0] <= until:
            self.total -= self.charges.popleft()[1]


class QuotaLedger:
    """Decides whether a request is within a quota and, if so, charges it.

    A refused request is not charged. The quota may change between calls; earlier charges to a limit continue to count.
    """

    def __init__(self) -> None:
        self._anchor: float | None = None
        self._tokens: dict[tuple[str, str], _Usage] = {}
        self._months: dict[str, int] = {}
        self._seconds = _Usage()
        self._windows = _Usage()

    def decide(self, quota: ServiceQuota, now: float, model: str, input_type: str, tokens: int) -> QuotaRefusal | None:
        """Charge a request, or return why it is refused.

        Args:
            quota: The present limits.
            now: The time in seconds, from a clock that never goes backwards.
            model: The model's name.
            input_type: The input type; empty for a model without one.
            tokens: Total tokens of all inputs.
        """
        if self._anchor is None:
            self._anchor = now
        anchor = self._anchor if quota.kind == "fixed" else None
        usage = self._tokens.setdefault((model, input_type), _Usage())
        limits = (
            (self._seconds, 1, quota.requests_per_second, 1.0),
            (self._windows, 1, quota.requests_per_window, quota.window),
            (usage, tokens, quota.token_limit(input_type), quota.window),
        )
        month = quota.tokens_per_month
        spent = self._months.get(model, 0)
        if month is not None and spent + tokens > month:
            return QuotaRefusal(tokens_per_month_text(month, model), wait=None)
        for one, amount, limit, window in limits:
            if limit is None:
                continue
            wait = (
                _token_wait(usage, now, tokens, limit, quota, anchor)
                if one is usage
                else one.wait(now, amount, limit, window, anchor)
            )
            if wait:
                if one is self._seconds:
                    message = requests_per_second_text(limit)
                elif one is self._windows:
                    message = requests_per_minute_text(limit)
                else:
                    message = tokens_per_minute_text(limit, model, input_type)
                return QuotaRefusal(message, wait=None if math.isinf(wait) else wait)
        for one, amount, limit, _ in limits:
            if limit is not None:
                one.charge(now, amount)
        self._months[model] = spent + tokens
        return None


def _token_wait(usage: _Usage, now: float, tokens: int, limit: int, quota: ServiceQuota, anchor: float | None) -> float:
    # For every kind, so that earlier charges still count correctly if the kind becomes `bucket`.
    usage.refill(now, limit, quota.window)
    if quota.kind != "bucket":
        return usage.wait(now, tokens, limit, quota.window, anchor)
    return usage.wait_for_bucket(now, tokens, limit, quota.window, limit if quota.burst is None else quota.burst)


# The messages are those of the service's documentation, where it has them.


def tokens_per_minute_text(limit: int, model: str, input_type: str) -> str:
    """The documented message for tokens per minute."""
    return (
        f"Request failed. You've reached the max embedding tokens per minute ({limit}) model '{model}' and input "
        f"type '{input_type}' for the current project. To increase this limit, upgrade your plan."
    )


def tokens_per_month_text(limit: int, model: str) -> str:
    """The documented message for tokens per month."""
    return (
        f"Request failed. You've reached the embedding token limit ({limit}) for model {model} for the current month. "
        "To continue using this model, upgrade your plan."
    )


def requests_per_second_text(limit: int) -> str:
    """The documented message for requests per second."""
    return f"Request failed. You've reached the max inference requests per second ({limit}) for the current project."


def requests_per_minute_text(limit: int) -> str:
    """A message for requests per minute, modelled on the documented one for requests per second."""
    return f"Request failed. You've reached the max inference requests per minute ({limit}) for the current project."
