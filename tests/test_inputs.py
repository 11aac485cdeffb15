import asyncio
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import InputError
from pinecone_embed_async._inputs import SLICE, Inputs, error_of, iter_texts, read_inputs


async def read_texts(inputs: Inputs) -> list[str]:
    texts, faults = await read_inputs(inputs)
    if faults:
        raise error_of(faults, len(texts))
    return texts


class Colour(str, Enum):  # noqa: UP042 - the old kind is what makes str() go wrong
    RED = "red"


async def test_one_text_and_one_mapping_are_one_input() -> None:
    assert await read_texts("a") == ["a"]
    assert await read_texts({"text": "a", "id": 7}) == ["a"]


async def test_subclasses_of_str_become_plain_strings_with_their_own_text() -> None:
    texts = await read_texts([np.str_("numpy"), Colour.RED])
    assert texts == ["numpy", "red"]
    assert [type(text) for text in texts] == [str, str]


async def test_empty_text_and_empty_list_are_kept() -> None:
    assert await read_texts([""]) == [""]
    assert await read_texts([]) == []


async def test_async_iterables_and_generators_are_read_whole() -> None:
    async def source() -> AsyncIterator[str]:
        for number in range(3):
            yield str(number)

    assert await read_texts(source()) == ["0", "1", "2"]
    assert await read_texts(str(number) for number in range(SLICE * 2 + 1)) == [str(n) for n in range(SLICE * 2 + 1)]


@pytest.mark.parametrize(
    "bad", [b"bytes", None, float("nan"), 3, ["nested"], {"txt": "a"}, {"text": None}, "\ud800", {"text": "x\udfff"}]
)
async def test_what_is_no_text_is_refused_with_its_index(bad: object) -> None:
    with pytest.raises(InputError) as caught:
        await read_texts(["fine", bad])  # type: ignore[list-item]
    assert caught.value.index == 1
    assert "input 1" in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("bad", [b"bytes", 5, None])
async def test_inputs_that_are_no_iterable_of_texts_are_refused(bad: object) -> None:
    with pytest.raises(InputError, match="inputs must be a str"):
        await read_texts(bad)  # type: ignore[arg-type]


