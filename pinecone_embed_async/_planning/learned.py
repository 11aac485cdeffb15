"""What a client has learned from answers and refusals: limits of requests, refused inputs, and the tokens of texts."""

from __future__ import annotations

import copy
import hashlib
import math
import re
import secrets
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async._planning.load import BYTES_PER_TOKEN, FEWEST_BYTES_PER_TOKEN, SPECIAL_TOKENS, RequestLimits

if TYPE_CHECKING:
    from pinecone_embed_async._errors import InvalidRequestError
    from pinecone_embed_async._planning.load import Load

_MOST_PARAMETERS = 64
"""Maximum number of remembered sets of parameters, because a program may use a new set in every call."""

MOST_REFUSALS = 10_000
"""Maximum number of remembered inputs; the oldest are forgotten first."""

REFUSAL_SECONDS = 600.0
"""How long a refused input is not sent again; after that the service may accept it."""

_NAMED_INPUT = re.compile(r"<input \d+>")

PROMPT_TOKENS = 16
"""Maximum number of tokens that a model prepends to an input for its `input_type`, such as `query: `. A rule of thumb."""

MEMORY = 0.95
"""Factor by which each new bill reduces the weight of the earlier ones."""

SPREADS = 2.0
"""Margin of an estimate above the expected tokens, in standard deviations."""

LEAST_SPREAD, MOST_SPREAD = 0.05, 0.5
"""Smallest and largest margin, as a fraction of the expected tokens. There is always a margin because texts may change
during a job; it costs little because each answer releases it."""


