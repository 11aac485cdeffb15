"""The faults the emulator can inject: their names, how a client should react, and when they occur.

Nothing here does I/O: `_spoiling` and `_transport_faults` inject the faults.
"""

from __future__ import annotations

import random
import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pinecone_embed_async.emulator._requests import EmbedRequest


class Outlook(StrEnum):
    """How a client should react to a fault.

    Attributes:
        RETRYABLE: The same request may succeed if it is sent again.
        TERMINAL: Sending the request again does not help; the client gives up on it or on the whole job.
        HARMLESS: The answer is correct; only its form or its pace is unusual.
    """

    RETRYABLE = "retryable"
    TERMINAL = "terminal"
    HARMLESS = "harmless"


class FaultName(StrEnum):
    """The faults by name; `Fault.description` says what each does and what its value means."""

    CONNECTION_REFUSED = "connection_refused"
    RESET_BEFORE_HEADERS = "reset_before_headers"
    CLOSED_BEFORE_HEADERS = "closed_before_headers"
    STALLED_HEADERS = "stalled_headers"
    GARBAGE_STATUS_LINE = "garbage_status_line"
    STATUS = "status"
    RATE_LIMITED = "rate_limited"
    RATE_LIMITED_WITHOUT_TEXT = "rate_limited_without_text"
    REQUEST_RATE_LIMITED = "request_rate_limited"
    MONTH_QUOTA_SPENT = "month_quota_spent"
    QUOTA_EXCEEDED = "quota_exceeded"
    REDIRECT = "redirect"
    ERROR_IN_200 = "error_in_200"
    RESET_DURING_HEADERS = "reset_during_headers"
    RESET_AFTER_HEADERS = "reset_after_headers"
    CUT_OFF_BODY = "cut_off_body"
    STALLED_BODY = "stalled_body"
    SLOW_DRIP = "slow_drip"
    OVERSIZED_HEADER = "oversized_header"
    LYING_GZIP = "lying_gzip"
    GZIP_BOMB = "gzip_bomb"
    GIGANTIC_BODY = "gigantic_body"
    INFORMATIONAL = "informational"
    KEEP_ALIVE_CLOSE = "keep_alive_close"
    COMPRESSED = "compressed"
    EMPTY_BODY = "empty_body"
    HTML_BODY = "html_body"
    INVALID_JSON = "invalid_json"
    GARBAGE_AFTER_JSON = "garbage_after_json"
    BAD_UTF8 = "bad_utf8"
    DEEP_NESTING = "deep_nesting"
    DUPLICATE_KEYS = "duplicate_keys"
    NAN_VALUES = "nan_values"
    INFINITE_VALUES = "infinite_values"
    HUGE_VALUES = "huge_values"
    NULL_VALUES = "null_values"
    STRING_VALUES = "string_values"
    WRONG_COUNT = "wrong_count"
    EXTRA_COUNT = "extra_count"
    WRONG_DIMENSION = "wrong_dimension"
    RAGGED_DIMENSION = "ragged_dimension"
    MIXED_VECTOR_TYPES = "mixed_vector_types"
    WRONG_VECTOR_TYPE = "wrong_vector_type"
    INDEX_OUT_OF_RANGE = "index_out_of_range"
    INDEX_NEGATIVE = "index_negative"
    LENGTHS_DIFFER = "lengths_differ"
    MISSING_USAGE = "missing_usage"
    EXTRA_KEYS = "extra_keys"
    REORDERED_KEYS = "reordered_keys"
    WHITE_SPACE = "white_space"


ValueKind = Literal["none", "seconds", "mebibytes", "status", "informational", "error_status", "retry_after", "redirect"]


@dataclass(frozen=True, slots=True)
class _Kind:
    description: str
    outlook: Outlook = Outlook.RETRYABLE
    billed: bool = True
    value: ValueKind = "none"
    default: str = ""
    vector_type: Literal["dense", "sparse"] | None = None


