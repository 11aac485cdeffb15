"""Estimates tokens, and learns from bills."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pinecone_embed_async._planning.tokens import BYTES_PER_TOKEN, FEWEST_BYTES_PER_TOKEN, SPECIAL_TOKENS

if TYPE_CHECKING:
    from pinecone_embed_async._planning.request import Load

PROMPT_TOKENS = 16
"""Maximum number of tokens that a model prepends to an input for its `input_type`, such as `query: `. A rule of thumb."""

MEMORY = 0.95
"""Factor by which each new bill reduces the weight of the earlier ones."""

SPREADS = 2.0
"""Margin of an estimate above the expected tokens, in standard deviations."""

LEAST_SPREAD, MOST_SPREAD = 0.05, 0.5
"""Smallest and largest margin, as a fraction of the expected tokens. There is always a margin because texts may change
during a job; it costs little because each answer releases it."""

STEPS = 50
"""Number of steps per doubling of `bytes_per_token`, which is rounded down to a step so that it rarely changes."""


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
        self._bytes = 0.0
        self._tokens = 0.0
        self._variance = 0.0
        self._weight = 0.0
        self.expected = BYTES_PER_TOKEN
        self.bytes_per_token = FEWEST_BYTES_PER_TOKEN

    def __repr__(self) -> str:
        return f"<TokenEstimator {self.expected:.2f} bytes a token, spread {math.sqrt(self._variance):.0%}>"

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
            # Small requests vary more and matter less.
            weight = min(1.0, tokens / 1000)
            self._weight = MEMORY * self._weight + weight
            # Capped, so that a single absurd bill does not dominate for long.
            self._variance += (min(off * off, MOST_SPREAD) - self._variance) * weight / self._weight
        self._bytes = MEMORY * self._bytes + size
        self._tokens = MEMORY * self._tokens + tokens
        self.expected = self._bytes / self._tokens
        margin = min(max(SPREADS * math.sqrt(self._variance), LEAST_SPREAD), MOST_SPREAD)
        step = math.floor(STEPS * math.log2(self.expected / (1 + margin)))
        self.bytes_per_token = 2.0 ** (step / STEPS)


def most_tokens(load: Load, sequence_length: int) -> int:
    """Maximum number of tokens that a request can cost: a token has at least one byte, and text cut off is not billed.

    A higher bill is a mistake and must not count against the quota.
    """
    inputs = load.inputs
    opened = inputs - load.clipped
    whole = load.clipped * sequence_length + min(load.open_bytes, opened * sequence_length)
    return whole + inputs * (SPECIAL_TOKENS + PROMPT_TOKENS)