class Refusals:
    """The inputs that were refused in a request of their own, with the service's errors.

    Inputs are stored as digests with a random key, so that the memory of this object reveals no texts.

    Attributes:
        changes: number of inputs added so far.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._errors: OrderedDict[bytes, tuple[float, InvalidRequestError]] = OrderedDict()
        self.changes = 0

    def add(self, text: str, request_parameters: bytes, error: InvalidRequestError, now: float) -> None:
        """Record that a text was refused alone.

        Args:
            text: the input.
            request_parameters: model and parameters, as JSON.
            error: the refusal.
            now: the current time.
        """
        message = _NAMED_INPUT.sub("<the input>", error.message)
        kept = type(error)(
            f"{message} (an equal input was refused before; not sent again)",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        )
        digest = self._digest(text, request_parameters)
        self._errors[digest] = now + REFUSAL_SECONDS, kept
        self._errors.move_to_end(digest)
        self.changes += 1
        if len(self._errors) > MOST_REFUSALS:
            self._errors.popitem(last=False)

    def find(self, text: str, request_parameters: bytes, now: float) -> InvalidRequestError | None:
        """The error for a text that was refused in the last `REFUSAL_SECONDS`; `None` if it was not."""
        digest = self._digest(text, request_parameters)
        until, error = self._errors.get(digest, (-math.inf, None))
        return copy.copy(error) if now < until else None

    def _digest(self, text: str, request_parameters: bytes) -> bytes:
        # Unambiguous without a separator, because the parameters are a single JSON object.
        return hashlib.blake2b(request_parameters + text.encode(), key=self._key, digest_size=16).digest()


class TokenEstimator:
    """Learns from bills how many bytes of text a token has.

    An input that reaches the model's sequence length is billed at that length, however long its text is, so only shorter
    inputs show the ratio. At first, and later if bills vary, estimates are too high rather than too low, because a request
    whose estimate is too low may be rejected.

    Attributes:
        expected: expected UTF-8 bytes per token.
        bytes_per_token: the ratio for estimates; too low rather than too high.
    """

    def __init__(self) -> None:
        self._tokens = 0.0
        self._variance = 0.0
        self._weight = 0.0
        self.expected = BYTES_PER_TOKEN
        self.bytes_per_token = FEWEST_BYTES_PER_TOKEN

    def __repr__(self) -> str:
        return f"<TokenEstimator {self.expected:.2f} bytes a token, spread {math.sqrt(self._variance):.0%}>"

    def learn(self, size: int, tokens: int) -> None:
        """Learn that texts of `size` UTF-8 bytes had so many tokens; nothing if either is not positive."""
        if tokens <= 0 or size <= 0:
            return
        surplus = size - tokens * self.expected
        if self._tokens:
            off = surplus / size
            # Small requests vary more and matter less.
            weight = min(1.0, tokens / 1000)
            self._weight = MEMORY * self._weight + weight
            # Capped, so that a single absurd bill does not dominate for long.
            self._variance += (min(off * off, MOST_SPREAD) - self._variance) * weight / self._weight
        self._tokens = MEMORY * self._tokens + tokens
        self.expected += surplus / self._tokens
        margin = min(max(SPREADS * math.sqrt(self._variance), LEAST_SPREAD), MOST_SPREAD)
        self.bytes_per_token = self.expected / (1 + margin)


class Learned:
    """Knowledge learned from answers and refusals, shared by the calls of a client.

    Attributes:
        inputs: maximum number of inputs per request, by what refusals have named.
        request_bytes: maximum number of UTF-8 bytes per request, by those that were too large.
        accepted_bytes: size of the largest accepted request, in UTF-8 bytes.
        parameters: accepted sets of parameters, as JSON, the newest last.
        estimator: the token estimator.
        refusals: the inputs that were refused in a request of their own.
    """

    def __init__(self) -> None:
        self.refusals = Refusals()
        self.inputs = self.request_bytes = sys.maxsize
        self.accepted_bytes = 0
        self.parameters: dict[bytes, None] = {}
        self.estimator = TokenEstimator()

    def accepted(self, load: Load, parameters: bytes) -> None:
        """Record that the service accepted a request with this load and these parameters."""
        self.accepted_bytes = max(self.accepted_bytes, load.bytes)
        if parameters not in self.parameters:
            if len(self.parameters) >= _MOST_PARAMETERS:
                del self.parameters[next(iter(self.parameters))]
            self.parameters[parameters] = None

    def too_large(self, load: Load) -> None:
        """Record that a request with this load was refused as too large (413)."""
        if load.inputs == 1:
            # This input is too large, not the larger requests that contained it.
            self.request_bytes = sys.maxsize
        elif load.bytes > self.accepted_bytes:
            self.request_bytes = max(load.bytes // 2, self.accepted_bytes)

    def too_many(self, most: int) -> None:
        """Record that the service accepts at most `most` inputs per request."""
        self.inputs = min(most, self.inputs)


class LearnedLimits(msgspec.Struct, eq=False):
    """The limits of one request of a call.

    Attributes:
        known: the known limits of the model.
        learned: knowledge learned from answers and refusals.
    """

    known: RequestLimits
    learned: Learned

    @property
    def current(self) -> RequestLimits:
        """The tighter of the known limits and the learned ones, with the learned bytes per token."""
        known, learned = self.known, self.learned
        inputs, size = min(known.inputs, learned.inputs), min(known.bytes, learned.request_bytes)
        return RequestLimits(inputs, known.sequence_length, known.tokens, size, learned.estimator.bytes_per_token)

    def billed(self, load: Load, tokens: int) -> int:
        """Learn from the bill of a request with this load; return its tokens, at most as many as the request can cost.

        A higher bill is a mistake, which teaches nothing and must not count against the quota.
        """
        length, opened = self.known.sequence_length, load.inputs - load.clipped
        clipped = load.clipped * length
        # A token has at least one byte, and text cut off is not billed.
        most = clipped + min(load.open_bytes, opened * length) + load.inputs * (SPECIAL_TOKENS + PROMPT_TOKENS)
        if tokens > most:
            return most
        self.learned.estimator.learn(load.open_bytes, tokens - clipped - SPECIAL_TOKENS * opened)
        return tokens
