"""A planned request: its inputs, the destination of its rows, its cuts, and its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pinecone_embed_async._errors import DeadlineExceededError
from pinecone_embed_async._planning.load import Load, utf8_length
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._planning.learned import LearnedLimits
    from pinecone_embed_async._wire import Answer, SparseBlock


class Attempts(SilentStruct, kw_only=True):
    """The attempts of one request.

    Attributes:
        attempts: number of attempts.
        failures: number of failed attempts; a rejection for going over a rate limit does not count.
        first_sent: when the first attempt was sent; `None` before.
        last_error: error of the last attempt.
        in_flight: whether an attempt is on the wire or being decoded.
        is_answered: whether an answer was accepted, which is final.
        is_last: whether no attempt may follow, because the job has ended or only one attempt was requested.
        was_retried_at_once: whether it was retried at once because an idle connection was closed.
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
            message: what happened; the error of the last attempt is appended to it and becomes the cause.
            retry_after: seconds until a request can be sent at the earliest; `None` if unknown.
        """
        if self.last_error is not None:
            message = f"{message}; the last attempt failed with {type(self.last_error).__name__}: {self.last_error}"
        error = DeadlineExceededError(message, retry_after=retry_after)
        error.__cause__ = self.last_error
        error.attempts = self.attempts
        return error


class Results(Protocol):
    """Receives the rows and outcomes of requests."""

    @property
    def dimension(self) -> int | None:
        """Numbers per row; `None` if still unknown."""

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix for the rows of a request: float32, shape (inputs of the request, dimension)."""

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Receive an answer, whose dense rows are already in the request's matrix."""

    def embedded(self, request: PlannedRequest) -> None:
        """Store the rows of an answered request, and record that its inputs are embedded."""

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Record that the inputs of a request failed for good."""


class PlannedRequest(Attempts):
    """Inputs of a call that are sent as one request, from planning to their outcome.

    Attributes:
        texts: the inputs.
        positions: ascending positions of the inputs in the call; a range if they are known to be contiguous.
        load: the size and estimated cost of the inputs.
        limits: limits of one request of the call.
        results: receives the rows and the outcome.
        parent: the originally planned request that this one was cut from; `None` if it is an original request.
        is_probe: whether it has no input of the call and only tests whether the parameters are accepted.
        was_halved: whether its inputs were searched for a refused one; set only on an original request.
        checked: number of remembered refusals by which no input of it was known to be refused.
        body: the encoded request; `None` if it must be encoded.
        matrix: the dense rows of its answer that have arrived; `None` if there are none.
        sparse: sparse rows of its answer.
        billed: tokens billed for its answer; `None` if unknown.
    """

    texts: Sequence[str]
    positions: Sequence[int]
    load: Load
    limits: LearnedLimits
    results: Results
    parent: PlannedRequest | None = None
    is_probe: bool = False
    was_halved: bool = False
    checked: int = 0
    body: bytes | None = None
    matrix: NDArray[np.float32] | None = None
    sparse: SparseBlock | None = None
    billed: int | None = None

    def __repr__(self) -> str:
        what = "probe" if self.is_probe else f"{self.positions[0]}:{self.positions[-1] + 1}"
        return f"<PlannedRequest {what}, about {self.load.tokens} tokens>"

    @property
    def origin(self) -> PlannedRequest:
        """The originally planned request."""
        return self.parent or self

    def rows(self, dimension: int) -> NDArray[np.float32]:
        """The matrix to write the answer to; see `Results.rows`."""
        return self.results.rows(self, dimension)

    def parts(self, count: int) -> list[PlannedRequest]:
        """The same inputs in requests of at most `count` inputs, in order."""
        whole = range(len(self.texts))
        return [self.only(whole[begin : begin + count]) for begin in range(0, len(self.texts), count)]

    def only(self, places: Sequence[int]) -> PlannedRequest:
        """A request with some of these inputs, given by their ascending indices in `texts`; at least one."""
        texts = [self.texts[place] for place in places]
        positions: Sequence[int] = [self.positions[place] for place in places]
        if positions[-1] - positions[0] == len(positions) - 1:
            positions = range(positions[0], positions[-1] + 1)
        return PlannedRequest(texts, positions, Load.of(texts, self.limits.current), self.limits, self.results, self.origin)

    @property
    def least_tokens(self) -> int:
        """Estimated tokens of the first input, the smallest request that can be cut from this one."""
        if len(self.texts) == 1:
            return self.load.tokens
        return min(self.load.tokens, self.limits.current.tokens_of(utf8_length(self.texts[0])))

    @property
    def certain_tokens(self) -> int:
        """Low estimate of the tokens of the first input."""
        return self.limits.current.certain_tokens_of(self.texts[0])

    def estimate(self) -> None:
        """Renew the token estimate, because bills may have changed the ratio."""
        self.load = Load.of(self.texts, self.limits.current)

    def cut(self, tokens: float) -> PlannedRequest | None:
        """Keep as many of the first inputs as have at most `tokens` together, but at least one.

        Returns:
            A request with the other inputs; `None` if there are none.
        """
        if self.load.tokens <= tokens:
            return None
        limits, count = self.limits.current, 0
        for text in self.texts:
            tokens -= limits.tokens_of(utf8_length(text))
            if tokens < 0:
                break
            count += 1
        count = max(count, 1)
        rest = None
        if count < len(self.texts):
            rest = self.only(range(count, len(self.texts)))
            self.texts, self.positions, self.body = self.texts[:count], self.positions[:count], None
        # Even if all inputs are kept: by the ratio learned since planning they have fewer tokens, or it is a single input.
        self.estimate()
        return rest
