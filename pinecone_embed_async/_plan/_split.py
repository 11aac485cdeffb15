"""Cuts a run of texts into requests under the limits."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_REQUEST_TOKENS = 50_000
"""Estimated tokens per request at most: the smallest documented quota of a minute (dense models, `query`,
Starter plan), so that a request fits into any; 96 full inputs of multilingual-e5-large fit into it."""

MAX_REQUEST_BYTES = 2_000_000
"""Bytes per request at most, about. None is documented for `/embed`; 2 MB is what the same service takes in one
upsert."""

BYTES_PER_TOKEN = 4.0
"""UTF-8 bytes per token, before anything is known: about 4 for English under subword vocabularies, and not far
from it for other scripts, which have fewer characters but more bytes per token."""

SPECIAL_TOKENS = 2
"""Tokens that a model puts around each input: one before, one behind."""

_INPUT_OVERHEAD = len('{"text":""},')


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may hold.

    Attributes:
        inputs: inputs at most.
        sequence_length: tokens of an input that are embedded at most; the rest is cut off and not billed.
        tokens: estimated tokens at most, unless it is a single input.
        bytes: UTF-8 bytes of texts at most, about, unless it is a single input.
    """

    inputs: int
    sequence_length: int
    tokens: int = MAX_REQUEST_TOKENS
    bytes: int = MAX_REQUEST_BYTES


_MOST_PARAMETERS = 64
"""Sets of parameters that are remembered; somebody may use a new one in every call."""


