"""Request limits that a client has learned from answers and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinecone_embed_async._planning.refusals import Refusals
from pinecone_embed_async._planning.token_estimator import TokenEstimator

if TYPE_CHECKING:
    from pinecone_embed_async._planning.request import PlannedRequest, RequestLimits

_MOST_PARAMETERS = 64
"""Maximum number of remembered sets of parameters, because a program may use a new set in every call."""


class Learned:
    """Knowledge learned from answers and refusals, shared by the calls of a client.

    Attributes:
        inputs: maximum number of inputs per request; `None` if no refusal named a limit.
        request_bytes: maximum number of UTF-8 bytes per request; `None` if no request was too large.
        accepted_bytes: size of the largest accepted request, in UTF-8 bytes.
        parameters: accepted sets of parameters, as JSON, the newest last.
        estimator: the token estimator.
        refusals: the inputs that were refused in a request of their own.
    """

    def __init__(self) -> None:
        self.refusals = Refusals()
        self.inputs: int | None = None
        self.request_bytes: int | None = None
        self.accepted_bytes = 0
        self.parameters: dict[bytes, None] = {}
        self.estimator = TokenEstimator()

    def __repr__(self) -> str:
        return f"<Learned inputs={self.inputs}, request_bytes={self.request_bytes}, {self.estimator!r}>"

    def accepted(self, request: PlannedRequest, parameters: bytes, sequence_length: int) -> None:
        """Record that the service accepted this request with these parameters, and learn from its bill."""
        if request.billed is not None:
            self.estimator.learn(request.load, request.billed, sequence_length)
        self.accepted_bytes = max(self.accepted_bytes, request.load.bytes)
        if parameters not in self.parameters:
            if len(self.parameters) >= _MOST_PARAMETERS:
                del self.parameters[next(iter(self.parameters))]
            self.parameters[parameters] = None

    def too_large(self, request: PlannedRequest) -> None:
        """Record that a request was refused as too large (413)."""
        size = request.load.bytes
        if len(request.texts) == 1:
            # This input is too large, not the larger requests that contained it.
            self.request_bytes = None
        elif size > self.accepted_bytes:
            self.request_bytes = max(size // 2, self.accepted_bytes)

    def too_many(self, most: int) -> None:
        """Record that the service accepts at most `most` inputs per request."""
        self.inputs = most if self.inputs is None else min(most, self.inputs)


class LearnedLimits:
    """The limits of one request of a call.

    Args:
        known: the known limits of the model.
        learned: knowledge learned from answers and refusals.

    Attributes:
        known: the known limits of the model.
        learned: knowledge learned from answers and refusals.
    """

    def __init__(self, known: RequestLimits, learned: Learned) -> None:
        self.known = known
        self.learned = learned
        self._current = known
        self._basis: tuple[int | None, int | None, float] | None = None

    def __repr__(self) -> str:
        return f"<LearnedLimits {self.current}>"

    @property
    def current(self) -> RequestLimits:
        """The tighter of the known limits and the learned ones, with the learned bytes per token."""
        known, learned = self.known, self.learned
        # Cached, because it is read several times for every request.
        basis = learned.inputs, learned.request_bytes, learned.estimator.bytes_per_token
        if self._basis != basis:
            inputs, size, ratio = basis
            inputs = known.inputs if inputs is None else min(known.inputs, inputs)
            size = known.bytes if size is None else min(known.bytes, size)
            self._current = known._replace(inputs=inputs, bytes=size, bytes_per_token=ratio)
            self._basis = basis
        return self._current
