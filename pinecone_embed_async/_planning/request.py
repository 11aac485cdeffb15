"""A planned request: its limits, its inputs, and how it is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pinecone_embed_async._planning.tokens import BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN, estimate_tokens, utf8_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._wire import Answer

MAX_REQUEST_TOKENS = 50_000
"""Most estimated tokens per request: the smallest documented quota per minute (dense models, `query`, Starter plan), so
that a request fits into any; 96 full inputs of multilingual-e5-large fit into it."""

MAX_REQUEST_BYTES = 2_000_000
"""Most bytes per request, approximately. No limit is documented for `/embed`; the same service takes 2 MB in one upsert."""

INPUT_OVERHEAD = len('{"text":""},')
"""Bytes that JSON puts around a text."""


class RequestLimits(NamedTuple):
    """What one request may hold.

    Attributes:
        inputs: most inputs.
        sequence_length: most tokens of an input that are embedded; the rest is cut off and not billed.
        tokens: most estimated tokens, unless it is a single input.
        bytes: most UTF-8 bytes of texts, approximately, unless it is a single input.
        bytes_per_token: the ratio for estimates.
    """

    inputs: int
    sequence_length: int
    tokens: int = MAX_REQUEST_TOKENS
    bytes: int = MAX_REQUEST_BYTES
    bytes_per_token: float = BYTES_PER_TOKEN

    def tokens_of(self, size: int) -> int:
        """Estimated tokens of an input of `size` UTF-8 bytes."""
        return estimate_tokens(size, self.sequence_length, self.bytes_per_token)


@dataclass(frozen=True, slots=True, repr=False)
class PlannedRequest:
    """A run of a call's inputs that is sent as one request.

    Attributes:
        start: position of the first input in the call.
        texts: the inputs.
        tokens: estimated tokens.
        bytes: UTF-8 bytes of the texts, with their JSON overhead.
        clipped: inputs whose estimate reaches the model's sequence length.
        open_bytes: UTF-8 bytes of the other texts.
        origin: start of the request that this one was split from; its own start if it was not split.
        is_probe: whether it carries no input of the call and only asks whether the parameters are accepted.
        holes: positions between `start` and `stop` whose inputs it does not carry.
    """

    start: int
    texts: Sequence[str]
    tokens: int
    bytes: int
    clipped: int
    open_bytes: int
    origin: int
    is_probe: bool = False
    holes: tuple[int, ...] = ()

    @property
    def stop(self) -> int:
        """Position in the call after the last input."""
        return self.start + len(self.texts) + len(self.holes)

    @property
    def positions(self) -> Sequence[int]:
        """Positions in the call of its inputs."""
        if not self.holes:
            return range(self.start, self.stop)
        left_out = set(self.holes)
        return [position for position in range(self.start, self.stop) if position not in left_out]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Start and end of each run of contiguous inputs."""
        ends = [*self.holes, self.stop]
        starts = [self.start, *(hole + 1 for hole in self.holes)]
        return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def __repr__(self) -> str:
        what = "probe" if self.is_probe else f"{self.start}:{self.stop}"
        return f"<PlannedRequest {what}, about {self.tokens} tokens>"

    def parts(self, count: int, limits: RequestLimits) -> list[PlannedRequest]:
        """The same inputs in requests of at most `count` inputs, in order."""
        whole = range(len(self.texts))
        return [self.only(whole[begin : begin + count], limits) for begin in range(0, len(self.texts), count)]

    def only(self, places: Sequence[int], limits: RequestLimits) -> PlannedRequest:
        """A request of some of its inputs: at least one, by their indices in `texts`, ascending."""
        first, last = places[0], places[-1]
        if not self.holes and last - first == len(places) - 1:
            return plan_request(self.texts[first : last + 1], self.start + first, limits, origin=self.origin)
        own = self.positions
        positions = [own[place] for place in places]
        request = plan_request([self.texts[place] for place in places], positions[0], limits, origin=self.origin)
        holes = sorted(set(range(positions[0], positions[-1])).difference(positions))
        return replace(request, holes=tuple(holes))

    def estimated(self, limits: RequestLimits) -> PlannedRequest:
        """The same inputs with a fresh estimate, since bills may have refined the ratio."""
        request = plan_request(self.texts, self.start, limits, origin=self.origin, is_probe=self.is_probe)
        return replace(request, holes=self.holes) if self.holes else request

    def least_tokens(self, limits: RequestLimits) -> int:
        """Tokens of the smallest request that can be cut from it: its first input."""
        return min(self.tokens, limits.tokens_of(utf8_length(self.texts[0])))

    def fewest_tokens(self, limits: RequestLimits) -> int:
        """Lower bound of the tokens of its first input."""
        return estimate_tokens(utf8_length(self.texts[0]), limits.sequence_length, MOST_BYTES_PER_TOKEN)

    def cut(self, tokens: int, limits: RequestLimits) -> tuple[PlannedRequest | None, PlannedRequest | None]:
        """Split off as many of the first inputs as have at most `tokens` together.

        Returns:
            Those inputs and the rest; `None` for either if it is empty.
        """
        if self.tokens <= tokens:
            return self, None
        count = 0
        for text in self.texts:
            tokens -= limits.tokens_of(utf8_length(text))
            if tokens < 0:
                break
            count += 1
        if not count:
            return None, self
        if count == len(self.texts):
            # The ratio learned since it was planned gives fewer tokens than its estimate.
            return self.estimated(limits), None
        whole = range(len(self.texts))
        return self.only(whole[:count], limits), self.only(whole[count:], limits)


