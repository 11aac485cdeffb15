"""The exceptions of this package. A call that fails raises an `EmbedError`."""

from __future__ import annotations

import builtins
import contextlib
import traceback
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Failure:
    """Inputs that failed for the same reason.

    Attributes:
        indices: positions of the inputs in the call, ascending.
        error: the cause.
    """

    indices: Sequence[int]
    error: EmbedError


class EmbedError(Exception):
    """Base of all errors of this package.

    ```python
    try:
        passages = await client.embed(texts, input_type="passage", timeout=60.0)
    except EmbedError as error:
        print(error.partial)  # what was embedded
        for failure in error.failures:
            print(failure.indices, failure.error)  # what was not, and why
    ```

    Attributes:
        partial: what was embedded, as `DenseEmbeddings` or `SparseEmbeddings` with a row for every input of the call; the
            other rows are NaN (sparse: empty). `None` if the error came before anything could be sent.
        failures: the failed inputs, grouped by cause.
        attempts: how often requests with the failed inputs were sent; 0 if never.
        batch: for a stream, the `EmbeddedBatch` that `partial` and `failures` belong to; else `None`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # `Any`, because the result types import this module.
        self.partial: Any = None
        self.failures: tuple[Failure, ...] = ()
        self.attempts = 0
        self.batch: Any = None

    @property
    def message(self) -> str:
        """What happened, without the status, the code and the number of attempts."""
        return str(self.args[0])

    def __str__(self) -> str:
        if self.attempts > 1:
            return f"{self.message} (after {self.attempts} attempts)"
        return self.message

    def __copy__(self) -> EmbedError:
        own = _restore(type(self), self.args)
        own.__dict__.update(self.__dict__)
        own.__cause__ = self.__cause__
        return own

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with `args` alone, but subclasses take more arguments. The other attributes are
        # set afterwards, because an error may be the cause of one of its own failures.
        state = dict(self.__dict__)
        if isinstance(self.__cause__, EmbedError):
            # A cause from another library may not be picklable.
            state["__cause__"] = self.__cause__
        return _restore, (type(self), self.args), state


def _restore(cls: type[EmbedError], args: tuple[Any, ...]) -> EmbedError:
    error: EmbedError = cls.__new__(cls, *args)
    error.args = args
    return error


class ConfigurationError(EmbedError, ValueError):
    """The client or the call has invalid settings, and nothing was sent; or a quota or a cache cannot be used."""


class InputError(EmbedError, ValueError):
    """An input is not a text that can be embedded, or exceeds the whole quota; the input was not sent.

    Attributes:
        index: position of the invalid input; `None` if the error is not about a single input.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class ClosedError(EmbedError):
    """The client was closed; open it again with `async with`."""


class DeadlineExceededError(EmbedError, TimeoutError):
    """The `timeout` of the whole call ran out, or would run out before a known pause ends.

    `__cause__` is the error of the last attempt, or the rejection that started the pause; `None` if neither is known.

    Attributes:
        retry_after: seconds from when the call failed until a request can be sent at the earliest: until the pause after a
            rejection ends, or a given quota has room. `None` if nothing is known to prevent a request.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConnectionProblem(Enum):
    """How a connection failed, as far as known."""

    SETUP = auto()
    """The certificate, the TLS version or the proxy's authentication failed; every other connection would fail too."""
    UNREACHED = auto()
    """No connection could be made, for another reason."""
    IDLE = auto()
    """A reused idle connection was closed before a byte of the answer arrived, most likely before the request was sent."""


