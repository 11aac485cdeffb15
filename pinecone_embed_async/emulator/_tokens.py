"""Token counting of the emulator's own: words and pieces of words, as subword tokenizers cut them.

The counts are not those of any real tokenizer; they grow with words, long words, digits, punctuation and scripts in the
same way, so that an estimate of characters divided by a constant is wrong here too.
"""

from __future__ import annotations

import re

# Every tokenizer of the hosted models wraps an input in a start and an end token.
SPECIAL_TOKENS = 2

# Distinct words kept; a limit so that a server that runs for weeks does not grow with its input.
_CACHED_WORDS = 200_000

# Scripts written without spaces: CJK, kana, Hangul, Thai and their neighbours; one token a character.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"

_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+|\d+|[^\w\s]|_")
# The same for ASCII texts, in half the time.
_ASCII_WORDS = re.compile(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9\s]")

_ASCII_PIECE = 6
_OTHER_PIECE = 3
_DIGIT_PIECE = 3


def split_words(text: str) -> list[str]:
    """Cut a text into words, runs of digits, single signs and single characters of unspaced scripts."""
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
    """Count the tokens of words from `split_words`, without the special tokens."""
    return sum(map(_counts.__getitem__, words))


def count_tokens(text: str) -> int:
    """Count the tokens of a text, the two special tokens included."""
    return count_pieces(split_words(text)) + SPECIAL_TOKENS


def truncate_words(words: list[str], limit: int, *, keep_end: bool = False) -> list[str]:
    """Keep the words that fit into a limit of tokens; a word that fits in part is dropped.

    Args:
        words: Words from `split_words`.
        limit: Tokens, the special tokens included.
        keep_end: Whether the end of the text is kept (`truncate: START`) instead of its beginning.
    """
    free = limit - SPECIAL_TOKENS
    kept: list[str] = []
    for word in reversed(words) if keep_end else words:
        free -= _counts[word]
        if free < 0:
            break
        kept.append(word)
    return kept[::-1] if keep_end else kept