@dataclass(slots=True)
class Learned:
    """What answers and refusals have told about requests; the calls of a client share it.

    Attributes:
        inputs: inputs per request at most; `None` if no refusal told.
        request_bytes: UTF-8 bytes per request at most; `None` if no request was too large.
        accepted_bytes: of the largest request that was accepted.
        parameters: sets of parameters that were accepted, as JSON, the newest last.
    """

    inputs: int | None = None
    request_bytes: int | None = None
    accepted_bytes: int = 0
    parameters: dict[bytes, None] = field(default_factory=dict)

    def accepted(self, request: PlannedRequest, parameters: bytes) -> None:
        """Note that the service took a request of this size with these parameters."""
        self.accepted_bytes = max(self.accepted_bytes, request.bytes)
        if parameters not in self.parameters:
            if len(self.parameters) >= _MOST_PARAMETERS:
                del self.parameters[next(iter(self.parameters))]
            self.parameters[parameters] = None

    def too_large(self, request: PlannedRequest) -> None:
        """Note that a request was refused as too large (413)."""
        if len(request.texts) == 1:
            # It was this input, not the size of the requests that it was in.
            self.request_bytes = None
        elif request.bytes > self.accepted_bytes:
            self.request_bytes = max(request.bytes // 2, self.accepted_bytes)

    def too_many(self, most: int) -> None:
        """Note that the service takes `most` inputs in a request."""
        self.inputs = most if self.inputs is None else min(most, self.inputs)

    def applied_to(self, limits: RequestLimits) -> RequestLimits:
        """The tighter of both."""
        if self.inputs is None and self.request_bytes is None:
            return limits
        inputs = limits.inputs if self.inputs is None else min(limits.inputs, self.inputs)
        size = limits.bytes if self.request_bytes is None else min(limits.bytes, self.request_bytes)
        return replace(limits, inputs=inputs, bytes=size)


@dataclass(frozen=True, slots=True, repr=False)
class PlannedRequest:
    """A run of a call's inputs that goes out as one request.

    Attributes:
        start: position in the call of the first input.
        texts: the inputs.
        tokens: estimated.
        bytes: of the texts in UTF-8, with what JSON puts around them.
        origin: start of the request that this one was split off from; its own start if of none.
        is_probe: whether it carries no input of the call and only asks whether the parameters are accepted.
    """

    start: int
    texts: Sequence[str]
    tokens: int
    bytes: int
    origin: int
    is_probe: bool = False

    @property
    def stop(self) -> int:
        """Position in the call behind the last input."""
        return self.start + len(self.texts)

    def __repr__(self) -> str:
        what = "probe" if self.is_probe else f"{self.start}:{self.stop}"
        return f"<PlannedRequest {what}, about {self.tokens} tokens>"

    def parts(self, count: int, sequence_length: int) -> list[PlannedRequest]:
        """The same inputs in requests of at most `count`, in order."""
        return [
            plan_request(self.texts[begin : begin + count], self.start + begin, sequence_length, origin=self.origin)
            for begin in range(0, len(self.texts), count)
        ]


def utf8_length(text: str) -> int:
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def estimate_tokens(size: int, sequence_length: int) -> int:
    """Tokens that an input of `size` UTF-8 bytes is billed, about, cut at the model's length."""
    tokens = int(size / BYTES_PER_TOKEN) + SPECIAL_TOKENS
    return tokens if tokens < sequence_length else sequence_length  # noqa: FURB136 - `min` costs twice as much


def plan_request(
    texts: Sequence[str], start: int, sequence_length: int, *, origin: int, is_probe: bool = False
) -> PlannedRequest:
    """A request of exactly these texts."""
    sizes = [utf8_length(text) for text in texts]
    return PlannedRequest(
        start,
        texts,
        tokens=sum(estimate_tokens(size, sequence_length) for size in sizes),
        bytes=sum(sizes) + _INPUT_OVERHEAD * len(sizes),
        origin=origin,
        is_probe=is_probe,
    )


class Load:
    """How much has been gathered for one request.

    Attributes:
        inputs: gathered.
        tokens: estimated.
        bytes: of the texts in UTF-8, with what JSON puts around them.
    """

    __slots__ = ("bytes", "inputs", "tokens")

    def __init__(self) -> None:
        self.inputs = self.tokens = self.bytes = 0

    def add(self, size: int, limits: RequestLimits) -> bool:
        """Add a text of `size` UTF-8 bytes, if it fits in with what is there, which the first always does.

        Returns:
            Whether it was added.
        """
        tokens = self.tokens + estimate_tokens(size, limits.sequence_length)
        size += self.bytes + _INPUT_OVERHEAD
        if self.inputs and (self.inputs >= limits.inputs or tokens > limits.tokens or size > limits.bytes):
            return False
        self.inputs += 1
        self.tokens = tokens
        self.bytes = size
        return True

    def remove(self, size: int, limits: RequestLimits) -> None:
        """Take out a text of `size` UTF-8 bytes that was added under the same sequence length."""
        self.inputs -= 1
        self.tokens -= estimate_tokens(size, limits.sequence_length)
        self.bytes -= size + _INPUT_OVERHEAD


class Splitter:
    """Gathers texts, in order, into requests that are as large as the limits allow.

    Args:
        limits: what one request may hold; asked for every text, for refusals may make the limits smaller on
            the way.
    """

    def __init__(self, limits: Callable[[], RequestLimits]) -> None:
        self._limits = limits
        self._start = 0
        self._texts: list[str] = []
        self._load = Load()

    def __len__(self) -> int:
        """Texts gathered for the next request."""
        return len(self._texts)

    def add(self, text: str) -> PlannedRequest | None:
        """Take one more text.

        Returns:
            A request that is full: of the texts before this one, if it does not fit in with them, or with it.
        """
        limits = self._limits()
        full = None
        if not self._load.add(utf8_length(text), limits):
            full = self.flush()
            self._load.add(utf8_length(text), limits)
        self._texts.append(text)
        if full is None and len(self._texts) >= limits.inputs:
            full = self.flush()
        return full

    def flush(self) -> PlannedRequest | None:
        """What has been gathered, as it is; `None` if that is nothing."""
        if not self._texts:
            return None
        load = self._load
        request = PlannedRequest(self._start, self._texts, load.tokens, load.bytes, origin=self._start)
        self._start = request.stop
        self._texts, self._load = [], Load()
        return request

    def skip(self) -> PlannedRequest | None:
        """Leave out one text, so that the positions of those after it stay right; gives what was gathered before."""
        before = self.flush()
        self._start += 1
        return before


def count_requests(sizes: Iterable[int], limits: RequestLimits) -> int:
    """How many requests texts of these UTF-8 lengths make."""
    requests, load = 0, Load()
    for size in sizes:
        if not load.add(size, limits):
            requests, load = requests + 1, Load()
            load.add(size, limits)
    return requests + (load.inputs > 0)


def requests_of(texts: Iterable[str], limits: Callable[[], RequestLimits]) -> Iterator[PlannedRequest]:
    """The requests for `texts`, each cut when it is asked for, by the limits of that moment.

    The same requests as a `Splitter` makes, without its work for each text.
    """
    rest, ahead, start = iter(texts), list[str](), 0
    while True:
        now = limits()
        ahead += islice(rest, max(0, now.inputs - len(ahead)))
        if not ahead:
            return
        request = _cut(ahead[: now.inputs], start, now)
        start = request.stop
        del ahead[: len(request.texts)]
        yield request


def _cut(texts: list[str], start: int, limits: RequestLimits) -> PlannedRequest:
    """A request of as many of these texts as it may hold, the first in any case."""
    sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
    tokens = list(accumulate([estimate_tokens(size, limits.sequence_length) for size in sizes]))
    total = list(accumulate([size + _INPUT_OVERHEAD for size in sizes]))
    fitting = max(1, min(bisect_right(tokens, limits.tokens), bisect_right(total, limits.bytes)))
    return PlannedRequest(start, texts[:fitting], tokens[fitting - 1], total[fitting - 1], origin=start)
