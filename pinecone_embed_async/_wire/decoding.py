"""Decodes dense answers while they arrive: row after row into the caller's float32 matrix, the rest at the end.

Nearly all of an answer is numbers. So its rows are cut out, converted by one of two decoders and written to the matrix; see
`rows`. The rest, the frame, is an answer with a placeholder number in place of each row. It has at most a few kilobytes and
is validated by the same rules as an answer decoded whole. The two decoders, the package's native module (if it could be
built) and msgspec, give bit-identical rows. Once an unusual answer is complete, msgspec validates it whole, item by item.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pinecone_embed_async._checks import one_of
from pinecone_embed_async._errors import ConfigurationError, ResponseError
from pinecone_embed_async._structs import SilentStruct
from pinecone_embed_async._wire.judging import Answer, WholeAnswer, judge_frame
from pinecone_embed_async._wire.rows import ODD, TOO_LONG, UNREADABLE, Decoder, RowReader, place
from pinecone_embed_async._wire.strict_json import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pinecone_embed_async._wire import _native
    from pinecone_embed_async._wire.rows import DecoderName, RowSource
    from pinecone_embed_async._wire.structs import VectorType

SMALL_PIECE, JOINED = 2**12, 2**16
"""Pieces smaller than `SMALL_PIECE` bytes are joined, because a list of tiny pieces would take many times their size; up to
`JOINED` bytes, because a longer buffer would take fresh memory each time it grows."""

LONGEST_ROW = 20_000
"""Maximum length of a first row for which the matrix is allocated at once: the largest dimension of an index. An answer with
longer rows is validated whole."""

DECODERS: tuple[DecoderName, ...] = ("native", "msgspec")
"""All decoders, the fastest first."""


def choose_decoder(name: DecoderName | None) -> Decoder:
    """The decoder with this name; without a name, the fastest one available: native, then msgspec.

    Raises:
        ConfigurationError: the name is unknown, or the decoder is not installed.
    """
    installed = installed_decoders()
    chosen = installed[0] if name is None else one_of("decoder", name, DECODERS)
    if chosen not in installed:
        raise ConfigurationError(
            'decoder="native" needs a package built with a C compiler, GCC or Clang, on a 64-bit little-endian machine'
        )
    if chosen == "msgspec":
        return Decoder("msgspec", releases_lock=False, reader=RowReader)
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - optional

    return Decoder("native", releases_lock=True, reader=_native.RowReader)


def installed_decoders() -> tuple[DecoderName, ...]:
    """Names of the decoders available here, the fastest first."""
    is_built = importlib.util.find_spec("pinecone_embed_async._wire._native") is not None
    return DECODERS if is_built else ("msgspec",)


class StreamingDecoder(SilentStruct):
    """Decodes one answer as it arrives: `add` the pieces, call `decode` now and then, and at the end `finish`.

    Rows are found by their brackets, but strings and unknown keys may contain brackets too. So the rows count only if the
    frame has a placeholder in each place where a row belongs.

    A piece is freed once its rows are in the caller's matrix. If the body is needed again, the rows are encoded as JSON that
    decodes to the same float32 numbers.

    `decode` may be called in a thread once there is a `matrix`. While the native reader works, it does not hold the GIL.

    Args:
        decoder: decodes the rows.
        count: number of inputs of the request.
        vector_type: expected vector type; `None` if the answer decides.
        dimension: expected numbers per row; `None` if the answer decides.
        rows: provides the matrix (count, dimension) to write to; may be asked more than once, and before the answer is known
            to be valid.

    Attributes:
        undecoded: number of bytes that `decode` has not processed.
        matrix: the rows decoded so far; `None` until a row shows their dimension, unless it is known, and for an answer that
            is validated whole.
    """

    decoder: Decoder
    count: int
    vector_type: VectorType | None
    dimension: int | None
    rows: RowSource
    undecoded: int = 0
    matrix: NDArray[np.float32] | None = None
    # The next three are set in `__post_init__`.
    _reader: RowReader | _native.RowReader = None  # type: ignore[assignment]
    # Whether rows go straight into the caller's matrix. Not if the answer sets the dimension for all others, because it must
    # then be validated before its dimension is passed on.
    _is_in_place: bool = False
    # Whether every row so far is an array of numbers of the right length; otherwise, and for sparse answers, the whole
    # answer is validated at the end.
    _is_usual: bool = True
    _size: int = 0
    # Pieces that have not been read, the first only from a position on; a bytearray at the end, which `decode` has not seen,
    # grows by small ones.
    _pieces: list[bytes | bytearray] = msgspec.field(default_factory=list)
    _position: int = 0
    # Pieces that have been read, as long as their rows are not in the caller's matrix.
    _read_pieces: list[bytes] = msgspec.field(default_factory=list)
    _is_stopped: bool = False
    _whole: WholeAnswer | None = None

    def __post_init__(self) -> None:
        self._reader = self.decoder.reader(self.count, MOST_BYTES)
        self._is_in_place = self.vector_type == "dense" and self.dimension is not None
        self._is_usual = self.vector_type != "sparse"

    def __repr__(self) -> str:
        state = "" if self._is_usual else ", unusual"
        return f"<StreamingDecoder of {self.count} rows{state}, {self.undecoded} bytes undecoded>"

    @property
    def left(self) -> int:
        """Number of bytes left for `finish`."""
        return self.undecoded if self._is_usual else self._size

    def add(self, piece: bytes) -> None:
        """Add the next piece of the body.

        Raises:
            ResponseError: the body is too large.
        """
        size = len(piece)
        self._size += size
        most = self.count + 1
        if self._size > most * MOST_BYTES:
            raise ResponseError(f"the answer has more than {most} MiB: one for each embedding, and one for the rest")
        if self._is_usual:
            self.undecoded += size
        if size >= SMALL_PIECE:
            self._pieces.append(piece)
        elif self._pieces and isinstance(last := self._pieces[-1], bytearray) and len(last) < JOINED:
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def decode(self, most: int = sys.maxsize) -> None:
        """Write the rows that have arrived to the matrix.

        Args:
            most: number of bytes after which no further row is started.
        """
        # Copied only once; bytes are not copied at all.
        pieces = [*map(bytes, self._pieces)]
        self._pieces = pieces  # type: ignore[assignment]
        while self.undecoded and most > 0 and not self._is_stopped:
            if self.matrix is None and self.dimension is not None:
                self._allocate(self.dimension)
            outcome, done, self._position = self._reader.read(tuple(pieces), self._position, most)
            if outcome == ODD:
                self._read_odd_row()
            elif outcome == TOO_LONG:
                self._is_usual = False
            if not self._is_in_place:
                self._read_pieces += pieces[:done]
            del pieces[:done]
            left = sum(map(len, pieces)) - self._position if self._is_usual else 0
            most -= self.undecoded - left
            self.undecoded = left

    def _read_odd_row(self) -> None:
        try:
            if self.matrix is None:
                # The row is decoded by the next call, perhaps in a thread: the first write to new memory takes long.
                self._allocate(self._reader.kept_numbers)
            else:
                with np.errstate(over="raise"):
                    place(self.matrix, self._reader.row, self._reader.kept)
                self._reader.accept()
        except UNREADABLE:
            self._is_usual = False
            # The kept row's closing bracket, where the reader stops, is part of `kept`.
            self._position += 1

    def _allocate(self, dimension: int) -> None:
        """Ask for the matrix, or make one if the answer must be validated first."""
        if self.dimension is None and dimension > LONGEST_ROW:
            raise ValueError(f"a first row must have at most {LONGEST_ROW} numbers, got {dimension}")
        self.matrix = self.rows.rows(dimension) if self._is_in_place else np.empty((self.count, dimension), np.float32)
        self._reader.attach(self.matrix)

    def stop(self) -> None:
        """Make a `decode` that runs in another thread stop within 256 KiB; nothing more is decoded."""
        self._is_stopped = True
        self._reader.stop()

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
            reader, matrix = self._reader, self.matrix
            if reader.row == self.count and matrix is not None:
                answer = judge_frame(reader.gaps, reader.rest)
                if answer is not None:
                    if not self._is_in_place:
                        self.rows.rows(matrix.shape[1])[:] = matrix
                    return answer
            body = self.body()
            self._read_pieces, self._pieces, self._is_in_place, self._is_usual = [], [body], False, False
            # The old reader and the matrix are not needed any more.
            self._reader, self.matrix = RowReader(0, 0), None
            self._whole = WholeAnswer(body, count=self.count, vector_type=self.vector_type, dimension=self.dimension)
            if len(body) > most:
                return None
        self._whole.judge(most)
        return self._whole.finish(self.rows) if self._whole.is_done else None

    def body(self) -> bytes:
        """The body, once `finish` was called, or JSON that decodes to the same."""
        if not self._is_in_place:
            return b"".join([*self._read_pieces, *self._pieces])
        rest = b"".join(self._pieces)[self._position :]
        return b"".join([*self._encode_rows(), self._reader.rest, self._reader.kept, rest])

    def _encode_rows(self) -> Iterator[bytes]:
        if self.matrix is not None:
            for gap, row in zip(self._reader.gaps, self.matrix, strict=False):
                yield gap
                yield msgspec.json.encode(row.tolist())[1:-1]
