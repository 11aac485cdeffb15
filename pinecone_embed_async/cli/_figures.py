"""The figures of a run under way and how they are written. Plain decisions."""

from dataclasses import dataclass, replace

from pinecone_embed_async import Progress, Statistics


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a run has come.

    Attributes:
        done: Inputs embedded.
        failed: Inputs that failed.
        total: Inputs of the run; `None` while that is not known.
        duplicates: Inputs that are not sent, for another has the same text, and are not copied yet.
        requests: Requests answered.
        tokens: Tokens billed.
        retries: Requests sent again.
        quota: The quota's tokens a minute; `None` while that is not known.
        is_waiting: Whether requests wait for the quota now.
        waited: Seconds in which requests waited for the quota.
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
    """How far a call of the client has come."""
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
        inputs: Inputs a second.
        tokens: Tokens a minute.
        left: Seconds until all is sent and answered; `None` while that is not known.
    """

    inputs: float
    tokens: float
    left: float | None


def pace(start: Advance, now: Advance, seconds: float) -> Pace:
    """The pace since `start`, `seconds` ago."""
    settled = now.settled
    rate = max(0, settled - start.settled) / max(seconds, 1e-9)
    # Copying takes next to no time.
    left = None if now.total is None or not rate else max(0, now.total - now.duplicates - settled) / rate
    return Pace(rate, 60 * (now.tokens - start.tokens) / max(seconds, 1e-9), left)


def of_quota(progress: Advance) -> str:
    """How many tokens a minute the quota has, if that is known."""
    return "" if progress.quota is None else f" of {progress.quota:,}"


def waited(seconds: float) -> str:
    """A summary's note on the time spent waiting for the quota; empty if there was hardly any."""
    return f" ({duration(seconds)} waiting for the quota)" if seconds >= 1 else ""


def priced(tokens: int, price: float | None) -> str:
    """A summary's note on what tokens cost; empty if no price is given."""
    return "" if price is None else f", price {tokens * price / 1e6:,.2f}"


def settled(progress: Advance) -> str:
    """How many inputs are settled, of how many if that is known."""
    return f"{progress.settled:,}" if progress.total is None else f"{progress.settled:,}/{progress.total:,}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number and what it counts."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def duration(seconds: float) -> str:
    """A length of time, the coarser the longer."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {whole} s" if whole else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"
