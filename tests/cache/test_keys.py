from collections.abc import Mapping, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._cache import CacheStage, CallCache
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._wire import encode_parameters

PARTS = ("https://api.pinecone.io:443", "2025-10", "multilingual-e5-large", b'{"input_type":"passage"}')


class NoCache:
    async def get_many(self, keys: Sequence[bytes]) -> list[None]:
        return [None] * len(keys)

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        pass


def cache_of(address: str, api_version: str, model: str, parameters: bytes) -> CallCache:
    clock = SystemClock()
    return CacheStage(NoCache(), address=address, api_version=api_version, model=model, clock=clock).of_call(parameters)


def test_a_key_is_a_digest_that_is_the_same_in_every_process() -> None:
    # Hard-coded, because later versions must find the keys of existing files.
    key = cache_of(*PARTS).key_of("a text")
    assert key.hex() == "690508a4a4198e959fea1cdf5d394c152fe1c548f18415feda70e872d2a708c1"


@pytest.mark.parametrize("version", ["2026-04", "2026-07"])
def test_versions_that_differ_in_nothing_but_the_version_have_the_same_keys(version: str) -> None:
    address, _, model, parameters = PARTS
    assert cache_of(address, version, model, parameters).key_of("a text") == cache_of(*PARTS).key_of("a text")


def test_every_part_changes_the_key() -> None:
    address, version, model, parameters = PARTS
    makers = [
        cache_of(*PARTS),
        cache_of("http://127.0.0.1:40123", version, model, parameters),
        cache_of(address, "2025-04", model, parameters),
        cache_of(address, "2026-10", model, parameters),
        cache_of(address, version, "llama-text-embed-v2", parameters),
        cache_of(address, version, model, b'{"input_type":"query"}'),
    ]
    keys = [maker.key_of(text) for maker in makers for text in ("one", "two", "")]
    assert len(set(keys)) == len(keys) == 18


@given(st.text(st.characters(codec="utf-8"), max_size=9))
def test_parts_do_not_collide(text: str) -> None:
    whole = text + "x"
    split = [cache_of(whole[:end], whole[end:], "m", b"").key_of("t") for end in range(len(whole) + 1)]
    assert all(one != other for one, other in combinations(split, 2))


def test_the_order_of_parameters_does_not_matter() -> None:
    assert encode_parameters({"b": 1, "a": {"d": 2, "c": 3}}) == encode_parameters({"a": {"c": 3, "d": 2}, "b": 1})
    assert encode_parameters({"a": 1}) != encode_parameters({"a": True})
