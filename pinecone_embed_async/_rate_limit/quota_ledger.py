"""The ledger of a quota that several processes share: a limiter driven by numbered steps, which all processes apply."""

from __future__ import annotations

import io
import math
import pickle
from typing import TYPE_CHECKING, Any

import msgspec

from pinecone_embed_async._rate_limit.concurrency import ConcurrencyLimiter
from pinecone_embed_async._rate_limit.limiter import Limiter
from pinecone_embed_async._rate_limit.pauses import Backoff
from pinecone_embed_async._rate_limit.permit import Flow, LimiterPermit
from pinecone_embed_async._rate_limit.quota import OutcomeKind, Priority  # noqa: TC001 - msgspec reads them
from pinecone_embed_async._rate_limit.rejections import NamedLimit  # noqa: TC001 - msgspec reads it
from pinecone_embed_async._rate_limit.shared_quota import (
    INITIAL_PAUSE,
    LONGEST_ASKED_PAUSE,
    LONGEST_PAUSE,
    MOST_FLOWS,
    NO_LIMIT,
)

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit.quota import Key, LimiterOptions


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """A member asks for a permit.

    Attributes:
        number: number that the member gave the request.
        model: name of the model.
        input_type: `""` if the request carries none.
        tokens: estimated tokens of the whole request.
        least: tokens of the smallest request that can be cut from it.
        priority: interactive requests go before bulk ones.
        flow: number that the member gave the flow.
    """

    number: int
    model: str
    input_type: str
    tokens: int
    least: int
    priority: Priority
    flow: int


class End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    """A member's request has ended or is withdrawn. The entry has no effect if the request is unknown.

    Attributes:
        number: number that the member gave the request.
        kind: as in `QuotaOutcome`.
        tokens: tokens billed if it was accepted.
        named: the limit that a rejection named.
        retry_after: seconds to wait that a rejection asked for.
        draw: random number from [0, 1) for the jitter of a pause, so that it is the same in all processes.
    """

    number: int
    kind: OutcomeKind
    tokens: int = 0
    named: NamedLimit | None = None
    retry_after: float | None = None
    draw: float = 0.0


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    """A member has ended. Its waiting requests are withdrawn, and permits it never took come back; others count as used.

    Attributes:
        member: number of the member.
    """

    member: int


Entry = Ask | End | Gone


class Step(msgspec.Struct, frozen=True, array_like=True):
    """The entries that a member makes in the ledger at once.

    Attributes:
        member: number of the member.
        at: time in seconds; never earlier than that of the step before.
        entries: the entries, in order.
    """

    member: int
    at: float
    entries: tuple[Entry, ...] = ()


Grant = tuple[int, int, int]
"""The number of a member, the number that it gave the request, and the tokens granted."""


class StepResult(msgspec.Struct, frozen=True):
    """The result of a step.

    Attributes:
        granted: permits granted by the step, to any members.
        taken: number and tokens of the permits that the step's member takes; requests are not sent before that.
        found: limits found by trial; only the first one of each model and input type.
    """

    granted: list[Grant] = []
    taken: list[tuple[int, int]] = []
    found: list[tuple[Key, int]] = []


class _MemberPermit(LimiterPermit):
    """A member's permit.

    Attributes:
        member: number of the member.
        number: number that the member gave the request.
        is_taken: whether the member has taken the permit, so that the request may have been sent.
    """

    member: int = 0
    number: int = 0
    is_taken: bool = False


