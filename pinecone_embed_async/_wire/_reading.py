"""Decoding of dense answers while they arrive: row after row into the caller's float32 matrix, the rest at the end.

The numbers make up nearly all of an answer. So each row is cut out, turned into numbers by one of two decoders and
written to its place; what is left, the frame, is an answer with a number of ours in the place of each row, a few
kilobytes at most, and is judged by the same rules as an answer that is decoded whole. The two decoders give bit-equal rows:
msgspec, which is always there, and simdjson, which makes no Python object of a number. Whatever is unusual in the least
is judged by msgspec as a whole, once it is there, item by item.
"""

from __future__ import annotations

import importlib.util
import math
import struct
import sys
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

import msgspec
import numpy as np

from pinecone_embed_async._checks import one_of
from pinecone_embed_async._errors import ConfigurationError, ResponseError
from pinecone_embed_async._wire._answers import MOST_BYTES, Answer, WholeAnswer, has_more_rows, judge_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from pinecone_embed_async._models import VectorType
    from pinecone_embed_async._wire._answers import RowsFor

    Convert = Callable[[bytes], NDArray[np.float64]]
    """Reads a JSON array of numbers; raises one of `_UNREADABLE` for anything else."""

DecoderName = Literal["msgspec", "simdjson"]

SMALL_PIECE, GATHERED = 2**12, 2**16
"""Pieces that are smaller than the one are put together until they have as many bytes as the other: a list of them would
take many times their size."""

LONGEST_END = 2**16
"""Bytes behind the last row at which it is asked whether there are more rows: it is usage and little else."""

LONGEST_ROW = 20_000
"""Numbers of a first row for which memory is taken as for all; no index takes more. Longer ones are judged as a whole."""

_UNREADABLE = (msgspec.DecodeError, ResponseError, ValueError, TypeError, RuntimeError)
"""What a row that is none meets. `ResponseError`: a destination that wants another dimension."""


class Decoder(Protocol):
    """Reads bodies that came with HTTP 200."""

    name: DecoderName
    slice_bytes: int
    """Bytes of an answer that it decodes in a millisecond and a half, about; see docs/benchmarks.md."""

    def begin(self, *, count: int, vector_type: VectorType | None, dimension: int | None, rows: RowsFor) -> Reading:
        """Begin to read an answer.

        Args:
            count: inputs of the request.
            vector_type: the kind expected, or `None` if the answer may tell.
            dimension: numbers per row expected, or `None` if the answer may tell.
            rows: gives the matrix (count, dimension) to write to; it may raise `ResponseError`. It may be asked more
                than once, and before it is known whether the answer is any good.
        """


def choose_decoder(name: DecoderName | None) -> Decoder:
    """The decoder of that name; without one simdjson if it is installed, else msgspec.

    Raises:
        ConfigurationError: there is none of that name, or it is not installed.
    """
    if name is None:
        name = "simdjson" if importlib.util.find_spec("simdjson") else "msgspec"
    name = cast("DecoderName", one_of("decoder", name, tuple(DECODERS)))
    if name == "simdjson" and not importlib.util.find_spec("simdjson"):
        raise ConfigurationError('decoder="simdjson" needs pip install "pinecone-embed-async[fast]"')
    return DECODERS[name]()


class MsgspecDecoder:
    """Decodes with msgspec; a row's list of floats is gone before the next one is made."""

    name: DecoderName = "msgspec"
    slice_bytes = 2**19

    def begin(self, *, count: int, vector_type: VectorType | None, dimension: int | None, rows: RowsFor) -> Reading:
        """See `Decoder.begin`."""
        return Reading(_with_msgspec, count=count, vector_type=vector_type, dimension=dimension, rows=rows)


class SimdjsonDecoder:
    """Decodes with simdjson; one parser, whose memory is used again for every row."""

    name: DecoderName = "simdjson"
    slice_bytes = 2**20

    def __init__(self) -> None:
        import simdjson  # noqa: PLC0415 - optional, and imported only where it is used

        parse, from_buffer = simdjson.Parser().parse, np.frombuffer

        def convert(row: bytes) -> NDArray[np.float64]:
            array: Any = parse(row)
            return from_buffer(array.as_buffer(of_type="d"))

        self._convert = convert

    def begin(self, *, count: int, vector_type: VectorType | None, dimension: int | None, rows: RowsFor) -> Reading:
        """See `Decoder.begin`."""
        return Reading(self._convert, count=count, vector_type=vector_type, dimension=dimension, rows=rows)


DECODERS: Mapping[DecoderName, Callable[[], Decoder]] = {
    "msgspec": MsgspecDecoder,
    "simdjson": SimdjsonDecoder,
}

_list_of_floats = msgspec.json.Decoder(list[float]).decode


