"""Numbers in all spellings, read bit for bit as Python and numpy read them."""

from itertools import product
from random import Random

import numpy as np
import pytest

from pinecone_embed_async import ResponseError
from pinecone_embed_async._wire import Decoder
from tests.wire.numbers import (
    GRAMMAR,
    HARD,
    REFUSED,
    ROW,
    answer_with,
    assert_read_right,
    float32_of,
    half_precision,
    near_halfway,
    random_texts,
    read_numbers,
    spellings,
    twice_halfway,
)
from tests.wire.reading import DECODERS, NEEDS_NATIVE, PORTABLE, decode, decoder_of

NATIVE = ("native", PORTABLE)


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return decoder_of(request.param)


@pytest.fixture(params=NATIVE)
def native(request: pytest.FixtureRequest) -> Decoder:
    return decoder_of(request.param)


@pytest.fixture(scope="module")
def half_texts() -> list[str]:
    values = half_precision()
    # Shortest for half, single and double precision; the digits of a service that computes in halves are one of these.
    texts = [text for kind in (np.float16, np.float32, np.float64) for text in spellings(values.astype(kind))]
    texts += [repr(float(value)) for value in values]
    return [*texts, *("-" + text for text in texts)]


@pytest.fixture(scope="module")
def random_numbers() -> list[str]:
    return list(random_texts(250_000, np.random.default_rng(16)))


def test_every_half_precision_value_is_read_in_every_spelling(native: Decoder, half_texts: list[str]) -> None:
    assert_read_right(native, half_texts, ROW)
    values = half_precision().astype(np.float32)
    exact = [repr(float(value)) for value in values]
    assert read_numbers(native, exact, ROW).tobytes() == values.tobytes()


def test_random_numbers_are_read_to_the_last_bit(native: Decoder, random_numbers: list[str]) -> None:
    assert_read_right(native, random_numbers, 8)


def test_every_decoder_reads_random_numbers_to_the_last_bit(decoder: Decoder, random_numbers: list[str]) -> None:
    assert_read_right(decoder, random_numbers[:60_000], 8)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_million_random_numbers_are_read_to_the_last_bit(native: Decoder, seed: int) -> None:
    assert_read_right(native, list(random_texts(1_000_000, np.random.default_rng(1000 + seed))), 8)


def test_numbers_near_halfway_are_rounded_as_by_way_of_a_double(decoder: Decoder) -> None:
    assert_read_right(decoder, list(near_halfway(20_000, Random(16))))


def test_numbers_halfway_between_doubles_and_almost_between_floats_are_rounded_twice(decoder: Decoder) -> None:
    assert_read_right(decoder, list(twice_halfway()))


def test_hard_cases_are_read_to_the_last_bit(decoder: Decoder) -> None:
    texts = [text for number in HARD for text in (number, "-" + number.removeprefix("-"))]
    assert_read_right(decoder, texts)
    # Among ordinary numbers, and at the end of a piece, where the next bytes must not be looked at.
    assert_read_right(decoder, [text for number in texts for text in (number, "0.5")], 2)
    for text in texts:
        matrix = np.zeros((1, 1), np.float32)
        body = answer_with([text])
        cut = body.index(b"]") + 1
        decode(decoder, body, cuts=(cut,), most=1, count=1, vector_type="dense", dimension=1, rows=lambda _, of=matrix: of)
        assert matrix.tobytes() == float32_of([text]).tobytes(), text


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("text", REFUSED)
def test_numbers_beyond_float32s_range_are_refused(decoder: Decoder, text: str, sign: str) -> None:
    with pytest.raises(ResponseError, match=r"range (- )?at `\$\.data\[0\]\.values\[1\]`"):
        read_numbers(decoder, ["0.5", sign + text], 2)


@NEEDS_NATIVE
@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("room", [0, 64])
def test_the_native_module_reads_what_is_a_number_and_nothing_else(portable: bool, room: int) -> None:
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - it may not be built

    matrix = np.zeros((1, 1), np.float32)
    padding = b" " * room
    # Every text of up to six of these, so every number in JSON's grammar up to there and every one that just is not.
    for length in range(7):
        for characters in product(b"-+.eE09" if length == 6 else b"-+.eE0159 ", repeat=length):
            text = bytes(characters)
            reader = _native.RowReader(1, 100, portable=portable)
            reader.attach(matrix)
            outcome, *_ = reader.read((b"%b[[%b]%b" % (padding, text, padding),), 0, 1000)
            is_number = GRAMMAR.fullmatch(text.strip(b" ")) is not None
            if outcome == _native.READ:
                assert is_number, text
                assert matrix.tobytes() == float32_of([text.decode().strip()]).tobytes(), text
            else:
                # The number is left to others if it is over the range; the rest is no number.
                assert outcome == _native.ODD
                assert not is_number or abs(float(text)) > 3.4e38, text


@NEEDS_NATIVE
@pytest.mark.parametrize("portable", [False, True])
def test_ordinary_numbers_are_left_to_no_other_decoder(
    portable: bool, half_texts: list[str], random_numbers: list[str]
) -> None:
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - it may not be built

    # Doubles at 25 digits can be too near to halfway; nothing that prints shortest is.
    for texts in (half_texts[: ROW * 900], [text for text in random_numbers if len(text) < 24]):
        count = len(texts) // ROW
        reader = _native.RowReader(count, 2**20, portable=portable)
        reader.attach(np.zeros((count, ROW), np.float32))
        rows = (",".join(texts[at * ROW : (at + 1) * ROW]) for at in range(count))
        assert reader.read((answer_with(rows),), 0, 2**40)[0] == _native.READ
        assert reader.row == count


@NEEDS_NATIVE
@pytest.mark.parametrize("number", [b"", b"0", b"0.25 "], ids=["nothing", "a digit", "more"])
def test_the_numbers_of_a_first_row_are_counted_however_long_it_is(number: bytes) -> None:
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - it may not be built

    for count in (1, 2, 254, 255, 256, 257, 510, 511, 512, 3000):
        reader = _native.RowReader(1, 2**20)
        reader.read((b"[[" + b",".join([number] * count) + b"]",), 0, 2**20)
        assert reader.kept_numbers == count
