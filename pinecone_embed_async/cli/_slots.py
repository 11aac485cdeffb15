"""Shared memory of two processes, in slots: one of them fills slots, the other reads them in place and frees them."""

import contextlib
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import Self

import numpy as np

SLOTS = 32
"""For the group being written to the journal, the next one, and some more. The first free slot is taken,
so memory is only used for as many as were ever in use at once."""

BYTES_PER_SLOT = 2**20
"""A full request of the longest vectors that are hosted, 96 of 2048 float32, are three quarters of that."""

ALIGNMENT = 64
"""Arrow's alignment of buffers."""

_BYTES = mmap.PAGESIZE + SLOTS * BYTES_PER_SLOT


class Slots:
    """One process's view of the slots.

    The numbers of filled slots reach the other process by other means; which slots are free is in the memory itself.

    Args:
        descriptor: The memory's descriptor; closed by `close`.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        memory = np.frombuffer(mmap.mmap(descriptor, _BYTES), np.uint8)
        self._is_filled = memory[:SLOTS].view(np.bool_)
        self._bytes = memory[mmap.PAGESIZE :].reshape(SLOTS, BYTES_PER_SLOT)

    @classmethod
    def new(cls) -> Self:
        """Make the memory, with all slots free; the other process inherits the descriptor.

        Raises:
            OSError: There is no such memory; where files may not be as large, for instance.
        """
        with contextlib.ExitStack() as upon_error:
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("embeddings")
            else:
                with tempfile.TemporaryFile() as file:
                    descriptor = os.dup(file.fileno())
            upon_error.callback(os.close, descriptor)
            os.ftruncate(descriptor, _BYTES)
            slots = cls(descriptor)
            upon_error.pop_all()
            return slots

    def close(self) -> None:
        """Close the descriptor; the memory exists as long as anything in it is in use."""
        os.close(self.descriptor)

    def fill(self, buffers: Sequence[memoryview]) -> int | None:
        """Copy buffers into a free slot; called by one of the two processes only.

        Args:
            buffers: Contiguous, of bytes.

        Returns:
            The number of the slot; `None` if none is free, or if they are too large for one.
        """
        slot = int(self._is_filled.argmin())
        if self._is_filled[slot] or sum(_aligned(len(buffer)) for buffer in buffers) > BYTES_PER_SLOT:
            return None
        self._is_filled[slot] = True
        start = 0
        for buffer in buffers:
            self._bytes[slot, start : start + len(buffer)] = buffer
            start += _aligned(len(buffer))
        return slot

    def buffers(self, slot: int, sizes: Sequence[int]) -> list[memoryview]:
        """The buffers in a slot, in place; called by the other process, once. The slot is free when all of them are gone.

        Args:
            slot: The slot's number.
            sizes: Sizes of the buffers, in bytes.
        """
        content = self._bytes[slot].view()
        weakref.finalize(content, self._is_filled.__setitem__, slot, False).atexit = False
        with memoryview(content) as view:
            start = 0
            taken: list[memoryview] = []
            for size in sizes:
                taken.append(view[start : start + size])
                start += _aligned(size)
        return taken


def _aligned(size: int) -> int:
    return size + -size % ALIGNMENT
