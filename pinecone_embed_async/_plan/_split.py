"""Cuts a run of texts into requests under the limits."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import TYPE_CHECKING, NamedTuple

from pinecone_embed_async._plan._refusals import Refusals
from pinecone_embed_async._plan._tokens import (
    BYTES_PER_TOKEN,
    MOST_BYTES_PER_TOKEN,
    TokenEstimator,
    estimate_tokens,
    utf8_length,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_REQUEST_TOKENS = 50_000
"""Estimated tokens per request at most: the smallest documented quota of a minute (dense models, `query`,
Starter plan), so that a request fits into any; 96 full inputs of multilingual-e5-large fit into it."""

MAX_REQUEST_BYTES = 2_000_000
"""Bytes per request at most, about. None is documented for `/embed`; 2 MB is what the same service takes in one
upsert."""

_INPUT_OVERHEAD = len('{"text":""},')


class RequestLimits(NamedTuple):
    """What one request may hold.

    Attributes:
        inputs: inputs at most.
        sequence_length: tokens of an input that are embedded at most; the rest is cut off and not billed.
        tokens: estimated tokens at most, unless it is a single input.
        bytes: UTF-8 bytes of texts at most, about, unless it is a single input.
        bytes_per_token: by which tokens are estimated.
    """

    inputs: int
    sequence_length: int
    tokens: int = MAX_REQUEST_TOKENS
    bytes: int = MAX_REQUEST_BYTES
    bytes_per_token: float = BYTES_PER_TOKEN

    def tokens_of(self, size: int) -> int:
        """Tokens that an input of `size` UTF-8 bytes is billed, about."""
        return estimate_tokens(size, self.sequence_length, self.bytes_per_token)


_MOST_PARAMETERS = 64
"""Sets of parameters that are remembered; somebody may use a new one in every call."""


class Learned:
    """What answers and refusals have told about requests; the calls of a client share it.

    Attributes:
        inputs: inputs per request at most; `None` if no refusal told.
        request_bytes: UTF-8 bytes per request at most; `None` if no request was too large.
        accepted_bytes: of the largest request that was accepted.
        parameters: sets of parameters that were accepted, as JSON, the newest last.
        estimator: of tokens.
        refusals: the inputs that were refused by themselves.
    """

    def __init__(self) -> None:
        self.refusals = Refusals()
        self.inputs: int | None = None
        self.request_bytes: int | None = None
        self.accepted_bytes = 0
        self.parameters: dict[bytes, None] = {}
        self.estimator = TokenEstimator()
        self._applied: tuple[RequestLimits, float, RequestLimits] | None = None

    def __repr__(self) -> str:
        return f"<Learned inputs={self.inputs}, request_bytes={self.request_bytes}, {self.estimator!r}>"

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
        self._applied = None

    def too_many(self, most: int) -> None:
        """Note that the service takes `most` inputs in a request."""
        self.inputs = most if self.inputs is None else min(most, self.inputs)
        self._applied = None

    def applied_to(self, limits: RequestLimits) -> RequestLimits:
        """The tighter of both, with the bytes per token that were learned."""
        # Asked for every text, so the last answer is kept.
        ratio = self.estimator.bytes_per_token
        if (
            self._applied is None
            or self._applied[1] != ratio
            or not (self._applied[0] is limits or self._applied[0] == limits)
        ):
            inputs = limits.inputs if self.inputs is None else min(limits.inputs, self.inputs)
            size = limits.bytes if self.request_bytes is None else min(limits.bytes, self.request_bytes)
            applied = RequestLimits(inputs, limits.sequence_length, limits.tokens, size, ratio)
            self._applied = limits, ratio, applied
        return self._applied[2]


@dataclass(frozen=True, slots=True, repr=False)
class PlannedRequest:
    """A run of a call's inputs that goes out as one request.

    Attributes:
        start: position in the call of the first input.
        texts: the inputs.
        tokens: estimated.
        bytes: of the texts in UTF-8, with what JSON puts around them.
        clipped: inputs that are estimated to be as long as the model takes, or longer.
        open_bytes: of the other texts in UTF-8.
        origin: start of the request that this one was split off from; its own start if of none.
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
        """Position in the call behind the last input."""
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
        """Where runs of its inputs that are side by side begin and end."""
        ends = [*self.holes, self.stop]
        starts = [self.start, *(hole + 1 for hole in self.holes)]
        return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def __repr__(self) -> str:
        what = "probe" if self.is_probe else f"{self.start}:{self.stop}"
        return f"<PlannedRequest {what}, about {self.tokens} tokens>"

    def parts(self, count: int, limits: RequestLimits) -> list[PlannedRequest]:
        """The same inputs in requests of at most `count`, in order."""
        whole = range(len(self.texts))
        return [self.only(whole[begin : begin + count], limits) for begin in range(0, len(self.texts), count)]

    def only(self, places: Sequence[int], limits: RequestLimits) -> PlannedRequest:
        """Some of the same inputs: at least one, by their places in `texts`, ascending."""
        first, last = places[0], places[-1]
        if not self.holes and last - first == len(places) - 1:
            return plan_request(self.texts[first : last + 1], self.start + first, limits, origin=self.origin)
        own = self.positions
        positions = [own[place] for place in places]
        request = plan_request([self.texts[place] for place in places], positions[0], limits, origin=self.origin)
        holes = sorted(set(range(positions[0], positions[-1])).difference(positions))
        return replace(request, holes=tuple(holes))

    def estimated(self, limits: RequestLimits) -> PlannedRequest:
        """The same inputs with their tokens estimated anew: bills may have told more since they were."""
        request = plan_request(self.texts, self.start, limits, origin=self.origin, is_probe=self.is_probe)
        return replace(request, holes=self.holes) if self.holes else request

    def least_tokens(self, limits: RequestLimits) -> int:
        """Tokens of the smallest request that can be cut off it: of its first input."""
        return min(self.tokens, limits.tokens_of(utf8_length(self.texts[0])))

    def fewest_tokens(self, limits: RequestLimits) -> int:
        """Tokens that its first input has at the very least."""
        return estimate_tokens(utf8_length(self.texts[0]), limits.sequence_length, MOST_BYTES_PER_TOKEN)

    def cut(self, tokens: int, limits: RequestLimits) -> tuple[PlannedRequest | None, PlannedRequest | None]:
        """Cut off the first inputs, as many as have at most `tokens` together.

        Returns:
            Those, `None` if there are none, and the rest, `None` if there is none.
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
            # By what has been learned since it was planned, it has fewer tokens than it says.
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
    """How much has been gathered for one request.

    Attributes:
        inputs: gathered.
        tokens: estimated.
        bytes: of the texts in UTF-8, with what JSON puts around them.
        clipped: inputs that are estimated to be as long as the model takes, or longer.
        open_bytes: of the other texts in UTF-8.
    """

    __slots__ = ("bytes", "clipped", "inputs", "open_bytes", "tokens")

    def __init__(self) -> None:
        self.inputs = self.tokens = self.bytes = self.clipped = self.open_bytes = 0

    def add(self, size: int, limits: RequestLimits) -> bool:
        """Add a text of `size` UTF-8 bytes, if it fits in with what is there, which the first always does.

        Returns:
            Whether it was added.
        """
        tokens = limits.tokens_of(size)
        if self.inputs and (
            self.inputs >= limits.inputs
            or self.tokens + tokens > limits.tokens
            or self.bytes + size + _INPUT_OVERHEAD > limits.bytes
        ):
            return False
        self._count(1, size, tokens, limits)
        return True

    def put(self, size: int, limits: RequestLimits) -> None:
        """Add a text of `size` UTF-8 bytes, whether it fits in or not."""
        self._count(1, size, limits.tokens_of(size), limits)

    def remove(self, size: int, limits: RequestLimits) -> None:
        """Take out a text of `size` UTF-8 bytes that was added under the same limits."""
        self._count(-1, size, limits.tokens_of(size), limits)

    def _count(self, sign: int, size: int, tokens: int, limits: RequestLimits) -> None:
        self.inputs += sign
        self.tokens += sign * tokens
        self.bytes += sign * (size + _INPUT_OVERHEAD)
        if tokens < limits.sequence_length:
            self.open_bytes += sign * size
        else:
            self.clipped += sign

    def request(self, start: int, texts: Sequence[str], *, origin: int, is_probe: bool = False) -> PlannedRequest:
        """The request of the texts that were gathered."""
        return PlannedRequest(start, texts, self.tokens, self.bytes, self.clipped, self.open_bytes, origin, is_probe)


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
        request = self._load.request(self._start, self._texts, origin=self._start)
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


class Requests:
    """The requests for a run of texts, each cut when it is asked for, by the limits of that moment.

    Args:
        texts: read as far as is needed for the next request.
        limits: what one request may hold.
    """

    def __init__(self, texts: Iterable[str], limits: Callable[[], RequestLimits]) -> None:
        self._texts = iter(texts)
        self._limits = limits
        self._start = 0
        self._ahead: PlannedRequest | None = None
        self._returned: deque[str] = deque()
        self._is_read = False

    def ahead(self) -> PlannedRequest | None:
        """The next request, which stays the next; `None` if there is none."""
        if self._ahead is None:
            self._ahead = self._gather()
        return self._ahead

    def take(self, tokens: int | None = None) -> PlannedRequest | None:
        """The next request, cut to `tokens` if it has more; `None` if there is none, or its first input has more.

        What is cut off begins the request after that.
        """
        request = self.ahead()
        if request is None:
            return None
        head: PlannedRequest | None = request
        if tokens is not None:
            head, rest = request.cut(tokens, self._limits())
            if head is None:
                return None
            if rest is not None:
                self._returned.extendleft(reversed(rest.texts))
        self._ahead = None
        self._start += 0 if head is None else len(head.texts)
        return head

    def __iter__(self) -> Iterator[PlannedRequest]:
        while (request := self.take()) is not None:
            yield request

    def _gather(self) -> PlannedRequest | None:
        """The same request as a `Splitter` makes, without its work for each text."""
        if self._is_read and not self._returned:
            return None
        limits = self._limits()
        self._returned.extend(islice(self._texts, max(0, limits.inputs - len(self._returned))))
        if not self._returned:
            self._is_read = True
            return None
        texts = list(islice(self._returned, limits.inputs))
        sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
        most, ratio = limits.sequence_length, limits.bytes_per_token
        tokens = [estimate_tokens(size, most, ratio) for size in sizes]
        sums = list(accumulate(tokens))
        whole = list(accumulate(size + _INPUT_OVERHEAD for size in sizes))
        fitting = max(1, min(bisect_right(sums, limits.tokens), bisect_right(whole, limits.bytes)))
        for _ in range(fitting):
            self._returned.popleft()
        opened = [size for size, count in zip(sizes[:fitting], tokens, strict=False) if count < most]
        return PlannedRequest(
            self._start,
            texts[:fitting],
            tokens=sums[fitting - 1],
            bytes=whole[fitting - 1],
            clipped=fitting - len(opened),
            open_bytes=sum(opened),
            origin=self._start,
        )
