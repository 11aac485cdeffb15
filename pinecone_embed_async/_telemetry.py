"""What a client tells its hooks: frozen records of what begins, waits, is tried again and ends. Nothing by default."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from pinecone_embed_async._checks import short
from pinecone_embed_async._errors import ApiError, ConfigurationError
from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._retry import RetryState

Operation = Literal["embed", "embed_one", "stream"]


class ObservedCall(msgspec.Struct, frozen=True, eq=False):
    """A call of `embed` or `embed_one`, or a stream. Its events have the same object, which equals no other.

    Attributes:
        operation: which method was called.
        model: the name that its requests carry.
        server_address: the host of the service.
        server_port: its port.
        inputs: inputs of the call (distinct ones with `dedupe`); `None` for a stream, which does not know.
        input_type: `"passage"`, `"query"`, or what else was asked for; `None` if nothing.
        dimension: numbers per vector, as far as known before the first answer.
    """

    operation: Operation
    model: str
    server_address: str
    server_port: int
    inputs: int | None
    input_type: str | None
    dimension: int | None


class ObservedRequest(msgspec.Struct, frozen=True, eq=False):
    """A request, with all its attempts. Its events have the same object, which equals no other.

    Attributes:
        calls: the calls that it is sent for: one, or all the calls of `embed_one` that share it.
        inputs: texts in it; another attempt may be cut to fewer, and the others go into a request of their own.
        estimated_tokens: what it will be billed, about.
        is_probe: whether it carries no input, and only asks whether the parameters are accepted.
    """

    calls: tuple[ObservedCall, ...]
    inputs: int
    estimated_tokens: int
    is_probe: bool


class ErrorKind(msgspec.Struct, frozen=True):
    """What kind of error was met, without its message.

    Attributes:
        name: the class, such as `"RateLimitError"` or `"CancelledError"`.
        status: the HTTP status; `None` if the service answered none.
        code: the service's own, such as `"RESOURCE_EXHAUSTED"`; `None` if it gave none.
    """

    name: str
    status: int | None = None
    code: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorKind:
        """The kind of an error."""
        if isinstance(error, ApiError):
            return cls(type(error).__name__, error.status, error.code)
        return cls(type(error).__name__)


class Started(msgspec.Struct, frozen=True):
    """A call has begun: its inputs are read and checked. Or a request has its turn and is about to be sent.

    Attributes:
        subject: the call or the request.
    """

    subject: ObservedCall | ObservedRequest


class Waiting(msgspec.Struct, frozen=True):
    """A request has to wait for its turn: for the quota, the end of a pause, or one of the requests in flight.

    Attributes:
        subject: the call whose next request waits, which is cut when its turn comes; or the request, for another attempt.
        pause: seconds that the pause after a rejection still takes; 0 if there is none.
    """

    subject: ObservedCall | ObservedRequest
    pause: float


class Retried(msgspec.Struct, frozen=True):
    """An attempt has failed, and the request will be sent again.

    Attributes:
        subject: the request.
        attempt: the attempt that failed, from 1.
        error: what it met.
        backoff: seconds until it asks for its turn again. After a rejection by a limit of the service it waits in turn,
            with all others: `Waiting` tells.
    """

    subject: ObservedRequest
    attempt: int
    error: ErrorKind
    backoff: float


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What `Finished` and `Failed` have in common.

    Attributes:
        subject: the call or the request.
        seconds: since it started.
        embedded: inputs embedded, those out of the cache included.
        failed: inputs that were not; 0 for a stream of which nobody asked for more.
        cached: of a call, inputs whose vectors the cache had.
        tokens: billed, as far as the answers say; 0 for a call of `embed_one`, for its request is shared: see there.
        attempts: of a request, how often it was sent; of a call, requests that were answered.
        waited: of a request, seconds that it waited for its turns, those before it started included.
        backed_off: of a request, seconds that it waited after failures.
    """

    subject: ObservedCall | ObservedRequest
    seconds: float
    embedded: int = 0
    failed: int = 0
    cached: int = 0
    tokens: int = 0
    attempts: int = 0
    waited: float = 0.0
    backed_off: float = 0.0


class Finished(Ended, frozen=True, kw_only=True):
    """A call or a request has ended well; a call with `on_error="return"` also if some of its inputs failed."""


class Failed(Ended, frozen=True, kw_only=True):
    """A call or a request has ended with an error, or was cancelled.

    Attributes:
        error: what it ended with; `"CancelledError"` if it was cancelled, a request by its call's deadline perhaps.
    """

    error: ErrorKind


Event = Started | Waiting | Retried | Finished | Failed
"""What a hook is told."""


class Hook(Protocol):
    """A subscriber: any function of one event, or object that can be called like one.

    It is called in the event loop, in the context of what it is told about, and must not block. What it raises is logged
    and goes no further. For each call and request it gets one `Started` first and one `Finished` or `Failed` last. Events
    hold no inputs, no vectors and no key.
    """

    def __call__(self, event: Event, /) -> object:
        """Take an event."""


