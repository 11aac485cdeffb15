"""Decodes dense answers while they arrive: row after row into the caller's float32 matrix, the rest at the end.

Nearly all of an answer is numbers. So its rows are cut out, converted by one of two decoders and written to the matrix; see
`rows`. The rest, the frame, is an answer with a placeholder number in place of each row. It has at most a few kilobytes and
is validated by the same rules as an answer decoded whole. The two decoders, the package's native module (if it could be
built) and msgspec, give bit-identical rows. Once an unusual answer is complete, msgspec validates it whole, item by item.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import TYPE_CHECKING, TypeAlias, overload

import msgspec
import numpy as np

from pinecone_embed_async._checks import one_of
from pinecone_embed_async._errors import ConfigurationError, ResponseError
from pinecone_embed_async._wire.judging import Answer, WholeAnswer, has_more_rows, judge_frame
from pinecone_embed_async._wire.rows import DecoderName, MsgspecRows, NativeRows
from pinecone_embed_async._wire.strict_json import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from pinecone_embed_async._wire.rows import RowSource
    from pinecone_embed_async._wire.structs import VectorType

SMALL_PIECE, JOINED = 2**12, 2**16
"""Pieces smaller than `SMALL_PIECE` bytes are joined up to `JOINED` bytes, because a list of tiny pieces would take many
times their size."""

LONGEST_END = 2**16
"""Number of bytes after the last row that triggers a check for surplus rows; usually only the usage follows."""

Decoder: TypeAlias = type[NativeRows] | type[MsgspecRows]
"""Decodes the rows of answers: makes an object for each answer."""

DECODERS: Mapping[DecoderName, Decoder] = {"native": NativeRows, "msgspec": MsgspecRows}
"""All decoders, the fastest first."""


def choose_decoder(name: DecoderName | None) -> Decoder:
    """The decoder with this name; without a name, the fastest one available: native, then msgspec.

    Raises:
        ConfigurationError: the name is unknown, or the decoder is not installed.
    """
    installed = installed_decoders()
    chosen = installed[0] if name is None else one_of("decoder", name, tuple(DECODERS))
    if chosen not in installed:
        raise ConfigurationError(
            'decoder="native" needs a package built with a C compiler, GCC or Clang, on a 64-bit little-endian machine'
        )
    if chosen == "native":
        # Now, because otherwise the first answer would wait for it.
        from pinecone_embed_async._wire import _native  # noqa: F401, PLC0415 - optional
    return DECODERS[chosen]


def installed_decoders() -> tuple[DecoderName, ...]:
    """Names of the decoders available here, the fastest first."""
    is_built = importlib.util.find_spec("pinecone_embed_async._wire._native") is not None
    return tuple(name for name in DECODERS if is_built or name != "native")


class StreamingDecoder:
    """Decodes one answer as it arrives: `add` the pieces, call `decode` now and then, and at the end `finish`.

    Rows are found by their brackets, but strings and unknown keys may contain brackets too. So its rows are valid only if
    the placeholders are in the right places of the frame.

    A piece is freed once its rows are in the caller's matrix. If the body is needed again, the rows are encoded as JSON that
    decodes to the same float32 numbers.

    Args:
        decoder: cuts out the rows and writes them to the matrix.
        count: number of inputs of the request.
        vector_type: expected vector type; `None` if the answer decides.
        dimension: expected numbers per row; `None` if the answer decides.
        rows: provides the matrix (count, dimension) to write to; may be asked more than once, and before the answer is known
            to be valid.

    Attributes:
        undecoded: number of bytes that `decode` has not processed.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        count: int,
        vector_type: VectorType | None,
        dimension: int | None,
        rows: RowSource,
    ) -> None:
        self._count = count
        self._vector_type = vector_type
        self._dimension = dimension
        self._rows = rows
        self._decoder = decoder
        self._pieces: list[bytes] = []
        self._small = bytearray()
        self._next = self._position = 0
        # The first answer sets the dimension for all others, so it must be validated before its dimension is passed on.
        self._is_in_place = vector_type == "dense" and dimension is not None
        self._placed = self._new_rows()
        self._is_usual = vector_type != "sparse"
        self._is_end_checked = False
        self._is_stopped = False
        self._body: bytes | None = None
        self._refusal: str | None = None
        self._whole: WholeAnswer | None = None
        self._size = 0
        self.undecoded = 0

    def __repr__(self) -> str:
        state = f"{self._placed.row} of {self._count} rows" if self._is_usual else "unusual"
        return f"<StreamingDecoder {state}, {self.undecoded} bytes undecoded>"

    def _new_rows(self) -> NativeRows | MsgspecRows:
        return self._decoder(self._count, self._dimension, self._rows if self._is_in_place else None)

    @property
    def has_matrix(self) -> bool:
        """Whether `decode` need not ask for the caller's matrix, because it has it."""
        return self._placed.matrix is not None

    @property
    def left(self) -> int:
        """Number of bytes left for `finish`."""
        return self.undecoded if self._is_usual else self._size

    def add(self, piece: bytes) -> None:
        """Add the next piece of the body."""
        if self._refusal is not None:
            return
        self._size += len(piece)
        if self._size > (self._count + 1) * MOST_BYTES:
            self._refuse(f"the answer has more than {self._count + 1} MiB: one for each embedding and one beside them")
            return
        if self._is_usual:
            self.undecoded += len(piece)
        if len(piece) < SMALL_PIECE:
            self._small += piece
            if len(self._small) >= JOINED:
                self._join_small()
        else:
            self._join_small()
            self._pieces.append(piece)

    def _join_small(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small = bytearray()

    def decode(self, most: int = sys.maxsize) -> None:
        """Write the rows that have arrived to the matrix.

        Args:
            most: number of bytes after which no further row is started.
        """
        self._join_small()
        while self.undecoded and most > 0 and not self._is_stopped:
            pieces, start = tuple(self._pieces[self._next :]), self._position
            done, self._position = self._placed.read(pieces, start, most)
            size = sum(map(len, pieces[:done])) + self._position - start
            if self._is_in_place:
                self._pieces[self._next : self._next + done] = [b""] * done
            self._next += done
            most -= size
            self.undecoded -= size
            self._is_usual = self._placed.is_usual
            if not self._is_end_checked and self._placed.bytes_behind > LONGEST_END:
                self._is_end_checked = True
                if has_more_rows(self._placed.gaps, self._placed.rest, self._count):
                    self._refuse(f"expected {self._count} embeddings, got more at `$.data`")
            if not self._is_usual:
                self.undecoded = 0

    def stop(self) -> None:
        """End a `decode` in another thread within 256 KiB; nothing more is decoded."""
        self._is_stopped = True
        self._placed.stop()

    def _refuse(self, refusal: str) -> None:
        """Reject the answer, and free all memory."""
        self._refusal, self._is_usual, self.undecoded = refusal, False, 0
        self._small, self._pieces, self._body = bytearray(), [], b""
        self._placed = self._new_rows()

    @overload
    def finish(self) -> Answer: ...
    @overload
    def finish(self, most: int) -> Answer | None: ...
    def finish(self, most: int = sys.maxsize) -> Answer | None:
        """Validate the answer; call it after all pieces were added.

        Args:
            most: number of bytes after which the validation of an unusual answer pauses.

        Returns:
            The answer; `None` if `finish` must be called again.

        Raises:
            ResponseError: the body cannot be read or does not match the request; parts of the matrix may be written.
        """
        if self._whole is None:
            self.decode()
            if self._refusal is not None:
                raise ResponseError(self._refusal)
            answer = self._finish_usual()
            if answer is not None:
                return answer
            if not self._is_in_place:
                # No row was placed, so the pieces still are the whole body.
                self._placed = self._new_rows()
            body = self.body()
            self._pieces = []
            self._whole = WholeAnswer(body, count=self._count, vector_type=self._vector_type, dimension=self._dimension)
            if len(body) > most:
                return None
        self._whole.judge(most)
        return self._whole.finish(self._rows) if self._whole.is_done else None

    def body(self) -> bytes:
        """The body that `finish` has read, or JSON that decodes to the same; empty if the answer was rejected."""
        if self._body is None:
            if self._is_in_place:
                rest = [piece[self._position :] for piece in self._pieces[self._next : self._next + 1]]
                placed = self._placed
                parts = [*self._encode_rows(), placed.rest, placed.kept, *rest, *self._pieces[self._next + 1 :]]
            else:
                parts = self._pieces
            self._body = b"".join(parts)
        return self._body

    def _encode_rows(self) -> Iterator[bytes]:
        if self._placed.matrix is not None:
            for gap, row in zip(self._placed.gaps, self._placed.matrix, strict=False):
                yield gap
                yield _numbers(row)

    def _finish_usual(self) -> Answer | None:
        """The answer if all its rows are in the matrix and the rest is not unusual; else `None`."""
        placed = self._placed
        if not self._is_usual or placed.row != self._count or placed.matrix is None or placed.bytes_behind > MOST_BYTES:
            return None
        answer = judge_frame(placed.gaps, placed.rest)
        if answer is None or not placed.is_finite:
            return None
        if not self._is_in_place:
            self._rows.rows(placed.matrix.shape[1])[:] = placed.matrix
        return answer


def _numbers(row: NDArray[np.float32]) -> bytes:
    """A row as JSON, without its brackets."""
    values = row.tolist()
    if np.isfinite(row).all():
        return msgspec.json.encode(values)[1:-1]
    # JSON has no infinities. The original was a number beyond float32's range, so encode it as one.
    return b",".join(msgspec.json.encode(value if math.isfinite(value) else math.copysign(1e39, value)) for value in values)
