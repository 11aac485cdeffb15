"""A planned request: its inputs, where its rows go, how it is cut, and its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from pinecone_embed_async._errors import DeadlineExceededError
from pinecone_embed_async._planning.tokens import BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN, estimate_tokens, utf8_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._wire import Answer, SparseBlock

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

    def certain_tokens_of(self, text: str) -> int:
        """Tokens that an input has at least, whatever its language."""
        return estimate_tokens(utf8_length(text), self.sequence_length, max(MOST_BYTES_PER_TOKEN, self.bytes_per_token))


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

    @classmethod
    def of(cls, texts: Iterable[str], limits: RequestLimits) -> Load:
        """The load of exactly these texts, whether or not they fit."""
        load, most, ratio = cls(), limits.sequence_length, limits.bytes_per_token
        sizes = [utf8_length(text) for text in texts]
        estimates = [estimate_tokens(size, most, ratio) for size in sizes]
        load.inputs, load.tokens, load.clipped = len(sizes), sum(estimates), estimates.count(most)
        load.bytes = sum(sizes) + INPUT_OVERHEAD * len(sizes)
        load.open_bytes = sum(size for size, tokens in zip(sizes, estimates, strict=True) if tokens < most)
        return load

    @classmethod
    def of_fitting(cls, texts: Sequence[str], limits: RequestLimits) -> Load:
        """The load of the first of these texts, at most `limits.inputs`, that fit; the first one always does."""
        load = cls.of(texts, limits)
        if load.inputs > 1 and (load.tokens > limits.tokens or load.bytes > limits.bytes):
            load = cls()
            for text in texts:
                if not load.add(utf8_length(text), limits):
                    break
        return load

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


class Attempts(msgspec.Struct, eq=False, kw_only=True):
    """The attempts to send something.

    Attributes:
        attempts: requests sent.
        failures: failed attempts, rejections for going over a limit not counted.
        first_sent: when the first attempt was sent; `None` before.
        last_error: error of the last attempt.
        in_flight: whether an attempt is on the wire or being decoded.
        is_answered: whether an answer was taken, which nothing undoes.
        is_last: whether no attempt may follow, because the job has ended or one was asked for.
        was_retried_at_once: whether it was retried at once after an idle connection was closed.
    """

    attempts: int = 0
    failures: int = 0
    first_sent: float | None = None
    last_error: EmbedError | None = None
    in_flight: bool = False
    is_answered: bool = False
    is_last: bool = False
    was_retried_at_once: bool = False

    def sent(self, now: float) -> None:
        """Record that an attempt is being sent."""
        self.attempts += 1
        self.in_flight = True
        if self.first_sent is None:
            self.first_sent = now

    def out_of_time(self, message: str, retry_after: float | None) -> DeadlineExceededError:
        """The error of a request that was not answered by the deadline of the call.

        Args:
            message: what happened; the error of the last attempt is appended, and is the cause.
            retry_after: seconds until the service is asked again at the earliest; `None` if not known.
        """
        if self.last_error is not None:
            message = f"{message}; the last attempt met {type(self.last_error).__name__}: {self.last_error}"
        error = DeadlineExceededError(message, retry_after=retry_after)
        error.__cause__ = self.last_error
        error.attempts = self.attempts
        return error


class Results(Protocol):
    """Where the rows and the outcomes of requests go."""

    @property
    def dimension(self) -> int | None:
        """Numbers per row; `None` if not known yet."""

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix for the rows of a request, shape (inputs of the request, dimension)."""

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Take an answer; dense rows are in the request's matrix already."""

    def embedded(self, request: PlannedRequest) -> None:
        """Put the rows of an answered request in place, and note that its inputs are embedded."""

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Note that the inputs of a request failed for good."""


class PlannedRequest(Attempts):
    """Inputs of a call that are sent as one request, from planning to their outcome.

    Attributes:
        texts: the inputs.
        positions: their positions in the call, ascending; a range where they are known to be contiguous.
        load: their size, and what they are estimated to cost.
        results: where its rows and its outcome go.
        parent: the request as it was planned at first; `None` if this is that one.
        is_probe: whether it carries no input of the call and only asks whether the parameters are accepted.
        was_halved: whether its inputs were searched for a refused one; known of a request as it was planned at first.
        body: the encoded request; `None` if it must be encoded.
        matrix: dense rows of its answer, as far as they have arrived; `None` if none have.
        sparse: sparse rows of its answer.
        billed: tokens billed for its answer; `None` if not known.
    """

    texts: Sequence[str]
    positions: Sequence[int]
    load: Load
    results: Results
    parent: PlannedRequest | None = None
    is_probe: bool = False
    was_halved: bool = False
    body: bytes | None = None
    matrix: NDArray[np.float32] | None = None
    sparse: SparseBlock | None = None
    billed: int | None = None

    def __repr__(self) -> str:
        what = "probe" if self.is_probe else f"{self.positions[0]}:{self.positions[-1] + 1}"
        return f"<PlannedRequest {what}, about {self.tokens} tokens>"

    @property
    def origin(self) -> PlannedRequest:
        """The request as it was planned at first."""
        return self.parent or self

    @property
    def tokens(self) -> int:
        """Estimated tokens."""
        return self.load.tokens

    def rows(self, dimension: int) -> NDArray[np.float32]:
        """The matrix that its answer is written to; see `Results.rows`."""
        return self.results.rows(self, dimension)

    def parts(self, count: int, limits: RequestLimits) -> list[PlannedRequest]:
        """The same inputs in requests of at most `count` inputs, in order."""
        whole = range(len(self.texts))
        return [self.only(whole[begin : begin + count], limits) for begin in range(0, len(self.texts), count)]

    def only(self, places: Sequence[int], limits: RequestLimits) -> PlannedRequest:
        """A request of some of its inputs: at least one, by their indices in `texts`, ascending."""
        if isinstance(places, range):
            run = slice(places.start, places.stop)
            texts, positions = self.texts[run], self.positions[run]
        else:
            texts, positions = [self.texts[place] for place in places], [self.positions[place] for place in places]
            if positions[-1] - positions[0] == len(positions) - 1:
                positions = range(positions[0], positions[-1] + 1)
        return PlannedRequest(texts, positions, Load.of(texts, limits), self.results, self.origin)

    def estimate(self, limits: RequestLimits) -> None:
        """Estimate it anew, since bills may have refined the ratio."""
        self.load = Load.of(self.texts, limits)

    def least_tokens(self, limits: RequestLimits) -> int:
        """Tokens of the smallest request that can be cut from it: its first input."""
        if len(self.texts) == 1:
            return self.load.tokens
        return min(self.load.tokens, limits.tokens_of(utf8_length(self.texts[0])))

    def certain_tokens(self, limits: RequestLimits) -> int:
        """Tokens that its first input has at least, whatever its language."""
        return limits.certain_tokens_of(self.texts[0])

    def cut(self, tokens: int, limits: RequestLimits) -> PlannedRequest | None:
        """Keep as many of its first inputs as have at most `tokens` together, and at least one.

        Returns:
            A request of the others; `None` if it keeps all.
        """
        if self.load.tokens <= tokens:
            return None
        count = 0
        for text in self.texts:
            tokens -= limits.tokens_of(utf8_length(text))
            if tokens < 0:
                break
            count += 1
        count = max(count, 1)
        rest = None
        if count < len(self.texts):
            rest = self.only(range(count, len(self.texts)), limits)
            self.texts, self.positions, self.body = self.texts[:count], self.positions[:count], None
        # If it keeps all, the ratio learned since it was planned gives fewer tokens than its estimate.
        self.estimate(limits)
        return rest
