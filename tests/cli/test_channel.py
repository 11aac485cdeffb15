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


@contextlib.contextmanager
def pair() -> Iterator[tuple[Channel, Channel]]:
    one, other = (Channel(end) for end in socket.socketpair())
    with contextlib.closing(one), contextlib.closing(other):
        yield one, other


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
@given(messages=MESSAGES)
async def test_what_is_sent_arrives_whole_and_in_order(messages: list[Any]) -> None:
    with pair() as (one, other):
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


async def test_received_arrays_may_be_written_to() -> None:
    embeddings = DenseEmbeddings(np.ones((2, 3), np.float32), model="m", usage=Usage(7, 1))
    with pair() as (one, other):
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
        theirs.sendall(b"\5" + bytes(17))
        theirs.close()
        with pytest.raises(EOFError):
            await channel.receive()


async def test_whoever_sends_is_told_that_the_other_end_is_gone() -> None:
    with pair() as (one, other):
        other.close()
        with pytest.raises(OSError):  # noqa: PT011 - which one, is the system's choice
            await one.send(np.zeros(1_000_000))
