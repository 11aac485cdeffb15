"""Estimates the tokens of a text before the service counts them."""

from __future__ import annotations

BYTES_PER_TOKEN = 4.0
"""UTF-8 bytes per token before anything is learned: about 4 for English with subword vocabularies, and similar for other
scripts, whose tokens have fewer characters but more bytes per character."""

FEWEST_BYTES_PER_TOKEN = 2.5
"""UTF-8 bytes per token of text that subword vocabularies split finely: code, numbers, some scripts. A rule of thumb."""

MOST_BYTES_PER_TOKEN = 6.0
"""UTF-8 bytes per token of text with long common words. A rule of thumb."""

SPECIAL_TOKENS = 2
"""Tokens that a model adds to each input: one before and one after it."""


def utf8_length(text: str) -> int:
    """Number of bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def estimate_tokens(size: int, sequence_length: int, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
    """Estimated tokens of an input of `size` UTF-8 bytes, at most the model's sequence length."""
    tokens = int(size / bytes_per_token) + SPECIAL_TOKENS
    return tokens if tokens < sequence_length else sequence_length  # noqa: FURB136 - `min` takes twice as long
