from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from pinecone_embed_async.emulator._tokens import split_words
from pinecone_embed_async.emulator._vectors import WordFeatures, dense_vectors, sparse_row

CAT = "The cat sleeps on the warm mat."
TEXTS = [CAT, "A cat slept upon a warm mat", "Stock markets fell sharply in Tokyo on Monday.", "", "東京", "!?"]


def embed(*texts: str, dimension: int = 1024, input_type: str = "passage") -> np.ndarray[tuple[int, int]]:
    vectors = dense_vectors(texts, [split_words(text) for text in texts], dimension, input_type, WordFeatures())
    return vectors.astype(np.float64)


def test_texts_that_share_words_come_out_closer() -> None:
    cat, similar, other = embed(*TEXTS[:3])
    assert cat @ similar > 0.5
    assert cat @ other < 0.2


def test_texts_that_share_parts_of_words_come_out_closer() -> None:
    word, inflected, other = embed("embedding", "embeddings", "crocodile")
    assert word @ inflected > word @ other + 0.2


@pytest.mark.parametrize("dimension", [384, 512, 768, 1024, 2048])
def test_vectors_are_of_unit_length_in_every_dimension(dimension: int) -> None:
    vectors = embed(*TEXTS, dimension=dimension)
    assert vectors.shape == (len(TEXTS), dimension)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("dimension", [1, 2, 3, 7])
def test_tiny_dimensions_are_finite(dimension: int) -> None:
    assert np.isfinite(embed(*TEXTS, dimension=dimension)).all()


def test_a_query_is_near_its_passage_but_not_equal() -> None:
    passage = embed(CAT)[0]
    query = embed(CAT, input_type="query")[0]
    assert 0.8 < passage @ query < 0.999


def test_texts_of_the_same_words_in_another_order_differ() -> None:
    one, other = embed("dog bites man", "man bites dog")
    assert not np.array_equal(one, other)
    assert one @ other > 0.9


def test_a_vector_does_not_depend_on_its_batch() -> None:
    together = embed(*TEXTS)
    for row, text in enumerate(TEXTS):
        assert np.array_equal(together[row], embed(text)[0])


def test_words_that_were_forgotten_have_the_same_features_again() -> None:
    features = WordFeatures(most=4)
    words = [split_words(text) for text in TEXTS]
    for _ in range(2):
        for row, text in enumerate(TEXTS):
            (vector,) = dense_vectors([text], [words[row]], 1024, "passage", features)
            assert np.array_equal(vector, embed(text)[0])
            assert len(features) < 4 + len(words[row])


def test_vectors_are_the_same_in_another_process_and_on_another_machine() -> None:
    words = [split_words(text) for text in TEXTS]
    digest = hashlib.sha256(dense_vectors(TEXTS, words, 1024, "query", WordFeatures()).tobytes()).hexdigest()
    program = (
        "import hashlib, sys\n"
        "from pinecone_embed_async.emulator._vectors import WordFeatures, dense_vectors\n"
        "from pinecone_embed_async.emulator._tokens import split_words\n"
        f"texts = {TEXTS!r}\n"
        "words = [split_words(text) for text in texts]\n"
        "print(hashlib.sha256(dense_vectors(texts, words, 1024, 'query', WordFeatures()).tobytes()).hexdigest())\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest
    # Made once; a change of it means that vectors stored elsewhere no longer fit.
    assert digest == "4085d2dd1b4bbb2dfd404bca8eafa1790138933075aaa74dddcc4ffd2e024a6a"


def test_terms_are_sorted_unique_and_of_32_bits() -> None:
    row = sparse_row(split_words(" ".join(f"word{number}x" for number in range(500))), "passage")
    assert row.indices == sorted(set(row.indices))
    assert len(row.indices) == len(row.values) == len(row.tokens) > 500
    assert 2**31 < max(row.indices) < 2**32


def test_a_term_that_occurs_often_weighs_more_in_a_passage_only() -> None:
    words = split_words("cat cat cat dog")
    passage = sparse_row(words, "passage")
    query = sparse_row(words, "query")
    weights = dict(zip(passage.tokens, passage.values, strict=True))
    assert weights["cat"] > weights["dog"]
    assert len(set(query.values)) == 1
    assert query.indices == passage.indices


def test_a_text_without_words_has_no_terms() -> None:
    assert sparse_row(split_words("?! ..."), "passage").indices == []
