"""Estimates the tokens of texts before the service counts them, and says how many texts fit into a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

BYTES_PER_TOKEN = 4.0
"""UTF-8 bytes per token before anything is learned: about 4 for English with subword vocabularies, and similar for other
scripts, whose tokens have fewer characters but more bytes per character."""

FEWEST_BYTES_PER_TOKEN = 2.5
"""UTF-8 bytes per token of text that subword vocabularies split finely: code, numbers, some scripts. A rule of thumb."""

MOST_BYTES_PER_TOKEN = 6.0
"""UTF-8 bytes per token of text with long common words. A rule of thumb."""

SPECIAL_TOKENS = 2
"""Tokens that a model adds to each input: one before and one after it."""

MAX_REQUEST_TOKENS = 50_000
"""Maximum number of estimated tokens per request: the smallest documented quota per minute (dense models, `query`, Starter
plan), so that a request fits into every quota. It is enough for 96 full inputs of multilingual-e5-large."""

MAX_REQUEST_BYTES = 2_000_000
"""Approximate maximum number of bytes per request. No limit is documented for `/embed`; an upsert may have 2 MB."""

INPUT_OVERHEAD = len('{"text":""},')
"""Bytes that JSON puts around a text."""


def utf8_length(text: str) -> int:
    """Number of bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def estimate_tokens(size: int, sequence_length: int, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
    """Estimated tokens of an input of `size` UTF-8 bytes, at most the model's sequence length."""
    tokens = int(size / bytes_per_token) + SPECIAL_TOKENS
    return tokens if tokens < sequence_length else sequence_length  # noqa: FURB136 - `min` takes twice as long


class RequestLimits(msgspec.Struct, frozen=True):
    """The limits of one request.

    Attributes:
        inputs: maximum number of inputs.
        sequence_length: maximum number of tokens embedded per input; the rest is cut off and not billed.
        tokens: maximum number of estimated tokens; a single input may exceed it.
        bytes: approximate maximum number of UTF-8 bytes of the texts; a single input may exceed it.
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
        """Low estimate of an input's tokens, at `MOST_BYTES_PER_TOKEN`, or more bytes per token if bills have shown that."""
        return estimate_tokens(utf8_length(text), self.sequence_length, max(MOST_BYTES_PER_TOKEN, self.bytes_per_token))


class Load(msgspec.Struct, eq=False):
    """Running totals of the texts gathered for one request.

    Attributes:
        inputs: number of texts.
        tokens: estimated tokens.
        bytes: UTF-8 bytes of the texts, with their JSON overhead.
        clipped: number of inputs whose estimate reaches the model's sequence length.
        open_bytes: UTF-8 bytes of the other texts.
    """

    inputs: int = 0
    tokens: int = 0
    bytes: int = 0
    clipped: int = 0
    open_bytes: int = 0

    @classmethod
    def of(cls, texts: Collection[str], limits: RequestLimits) -> Load:
        """The load of all these texts, even if they exceed the limits."""
        most, ratio = limits.sequence_length, limits.bytes_per_token
        inputs, total = len(texts), 0
        clipped = open_bytes = clipped_bytes = 0
        for text in texts:
            size = utf8_length(text)
            tokens = estimate_tokens(size, most, ratio)
            total += tokens
            if tokens < most:
                open_bytes += size
            else:
                clipped += 1
                clipped_bytes += size
        return cls(inputs, total, open_bytes + clipped_bytes + INPUT_OVERHEAD * inputs, clipped, open_bytes)

    @classmethod
    def of_fitting(cls, texts: Collection[str], limits: RequestLimits) -> Load:
        """The load of as many of the first texts as fit into a request; the first text always fits."""
        load = cls.of(texts, limits)
        if load.tokens > limits.tokens or load.bytes > limits.bytes:
            load = cls()
            for text in texts:
                if not load.add(utf8_length(text), limits):
                    break
        return load

    def add(self, size: int, limits: RequestLimits) -> bool:
        """Add a text of `size` UTF-8 bytes if it fits; the first text always fits.

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
        self.inputs += 1
        self.tokens += tokens
        self.bytes += size + INPUT_OVERHEAD
        if tokens < limits.sequence_length:
            self.open_bytes += size
        else:
            self.clipped += 1
        return True
