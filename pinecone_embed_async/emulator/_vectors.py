"""Meaningful vectors that are the same on every machine: hashed words and character n-grams.

Texts that share words share features, so their vectors are closer. Everything up to the L2 norm is exact integer
arithmetic, so no processor, library or order of summation changes a value.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Common words get a small weight, as with inverse document frequency.
_STOP_WORDS = frozenset(
    """
    a about after all also an and any are as at be been but by can could do does for from given had has have how i
    if in into is it its may more no not of on one only or other out over self should so some such than that the
    their them then there these they this to up used using was we were what when where which while who will with
    would you your
    """.split()  # noqa: SIM905 - 80 words read better as prose
)

_WORD_WEIGHT = 16
_N_GRAM_WEIGHT = 6
_STOP_WORD_WEIGHT = 2
_SIGN_WEIGHT = 1
_N_GRAM_SIZE = 3
_MOST_N_GRAMS = 32

# Small compared to the weights of words: it distinguishes texts with the same words in another order, and hardly moves them.
_IDENTITY_WEIGHT = 5
_IDENTITY_FEATURES = 2

# Smaller than a word's weight: a query and a passage of the same text are near each other but not equal.
_INPUT_TYPE_WEIGHT = 6


@dataclass(frozen=True, slots=True)
class SparseRow:
    """The terms of a text.

    Attributes:
        indices: Hashes of the terms, ascending and unique.
        values: Their weights, in the same order.
        tokens: The terms, in the same order.
    """

    indices: list[int]
    values: list[float]
    tokens: list[str]


def _mix(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spread CRCs evenly over 32 bits with the finalizer of MurmurHash3 (A. Appleby)."""
    mixed = hashes ^ (hashes >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _signed(hashes: NDArray[np.uint32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the signs of the weights from the lowest bit of the hashes; their places come from independent high bits."""
    return np.where(hashes & np.uint32(1), weights, -weights)


def _crc(text: str) -> int:
    # Strictly decoded JSON has no lone surrogates, but one must not crash the server.
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _features_of(word: str) -> tuple[list[int], list[int]]:
    """The hashes and weights of a lower-case word and its n-grams."""
    if not word[0].isalnum():
        return [_crc(word)], [_SIGN_WEIGHT]
    if word in _STOP_WORDS:
        return [_crc(word)], [_STOP_WORD_WEIGHT]
    framed = f"<{word}>"
    starts = range(min(len(framed) - _N_GRAM_SIZE + 1, _MOST_N_GRAMS))
    grams = [framed[start : start + _N_GRAM_SIZE] for start in starts]
    return (
        [_crc(word), *(_crc(f"#{gram}") for gram in grams)],
        [_WORD_WEIGHT] + [_N_GRAM_WEIGHT] * len(grams),
    )


class WordFeatures(dict[str, int]):
    """Numbers words and keeps all their features in a few arrays, so that a batch is gathered without a loop.

    Not thread-safe: emulators in different threads have one each.

    Args:
        most: Approximate number of words to keep, so that a server that runs for weeks does not grow with its input.
    """

    def __init__(self, most: int = 200_000) -> None:
        super().__init__()
        self._most = most
        self._reset()

    def _reset(self) -> None:
        self.clear()
        self._numbers: dict[str, int] = {}
        self.starts = np.zeros(1024, np.int64)
        self.lengths = np.zeros(1024, np.int64)
        self.hashes = np.zeros(16384, np.uint32)
        self.weights = np.zeros(16384, np.float64)
        self._used = 0

    def make_room(self) -> None:
        """Clear it if it is full. Call it only between batches, because a batch holds word numbers."""
        if len(self) >= self._most:
            self._reset()

    def __missing__(self, word: str) -> int:
        lowered = word.lower()
        number = self._numbers.get(lowered)
        if number is None:
            number = self._add(lowered)
        self[word] = number
        return number

    def _add(self, word: str) -> int:
        number = self._numbers[word] = len(self._numbers)
        hashes, weights = _features_of(word)
        if number >= len(self.starts):
            self.starts = np.concatenate([self.starts, np.zeros_like(self.starts)])
            self.lengths = np.concatenate([self.lengths, np.zeros_like(self.lengths)])
        end = self._used + len(hashes)
        if end > len(self.hashes):
            self.hashes = np.concatenate([self.hashes, np.zeros_like(self.hashes)])
            self.weights = np.concatenate([self.weights, np.zeros_like(self.weights)])
        mixed = _mix(np.array(hashes, np.uint32))
        self.hashes[self._used : end] = mixed
        self.weights[self._used : end] = _signed(mixed, np.array(weights, np.float64))
        self.starts[number] = self._used
        self.lengths[number] = len(hashes)
        self._used = end
        return number


@functools.cache
def _hadamard(size: int) -> NDArray[np.float32]:
    """The Hadamard matrix of a size that is a power of two, of ones and minus ones."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _spread(features: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Rotate rows of 2**bits hashed features so that each one contributes to every value (fast Walsh-Hadamard transform).

    Values are integers far below 2**24, so float32 holds every sum exactly.
    """
    rows = len(features)
    left, right = 1 << (bits // 2), 1 << (bits - bits // 2)
    square = features.reshape(rows, left, right)
    spread: NDArray[np.float32] = np.matmul(_hadamard(left), square @ _hadamard(right))
    return spread.reshape(rows, left * right)


def _grouped(
    words: Sequence[Sequence[str]], features: WordFeatures
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The distinct words of all texts, as their row, their number, and how often they occur in that row."""
    numbers = np.fromiter(map(features.__getitem__, itertools.chain.from_iterable(words)), np.int64)
    rows = np.repeat(np.arange(len(words)), [len(one) for one in words])
    pairs, counts = np.unique((rows << 32) | numbers, return_counts=True)
    return pairs >> 32, pairs & 0xFFFFFFFF, counts


def dense_vectors(
    texts: Sequence[str], words: Sequence[Sequence[str]], dimension: int, input_type: str, features: WordFeatures
) -> NDArray[np.float16]:
    """Embed texts as unit vectors in half precision.

    Args:
        texts: The texts, truncated to the model's length.
        words: Their words, from `split_words`.
        dimension: Dimension of the vectors.
        input_type: `query` or `passage`; it shifts every vector a little.
        features: Cache of the features of words; does not affect the values.

    Returns:
        An array of shape (len(texts), dimension). Each row has norm 1 up to rounding to half precision.
    """
    count = len(texts)
    bits = max(1, (dimension - 1).bit_length())
    features.make_room()
    rows, numbers, occurrences = _grouped(words, features)
    lengths = features.lengths[numbers]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    gathered = np.repeat(features.starts[numbers] - (ends - lengths), lengths) + np.arange(total)
    # Four times the square root: a word that occurs often counts for more, but less than in proportion.
    often = np.floor(np.sqrt(16 * occurrences))

    each = np.arange(count)
    identities = np.array([_crc(text) for text in texts], np.uint32)
    added = np.concatenate(
        [
            *(_mix(identities + np.uint32(step)) for step in range(_IDENTITY_FEATURES)),
            np.full(count, _mix(np.array([_crc(f"{input_type}: ")], np.uint32))[0], np.uint32),
        ]
    )
    added_weights = np.full(len(added), 4.0 * _IDENTITY_WEIGHT)
    added_weights[-count:] = 4.0 * _INPUT_TYPE_WEIGHT

    hashes = np.concatenate([features.hashes[gathered], added])
    weights = np.concatenate([features.weights[gathered] * np.repeat(often, lengths), _signed(added, added_weights)])
    all_rows = np.concatenate([np.repeat(rows, lengths), np.tile(each, _IDENTITY_FEATURES + 1)])
    places = (all_rows << bits) | (hashes >> np.uint32(32 - bits)).astype(np.int64)
    hashed = np.bincount(places, weights=weights, minlength=count << bits).reshape(count, 1 << bits)

    spread = _spread(hashed.astype(np.float32), bits)[:, :dimension].astype(np.float64)
    norms = np.sqrt((spread * spread).sum(axis=1, keepdims=True))
    # Only with very few dimensions can a row be all zeros; it stays so.
    norms[norms == 0] = 1.0
    halves: NDArray[np.float16] = (spread / norms).astype(np.float16)
    return halves


def _term_weight(word: str) -> int:
    if not word[0].isalnum():
        return 0
    return 1 if word in _STOP_WORDS else 8


def sparse_row(words: Sequence[str], input_type: str) -> SparseRow:
    """Embed a text as hashed, weighted terms.

    Args:
        words: Its words, from `split_words`.
        input_type: In a `passage`, terms that occur often weigh more; in a `query`, each term counts once.

    Returns:
        The terms; none for a text without words. The values are half-precision numbers.
    """
    occurrences: dict[str, int] = {}
    for word in words:
        lowered = word.lower()
        if _term_weight(lowered):
            occurrences[lowered] = occurrences.get(lowered, 0) + 1
    terms: dict[int, tuple[int, str]] = {}
    mixed = _mix(np.array([_crc(term) for term in occurrences], np.uint32)).tolist()
    for index, (term, often) in zip(mixed, occurrences.items(), strict=True):
        # Of two terms with the same hash, the first is kept.
        terms.setdefault(index, (_term_weight(term) * (1 if input_type == "query" else often), term))
    indices = sorted(terms)
    weights = np.array([terms[index][0] for index in indices], np.float64)
    values = (np.sqrt(weights) / 2).astype(np.float16).astype(np.float64).tolist()
    return SparseRow(indices=indices, values=values, tokens=[terms[index][1] for index in indices])