_N = FaultName
_T = Outlook.TERMINAL
_H = Outlook.HARMLESS

_KINDS: dict[FaultName, _Kind] = {
    # Before the service has done any work: not billed.
    _N.CONNECTION_REFUSED: _Kind(
        "resets the connection, closes idle ones and refuses new ones for VALUE seconds",
        billed=False,
        value="seconds",
        default="0.2",
    ),
    _N.RESET_BEFORE_HEADERS: _Kind("resets the connection instead of answering", billed=False),
    _N.CLOSED_BEFORE_HEADERS: _Kind("closes the connection cleanly instead of answering", billed=False),
    _N.STALLED_HEADERS: _Kind(
        "answers nothing; resets after VALUE seconds, never without VALUE", billed=False, value="seconds"
    ),
    _N.GARBAGE_STATUS_LINE: _Kind("answers something that is not HTTP", billed=False),
    _N.STATUS: _Kind(
        "answers status VALUE: CODE[,json|html|empty|cut[,RETRY_AFTER]]", billed=False, value="status", default="503"
    ),
    _N.RATE_LIMITED: _Kind(
        "answers 429 with the message for tokens per minute of its input type and Retry-After VALUE (seconds, date, "
        "date+SECONDS, negative, huge, rubbish, or any text)",
        billed=False,
        value="retry_after",
    ),
    _N.RATE_LIMITED_WITHOUT_TEXT: _Kind(
        "answers 429 without a message; VALUE as for rate_limited", billed=False, value="retry_after"
    ),
    _N.REQUEST_RATE_LIMITED: _Kind(
        "answers 429 TOO_MANY_REQUESTS; VALUE as for rate_limited", billed=False, value="retry_after"
    ),
    _N.MONTH_QUOTA_SPENT: _Kind("answers 429 with the message for the monthly quota", outlook=_T, billed=False),
    _N.QUOTA_EXCEEDED: _Kind("answers 429 with code QUOTA_EXCEEDED", outlook=_T, billed=False),
    _N.REDIRECT: _Kind(
        "redirects to VALUE: [STATUS:]URL, with status 307 by default",
        outlook=_T,
        billed=False,
        value="redirect",
        default="307:http://elsewhere.invalid/embed",
    ),
    _N.ERROR_IN_200: _Kind(
        "answers 200 with the error envelope of status VALUE", billed=False, value="error_status", default="503"
    ),
    # After the service has done the work, while the answer is sent: billed.
    _N.RESET_DURING_HEADERS: _Kind("resets the connection in the middle of the headers"),
    _N.RESET_AFTER_HEADERS: _Kind("resets the connection between the headers and the body"),
    _N.CUT_OFF_BODY: _Kind("announces the full length, sends half of the body and closes"),
    _N.STALLED_BODY: _Kind(
        "sends half of the body, then nothing; resets after VALUE seconds, never without VALUE", value="seconds"
    ),
    _N.SLOW_DRIP: _Kind(
        "sends the whole body in small pieces over VALUE seconds", outlook=_H, value="seconds", default="0.2"
    ),
    _N.OVERSIZED_HEADER: _Kind("sends a header of 64 KiB before the answer"),
    _N.LYING_GZIP: _Kind("labels the uncompressed answer as gzip"),
    _N.GZIP_BOMB: _Kind("sends gzip that expands to VALUE MiB of one string", value="mebibytes", default="128"),
    _N.GIGANTIC_BODY: _Kind("sends VALUE MiB of one string in chunks", value="mebibytes", default="128"),
    _N.INFORMATIONAL: _Kind(
        "sends the informational status VALUE, then the answer", outlook=_H, value="informational", default="103"
    ),
    _N.KEEP_ALIVE_CLOSE: _Kind("answers, and resets the connection when the next request arrives on it"),
    _N.COMPRESSED: _Kind("sends the answer compressed with gzip", outlook=_H),
    # In the body: a complete response with status 200, but not the requested answer.
    _N.EMPTY_BODY: _Kind("answers 200 without a body"),
    _N.HTML_BODY: _Kind("answers 200 with a proxy's HTML page"),
    _N.INVALID_JSON: _Kind("leaves out the last bracket"),
    _N.GARBAGE_AFTER_JSON: _Kind("writes more after the JSON"),
    _N.BAD_UTF8: _Kind("writes bytes that are not UTF-8 into the model's name"),
    _N.DEEP_NESTING: _Kind("adds a key with 100,000 nested lists"),
    _N.DUPLICATE_KEYS: _Kind("has the key `data` twice, with different rows"),
    _N.NAN_VALUES: _Kind("has a NaN among the values"),
    _N.INFINITE_VALUES: _Kind("has a -Infinity among the values"),
    _N.HUGE_VALUES: _Kind("has a 1e39 among the values, which float32 cannot hold"),
    _N.NULL_VALUES: _Kind("has a null among the values"),
    _N.STRING_VALUES: _Kind("has a string among the values"),
    _N.WRONG_COUNT: _Kind("leaves out the last row"),
    _N.EXTRA_COUNT: _Kind("has the last row twice"),
    _N.WRONG_DIMENSION: _Kind("gives every row one value too few", vector_type="dense"),
    _N.RAGGED_DIMENSION: _Kind("gives the last row one value too few", vector_type="dense"),
    _N.MIXED_VECTOR_TYPES: _Kind("makes the last row an embedding of the other vector type"),
    _N.WRONG_VECTOR_TYPE: _Kind("makes the answer and all its rows of the other vector type"),
    _N.INDEX_OUT_OF_RANGE: _Kind("has a sparse index of 2**32", vector_type="sparse"),
    _N.INDEX_NEGATIVE: _Kind("has a sparse index of -1", vector_type="sparse"),
    _N.LENGTHS_DIFFER: _Kind("has one sparse value more than indices", vector_type="sparse"),
    _N.MISSING_USAGE: _Kind("leaves out `usage.total_tokens`", outlook=_H),
    _N.EXTRA_KEYS: _Kind("adds keys that are not in the reference, at every level", outlook=_H),
    _N.REORDERED_KEYS: _Kind("writes the keys in another order", outlook=_H),
    _N.WHITE_SPACE: _Kind("adds white space to the JSON", outlook=_H),
}

