"""Objects over a pair of sockets: they arrive as they were sent, or it is told that the other end is gone."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pinecone_embed_async import DenseEmbeddings, Usage
from pinecone_embed_async.cli._channel import Channel
from pinecone_embed_async.cli._slots import BYTES_PER_SLOT, SLOTS, Slots


@contextlib.contextmanager
def pair(slots: Slots | None = None) -> Iterator[tuple[Channel, Channel]]:
    own, theirs = socket.socketpair()
    with (
        contextlib.closing(Channel(own, to_fill=slots)) as one,
        contextlib.closing(Channel(theirs, filled=slots)) as other,
    ):
        yield one, other


@pytest.fixture
def slots() -> Iterator[Slots]:
    with contextlib.closing(Slots.new()) as slots:
        yield slots


SHAPES = arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=40)
MESSAGES = st.lists(
    st.one_of(
        st.lists(st.text(st.characters(exclude_categories=())), max_size=5),
        arrays.arrays(np.float32, SHAPES),
        st.tuples(st.integers(), arrays.arrays(np.uint32, SHAPES), arrays.arrays(np.bool_, SHAPES)),
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(messages=MESSAGES, is_shared=st.booleans())
async def test_what_is_sent_arrives_whole_and_in_order(messages: list[Any], *, is_shared: bool) -> None:
    with contextlib.closing(Slots.new()) as slots, pair(slots if is_shared else None) as (one, other):
        async with asyncio.TaskGroup() as group:
            group.create_task(_send_all(one, messages))
            received = [await other.receive() for _ in messages]
    for left, right in zip(received, messages, strict=True):
        np.testing.assert_equal(left, right)


async def _send_all(channel: Channel, messages: list[Any]) -> None:
    for message in messages:
        await channel.send(message)


async def test_messages_of_several_senders_do_not_mix_although_none_fits_into_the_buffer() -> None:
    with pair() as (one, other):
        async with asyncio.TaskGroup() as group:
            for value in range(4):
                group.create_task(one.send(np.full(1_000_000, value, np.float32)))
            received = [await other.receive() for _ in range(4)]
    assert sorted(float(array[0]) for array in received) == [0, 1, 2, 3]
    assert all((array == array[0]).all() for array in received)


async def test_arrays_come_in_shared_memory_as_long_as_there_is_room_and_over_the_socket_otherwise(slots: Slots) -> None:
    arrays = [np.full(1000, value, np.float32) for value in range(SLOTS + 3)]
    arrays.append(np.full(BYTES_PER_SLOT, 7, np.uint8))
    with pair(slots) as (one, other):
        async with asyncio.TaskGroup() as group:
            group.create_task(_send_all(one, arrays))
            received = [await other.receive() for _ in arrays]
        assert slots.fill([memoryview(b"")]) is None
        for left, right in zip(received, arrays, strict=True):
            np.testing.assert_array_equal(left, right)
        del received, left
        assert slots.fill([memoryview(b"")]) == 0


@pytest.mark.parametrize("is_shared", [False, True])
async def test_received_arrays_may_be_written_to(slots: Slots, *, is_shared: bool) -> None:
    embeddings = DenseEmbeddings(np.ones((2, 3), np.float32), model="m", usage=Usage(7, 1))
    with pair(slots if is_shared else None) as (one, other):
        await one.send(embeddings)
        received: DenseEmbeddings = await other.receive()
    received.vectors[0] = 2
    np.testing.assert_array_equal(received.vectors, [[2, 2, 2], [1, 1, 1]])
    assert received.usage == Usage(7, 1)


async def test_whoever_receives_is_told_that_the_other_end_is_gone_also_in_the_middle_of_a_message() -> None:
    with pair() as (one, other):
        one.close()
        with pytest.raises(EOFError):
            await other.receive()
    own, theirs = socket.socketpair()
    with contextlib.closing(Channel(own)) as channel, theirs:
        theirs.sendall(b"\5" + bytes(25))
        theirs.close()
        with pytest.raises(EOFError):
            await channel.receive()


async def test_whoever_sends_is_told_that_the_other_end_is_gone() -> None:
    with pair() as (one, other):
        other.close()
        with pytest.raises(OSError):  # noqa: PT011 - which one, is the system's choice
            await one.send(np.zeros(1_000_000))
