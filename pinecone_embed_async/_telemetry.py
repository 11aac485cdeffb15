"""Events for the hooks of a client: frozen records of starts, waits, retries and ends. Costs nothing without hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from pinecone_embed_async._checks import callback
from pinecone_embed_async._errors import ApiError, ConfigurationError
from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from types import TracebackType

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._planning import PlannedRequest

Operation = Literal["embed", "embed_one", "stream"]


class ObservedCall(msgspec.Struct, frozen=True, eq=False):
    """A call of `embed` or `embed_one`, or a stream. All events of a call share one object, which equals no other.

    Attributes:
        operation: which method was called.
        model: the model's name in requests.
        server_address: host of the service.
        server_port: port of the service.
        inputs: number of inputs (distinct ones with `dedupe`); `None` for a stream, whose length is unknown.
        input_type: `"passage"`, `"query"`, or another value passed; `None` if none was.
        dimension: numbers per vector, if known before the first answer; else `None`.
    """

    operation: Operation
    model: str
    server_address: str
    server_port: int
    inputs: int | None
    input_type: str | None
    dimension: int | None


class ObservedRequest(msgspec.Struct, frozen=True, eq=False):
    """A request with all its attempts. All events of a request share one object, which equals no other.

    Attributes:
        calls: the calls for which it is sent: a single one, or all the calls of `embed_one` that share it.
        inputs: number of texts; a later attempt may be cut to fewer, and the rest goes into another request.
        estimated_tokens: estimate of the tokens billed.
        is_probe: whether it has no input of the call and only tests whether the parameters are accepted.
    """

    calls: tuple[ObservedCall, ...]
    inputs: int
    estimated_tokens: int
    is_probe: bool


class ErrorKind(msgspec.Struct, frozen=True):
    """The kind of an error, without its message.

    Attributes:
        name: name of the class, such as `"RateLimitError"` or `"CancelledError"`.
        status: the HTTP status; `None` without an answer of the service.
        code: the service's code, such as `"RESOURCE_EXHAUSTED"`; `None` if it gave none.
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
    """A call has started, after its inputs were read and checked; or a request has its permit and is about to be sent.

    Attributes:
        subject: the call or the request.
    """

    subject: ObservedCall | ObservedRequest


class Waiting(msgspec.Struct, frozen=True):
    """A request has to wait for its permit: for the quota, the end of a pause, or the end of a request in flight.

    Attributes:
        subject: the call whose next request waits for its first permit; or the request, if it waits for another attempt.
        pause: remaining seconds of the pause after a rejection; 0 if there is none.
    """

    subject: ObservedCall | ObservedRequest
    pause: float