class QuotaLedger:
    """A `Limiter` for several processes, the members. Plain synchronous code that gets the time passed in.

    Each process applies the same steps in the same order to its own ledger, and so comes to the same decisions. Nothing in a
    ledger depends on the process: no clock, no randomness, no hash order.

    A granted permit is first reserved; the member takes it with its next step. If the member dies before that, it cannot
    have sent anything, so the permit comes back at once. If it dies later, the permit counts as billed for one window.

    Args:
        options: the known limits of the quota.
        opens: time before which nothing is granted.

    Attributes:
        limiter: decides; to be changed only by steps.
        at: time of the last step; minus infinity before the first.
    """

    def __init__(self, options: LimiterOptions, opens: float = -math.inf) -> None:
        # Before the limiter, because flows and their permits refer to each other and can only be pickled from here.
        self._flows: dict[tuple[int, int, Key, Priority], Flow] = {}
        self._members: dict[int, dict[int, _MemberPermit]] = {}
        self._untaken: dict[int, list[_MemberPermit]] = {}
        # No limit on requests in flight, because each client has its own.
        self._concurrency = ConcurrencyLimiter(NO_LIMIT)
        self.limiter = Limiter(options, opens)
        self.at = -math.inf

    def __repr__(self) -> str:
        return f"<QuotaLedger of {len(self._members)} members, {self.limiter!r}>"

    def has_untaken(self, member: int) -> bool:
        """Whether a member was granted permits that it has not taken yet."""
        return member in self._untaken

    def apply(self, step: Step) -> StepResult:
        """Apply a step."""
        self.at = step.at
        found: list[tuple[Key, int]] = []
        for entry in step.entries:
            if isinstance(entry, Ask):
                self._ask(step, entry)
            elif isinstance(entry, Gone):
                self._gone(entry.member)
            else:
                found += self._end(step.member, entry)
        self.limiter.dispatch(self.at)
        granted = self._granted()
        taken = []
        for permit in self._untaken.pop(step.member, ()):
            # The request may have ended since the permit was granted.
            if permit.number in self._members.get(step.member, ()):
                permit.is_taken = True
                taken.append((permit.number, permit.tokens))
        return StepResult(granted, taken, found)

    def dump(self) -> bytes:
        """The whole state, pickled."""
        return pickle.dumps(self, protocol=5)

    @staticmethod
    def load(state: bytes) -> QuotaLedger:
        """The ledger of a state.

        Raises:
            pickle.UnpicklingError: it is no state of a ledger.
        """
        try:
            ledger = _Reader(io.BytesIO(state)).load()
        except Exception as error:
            # Damaged data may raise any exception.
            raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
        if not isinstance(ledger, QuotaLedger):
            raise pickle.UnpicklingError(f"the state must be a ledger, got a {type(ledger).__name__}")
        return ledger

    def _granted(self) -> list[Grant]:
        granted = []
        for permit in self.limiter.decided:
            # Permits of a member that is gone have been given back.
            if isinstance(permit, _MemberPermit) and permit.member in self._members:
                self._untaken.setdefault(permit.member, []).append(permit)
                granted.append((permit.member, permit.number, permit.tokens))
        self.limiter.decided.clear()
        return granted

    def _ask(self, step: Step, entry: Ask) -> None:
        key: Key = (entry.model, entry.input_type)
        flow = self._flow((step.member, entry.flow, key, entry.priority))
        permit = _MemberPermit(flow, key, entry.tokens, entry.least, member=step.member, number=entry.number)
        self._members.setdefault(step.member, {})[entry.number] = permit
        self.limiter.enqueue(permit, self.at)

    def _end(self, member: int, entry: End) -> list[tuple[Key, int]]:
        permits = self._members.get(member, {})
        permit = permits.pop(entry.number, None)
        if permit is None:
            return []
        if not permits:
            del self._members[member]
        limiter = self.limiter
        if not permit.is_granted or entry.kind == "unused":
            limiter.give_back(permit, self.at)
        elif entry.kind == "accepted":
            found = limiter.accepted(permit, entry.tokens, self.at)
            return [] if found is None else [found]
        elif entry.kind == "rejected":
            backoff = Backoff(INITIAL_PAUSE, LONGEST_PAUSE, lambda: entry.draw, entry.retry_after, LONGEST_ASKED_PAUSE)
            limiter.rejected(permit, entry.named, backoff, self.at)
        else:
            limiter.failed(permit, self.at, is_overload=False)
        return []

    def _gone(self, member: int) -> None:
        permits = self._members.pop(member, {}).values()
        self._untaken.pop(member, None)
        # Waiting requests first, so that they are not granted the permits that come back.
        for permit in sorted(permits, key=lambda permit: permit.is_granted):
            if permit.is_taken:
                self.limiter.failed(permit, self.at, is_overload=False)
            else:
                self.limiter.give_back(permit, self.at)
        self._flows = {name: flow for name, flow in self._flows.items() if name[0] != member}

    def _flow(self, name: tuple[int, int, Key, Priority]) -> Flow:
        if name not in self._flows and len(self._flows) >= MOST_FLOWS:
            # A forgotten flow still works for its requests in flight.
            self._flows = {name: flow for name, flow in self._flows.items() if flow.waiting}
        _, _, key, priority = name
        return self._flows.setdefault(name, Flow(self._concurrency, key, priority))


_BUILT_IN = {("collections", "deque"), ("collections", "OrderedDict")}


class _Reader(pickle.Unpickler):
    """Reads a pickled ledger; allows only classes of this folder and two containers."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        is_ours = module_name.startswith(f"{__name__.rpartition('.')[0]}.") and "." not in global_name
        if is_ours or (module_name, global_name) in _BUILT_IN:
            found = super().find_class(module_name, global_name)
            # Classes that a module has only imported are not allowed.
            if isinstance(found, type) and found.__module__ == module_name:
                return found
        raise pickle.UnpicklingError(f"a ledger has no {module_name}.{global_name}")
