"""Shared memory in slots: what is put in comes out, and nothing is overwritten that somebody still has."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinecone_embed_async.cli._slots import ALIGNMENT, BYTES_PER_SLOT, SLOTS, Slots
from tests.disk import full_disk


@contextlib.contextmanager
def two_views() -> Iterator[tuple[Slots, Slots]]:
    """The same memory as the process that fills it has it, and as the one that reads."""
    with contextlib.closing(Slots.new()) as filling:
        yield filling, Slots(filling.descriptor)


@settings(max_examples=60)
@given(contents=st.lists(st.lists(st.binary(max_size=200), max_size=5), max_size=SLOTS))
def test_buffers_come_out_as_they_were_put_in_each_of_them_aligned(contents: list[list[bytes]]) -> None:
    with two_views() as (filling, reading):
        slots = [filling.fill([memoryview(each) for each in content]) for content in contents]
        read = [
            reading.buffers(slot, [len(each) for each in content])
            for slot, content in zip(slots, contents, strict=True)
            if slot is not None
        ]
        assert [[bytes(each) for each in buffers] for buffers in read] == contents
        addresses = [np.frombuffer(each, np.uint8).ctypes.data for buffers in read for each in buffers if each]
        assert all(address % ALIGNMENT == 0 for address in addresses)


def test_a_slot_is_free_again_once_nothing_of_it_is_in_use() -> None:
    with two_views() as (filling, reading):
        slot = filling.fill([memoryview(b"abcd"), memoryview(b"efgh")])
        assert slot is not None
        first, second = reading.buffers(slot, [4, 4])
        array = np.frombuffer(second, np.uint8)[1:]
        del first, second
        assert filling.fill([memoryview(b"other")]) == slot + 1
        assert bytes(array) == b"fgh"
        del array
        assert filling.fill([memoryview(b"again")]) == slot


@settings(max_examples=30)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, SLOTS - 1)), max_size=150))
def test_nothing_that_is_in_use_is_overwritten(steps: list[tuple[bool, int]]) -> None:
    with two_views() as (filling, reading):
        in_use: dict[int, tuple[bytes, memoryview]] = {}
        for number, (is_filled, place) in enumerate(steps):
            if not is_filled:
                in_use.pop(sorted(in_use)[place % len(in_use)], None) if in_use else None
                continue
            content = number.to_bytes(4, "little")
            slot = filling.fill([memoryview(content)])
            if len(in_use) == SLOTS:
                assert slot is None
            else:
                assert slot is not None
                assert slot not in in_use
                in_use[slot] = content, reading.buffers(slot, [4])[0]
        assert all(bytes(view) == content for content, view in in_use.values())


def test_what_does_not_fit_into_a_slot_is_not_taken() -> None:
    whole = [memoryview(bytes(BYTES_PER_SLOT // 4))] * 4
    with two_views() as (filling, _):
        assert filling.fill([*whole, memoryview(b"x")]) is None
        assert filling.fill(whole) == 0


def test_memory_that_cannot_be_had_leaves_no_descriptor_behind() -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    with full_disk(BYTES_PER_SLOT), pytest.raises(OSError, match="File too large"):
        Slots.new()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_where_there_is_no_memory_without_a_file_a_file_without_a_name_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with two_views() as (filling, reading):
        slot = filling.fill([memoryview(b"abcd")])
        assert slot is not None
        assert [bytes(each) for each in reading.buffers(slot, [4])] == [b"abcd"]