def _with_msgspec(row: bytes) -> NDArray[np.float64]:
    values = _list_of_floats(row)
    # Three times as fast as np.fromiter, four times as np.array, with 1024 values.
    return np.frombuffer(struct.pack(f"{len(values)}d", *values))


class Reading:
    """An answer that is read as it arrives: `add` its pieces, `decode` now and then, `finish`.

    The first `[` of a dense answer opens `data`, and each of the next `count` ones a row, which ends at the next `]`.
    Where that is not so, in strings or unknown keys, a row is no array of numbers or the frame does not have our numbers
    in their places.

    A piece is let go once its rows are in the caller's matrix. Should the body be needed after all, they are written as
    JSON again, which reads as the same float32 numbers.

    Args:
        convert: reads a row.
        count: inputs of the request.
        vector_type: the kind expected, or `None` if the answer may tell.
        dimension: numbers per row expected, or `None` if the answer may tell.
        rows: gives the matrix to write to.

    Attributes:
        undecoded: bytes that `decode` has not looked at.
    """

    def __init__(
        self, convert: Convert, *, count: int, vector_type: VectorType | None, dimension: int | None, rows: RowsFor
    ) -> None:
        self._convert = convert
        self._count = count
        self._vector_type = vector_type
        self._dimension = dimension
        self._rows = rows
        self._pieces: list[bytes] = []
        self._small = bytearray()
        self._next = self._position = 0
        # What stands before each row; what is there of the one before the next row, and of a row that ends in a later piece.
        self._gaps: list[bytes] = []
        self._gap: list[bytes] = []
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        # -1 before `data`.
        self._row = -1
        self._matrix: NDArray[np.float32] | None = None
        # The first answer's dimension may be taken for good, so it is not told before that answer is judged.
        self._is_in_place = vector_type == "dense" and dimension is not None
        self._is_usual = vector_type != "sparse"
        self._body: bytes | None = None
        # Bytes behind the last row, until it is asked what they are.
        self._behind = 0
        self._refusal: str | None = None
        self._whole: WholeAnswer | None = None
        self._size = 0
        self.undecoded = 0

    def __repr__(self) -> str:
        state = f"{max(self._row, 0)} of {self._count} rows" if self._is_usual else "unusual"
        return f"<Reading {state}, {self.undecoded} bytes undecoded>"

    @property
    def left(self) -> int:
        """Bytes that `finish` has to look at."""
        return self.undecoded if self._is_usual else self._size

    def add(self, piece: bytes) -> None:
        """Take the next piece of the body, as it came."""
        if self._refusal is not None:
            return
        self._size += len(piece)
        if self._size > (self._count + 1) * MOST_BYTES:
            self._refuse(f"the answer takes more than {self._count + 1} MiB: one for each embedding and one beside them")
            return
        if self._is_usual:
            self.undecoded += len(piece)
        if len(piece) < SMALL_PIECE:
            self._small += piece
            if len(self._small) >= GATHERED:
                self._put_together()
        else:
            self._put_together()
            self._pieces.append(piece)

    def _put_together(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small = bytearray()

    def decode(self, most: int = sys.maxsize) -> None:
        """Write the rows that are there to their places.

        Args:
            most: bytes after which no more rows are begun.
        """
        self._put_together()
        # A number over float32's range becomes an infinity, quietly, and is found at the end.
        with np.errstate(over="ignore"):
            while self.undecoded and most > 0:
                most -= self._decode_in_piece(most)
                if self._behind > LONGEST_END:
                    self._look_behind()
                if not self._is_usual:
                    self.undecoded = 0

    def _look_behind(self) -> None:
        """Let go of everything if there are more rows than should be; asked once."""
        self._behind = -sys.maxsize
        if has_more_rows(self._gaps, b"".join(self._gap), self._count):
            self._refuse(f"expected {self._count} embeddings, got more at `$.data`")

    def _refuse(self, refusal: str) -> None:
        """Let go of everything."""
        self._refusal, self._is_usual, self.undecoded = refusal, False, 0
        self._small, self._pieces, self._gap, self._begun, self._body = bytearray(), [], [], [], b""

    @overload
    def finish(self) -> Answer: ...
    @overload
    def finish(self, most: int) -> Answer | None: ...
    def finish(self, most: int = sys.maxsize) -> Answer | None:
        """Judge the answer; all of its pieces must have been added.

        Args:
            most: bytes after which no more of an unusual answer is judged.

        Returns:
            The answer; `None` if there is more to judge, by the next call.

        Raises:
            ResponseError: the body cannot be read or does not match the request; the matrix may have been
                written to in part.
        """
        if self._whole is None:
            self.decode()
            if self._refusal is not None:
                raise ResponseError(self._refusal)
            answer = self._finish_usual()
            if answer is not None:
                return answer
            body = self.body()
            self._pieces = []
            self._whole = WholeAnswer(body, count=self._count, vector_type=self._vector_type, dimension=self._dimension)
            if len(body) > most:
                return None
        self._whole.go_on(most)
        return self._whole.finish(self._rows) if self._whole.is_done else None

    def body(self) -> bytes:
        """What has been added, or what reads the same; nothing if it was let go."""
        if self._body is None:
            self._put_together()
            if self._is_in_place:
                behind = [piece[self._position :] for piece in self._pieces[self._next : self._next + 1]]
                parts = [*self._written_again(), *self._gap, *self._begun, *behind, *self._pieces[self._next + 1 :]]
            else:
                parts = self._pieces
            self._body = b"".join(parts)
        return self._body

    def _written_again(self) -> Iterator[bytes]:
        if self._matrix is not None:
            for gap, row in zip(self._gaps, self._matrix, strict=False):
                yield gap
                yield _numbers(row)

    def _decode_in_piece(self, most: int) -> int:
        """Go through a piece, for at least one row or to its end; says how many bytes that was."""
        piece, start = self._pieces[self._next], self._position
        if self._begun:
            position = self._end_row(piece, start)
        elif self._row < 0:
            position = self._find_data(piece, start)
        elif self._row < self._count:
            position = self._decode_rows(piece, start, min(len(piece), start + most))
        else:
            self._gap.append(piece[start:])
            position = len(piece)
            self._behind += position - start
        if position == len(piece):
            if self._is_in_place:
                self._pieces[self._next] = b""
            self._next, self._position = self._next + 1, 0
        else:
            self._position = position
        self.undecoded -= position - start
        return position - start

    def _find_data(self, piece: bytes, position: int) -> int:
        opening = piece.find(b"[", position)
        after = opening + 1 or len(piece)
        self._gap.append(piece[position:after])
        if opening >= 0:
            self._row = 0
        return after

    def _decode_rows(self, piece: bytes, position: int, stop: int) -> int:
        """Write the rows that are whole in a piece to their places, and keep what is there of the next."""
        find, convert, gaps = piece.find, self._convert, self._gaps
        row, count, matrix = self._row, self._count, self._matrix
        # The brackets around a row belong to the gaps.
        while position < stop and row < count:
            opening = find(b"[", position)
            if opening < 0:
                self._gap.append(piece[position:])
                position = len(piece)
                break
            end = find(b"]", opening)
            if end < 0:
                self._gap.append(piece[position:opening])
                self._begun.append(piece[opening:])
                self._begun_bytes = len(piece) - opening
                position = len(piece)
                break
            if end - opening > MOST_BYTES:
                self._is_usual = False
                break
            try:
                values = convert(piece[opening : end + 1])
                length = len(values)
                if matrix is None:
                    matrix = self._matrix = self._make_matrix(length)
            except _UNREADABLE:
                self._is_usual = False
                break
            # Asked for here: numpy would write a single number to the whole row.
            if not length or length != matrix.shape[1]:
                self._is_usual = False
                break
            matrix[row] = values
            gap = piece[position : opening + 1]
            if self._gap:
                gap = b"".join([*self._gap, gap])
                self._gap.clear()
            gaps.append(gap)
            row += 1
            position = end
        self._row = row
        return position

    def _end_row(self, piece: bytes, position: int) -> int:
        """Write a row that has begun in an earlier piece, if it ends in this one."""
        end = piece.find(b"]", position)
        if end < 0:
            self._begun.append(piece[position:])
            self._begun_bytes += len(piece) - position
            if self._begun_bytes > MOST_BYTES:
                self._is_usual = False
            return len(piece)
        begun, self._begun = self._begun, []
        row = b"".join([*begun, piece[position : end + 1]])
        self._decode_rows(row, 0, 1)
        if not self._is_usual:
            self._begun = begun
            return position
        return end

    def _make_matrix(self, length: int) -> NDArray[np.float32]:
        if self._dimension is None and length > LONGEST_ROW:
            raise ValueError
        dimension = length if self._dimension is None else self._dimension
        return self._rows(dimension) if self._is_in_place else np.empty((self._count, dimension), np.float32)

    def _finish_usual(self) -> Answer | None:
        """The answer, if all of its rows are in their places and there is nothing unusual about the rest."""
        if not self._is_usual or self._begun or self._row != self._count or self._matrix is None:
            return None
        answer = judge_frame(self._gaps, b"".join(self._gap))
        if answer is None or not np.isfinite(self._matrix).all():
            return None
        if not self._is_in_place:
            self._rows(self._matrix.shape[1])[:] = self._matrix
        return answer


def _numbers(row: NDArray[np.float32]) -> bytes:
    """A row as JSON, without the brackets around it."""
    values = row.tolist()
    if np.isfinite(row).all():
        return msgspec.json.encode(values)[1:-1]
    # JSON has no infinities: a number that is over float32's range, as the one was that has become it.
    return b",".join(msgspec.json.encode(value if math.isfinite(value) else math.copysign(1e39, value)) for value in values)
