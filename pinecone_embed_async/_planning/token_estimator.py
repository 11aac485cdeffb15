"""Estimates tokens, learning from bills."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pinecone_embed_async._planning.tokens import BYTES_PER_TOKEN, FEWEST_BYTES_PER_TOKEN, SPECIAL_TOKENS

if TYPE_CHECKING:
    from pinecone_embed_async._planning.request import Load

PROMPT_TOKENS = 16
"""Most tokens that a model may prepend to each input for its `input_type`, such as `query: `. A rule of thumb."""

MEMORY = 0.95
"""Decay of a bill's weight with each further bill."""

SPREADS = 2.0
"""Standard deviations by which a request's estimate exceeds its expected tokens."""

LEAST_SPREAD, MOST_SPREAD = 0.05, 0.5
"""Smallest and largest such margin, as a fraction of the expected tokens. Each answer releases it, so it costs little, and
texts may change during a job."""

STEPS = 50
"""Steps per doubling of the published ratio, so that it rarely changes."""


class TokenEstimator:
    """Learns from bills how many bytes of text a token stands for.

    Inputs at the model's sequence length are billed that length whatever their size, so only the others teach anything.
    Estimates err high at first, and later where bills vary, because a request with too low an estimate is rejected.

    Attributes:
        bytes_per_token: the ratio for estimates, which errs towards too many tokens.
    """

    def __init__(self) -> None:
        self._bytes = 0.0
        self._tokens = 0.0
        self._variance = 0.0
        self._weight = 0.0
        self.bytes_per_token = FEWEST_BYTES_PER_TOKEN

    def __repr__(self) -> str:
        return f"<TokenEstimator {self.expected:.2f} bytes a token, spread {math.sqrt(self._variance):.0%}>"

    @property
    def expected(self) -> float:
        """Expected UTF-8 bytes per token."""
        return self._bytes / self._tokens if self._tokens else BYTES_PER_TOKEN

    def learn(self, load: Load, billed: int, sequence_length: int) -> None:
        """Learn from the bill of a request with this load; an impossible bill is ignored."""
        if billed > most_tokens(load, sequence_length):
            return
        inputs = load.inputs - load.clipped
        size = load.open_bytes
        tokens = billed - load.clipped * sequence_length - SPECIAL_TOKENS * inputs
        if tokens <= 0 or size <= 0:
            return
        if self._tokens:
            off = tokens / (size / self.expected) - 1
            # Small requests vary more, and matter less.
            weight = min(1.0, tokens / 1000)
            self._weight = MEMORY * self._weight + weight
            # Capped, so that one absurd bill does not dominate for long.
            self._variance += (min(off * off, MOST_SPREAD) - self._variance) * weight / self._weight
        self._bytes = MEMORY * self._bytes + size
        self._tokens = MEMORY * self._tokens + tokens
        margin = min(max(SPREADS * math.sqrt(self._variance), LEAST_SPREAD), MOST_SPREAD)
        step = math.floor(STEPS * math.log2(self.expected / (1 + margin)))
        self.bytes_per_token = 2.0 ** (step / STEPS)


def most_tokens(load: Load, sequence_length: int) -> int:
    """Most tokens that a request with this load can cost: a token has at least a byte, and text cut off is not billed.

    A higher bill is a mistake, and must not limit what is sent in the next minute.
    """
    inputs = load.inputs
    opened = inputs - load.clipped
    whole = load.clipped * sequence_length + min(load.open_bytes, opened * sequence_length)
    return whole + inputs * (SPECIAL_TOKENS + PROMPT_TOKENS)