_SECONDS_AT_MOST = 3600.0
_MEBIBYTES_AT_MOST = 4096

StatusBody = Literal["json", "html", "empty", "cut"]
_STATUS_BODIES: tuple[StatusBody, ...] = ("json", "html", "empty", "cut")

# Statuses that a client retries whatever the body; content delivery networks use 520 to 529.
_RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 530)})


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The parsed value of a `status` fault.

    Attributes:
        status: 100 to 599.
        body: `json` for the error envelope, `html` for a proxy's page, `empty`, or `cut` for half an envelope.
        retry_after: The value of `Retry-After`, as in `rate_limited`; empty for no header.
    """

    status: int
    body: StatusBody
    retry_after: str

    @property
    def outlook(self) -> Outlook:
        """How a client should react."""
        if self.status in _RETRYABLE_STATUSES:
            return Outlook.RETRYABLE
        # Some clients take 101 as the final answer; after another 1xx, the request has no answer.
        if self.status < 200:
            return Outlook.TERMINAL if self.status == 101 else Outlook.RETRYABLE
        if self.status < 300:
            return Outlook.RETRYABLE
        # The envelope of a 409 has the code ABORTED, that of the remaining 5xx INTERNAL; without it the status decides.
        if self.body == "json" and (self.status == 409 or self.status > 501):
            return Outlook.RETRYABLE
        return Outlook.TERMINAL


@dataclass(frozen=True, slots=True, init=False)
class Fault:
    """One fault and its checked value.

    Attributes:
        name: The fault; a plain string is converted.
        value: Its value as text; a number is converted. If empty, the fault's default.
    """

    name: FaultName
    value: str

    def __init__(self, name: FaultName | str, value: str | float = "") -> None:
        """Check the name and the value.

        Raises:
            ValueError: There is no such fault, or the value does not fit it; the message lists what is possible.
        """
        try:
            known = FaultName(name)
        except ValueError:
            raise ValueError(f"there is no fault {str(name)!r}; the faults are: {', '.join(FaultName)}") from None
        object.__setattr__(self, "name", known)
        kind = _KINDS[known]
        text = str(value) or kind.default
        object.__setattr__(self, "value", text)
        if not _value_fits(self, kind.value):
            raise ValueError(f"fault {known.value} does not take {text!r}: it {kind.description}")

    def __str__(self) -> str:
        """The fault in the form `parse_fault` reads."""
        return f"{self.name.value}={self.value}" if self.value else self.name.value

    @property
    def description(self) -> str:
        """What the fault does and what its value means, in one line."""
        return _KINDS[self.name].description

    @property
    def outlook(self) -> Outlook:
        """How a client should react; for a status, this depends on the status."""
        if self.name is FaultName.STATUS:
            return self.status_answer.outlook
        if self.name is FaultName.ERROR_IN_200:
            return StatusAnswer(int(self.value), "json", "").outlook
        return _KINDS[self.name].outlook

    @property
    def billed(self) -> bool:
        """Whether the service has embedded the inputs and billed their tokens before the fault occurs."""
        return _KINDS[self.name].billed

    def applies_to(self, vector_type: Literal["dense", "sparse"] | None) -> bool:
        """Whether an answer of this type can have the fault; if the type is `None`, any fault applies."""
        needed = _KINDS[self.name].vector_type
        return needed is None or vector_type is None or needed == vector_type

    @property
    def number(self) -> float | None:
        """The value as a number: seconds, MiB or a status; `None` if it is empty."""
        return float(self.value) if self.value else None

    @property
    def status_answer(self) -> StatusAnswer:
        """Parse the value of a `status` fault.

        Raises:
            ValueError: It is not such a value.
        """
        status, _, rest = self.value.partition(",")
        body, _, retry_after = rest.partition(",")
        for known in _STATUS_BODIES:
            if known == (body or "json") and status.isdecimal() and 100 <= int(status) <= 599:
                return StatusAnswer(int(status), known, retry_after)
        raise ValueError(f"not CODE[,json|html|empty|cut[,RETRY_AFTER]] with a code from 100 to 599: {self.value!r}")

    @property
    def redirect(self) -> tuple[int, str]:
        """Parse the value of a `redirect` fault: status and URL."""
        status, separator, url = self.value.partition(":")
        if separator and re.fullmatch(r"3\d\d", status):
            return int(status), url
        return 307, self.value


def _value_fits(fault: Fault, kind: ValueKind) -> bool:
    value = fault.value
    if kind == "none":
        return value == ""
    if kind in {"retry_after", "redirect"}:
        # These values are sent in a header.
        return value.isascii() and (not value or value.isprintable())
    try:
        if kind == "status":
            return fault.status_answer.retry_after.isascii()
        number = fault.number
    except ValueError:
        return False
    if number is None:
        return kind == "seconds"
    if kind == "seconds":
        return 0 <= number <= _SECONDS_AT_MOST
    if kind == "mebibytes":
        return value.isdecimal() and 0 < number <= _MEBIBYTES_AT_MOST
    lowest, highest = (100, 199) if kind == "informational" else (300, 599)
    # After 101 the connection no longer speaks HTTP, so the answer could not follow.
    return value.isdecimal() and lowest <= number <= highest and number != 101


AnyFault = Fault | FaultName | str


def as_fault(fault: AnyFault) -> Fault:
    """Create a `Fault` from a name or `NAME=VALUE`.

    Raises:
        ValueError: There is no such fault, or the value does not fit it.
    """
    if isinstance(fault, Fault):
        return fault
    name, _, value = str(fault).partition("=")
    return Fault(name, value)


@runtime_checkable
class FaultSource(Protocol):
    """Chooses the fault of each request, if any."""

    def choose(self, request: EmbedRequest) -> Fault | None:
        """Choose the fault for a request; `None` for none."""
        ...


def _draws(*key: object) -> random.Random:
    # A string is hashed with SHA-512 for the seed, so the draws are the same on every machine.
    return random.Random(":".join(map(str, key)))


@dataclass(frozen=True, slots=True, init=False)
class FaultRule:
    """A fault for all requests, a share of them, or those that match a condition.

    Attributes:
        fault: The fault; a name or `NAME=VALUE` is converted.
        rate: The share of matching requests that get the fault, 0 to 1.
        seed: Decides which requests; a seed always picks the same request numbers.
        when: Returns whether a request matches; by default, every request does.
    """

    fault: Fault
    rate: float
    seed: int
    when: Callable[[EmbedRequest], bool] | None

    def __init__(
        self,
        fault: AnyFault,
        rate: float = 1.0,
        *,
        seed: int = 0,
        when: Callable[[EmbedRequest], bool] | None = None,
    ) -> None:
        """Check and convert the arguments.

        Raises:
            ValueError: There is no such fault, or the rate is not between 0 and 1.
        """
        object.__setattr__(self, "fault", as_fault(fault))
        object.__setattr__(self, "rate", _checked_rate(rate))
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "when", when)

    def choose(self, request: EmbedRequest) -> Fault | None:
        """Choose the fault for a request; `None` for none."""
        if not self.fault.applies_to(request.vector_type) or (self.when is not None and not self.when(request)):
            return None
        drawn = self.rate >= 1 or _draws(self.seed, self.fault, request.number).random() < self.rate
        return self.fault if drawn else None


# Every fault a client should survive. Each is over within a quarter of a second: `Retry-After` is short or nonsense, and
# stalls end in a reset.
CHAOS_FAULTS: tuple[Fault, ...] = (
    *(
        fault
        for fault in map(Fault, FaultName)
        if fault.outlook is not Outlook.TERMINAL
        and fault.name not in {_N.STATUS, _N.CONNECTION_REFUSED, _N.STALLED_HEADERS, _N.STALLED_BODY}
    ),
    Fault(_N.CONNECTION_REFUSED, 0.05),
    Fault(_N.STALLED_HEADERS, 0.2),
    Fault(_N.STALLED_BODY, 0.2),
    *(Fault(_N.RATE_LIMITED, value) for value in ("0", "date-5", "negative", "rubbish")),
    *(Fault(_N.STATUS, f"{status},json") for status in sorted({409, *_RETRYABLE_STATUSES})),
    *(Fault(_N.STATUS, f"{status},{body}") for status in (500, 502, 503) for body in ("html", "empty", "cut")),
    Fault(_N.STATUS, "102,empty"),
    Fault(_N.STATUS, "429,html"),
    Fault(_N.STATUS, "429,empty"),
)


@dataclass(frozen=True, slots=True, init=False)
class FaultMix:
    """A random mix: a share of all requests get one of several faults, all equally likely.

    ```python
    emulator = Emulator(faults=FaultMix(seed=7, rate=0.2, faults=["status=503", "cut_off_body"]))
    ```

    Attributes:
        seed: Decides which requests get which fault; a seed always gives a request number the same one.
        rate: The share of requests that get a fault, 0 to 1.
        faults: The faults to draw from; names and `NAME=VALUE` are converted.
    """

    seed: int
    rate: float
    faults: tuple[Fault, ...]

    def __init__(self, seed: int = 0, rate: float = 1 / 3, faults: Iterable[AnyFault] = CHAOS_FAULTS) -> None:
        """Check and convert the arguments.

        Raises:
            ValueError: There is no such fault, `faults` is empty, or the rate is not between 0 and 1.
        """
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "rate", _checked_rate(rate))
        object.__setattr__(self, "faults", tuple(map(as_fault, faults)))
        if not self.faults:
            raise ValueError("a mix needs at least one fault")

    def choose(self, request: EmbedRequest) -> Fault | None:
        """Choose the fault for a request; `None` for none."""
        draws = _draws(self.seed, request.number)
        if draws.random() >= self.rate:
            return None
        fitting = [fault for fault in self.faults if fault.applies_to(request.vector_type)]
        # Of the module `random`, only `random()` is guaranteed to be the same in every version of Python.
        return fitting[int(draws.random() * len(fitting))] if fitting else None


def _checked_rate(rate: float) -> float:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be between 0 and 1, not {rate!r}")
    return float(rate)


_FAULT_TEXT = re.compile(
    r"(?P<name>[^=:]*)(?:=(?P<value>.*?))?(?::(?P<rate>(?:0|1)?\.\d+|0|1|1\.0*|\d+/[1-9]\d*))?", re.DOTALL
)


def parse_fault(text: str, *, seed: int = 0) -> FaultRule:
    """Parse a fault in the form of the command line: `NAME[=VALUE][:RATE]`.

    `status=503,html:0.1` answers 503 with an HTML page to a tenth of the requests; a rate may also be a fraction, `1/3`.

    ```python
    emulator = Emulator(faults=[parse_fault("status=503,html:0.1", seed=3), parse_fault("reset_before_headers:1/100")])
    ```

    Raises:
        ValueError: The text is not a fault; the message lists the names.
    """
    match = _FAULT_TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not NAME[=VALUE][:RATE]: {text!r}; the names are: {', '.join(FaultName)}")
    rate = match["rate"]
    fault = Fault(match["name"], match["value"] or "")
    return FaultRule(fault, 1.0 if rate is None else float(Fraction(rate)), seed=seed)


FaultSetting = FaultSource | Fault | str | None


def as_sources(faults: FaultSetting | Iterable[FaultSource | AnyFault]) -> tuple[FaultSource, ...]:
    """Create fault sources from a setting: one or several sources, faults, or texts for `parse_fault`.

    Raises:
        ValueError: A text is not a fault.
    """
    if faults is None:
        return ()
    if isinstance(faults, str):
        return (parse_fault(faults),)
    if isinstance(faults, Fault):
        return (FaultRule(faults),)
    if isinstance(faults, FaultSource):
        return (faults,)
    return tuple(source for one in faults for source in as_sources(one))


@dataclass(slots=True)
class _Injection:
    fault: Fault
    times: int
    when: Callable[[EmbedRequest], bool] | None


class FaultPlan:
    """The faults of one emulator: first the injected ones in order, then the sources in order."""

    def __init__(self, sources: tuple[FaultSource, ...] = ()) -> None:
        self.sources = sources
        self._injections: deque[_Injection] = deque()

    def inject(self, fault: Fault, times: int, when: Callable[[EmbedRequest], bool] | None) -> None:
        """Add a fault for the next `times` matching requests.

        Raises:
            ValueError: `times` is below 1.
        """
        if times < 1:
            raise ValueError(f"times must be at least 1, not {times!r}")
        self._injections.append(_Injection(fault, times, when))

    def choose(self, request: EmbedRequest) -> Fault | None:
        """Choose the fault for a request; `None` for none."""
        for injection in self._injections:
            if not injection.fault.applies_to(request.vector_type):
                continue
            if injection.when is not None and not injection.when(request):
                continue
            injection.times -= 1
            if not injection.times:
                self._injections.remove(injection)
            return injection.fault
        for source in self.sources:
            fault = source.choose(request)
            if fault is not None:
                return fault
        return None
