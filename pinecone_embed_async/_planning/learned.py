"""What a client has learned about requests from answers and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinecone_embed_async._planning.refusals import Refusals
from pinecone_embed_async._planning.request import RequestLimits
from pinecone_embed_async._planning.token_estimator import TokenEstimator

if TYPE_CHECKING:
    from pinecone_embed_async._planning.request import PlannedRequest

_MOST_PARAMETERS = 64
"""Most sets of parameters remembered; a program may use a new one in every call."""


class Learned:
    """What answers and refusals have taught about requests; shared by the calls of a client.

    Attributes:
        inputs: most inputs per request; `None` if no refusal named a limit.
        request_bytes: most UTF-8 bytes per request; `None` if no request was too large.
        accepted_bytes: size of the largest accepted request.
        parameters: accepted sets of parameters, as JSON, the newest last.
        estimator: the token estimator.
        refusals: the inputs that were refused alone.
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
        """Record that the service accepted this request with these parameters."""
        self.accepted_bytes = max(self.accepted_bytes, request.bytes)
        if parameters not in self.parameters:
            if len(self.parameters) >= _MOST_PARAMETERS:
                del self.parameters[next(iter(self.parameters))]
            self.parameters[parameters] = None

    def too_large(self, request: PlannedRequest) -> None:
        """Record that a request was refused as too large (413)."""
        if len(request.texts) == 1:
            # This input is too large, not the requests that held it.
            self.request_bytes = None
        elif request.bytes > self.accepted_bytes:
            self.request_bytes = max(request.bytes // 2, self.accepted_bytes)
        self._applied = None

    def too_many(self, most: int) -> None:
        """Record that the service accepts at most `most` inputs per request."""
        self.inputs = most if self.inputs is None else min(most, self.inputs)
        self._applied = None

    def applied_to(self, limits: RequestLimits) -> RequestLimits:
        """The tighter of `limits` and the learned ones, with the learned bytes per token."""
        # Called for every text, so the last result is kept.
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