class Retried(msgspec.Struct, frozen=True):
    """An attempt has failed, and the request will be sent again.

    Attributes:
        subject: the request.
        attempt: number of the failed attempt, from 1.
        error: the error of the attempt.
        backoff: seconds until the request asks for another permit; 0 after a rejection for a rate limit, when it waits in
            the queue with all others: see `Waiting`.
    """

    subject: ObservedRequest
    attempt: int
    error: ErrorKind
    backoff: float


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """Common fields of `Finished` and `Failed`.

    Attributes:
        subject: the call or the request.
        seconds: time since the start.
        embedded: number of inputs embedded, including those from the cache.
        failed: number of inputs not embedded; 0 for a stream that was left early.
        cached: for a call, number of inputs whose vectors came from the cache.
        tokens: tokens billed, as reported by the answers; 0 for a call of `embed_one`, whose request has them.
        attempts: for a request, how often it was sent; for a call, the number of requests answered.
        waited: for a request, seconds spent waiting for permits, including the wait before it started.
        backed_off: for a request, seconds spent waiting after failures.
        response_model: for a request, the model's name in its last answer; `None` if there was no answer, or it names none.
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
    response_model: str | None = None


class Finished(Ended, frozen=True, kw_only=True):
    """A call or a request has succeeded; with `on_error="return"`, a call succeeds even if some of its inputs failed."""


class Failed(Ended, frozen=True, kw_only=True):
    """A call or a request has ended with an error, or was cancelled.

    Attributes:
        error: the error; `"CancelledError"` after a cancellation, for example of a request by its call's deadline.
    """

    error: ErrorKind


Event = Started | Waiting | Retried | Finished | Failed
"""The events that a hook receives."""


class Hook(Protocol):
    """A subscriber: any function or callable object that takes one event.

    It is called in the event loop, in the context of the call or request, and must not block. Exceptions that it raises are
    logged and have no other effect. For each call and request, the first event is `Started` and the last is `Finished` or
    `Failed`. Events hold no inputs, no vectors and no key.
    """

    def __call__(self, event: Event, /) -> object:
        """Handle an event."""


class HookDispatcher:
    """Passes events to the hooks of a client.

    Args:
        hooks: the subscribers, called in this order.
    """

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self._hooks = hooks
        self._warned: set[int] = set()

    def __repr__(self) -> str:
        return f"<HookDispatcher of {len(self._hooks)} hooks>"

    def dispatch(self, event: Event) -> None:
        """Call every hook, even if another one fails."""
        for number, hook in enumerate(self._hooks):
            try:
                hook(event)
            # A CancelledError from the hook must not pass for a cancellation of the call.
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a hook's error must not affect the call
                # Without the error's message, which may hold secrets.
                told = number, type(error).__name__, type(event).__name__
                if number in self._warned:
                    logger.debug("hook %d raised %s at %s", *told)
                else:
                    self._warned.add(number)
                    logger.warning("hook %d raised %s at %s; its further errors are logged at level DEBUG", *told)


def dispatcher_of(hooks: Iterable[Hook]) -> HookDispatcher | None:
    """A dispatcher for `hooks`; `None` without hooks, so that events cost nothing.

    Raises:
        ConfigurationError: a hook is not callable, or is a coroutine function, which would not be awaited.
    """
    if not isinstance(hooks, Iterable):
        raise ConfigurationError(f"hooks must be a list of functions, got {type(hooks).__name__}")
    checked = tuple(hooks)
    for hook in checked:
        callback("a hook", hook, " that takes one event")
    return HookDispatcher(checked) if checked else None


class ObservableCall(Protocol):
    """A call that can be reported to the hooks."""

    subject: ObservedCall | None
    """The call as hooks see it; `None` without hooks."""

    def totals(self, is_well: bool, /) -> dict[str, int]:  # noqa: FBT001 - it is called with one argument
        """The totals of the call, as fields of `Ended`; `is_well` says whether it succeeded."""


class CallObservation:
    """Reports a call to the hooks: a context manager around its work.

    Args:
        dispatcher: the hooks.
        clock: the clock.
        subject: the call as hooks see it.
        call: the call, which reports its totals.
    """

    def __init__(self, dispatcher: HookDispatcher, clock: Clock, subject: ObservedCall, call: ObservableCall) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._call = call
        self._started = clock.time()
        self._subject = subject

    def __enter__(self) -> None:
        self._dispatcher.dispatch(Started(self._subject))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = self._clock.time() - self._started
        totals = self._call.totals(error is None)
        self._dispatcher.dispatch(_ended(error, subject=self._subject, seconds=seconds, **totals))


class RequestObservation:
    """Reports a request to the hooks.

    Args:
        dispatcher: the hooks.
        clock: the clock.
        subject: the request.
        waited: seconds spent waiting for its first permit.
    """

    def __init__(self, dispatcher: HookDispatcher, clock: Clock, subject: ObservedRequest, waited: float) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._subject = subject
        self._backed_off = 0.0
        self._waited = waited
        self._tokens = 0
        self._response_model: str | None = None
        self._started = clock.time()
        dispatcher.dispatch(Started(subject))

    def waiting(self, pause: float) -> None:
        """Report that the request has to wait for another permit."""
        self._dispatcher.dispatch(Waiting(self._subject, pause))

    def waited(self, seconds: float) -> None:
        """Add the time that the request waited for another permit."""
        self._waited += seconds

    def retried(self, attempts: int, error: EmbedError, backoff: float) -> None:
        """Report that attempt number `attempts` failed and another one follows after `backoff` seconds."""
        self._backed_off += backoff
        self._dispatcher.dispatch(Retried(self._subject, attempts, ErrorKind.of(error), backoff))

    def answered(self, tokens: int | None, model: str | None) -> None:
        """Record the tokens billed for an answer, and the model that it names."""
        self._tokens += tokens or 0
        self._response_model = model

    def ended(self, request: PlannedRequest, error: EmbedError | asyncio.CancelledError | None) -> None:
        """Report that the request has ended.

        Args:
            request: the request, which may have been cut since it started.
            error: the error of the request; `None` if it was answered.
        """
        count = 0 if request.is_probe else len(request.texts)
        # An answered request counts as embedded even if its caller is cancelled at that moment.
        embedded = count if request.is_answered else 0
        event = _ended(
            error,
            subject=self._subject,
            seconds=self._clock.time() - self._started,
            embedded=embedded,
            failed=count - embedded,
            tokens=self._tokens,
            attempts=request.attempts,
            waited=self._waited,
            backed_off=self._backed_off,
            response_model=self._response_model,
        )
        self._dispatcher.dispatch(event)


def _ended(error: BaseException | None, **figures: Any) -> Finished | Failed:
    """The last event of a call or a request."""
    return Finished(**figures) if error is None else Failed(**figures, error=ErrorKind.of(error))
