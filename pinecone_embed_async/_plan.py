"""Splits a call's texts into requests, and keeps the account of what became of each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._errors import EmbedError, Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True, repr=False)
class PlannedRequest:
    """A run of a call's inputs that goes out as one request.

    Attributes:
        start: position in the call of the first input.
        texts: the inputs.
        tokens: estimated.
    """

    start: int
    texts: Sequence[str]
    tokens: int

    @property
    def stop(self) -> int:
        """Position in the call behind the last input."""
        return self.start + len(self.texts)

    def __repr__(self) -> str:
        return f"<PlannedRequest {self.start}:{self.stop}, about {self.tokens} tokens>"


def utf8_length(text: str) -> int:
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def estimate_tokens(size: int, sequence_length: int) -> int:
    """Tokens that an input of `size` UTF-8 bytes is billed, about, cut at the model's length."""
    return min(sequence_length, int(size / BYTES_PER_TOKEN) + SPECIAL_TOKENS)


_NOT_TRIED, _EMBEDDED, _FAILED = 0, 1, 2


class Ledger:
    """The plan of one call and what has come of it: every input ends embedded, failed, or not tried.

    Args:
        texts: the call's inputs, checked.
        limits: what one request may hold.

    Attributes:
        embedded_count: inputs embedded so far.
        failed_count: inputs failed so far.
        job_error: what ended the job before its time; `None` if nothing did.
    """

    def __init__(self, texts: Sequence[str], limits: RequestLimits) -> None:
        self._texts = texts
        self._limits = limits
        self._next = 0
        self._state = np.zeros(len(texts), np.uint8)
        self._failures: list[tuple[int, int, EmbedError]] = []
        self.embedded_count = 0
        self.failed_count = 0
        self.job_error: EmbedError | None = None

    def __repr__(self) -> str:
        return f"<Ledger {self.embedded_count} of {len(self._texts)} embedded, {self.failed_count} failed>"

    def take(self) -> PlannedRequest | None:
        """The next request, as large as the limits allow; `None` if there is none or the job has ended."""
        start = self._next
        if self.job_error is not None or start >= len(self._texts):
            return None
        limits = self._limits
        tokens = size = 0
        stop = start
        for text in self._texts[start : start + limits.inputs]:
            length = utf8_length(text)
            estimate = estimate_tokens(length, limits.sequence_length)
            over = tokens + estimate > limits.tokens or size + length + _INPUT_OVERHEAD > limits.bytes
            if over and stop > start:
                break
            tokens += estimate
            size += length + _INPUT_OVERHEAD
            stop += 1
        self._next = stop
        return PlannedRequest(start, self._texts[start:stop], tokens)

    def embedded(self, request: PlannedRequest) -> None:
        """Note that a request was answered and its rows are in place."""
        self._state[request.start : request.stop] = _EMBEDDED
        self.embedded_count += len(request.texts)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Note that a request failed for good."""
        self._state[request.start : request.stop] = _FAILED
        self.failed_count += len(request.texts)
        self._failures.append((request.start, request.stop, error))

    def end(self, error: EmbedError) -> None:
        """End the job: nothing that is not under way is sent any more."""
        if self.job_error is None:
            self.job_error = error

    def embedded_mask(self) -> NDArray[np.bool_]:
        """Bool, shape (inputs,): which are embedded."""
        mask: NDArray[np.bool_] = self._state == _EMBEDDED
        return mask

    def failures(self) -> tuple[Failure, ...]:
        """What failed, by position."""
        ordered = sorted(self._failures, key=lambda failure: failure[0])
        return tuple(Failure(range(start, stop), error) for start, stop, error in ordered)

    def error(self) -> EmbedError | None:
        """The error that the call ends with: the job's own, else that of the lowest failed input."""
        if self.job_error is not None or not self._failures:
            return self.job_error
        return min(self._failures, key=lambda failure: failure[0])[2]
