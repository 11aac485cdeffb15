"""Odd bodies, cut at every byte: what the native module reads piece by piece is what msgspec reads of the whole."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pinecone_embed_async import ResponseError
from pinecone_embed_async._wire import Decoder
from tests.wire.bodies import body_of, contents_of
from tests.wire.reading import decode
from tests.wire.spelling import Contents

START, END = b'{"model":"m","vector_type":"dense","data":[', b'],"usage":{"total_tokens":7}}'


def answer(*items: bytes) -> bytes:
    """An answer of these items."""
    return START + b",".join(items) + END


def item(values: bytes) -> bytes:
    """An item of these numbers."""
    return b'{"values":[' + values + b"]}"


PLAIN = item(b"0.5,-0.25")
LONG = b"0." + b"1" * 30
# Two rows of two numbers are expected in each of them.
ODD = (
    answer(PLAIN, PLAIN),
    answer(item(b"0.0131301879882812500000001,-0.013130187988281"), PLAIN),
    answer(item(b" 0.5 ,\t-0.25\r\n"), item(b"0.5\n,\n-0.25 ")),
    answer(item(b"1,-2"), item(b"0,-0")),
    answer(item(b"1e-3,2E+3"), item(b"0.1e1,-0e99")),
    answer(item(LONG + b"," + LONG + b"e5"), item(b"1" * 30 + b",-1" + b"0" * 38)),
    answer(item(b"1e-45,3.4028234663852886e38"), item(b"1e-46,9007199254740993")),
    answer(item(b"1e39,0.5"), PLAIN),
    answer(item(b"0.5,3.4028235677973366e38"), PLAIN),
    answer(item(b"0.5,1e400"), PLAIN),
    answer(PLAIN, item(b"0.5")),
    answer(item(b"0.5,0.5,0.5"), PLAIN),
    answer(item(b""), PLAIN),
    answer(item(b"0.5,"), PLAIN),
    answer(item(b",0.5"), PLAIN),
    answer(item(b"0.5 0.5"), PLAIN),
    answer(item(b"[0.5],0.25"), PLAIN),
    answer(item(b"0.5,null"), PLAIN),
    answer(item(b"0.5,NaN"), PLAIN),
    answer(item(b"0.5,.5"), PLAIN),
    answer(item(b"0.5,5."), PLAIN),
    answer(item(b"0.5,+5"), PLAIN),
    answer(item(b"0.5,-"), PLAIN),
    answer(item(b"0.5,--5"), PLAIN),
    answer(item(b"0.5,05.5"), PLAIN),
    answer(item(b"0.5,0.5.5"), PLAIN),
    answer(item(b"0.5,1e"), PLAIN),
    answer(item(b'0.5,"]"'), PLAIN),
    answer(item(b"0.5,0.5\x00"), PLAIN),
    answer(item(b"0.5,0.5\x0b"), PLAIN),
    answer(item(b"0.5,0\xc2\xb7" + b"5"), PLAIN),
    answer(item(b"0.5,0.\xb0"), PLAIN),
    answer(item(b"0.5,0.5}"), PLAIN),
    answer(PLAIN),
    answer(PLAIN, PLAIN, PLAIN),
    answer(PLAIN, b'{"values":[0.5,-0.25],"values":[1,2]}'),
    answer(b'{"x":[1,2],"values":[0.5,-0.25]}', PLAIN),
    answer(b'{"x":"[0.5,1]","values":[0.5,-0.25],"y":"\\"["}', PLAIN),
    answer(b'{"values":[0.5,-0.25],"x":{"values":[1,2]}}', PLAIN),
    answer(b"[0.5,-0.25]", b"[0.5,-0.25]"),
    answer(PLAIN, PLAIN)[:-1],
    answer(PLAIN, PLAIN) + b"]",
    answer(PLAIN, PLAIN) + b" \n",
    answer(PLAIN, PLAIN) + b"[0.5,-0.25]",
    answer(PLAIN, b'{"values":[0.5,-0.25'),
    b"[" + answer(PLAIN, PLAIN) + b"]",
    b'{"x":["[",[[]]],' + answer(PLAIN, PLAIN)[1:],
    b'{"data":[{"values":[0.5,-0.25]},{"values":[1.0,2.0]}],"vector_type":"dense"}',
    b'{"data":[{"values":[0.5,-0.25]},{"values":[1.0,2.0]}],"vector_type":"sparse"}',
    b"",
    b"[",
    b"]",
    b"[[",
    b"[[]",
    b"[[0.5",
    b"[[0.5,-0.25][1",
)


def read(decoder: Decoder, body: bytes, cuts: tuple[int, ...], most: int | None, dimension: int | None) -> Contents | str:
    """What a decoder reads of a body that has two rows of two numbers, or the words with which it refuses it."""
    matrix = np.zeros((2, 2), np.float32)

    def rows(wanted: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        if wanted != 2:
            raise ResponseError("another dimension")
        return matrix

    try:
        answered = decode(decoder, body, cuts=cuts, most=most, count=2, vector_type="dense", dimension=dimension, rows=rows)
    except ResponseError as error:
        # The place of a byte moves where rows that were read already are written anew.
        return re.sub(r"\(byte \d+\)", "", str(error))
    return contents_of(answered, matrix)


def corpus(drawn: int) -> Iterator[bytes]:
    """The odd bodies, and as many that are drawn."""
    yield from ODD
    for seed in range(drawn):
        yield body_of(seed)[0]


def assert_same_at_every_cut(decoder: Decoder, whole: Decoder, body: bytes) -> None:
    """The same from two pieces, cut anywhere, and from single bytes, as another decoder reads from the whole."""
    for dimension in (2, None):
        right = read(whole, body, (), None, dimension)
        all_cuts = [(), *((cut,) for cut in range(len(body) + 1)), tuple(range(1, len(body)))]
        for cuts in all_cuts:
            for most in (1, 10**9) if len(cuts) < 2 else (10**9,):
                got = read(decoder, body, cuts, most, dimension)
                if isinstance(right, str):
                    assert isinstance(got, str), (body, cuts, got)
                else:
                    assert got == right, (body, cuts)


if __name__ == "__main__":
    # The corpus that `make fuzz-native` starts from; its first three bytes say how a body is cut, and its bracket is given.
    for number, body in enumerate(corpus(100)):
        Path(sys.argv[1], f"odd-{number}").write_bytes(
            bytes((number, 7 * number % 256, number % 4)) + body[body.find(b"[") + 1 :]
        )