class TransportError(EmbedError):
    """No answer: the connection failed or was cut, or an attempt took longer than `attempt_timeout`.

    Attributes:
        problem: how the connection failed; `None` in other cases.
        ends_job: whether it ended the job, because every other request would have failed in the same way.
    """

    ends_job = False

    def __init__(self, message: str, *, problem: ConnectionProblem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class ResponseError(EmbedError):
    """An answer that cannot be read or does not match the request.

    Attributes:
        ends_job: whether it ended the job, because the client has not been able to read any answer so far.
    """

    ends_job = False


class ApiError(EmbedError):
    """The service answered with an error.

    Attributes:
        status: HTTP status, or the status in the envelope if that came with HTTP 200.
        code: the service's code, such as `"INVALID_ARGUMENT"`; `None` if the body held no error envelope.
        details: further details, of any JSON type; `None` if there are none.
        request_id: the service's id of the request, to give to its support; `None` if it sent none.
        retry_after: seconds to wait, as the service requested; `None` if it did not, or the value was invalid.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        details: Any = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        code = f" {self.code}" if self.code else ""
        name = f" [request {self.request_id}]" if self.request_id else ""
        return f"{self.status}{code}: {super().__str__()}{name}"


class AuthenticationError(ApiError):
    """The API key is missing, wrong, or lacks permission (401, 403)."""


class InvalidRequestError(ApiError):
    """The service refused the request's content or parameters (other 4xx)."""


class NotFoundError(ApiError):
    """The service does not know the model or the path (404).

    Attributes:
        nearest: the known model with the most similar name; `None` if no name is similar.
    """

    nearest: str | None = None

    def suggest(self, nearest: str | None) -> None:
        """Set `nearest` and add it to the message."""
        self.nearest = nearest
        if nearest is not None:
            self.args = (f"{self.message.removesuffix('.')}; did you mean {nearest!r}?", *self.args[1:])


class RateLimitError(ApiError):
    """Over a rate limit on tokens or requests (429); clears up with time.

    Attributes:
        retry_after: seconds from when the call failed until another request may be accepted: what the service asked for, or
            longer if the client would have waited longer. `None` if neither is known.
    """


class QuotaExceededError(ApiError):
    """The month's token quota is used up; waiting does not help, so it is never retried."""


class ServiceError(ApiError):
    """The service failed or is overloaded (5xx, 408, 409 ABORTED, 425)."""


def kind_of(error: EmbedError) -> str:
    """The class, status and code of an error, for logs; its message may be too long for a log line."""
    if not isinstance(error, ApiError):
        return type(error).__name__
    return f"{type(error).__name__} {error.status}{f' {error.code}' if error.code else ''}"


NAMED = 10
"""Maximum number of positions listed in a message; the rest is counted."""


def name_positions(positions: Sequence[int]) -> str:
    """The first few positions and the number of the others, for messages."""
    named = ", ".join(map(str, positions[:NAMED]))
    return named if len(positions) <= NAMED else f"{named} and {len(positions) - NAMED:,} more"


class Cleaner(Protocol):
    """Removes secrets from messages."""

    def clean(self, message: str) -> str:
        """The message without secrets."""


def unexpected_error(fault: BaseException, redactor: Cleaner | None = None) -> EmbedError:
    """The error for inputs whose request ended with an unexpected exception, such as a bug in this package.

    The exception's frames hold texts and keys. So the cause of the error is a new exception, of the same type if it is a
    built-in one that takes a message, which holds only what may be shown.

    Args:
        fault: the unexpected exception.
        redactor: removes secrets from its message; without it the message is not shown.
    """
    kind = type(fault)
    place, message = _place_of(fault), ""
    if redactor is not None:
        # The `__str__` of a foreign exception may raise anything.
        with contextlib.suppress(Exception):
            message = redactor.clean(str(fault))
    name = f"{kind.__name__}: {message}" if message else kind.__name__
    error = EmbedError(
        f"the request must end with an answer or an error of the service, but ended with {name}{place};"
        " only its inputs fail. Unless it came from code that you passed to the client, please report it as a bug"
    )
    shown = f"{message}{place}".strip()
    error.__cause__ = RuntimeError(f"{kind.__name__}: {shown}")
    if getattr(builtins, kind.__name__, None) is kind:
        # Some need more than a message.
        with contextlib.suppress(TypeError):
            error.__cause__ = kind(shown)
    return error


def _place_of(fault: BaseException) -> str:
    """The innermost line of this package in the traceback; empty if there is none."""
    package = Path(__file__).parent
    for frame, line in reversed(list(traceback.walk_tb(fault.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(package):
            return f" (at {path.relative_to(package)}:{line}, in {frame.f_code.co_name})"
    return ""
