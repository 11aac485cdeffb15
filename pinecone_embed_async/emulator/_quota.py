"""The quotas of the emulated service: pure decisions, with the clock passed in."""

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
    """The limits of one project, all off unless given.

    The service documents 250,000 to 3,000,000 tokens a minute, 100 requests a second, 2,000 a minute, and 5,000,000 or
    10,000,000 tokens a month on the smaller plans; whether its minute is fixed, sliding, or a bucket that refills evenly is
    not documented.

    Attributes:
        tokens_per_window: Tokens per window for each pair of model and input type; a mapping gives each input type its own
            limit, and none to an input type that it leaves out.
        requests_per_second: Requests per second of the project.
        requests_per_window: Requests per window of the project.
        tokens_per_month: Tokens of each model in all; never refilled.
        window: Seconds of a window.
        kind: `fixed` windows follow each other from the first request on; a `sliding` window ends now; a `bucket` of tokens
            is full at first and refills evenly, by `tokens_per_window` in a window. Requests are in sliding windows then.
        burst: Tokens that a bucket holds at most: `None` for those of a whole window, as in a token bucket; few, for a leaky
            bucket, which hardly takes more at once than it lets through.
        text: Whether refusals say in a message which limit was reached.
        retry_after: Whether refusals carry `Retry-After`, as seconds or as an HTTP date. The month's never does.
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
            ValueError: If `window` is not a positive finite number, or `burst` is below 1 or given for windows.
        """
        if not (self.window > 0 and math.isfinite(self.window)):
            raise ValueError(f"window must be a positive number of seconds, not {self.window!r}")
        if self.burst is not None and self.burst < 1:
            raise ValueError(f"burst must be a number of tokens from 1, not {self.burst!r}")
        if self.burst is not None and self.kind != "bucket":
            raise ValueError(f"burst is for the kind 'bucket', not {self.kind!r}")

    def token_limit(self, input_type: str) -> int | None:
        """Return the tokens per window for an input type, `None` if there is no limit."""
        limit = self.tokens_per_window
        if limit is None or isinstance(limit, int):
            return limit
        return limit.get(input_type)


@dataclass(frozen=True, slots=True)
class QuotaRefusal:
    """Why a request is refused.

    Attributes:
        message: The documented text, with the limit in it.
        wait: Seconds after which the same request would be accepted if nothing else came; `None` if it never would.
    """

    message: str
    wait: float | None


@dataclass(slots=True)
class _Usage:
    """Charges to one limit: times in seconds and amounts, oldest first; and a bucket's missing tokens.

    A bucket is counted in fractions, so that it is as full after many small refills as after a large one.
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
        """Refill the bucket for the time since the last refill, by `limit` in a `window`."""
        if self.missing:
            passed = Fraction(now) - Fraction(self.refilled_at)
            self.missing = max(Fraction(0), self.missing - passed * limit / Fraction(window))
        self.refilled_at = now

    def wait_for_bucket(self, now: float, amount: int, limit: int, window: float, burst: int) -> float:
        """Return the seconds until a bucket of `burst` has `amount`, 0 if it has, infinity if it never will."""
        # Older charges count neither here nor in a window, should the kind change.
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
        """Return the seconds until `amount` fits, 0 if it fits now, infinity if it never does.

        With an `anchor` the windows are fixed and follow each other from there.
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
    """Decides whether a request is within a quota, and charges it if it is.

    A refused request is not charged. The quota may differ with every call: earlier charges to a limit keep
    counting.
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
            quota: The limits that hold now.
            now: The time in seconds, on a clock that does not go backwards.
            model: The model's name.
            input_type: The input type, empty for a model without one.
            tokens: The tokens of all inputs together.
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
    # Also while there are windows, so that charges keep counting if the kind changes.
    usage.refill(now, limit, quota.window)
    if quota.kind != "bucket":
        return usage.wait(now, tokens, limit, quota.window, anchor)
    return usage.wait_for_bucket(now, tokens, limit, quota.window, limit if quota.burst is None else quota.burst)


# The texts are those of the service's documentation, as far as it has them.


def tokens_per_minute_text(limit: int, model: str, input_type: str) -> str:
    """Write the documented text for the tokens of a minute."""
    return (
        f"Request failed. You've reached the max embedding tokens per minute ({limit}) model '{model}' and input "
        f"type '{input_type}' for the current project. To increase this limit, upgrade your plan."
    )


def tokens_per_month_text(limit: int, model: str) -> str:
    """Write the documented text for the tokens of a month."""
    return (
        f"Request failed. You've reached the embedding token limit ({limit}) for model {model} for the current month. "
        "To continue using this model, upgrade your plan."
    )


def requests_per_second_text(limit: int) -> str:
    """Write the documented text for the requests of a second."""
    return f"Request failed. You've reached the max inference requests per second ({limit}) for the current project."


def requests_per_minute_text(limit: int) -> str:
    """Write a text for the requests of a minute, after the documented one for those of a second."""
    return f"Request failed. You've reached the max inference requests per minute ({limit}) for the current project."
