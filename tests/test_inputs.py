import asyncio
from collections.abc import AsyncIterator
from enum import Enum

import numpy as np
import pytest

from pinecone_embed_async import InputError
from pinecone_embed_async._inputs import SLICE, read_texts


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
    with pytest.raises(InputError, match="inputs are of type"):
        await read_texts(bad)  # type: ignore[arg-type]


async def test_the_loop_turns_while_a_long_list_is_checked() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await read_texts(["text"] * SLICE * 10)
    counting.cancel()
    assert turns >= 10


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