async def plain_texts(count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield "text"


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_loop_turns_after_every_1024_inputs_even_if_they_never_suspend(*, is_async: bool) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await read_texts(plain_texts(10_240) if is_async else ["text"] * 10_240)
    counting.cancel()
    # One more if tasks begin eagerly.
    assert 10 <= turns <= 11


@pytest.mark.parametrize("kind", [list, tuple])
async def test_the_index_is_right_behind_the_first_slice_too(kind: type) -> None:
    texts: list[object] = ["text", "é"] * SLICE
    texts[SLICE + 5] = b"bytes"
    with pytest.raises(InputError, match=rf"input {SLICE + 5} "):
        await read_texts(kind(texts))


async def test_subclasses_and_mappings_among_plain_texts_become_plain_texts() -> None:
    class Text(str):
        __slots__ = ()

    texts = await read_texts(["a", Text("b"), {"text": "c"}, "d"])
    assert texts == ["a", "b", "c", "d"]
    assert set(map(type, texts)) == {str}


async def test_a_list_that_changes_while_it_is_read_is_read_as_it_was() -> None:
    texts = ["text"] * (2 * SLICE)
    reading = asyncio.create_task(read_texts(texts))
    await asyncio.sleep(0)
    texts.clear()
    assert await reading == ["text"] * (2 * SLICE)


NAN = float("nan")


class NAType:
    """Looks like `pandas.NA`."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __ne__(self, other: object) -> Any:
        return self

    __hash__ = object.__hash__


class StringScalar:
    """Looks like a string of an Arrow array."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def as_py(self) -> str | None:
        return self._value


async def test_missing_values_are_all_counted_and_the_first_ten_named() -> None:
    texts: list[Any] = ["text"] * 1000
    for row in range(5, 125, 10):
        texts[row] = NAN
    with pytest.raises(InputError) as caught:
        await read_texts(texts)
    message = "12 of 1,000 inputs are not texts: 5, 15, 25, 35, 45, 55, 65, 75, 85, 95 and 2 more; input 5 is a missing"
    assert str(caught.value).startswith(message)
    assert caught.value.index == 5
    assert [list(failure.indices) for failure in caught.value.failures] == [list(range(5, 125, 10))]
    with pytest.raises(InputError, match=r"^12 of 1,000 inputs are not texts: 5, 15"):
        list(iter_texts(texts))


async def test_two_missing_values_are_both_named_and_a_single_one_is_not_counted() -> None:
    missing: list[Any] = [None, "a", None]
    with pytest.raises(InputError, match=r"^2 of 3 inputs are not texts: 0, 2; input 0 is a missing"):
        await read_texts(missing)
    with pytest.raises(InputError, match=r"^input 1 is a missing"):
        await read_texts(missing[1:])


async def test_of_several_kinds_of_faults_the_first_input_tells_its_own() -> None:
    with pytest.raises(InputError, match=r"^2 of 3 inputs are not texts: 1, 2; input 1 is of type int"):
        await read_texts(["a", 7, None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "missing", [None, NAN, np.float32("nan"), np.float64("nan"), NAType(), StringScalar(None), {"text": NAN}, {"text": None}]
)
async def test_whatever_stands_for_none_is_called_a_missing_value(missing: Any) -> None:
    with pytest.raises(InputError, match="missing value: leave missing values out, or fill them"):
        await read_texts(["fine", missing])


async def test_strings_of_arrow_are_texts() -> None:
    scalars: list[Any] = [StringScalar("a"), {"text": StringScalar("b")}]
    assert await read_texts(scalars) == ["a", "b"]


class Frame:
    """Looks like a table of pandas or Polars, which gives the names of its columns."""

    columns = ("id", "body")
    shape = (3, 2)

    def __iter__(self) -> Any:
        return iter(self.columns)


async def test_a_table_is_refused_with_the_cure() -> None:
    frame: Any = Frame()
    with pytest.raises(InputError, match=r'got a Frame, which is a table: pass the column with the texts, df\["body"\]'):
        await read_texts(frame)
    with pytest.raises(InputError, match="which is a table"):
        list(iter_texts(frame))


@pytest.mark.parametrize("kind", [set, frozenset])
async def test_a_set_is_refused_for_it_has_no_order(kind: Any) -> None:
    with pytest.raises(
        InputError, match=r"must have an order, because row i belongs to input i, got a (frozen)?set: pass a list"
    ):
        await read_texts(kind(["a", "b"]))


async def test_the_keys_and_values_of_a_dict_have_an_order() -> None:
    assert await read_texts({"a": 1, "b": 2}.keys()) == ["a", "b"]
    assert await read_texts({1: "c", 2: "d"}.values()) == ["c", "d"]


@pytest.mark.parametrize(
    ("text", "position", "cured"),
    [
        ("so happy \ud83d\ude00!", 9, "so happy \U0001f600!"),
        ("\ud83d \ud83d\ude00", 2, "\ufffd \U0001f600"),
    ],
)
async def test_a_surrogate_pair_is_told_from_a_lone_surrogate_with_a_cure_that_works(
    text: str, position: int, cured: str
) -> None:
    with pytest.raises(InputError) as caught:
        await read_texts(["é", text])
    message = str(caught.value)
    assert f"input 1 has a surrogate pair at character {position}" in message
    cure = message[message.index("text.encode(") : message.rindex(")") + 1]
    assert eval(cure, {"text": text}) == cured  # noqa: S307 - what the message says is what is tried
    with pytest.raises(InputError, match="lone surrogate at character 2"):
        await read_texts(["ab\ud83d"])
