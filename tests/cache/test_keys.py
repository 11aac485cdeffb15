from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._cache.keys import KeyMaker
from pinecone_embed_async._wire import encode_parameters

PARTS = ("https://api.pinecone.io:443", "2025-10", "multilingual-e5-large", b'{"input_type":"passage"}')


def test_a_key_is_a_digest_that_is_the_same_in_every_process() -> None:
    # Hard-coded, because later versions must find the keys of existing files.
    key = KeyMaker(*PARTS).key_of("a text")
    assert key.hex() == "690508a4a4198e959fea1cdf5d394c152fe1c548f18415feda70e872d2a708c1"


@pytest.mark.parametrize("version", ["2026-04", "2026-07"])
def test_versions_that_differ_in_nothing_but_the_version_have_the_same_keys(version: str) -> None:
    address, _, model, parameters = PARTS
    assert KeyMaker(address, version, model, parameters).key_of("a text") == KeyMaker(*PARTS).key_of("a text")


def test_every_part_changes_the_key() -> None:
    address, version, model, parameters = PARTS
    makers = [
        KeyMaker(*PARTS),
        KeyMaker("http://127.0.0.1:40123", version, model, parameters),
        KeyMaker(address, "2025-04", model, parameters),
        KeyMaker(address, "2026-10", model, parameters),
        KeyMaker(address, version, "llama-text-embed-v2", parameters),
        KeyMaker(address, version, model, b'{"input_type":"query"}'),
    ]
    keys = [maker.key_of(text) for maker in makers for text in ("one", "two", "")]
    assert len(set(keys)) == len(keys) == 18


@given(st.text(st.characters(codec="utf-8"), max_size=9))
def test_parts_do_not_collide(text: str) -> None:
    whole = text + "x"
    split = [KeyMaker(whole[:end], whole[end:], "m", b"").key_of("t") for end in range(len(whole) + 1)]
    assert all(one != other for one, other in combinations(split, 2))


def test_the_order_of_parameters_does_not_matter() -> None:
    assert encode_parameters({"b": 1, "a": {"d": 2, "c": 3}}) == encode_parameters({"a": {"c": 3, "d": 2}, "b": 1})
    assert encode_parameters({"a": 1}) != encode_parameters({"a": True})


def test_a_key_maker_shows_nothing() -> None:
    assert repr(KeyMaker(*PARTS)) == "<KeyMaker>"
