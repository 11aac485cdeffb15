"""The emulator's own token counts: words and pieces of words, similar to subword tokenizers.

The counts match no real tokenizer, but depend on words, long words, digits, punctuation and scripts in a similar way. So
an estimate that divides the number of characters by a constant is wrong here too.
"""

from __future__ import annotations

import re

# Tokenizers of the hosted models put a start and an end token around each input.
SPECIAL_TOKENS = 2

# Most distinct words to cache, so that a server that runs for weeks does not grow with its input.
_CACHED_WORDS = 200_000

# Scripts written without spaces: CJK, kana, Hangul, Thai and their neighbours; one token per character.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"

_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+|\d+|[^\w\s]|_")
# The same for ASCII text, in half the time.
_ASCII_WORDS = re.compile(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9\s]")

_ASCII_PIECE = 6
_OTHER_PIECE = 3
_DIGIT_PIECE = 3


def split_words(text: str) -> list[str]:
    """Split a text into words, runs of digits, single symbols and single characters of unspaced scripts."""
    return (_ASCII_WORDS if text.isascii() else _WORDS).findall(text)


def _pieces(word: str) -> int:
    if word.isdigit():
        size = _DIGIT_PIECE
    elif word.isascii():
        size = _ASCII_PIECE
    else:
        size = _OTHER_PIECE
    return -(-len(word) // size)


class _PieceCounts(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        count = self[word] = _pieces(word)
        return count


_counts = _PieceCounts()


def count_pieces(words: list[str]) -> int:
    """Count the tokens of words from `split_words`, without special tokens."""
    return sum(map(_counts.__getitem__, words))


def count_tokens(text: str) -> int:
    """Count the tokens of a text, including the two special tokens."""
    return count_pieces(split_words(text)) + SPECIAL_TOKENS


def truncate_words(words: list[str], limit: int, *, keep_end: bool = False) -> list[str]:
    """Keep the words that fit a token limit; a word that fits only in part is dropped.

    Args:
        words: Words from `split_words`.
        limit: Most tokens, including the special tokens.
        keep_end: Whether to keep the end of the text (`truncate: START`) instead of its beginning.
    """
    free = limit - SPECIAL_TOKENS
    kept: list[str] = []
    for word in reversed(words) if keep_end else words:
        free -= _counts[word]
        if free < 0:
            break
        kept.append(word)
    return kept[::-1] if keep_end else kept
