"""The figures of a running job and their formats. Pure."""

from dataclasses import dataclass, replace

from pinecone_embed_async import Progress, Statistics


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a run has come.

    Attributes:
        done: Inputs embedded.
        failed: Inputs that failed.
        total: Inputs of the run; `None` until that is known.
        duplicates: Inputs not sent because another has the same text, and not copied yet.
        requests: Requests answered.
        tokens: Tokens billed.
        retries: Requests sent again.
        quota: The quota in tokens per minute; `None` until that is known.
        is_waiting: Whether requests are waiting for the quota now.
        waited: Seconds during which requests waited for the quota.
        skipped: Inputs that cannot be embedded and were left out.
    """

    done: int
    failed: int
    total: int | None
    duplicates: int = 0
    requests: int = 0
    tokens: int = 0
    retries: int = 0
    quota: int | None = None
    is_waiting: bool = False
    waited: float = 0.0
    skipped: int = 0

    @property
    def settled(self) -> int:
        """Inputs that are embedded, failed or left out."""
        return self.done + self.failed + self.skipped


def with_quota(advance: Advance, statistics: Statistics | None) -> Advance:
    """Add a client's quota to an advance; may be called from any thread."""
    quotas = () if statistics is None else statistics.quotas
    limits = [quota.limit * 60 / quota.window for quota in quotas if quota.limit is not None]
    return replace(
        advance,
        quota=round(sum(limits)) if limits else None,
        is_waiting=any(quota.is_waiting for quota in quotas),
        waited=round(sum(quota.waited for quota in quotas), 1),
    )


def advance_of(progress: Progress) -> Advance:
    """The progress of a client's call as an `Advance`."""
    return Advance(
        progress.done,
        progress.failed,
        progress.total,
        requests=progress.requests,
        tokens=progress.tokens,
        retries=progress.retries,
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a run.

    Attributes:
        inputs: Inputs per second.
        tokens: Tokens per minute.
        left: Seconds until everything is sent and answered; `None` while that is not known.
    """

    inputs: float
    tokens: float
    left: float | None


def pace(start: Advance, now: Advance, seconds: float) -> Pace:
    """The pace since `start`, which was `seconds` ago."""
    settled = now.settled
    rate = max(0, settled - start.settled) / max(seconds, 1e-9)
    # Duplicates do not count, since copying takes almost no time.
    left = None if now.total is None or not rate else max(0, now.total - now.duplicates - settled) / rate
    return Pace(rate, 60 * (now.tokens - start.tokens) / max(seconds, 1e-9), left)


def of_quota(progress: Advance) -> str:
    """The quota in tokens per minute, as a suffix; empty if it is not known."""
    return "" if progress.quota is None else f" of {progress.quota:,}"


def waited(seconds: float) -> str:
    """A summary's note on the time spent waiting for the quota; empty if it was under a second."""
    return f" ({duration(seconds)} waiting for the quota)" if seconds >= 1 else ""


def priced(tokens: int, price: float | None) -> str:
    """A summary's note on the price of the tokens; empty if no price is given."""
    return "" if price is None else f", price {tokens * price / 1e6:,.2f}"


def settled(progress: Advance) -> str:
    """The number of settled inputs, with the total if it is known."""
    return f"{progress.settled:,}" if progress.total is None else f"{progress.settled:,}/{progress.total:,}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def duration(seconds: float) -> str:
    """A duration as text, coarser the longer it is."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {whole} s" if whole else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"