def plan_request(
    texts: Sequence[str], start: int, limits: RequestLimits, *, origin: int, is_probe: bool = False
) -> PlannedRequest:
    """A request of exactly these texts."""
    load = Load()
    for text in texts:
        load.put(utf8_length(text), limits)
    return load.request(start, texts, origin=origin, is_probe=is_probe)


class Load:
    """Running totals of the texts gathered for one request.

    Attributes:
        inputs: texts gathered.
        tokens: estimated tokens.
        bytes: UTF-8 bytes of the texts, with their JSON overhead.
        clipped: inputs whose estimate reaches the model's sequence length.
        open_bytes: UTF-8 bytes of the other texts.
    """

    __slots__ = ("bytes", "clipped", "inputs", "open_bytes", "tokens")

    def __init__(self) -> None:
        self.inputs = self.tokens = self.bytes = self.clipped = self.open_bytes = 0

    def add(self, size: int, limits: RequestLimits) -> bool:
        """Add a text of `size` UTF-8 bytes if it fits; the first one always does.

        Returns:
            Whether it was added.
        """
        tokens = limits.tokens_of(size)
        if self.inputs and (
            self.inputs >= limits.inputs
            or self.tokens + tokens > limits.tokens
            or self.bytes + size + INPUT_OVERHEAD > limits.bytes
        ):
            return False
        self._count(1, size, tokens, limits)
        return True

    def put(self, size: int, limits: RequestLimits) -> None:
        """Add a text of `size` UTF-8 bytes, whether or not it fits."""
        self._count(1, size, limits.tokens_of(size), limits)

    def remove(self, size: int, limits: RequestLimits) -> None:
        """Remove a text of `size` UTF-8 bytes that was added under the same limits."""
        self._count(-1, size, limits.tokens_of(size), limits)

    def _count(self, sign: int, size: int, tokens: int, limits: RequestLimits) -> None:
        self.inputs += sign
        self.tokens += sign * tokens
        self.bytes += sign * (size + INPUT_OVERHEAD)
        if tokens < limits.sequence_length:
            self.open_bytes += sign * size
        else:
            self.clipped += sign

    def request(self, start: int, texts: Sequence[str], *, origin: int, is_probe: bool = False) -> PlannedRequest:
        """The request for the gathered texts."""
        return PlannedRequest(start, texts, self.tokens, self.bytes, self.clipped, self.open_bytes, origin, is_probe)


class Sink(Protocol):
    """Receives the rows of requests."""

    @property
    def dimension(self) -> int | None:
        """Numbers per row; `None` if not known yet."""

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix for its rows, shape (inputs of the request, dimension)."""

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """Positions of its inputs in the call, for messages; `None` if they are contiguous from `start`."""

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Take the answer once its rows are in place."""
