"""How many tokens a text will be billed, before the service has counted them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinecone_embed_async._plan._split import PlannedRequest

BYTES_PER_TOKEN = 4.0
"""UTF-8 bytes per token, before anything is known: about 4 for English under subword vocabularies, and not far
from it for other scripts, which have fewer characters but more bytes per token."""

FEWEST_BYTES_PER_TOKEN = 2.5
"""Of text that subword vocabularies cut finely: code, numbers, some scripts. A rule of thumb."""

MOST_BYTES_PER_TOKEN = 6.0
"""Of text in long common words. A rule of thumb."""

SPECIAL_TOKENS = 2
"""Tokens that a model puts around each input: one before, one behind."""

PROMPT_TOKENS = 16
"""Tokens that a model may put before each input by its `input_type`, such as `query: `, at the most. A rule of thumb."""

MEMORY = 0.95
"""What is left of the weight of a bill with each further one."""

SPREADS = 2.0
"""Standard deviations of a request's tokens that its estimate lies above what is expected."""

LEAST_SPREAD, MOST_SPREAD = 0.05, 0.5
"""Smallest and largest such surplus, as a part of what is expected. It is given back with each answer, so it costs little,
and texts may change on the way."""

STEPS = 50
"""Steps of the published ratio in a doubling, so that it changes seldom."""


class TokenEstimator:
    """Learns from bills how many bytes of text a token stands for.

    Inputs at the model's length are billed that length whatever their bytes, so only the others teach anything. The
    first estimates, and later ones where bills scatter, are rather too high than too low: too low a one is rejected.

    Attributes:
        bytes_per_token: by which estimates are made, some tokens too many rather than too few.
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
        """UTF-8 bytes per token, as far as they are known."""
        return self._bytes / self._tokens if self._tokens else BYTES_PER_TOKEN

    def learn(self, request: PlannedRequest, billed: int, sequence_length: int) -> None:
        """Learn from the bill of a request; from one that cannot be right nothing is learned."""
        if billed > most_tokens(request, sequence_length):
            return
        inputs = len(request.texts) - request.clipped
        size = request.open_bytes
        tokens = billed - request.clipped * sequence_length - SPECIAL_TOKENS * inputs
        if tokens <= 0 or size <= 0:
            return
        if self._tokens:
            off = tokens / (size / self.expected) - 1
            # Small requests scatter more, and matter less.
            weight = min(1.0, tokens / 1000)
            self._weight = MEMORY * self._weight + weight
            # Capped, so that one absurd bill does not decide for long.
            self._variance += (min(off * off, MOST_SPREAD) - self._variance) * weight / self._weight
        self._bytes = MEMORY * self._bytes + size
        self._tokens = MEMORY * self._tokens + tokens
        surplus = min(max(SPREADS * math.sqrt(self._variance), LEAST_SPREAD), MOST_SPREAD)
        step = math.floor(STEPS * math.log2(self.expected / (1 + surplus)))
        self.bytes_per_token = 2.0 ** (step / STEPS)


def most_tokens(request: PlannedRequest, sequence_length: int) -> int:
    """Tokens that a request can have cost: no vocabulary has tokens of less than a byte, and what is cut off is not billed.

    What is billed beyond that is a mistake, and of no use for what is to be sent in the next minute.
    """
    inputs = len(request.texts)
    opened = inputs - request.clipped
    whole = request.clipped * sequence_length + min(request.open_bytes, opened * sequence_length)
    return whole + inputs * (SPECIAL_TOKENS + PROMPT_TOKENS)


def utf8_length(text: str) -> int:
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def estimate_tokens(size: int, sequence_length: int, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
    """Tokens that an input of `size` UTF-8 bytes is billed, about, cut at the model's length."""
    tokens = int(size / bytes_per_token) + SPECIAL_TOKENS
    return tokens if tokens < sequence_length else sequence_length  # noqa: FURB136 - `min` costs twice as much