class Teller:
    """Tells the hooks of a client.

    Args:
        hooks: the subscribers, told in this order.
    """

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self._hooks = hooks
        self._complained: set[int] = set()

    def __repr__(self) -> str:
        return f"<Teller of {len(self._hooks)} hooks>"

    def tell(self, event: Event) -> None:
        """Tell every hook, whatever the others make of it."""
        for number, hook in enumerate(self._hooks):
            try:
                hook(event)
            # A CancelledError of the hook's own must not pass for a cancellation of the call.
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is the hook's, and breaks nothing
                self._complain(number, type(error).__name__, type(event).__name__)

    def _complain(self, number: int, raised: str, event: str) -> None:
        """Log it, as a warning once for each hook: it may happen with every event. Its message may hold anything."""
        if number in self._complained:
            logger.debug("hook %d raised %s at %s", number, raised, event)
        else:
            self._complained.add(number)
            logger.warning("hook %d raised %s at %s; its further errors are logged at level DEBUG", number, raised, event)


def teller_of(hooks: Iterable[Hook]) -> Teller | None:
    """What tells `hooks`; `None` if there are none, so that nothing is spent on it.

    Raises:
        ConfigurationError: one of them cannot be called, or is a coroutine function, which would not be awaited.
    """
    if not isinstance(hooks, Iterable):
        raise ConfigurationError(f"hooks must be functions in a list, got {type(hooks).__name__}")
    checked = tuple(hooks)
    for hook in checked:
        if not callable(hook) or inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
            raise ConfigurationError(f"a hook must be a function of one event, not a coroutine function, got {short(hook)}")
    return Teller(checked) if checked else None


class CallObservation:
    """A call on its way, told to the hooks: a context manager around what the call does.

    Args:
        teller: tells the hooks.
        clock: the time.
        subject: the call.
        totals: gives what came of it, as fields of `Ended`; told whether it ended well.
    """

    def __init__(
        self, teller: Teller, clock: Clock, subject: ObservedCall, totals: Callable[[bool], dict[str, int]]
    ) -> None:
        self._teller = teller
        self._clock = clock
        self._totals = totals
        self._started = clock.time()
        self.subject = subject

    def __enter__(self) -> Self:
        self._started = self._clock.time()
        self._teller.tell(Started(self.subject))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds, totals = self._clock.time() - self._started, self._totals(error is None)
        if error is None:
            self._teller.tell(Finished(subject=self.subject, seconds=seconds, **totals))
        else:
            self._teller.tell(Failed(subject=self.subject, seconds=seconds, error=ErrorKind.of(error), **totals))


class RequestObservation:
    """A request on its way, told to the hooks.

    Args:
        teller: tells the hooks.
        clock: the time.
        subject: the request.
        waited: seconds that were waited for its first turn.
    """

    def __init__(self, teller: Teller, clock: Clock, subject: ObservedRequest, waited: float) -> None:
        self._teller = teller
        self._clock = clock
        self._subject = subject
        self._asked = self._backed_off = 0.0
        self._waited = waited
        self._tokens = 0
        self._started = clock.time()
        teller.tell(Started(subject))

    def asks(self) -> None:
        """Note that it asks for another turn."""
        self._asked = self._clock.time()

    def waits(self, pause: float) -> None:
        """Note that it has to wait for it."""
        self._teller.tell(Waiting(self._subject, pause))

    def has_its_turn(self) -> None:
        """Note that it has it, or has been cancelled meanwhile."""
        self._waited += self._clock.time() - self._asked

    def retried(self, retry: RetryState, backoff: float) -> None:
        """Note that it will be sent again after `backoff` seconds."""
        if retry.last_error is not None:
            self._backed_off += backoff
            self._teller.tell(Retried(self._subject, retry.attempts, ErrorKind.of(retry.last_error), backoff))

    def answered(self, tokens: int | None) -> None:
        """Note what an answer has cost."""
        self._tokens += tokens or 0

    def ended(self, retry: RetryState, inputs: int, error: EmbedError | asyncio.CancelledError | None) -> None:
        """Note that it has ended, with so many inputs."""
        count = 0 if self._subject.is_probe else inputs
        # An answer whose rows are in place stands, though the caller is cancelled in that very turn.
        embedded = count if retry.is_settled else 0
        figures: dict[str, Any] = {
            "subject": self._subject,
            "seconds": self._clock.time() - self._started,
            "embedded": embedded,
            "failed": count - embedded,
            "tokens": self._tokens,
            "attempts": retry.attempts,
            "waited": self._waited,
            "backed_off": self._backed_off,
        }
        if error is None:
            self._teller.tell(Finished(**figures))
        else:
            self._teller.tell(Failed(**figures, error=ErrorKind.of(error)))
