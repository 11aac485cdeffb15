"""Permits, the requests for them, and the flows that these wait in."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    import asyncio

    from pinecone_embed_async._rate_limit.backoff import Backoff
    from pinecone_embed_async._rate_limit.concurrency import ConcurrencyLimiter
    from pinecone_embed_async._rate_limit.known_pause import KnownPause
    from pinecone_embed_async._rate_limit.quota import Key, Priority, QuotaGrant


class Flow:
    """Requests of one call or stream: first come, first served, with shares even to those of other flows.

    Args:
        concurrency: the concurrency limiter of its client and event loop.
        key: the model and input type its tokens count for; `None` if its requests cost none.
        priority: interactive work goes before bulk work.

    Attributes:
        group: flows of a group wait for the same things: if one of them has to wait, so do the others.
        waiting: its requests, in order; a dictionary, as it removes one in the middle as fast as the first.
        had: what it has had: on the scale of its group while listed there, otherwise on the common scale.
        shifted: the shift of its group when it was last listed there.
        entry: its place among the flows of its group; `None` while it is not listed there.
        in_flight: permits that have not ended: while there are some, it counts as present even if nothing waits.
        name: its name for a quota back end, once it was asked.
    """

    __slots__ = ("concurrency", "entry", "group", "had", "in_flight", "key", "name", "priority", "shifted", "waiting")

    def __init__(self, concurrency: ConcurrencyLimiter, key: Key | None, priority: Priority) -> None:
        self.concurrency = concurrency
        self.key = key
        self.priority: Priority = priority
        self.group = concurrency, key, priority
        self.waiting: OrderedDict[PermitRequest, None] = OrderedDict()
        self.had = 0.0
        self.shifted = 0.0
        self.entry: tuple[float, int, Flow] | None = None
        self.in_flight = 0
        self.name = ""

    def __repr__(self) -> str:
        return f"<Flow {self.priority}, {len(self.waiting)} waiting>"


class PermitRequest(msgspec.Struct, eq=False):
    """A request for a permit, which may have to wait.

    Attributes:
        flow: the flow it belongs to.
        want: estimated tokens of the whole request.
        least: tokens of the smallest request that can be cut off it.
        gate: the gate that it waits at.
        deadline: time from which on a permit is of no use.
        certain: tokens that the smallest request has at least, however wrong the estimates are.
        grant: the quota back end's grant; its tokens then count there.
        future: resolved once it has its permit, or is dismissed; `None` if nobody waits for that.
        permit: its permit; `None` before.
        pause: why it was dismissed: it surely gets no permit before its deadline; `None` if it was not.
    """

    flow: Flow
    want: int
    least: int
    gate: PermitGate
    deadline: float = math.inf
    certain: int = 0
    grant: QuotaGrant | None = None
    future: asyncio.Future[None] | None = None
    permit: Permit | None = None
    pause: KnownPause | None = None

    @property
    def key(self) -> Key | None:
        """The model and input type its tokens count for in this process."""
        return self.flow.key if self.grant is None else None


class Permit(msgspec.Struct, eq=False):
    """The right to have one request in flight. It is ended exactly once: accepted, rejected, failed or given back.

    Attributes:
        flow: the flow it belongs to.
        key: the model and input type its tokens count for in this process; `None` if none.
        tokens: maximum for the request; once it is cut, its actual tokens.
        at: time of the grant.
        is_probe: whether it exceeds a named limit, to probe whether that still holds.
        gate: the gate that it came through.
        grant: the quota back end's grant, until it is settled.
    """

    flow: Flow
    key: Key | None
    tokens: int
    at: float
    is_probe: bool
    gate: PermitGate
    grant: QuotaGrant | None = None

    def __repr__(self) -> str:
        return f"<Permit of {self.tokens} tokens>"

    def shrink(self, tokens: int) -> None:
        """Record that the request has fewer tokens than permitted."""
        if tokens != self.tokens:
            self.gate.shrink(self, tokens)

    def accepted(self, billed: int | None) -> None:
        """Record that the service accepted the request, and the tokens it billed if known."""
        self.gate.accepted(self, billed)

    def failed(self, *, is_overload: bool) -> None:
        """Record that the request failed for another reason than a limit, and whether the service is overloaded."""
        self.gate.failed(self, is_overload=is_overload)

    def rejected(self, message: str, backoff: Backoff) -> float | None:
        """Record that the service rejected the request because of a limit.

        Args:
            message: message of the rejection, which may name the limit.
            backoff: how long to pause by the number of bursts of rejections without an acceptance.

        Returns:
            Seconds of the pause that this rejection starts; `None` if it starts none or one is in progress.
        """
        return self.gate.rejected(self, message, backoff)

    def give_back(self) -> None:
        """Give the permit back unused."""
        self.gate.give_back(self)


class PermitGate(Protocol):
    """Where permits come from and go back to; see `Permit` for each."""

    def shrink(self, permit: Permit, tokens: int) -> None: ...
    def accepted(self, permit: Permit, billed: int | None) -> None: ...
    def failed(self, permit: Permit, *, is_overload: bool) -> None: ...
    def rejected(self, permit: Permit, message: str, backoff: Backoff) -> float | None: ...
    def give_back(self, permit: Permit) -> None: ...
