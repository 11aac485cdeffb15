from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pinecone_embed_async.emulator import Emulator, Fault, FaultName
from tests.emulator.asking import E5, SPARSE, Asking

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = ("alpha one", "beta two", "gamma three")


async def spoiled(emulator: Emulator, ask: Asking, fault: str, model: str = E5) -> bytes:
    emulator.inject(fault)
    reply = await ask.embed(*TEXTS, model=model)
    assert reply.status == 200
    assert emulator.statistics().faults == {fault: 1}
    # What the service has worked for it has billed.
    assert emulator.statistics().inputs_answered == 3
    return reply.body


UNREADABLE: dict[str, Callable[[bytes], bool]] = {
    "empty_body": lambda body: body == b"",
    "html_body": lambda body: body.startswith(b"<!DOCTYPE html>"),
    "invalid_json": lambda body: body.endswith(b'"total_tokens":12}'),
    "garbage_after_json": lambda body: body.endswith(b'}}{"model":"again"}'),
    "bad_utf8": lambda body: b"\xff" in body,
}


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize("fault", UNREADABLE)
async def test_what_is_no_json(emulator: Emulator, ask: Asking, fault: str, model: str) -> None:
    body = await spoiled(emulator, ask, fault, model)
    assert UNREADABLE[fault](body)
    with pytest.raises(ValueError):  # noqa: PT011 - of JSON or of Unicode
        json.loads(body)


async def test_deep_nesting(emulator: Emulator, ask: Asking) -> None:
    body = await spoiled(emulator, ask, "deep_nesting")
    assert body.count(b"[") > 100_000
    with pytest.raises(RecursionError):
        json.loads(body)


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize(
    ("fault", "written"),
    [
        ("nan_values", b"NaN"),
        ("infinite_values", b"-Infinity"),
        ("huge_values", b"1e39"),
        ("null_values", b"null"),
        ("string_values", b'"0.5"'),
    ],
)
async def test_one_value_of_one_row_is_wrong(
    emulator: Emulator, ask: Asking, fault: str, written: bytes, model: str
) -> None:
    body = await spoiled(emulator, ask, fault, model)
    assert body.count(written) == 1
    right = (await ask.embed(*TEXTS, model=model)).json["data"]
    wrong = json.loads(body)["data"]
    assert [wrong[0], wrong[2]] == [right[0], right[2]]
    key = "values" if model == E5 else "sparse_values"
    assert wrong[1][key][1:] == right[1][key][1:]


async def parsed(emulator: Emulator, ask: Asking, fault: str, model: str = E5) -> Any:
    return json.loads(await spoiled(emulator, ask, fault, model))


@pytest.mark.parametrize(("fault", "rows"), [("wrong_count", 2), ("extra_count", 4)])
async def test_the_number_of_rows_is_wrong(emulator: Emulator, ask: Asking, fault: str, rows: int) -> None:
    assert len((await parsed(emulator, ask, fault))["data"]) == rows


@pytest.mark.parametrize(("fault", "sizes"), [("wrong_dimension", [1023] * 3), ("ragged_dimension", [1024, 1024, 1023])])
async def test_the_dimension_is_wrong(emulator: Emulator, ask: Asking, fault: str, sizes: list[int]) -> None:
    assert [len(item["values"]) for item in (await parsed(emulator, ask, fault))["data"]] == sizes


@pytest.mark.parametrize(("model", "own", "other"), [(E5, "values", "sparse_values"), (SPARSE, "sparse_values", "values")])
async def test_rows_are_of_the_other_vector_type(emulator: Emulator, ask: Asking, model: str, own: str, other: str) -> None:
    mixed = await parsed(emulator, ask, "mixed_vector_types", model)
    assert [own in item for item in mixed["data"]] == [True, True, False]
    assert other in mixed["data"][2]
    emulator.reset_statistics()
    wrong = await parsed(emulator, ask, "wrong_vector_type", model)
    assert all(other in item for item in wrong["data"])
    assert wrong["vector_type"] != mixed["vector_type"]


async def test_a_key_comes_twice_with_different_rows(emulator: Emulator, ask: Asking) -> None:
    pairs: list[tuple[str, Any]] = []

    def collect(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.extend(pair for pair in found if pair[0] == "data")
        return dict(found)

    json.loads(await spoiled(emulator, ask, "duplicate_keys"), object_pairs_hook=collect)
    assert len(pairs) == 2
    assert pairs[0][1] == pairs[1][1][::-1]


@pytest.mark.parametrize(("fault", "index"), [("index_out_of_range", 2**32), ("index_negative", -1)])
async def test_a_sparse_index_is_out_of_range(emulator: Emulator, ask: Asking, fault: str, index: int) -> None:
    item = (await parsed(emulator, ask, fault, SPARSE))["data"][2]
    assert index in item["sparse_indices"]
    assert len(item["sparse_indices"]) == len(item["sparse_values"])


async def test_sparse_values_and_indices_differ_in_number(emulator: Emulator, ask: Asking) -> None:
    item = (await parsed(emulator, ask, "lengths_differ", SPARSE))["data"][2]
    assert len(item["sparse_values"]) == len(item["sparse_indices"]) + 1


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize("fault", ["missing_usage", "extra_keys", "reordered_keys", "white_space"])
async def test_an_odd_form_has_the_same_rows(emulator: Emulator, ask: Asking, fault: str, model: str) -> None:
    odd = await parsed(emulator, ask, fault, model)
    right = (await ask.embed(*TEXTS, model=model)).json
    for got, item in zip(odd["data"], right["data"], strict=True):
        assert {key: got[key] for key in item} == item
    assert odd["vector_type"] == right["vector_type"]
    assert emulator.statistics().answered_well == dict.fromkeys(TEXTS, 2)


@pytest.mark.parametrize("name", ["index_negative", "index_out_of_range", "lengths_differ", "nan_values", "string_values"])
async def test_an_empty_sparse_row_can_be_spoiled_too(emulator: Emulator, ask: Asking, name: str) -> None:
    emulator.inject(FaultName(name))
    reply = await ask.embed("", model=SPARSE)
    item = reply.json["data"][0]
    assert item["sparse_values"]
    assert Fault(name).billed
