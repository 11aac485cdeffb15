"""Numbers in all the spellings that are in use, and what they are in float32."""

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, localcontext
from random import Random

import numpy as np
from numpy.typing import NDArray

from pinecone_embed_async._wire import Decoder
from tests.wire.reading import decode

GRAMMAR = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""RFC 8259, section 6."""

ROW = 1024
BEYOND = float.fromhex("0x1.ffffffp127")
"""The least double that is rounded to an infinity."""


def float32_of(texts: Iterable[str]) -> NDArray[np.float32]:
    """The texts as Python and numpy read them; `-0` is an integer, and those have no sign."""
    return np.array([0.0 if text == "-0" else float(text) for text in texts], np.float64).astype(np.float32)


def answer_with(rows: Iterable[str]) -> bytes:
    """An answer that has these rows: numbers with commas between them."""
    items = ",".join(f'{{"values":[{row}]}}' for row in rows)
    return f'{{"vector_type":"dense","data":[{items}],"usage":{{"total_tokens":7}}}}'.encode()


def read_numbers(decoder: Decoder, texts: Sequence[str], row: int) -> NDArray[np.float32]:
    """The texts as a decoder reads them, in rows of so many numbers, the body in pieces as from a socket."""
    padded = [*texts, *["0"] * (-len(texts) % row)]
    rows = [",".join(padded[at : at + row]) for at in range(0, len(padded), row)]
    matrix = np.zeros((len(rows), row), np.float32)
    body = answer_with(rows)
    cuts = tuple(range(2**16, len(body), 2**16))
    decode(decoder, body, cuts=cuts, count=len(rows), vector_type="dense", dimension=row, rows=lambda _: matrix)
    return matrix.reshape(-1)[: len(texts)]


def assert_read_right(decoder: Decoder, texts: Sequence[str], row: int = 1) -> None:
    """Bit by bit as `float` and numpy do; names the first that is not.

    A number that the native module leaves to msgspec takes its whole row along, so where there are such, rows must be short.
    """
    right, read = float32_of(texts), read_numbers(decoder, texts, row)
    wrong = np.flatnonzero(right.view(np.uint32) != read.view(np.uint32))
    assert not len(wrong), f"{len(wrong)} wrong, the first {texts[wrong[0]]}: {read[wrong[0]]!r} is not {right[wrong[0]]!r}"


def half_precision() -> NDArray[np.float16]:
    """All finite values of half precision that are not below zero, in ascending order: 31,744."""
    return np.arange(0x7C00, dtype=np.uint16).view(np.float16)


def spellings(values: Iterable[np.floating]) -> Iterator[str]:
    """A value's digits as Python, JavaScript, Go and Rust print them, with and without exponents."""
    for value in values:
        yield np.format_float_positional(value, trim="0")
        yield np.format_float_positional(value, trim="-")
        short = np.format_float_scientific(value, trim="-", exp_digits=1)
        # 6e-8, 6e-08, 6E-8, 6.5504e4.
        yield short.replace("e+", "e")
        yield np.format_float_scientific(value, trim="0", exp_digits=2)
        yield short.replace("e", "E")


def random_texts(count: int, draws: np.random.Generator) -> Iterator[str]:
    """Doubles and floats of float32's range, in six spellings in turn."""
    sign = draws.integers(0, 2, count, dtype=np.uint64) << np.uint64(63)
    # From a thousandth of the least subnormal to the greatest.
    exponent = draws.integers(1023 - 160, 1023 + 127, count, dtype=np.uint64) << np.uint64(52)
    doubles = (sign | exponent | draws.integers(0, 2**52, count, dtype=np.uint64)).view(np.float64)
    floats = draws.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    floats = np.where(np.isfinite(floats), floats, np.float32(0.1))
    embeddings = draws.uniform(-1, 1, count)
    forms = ("{!r}", "{:.17g}", "{:.25g}", "{:.17e}", "{:.8e}", "{:.30f}")
    for at in range(count):
        # The forms in turn for each of the kinds in turn.
        value = (doubles[at], float(str(floats[at])), embeddings[at])[at % 3]
        yield forms[at // 3 % 6].format(float(value))


def near_halfway(count: int, draws: Random) -> Iterator[str]:
    """Decimals at and around halfway between two floats or two doubles, and around both roundings in turn."""
    with localcontext(prec=1200):
        for _ in range(count):
            exponent = draws.randint(-149, 103)
            digits = draws.randrange(2**23, 2**24) if draws.random() < 0.8 else draws.randrange(1, 2**23)
            # Halfway between floats, then as far beside it as half of a double's last bit, then less than any double tells.
            middle = Decimal(2 * digits + 1) * Decimal(2) ** (exponent - 1)
            beside = Decimal(2) ** (exponent - 1 - draws.choice((28, 29, 30, 52, 60, 70))) * draws.choice((-1, 0, 1))
            nearest = middle + beside
            if abs(nearest) < Decimal(BEYOND):
                form = draws.choice(("{}", "{:f}", "{:.17e}", "{:.18e}", "{:.19e}", "{:.20e}", "{:.40e}"))
                yield form.format(nearest)


def twice_halfway() -> Iterator[str]:
    """Numbers of up to 19 digits, halfway between two doubles of which one is halfway between two floats."""
    for exponent in range(26, 39):
        for digits in (2**23, 2**23 + 1, 9_000_000, 12_345_677, 2**24 - 3, 2**24 - 2):
            middle = Decimal((2 * digits + 1) * 2 ** (exponent - 1))
            for beside in (-1, 1):
                text = f"{middle + beside * Decimal(2) ** (exponent - 30):f}"
                if len(text.replace(".", "")) <= 19:
                    yield text
                    # The same digits, and a power of ten below one.
                    yield f"{text}0e-1"


HARD = (
    # Halfway between zero and the least subnormal, and beside it.
    "7.00649232162408535461864791644958065640130970938257885878534141944895541342930300743319094181060791015625e-46",
    "7.00649232162408535461864791644958065640130970938257885878534141944895541342930300743319094181060791015626e-46",
    "7.00649232162408535461864791644958065640130970938257885878534141944895541342930300743319094181060791015624e-46",
    "7.006492321624085e-46",
    "7.006492321624086e-46",
    "1e-45",
    "1.401298464324817e-45",
    "9.999999999999999999e-46",
    "1e-46",
    "1.1754943508222875e-38",
    "1.1754942807573643e-38",
    "1.17549431578982589851e-38",
    # The greatest float, and just below what is rounded to an infinity.
    "3.4028234663852886e38",
    "340282356779733642748073463979561713663.9",
    # More digits than a double or a 64-bit integer holds.
    "9007199254740993",
    "9007199254740992.999999999999999999999999999999",
    "9007199254740993.00000000000000000000000000000000000000000000000000000000001",
    "18446744073709551615",
    "18446744073709551616",
    "1844674407370955161.6",
    "0.18446744073709551616",
    "0.18446744073709551615",
    "0.184467440737095516150",
    "0.1843999999999999999999",
    "0.1844000000000000000000",
    "9.999999999999999999",
    "9.9999999999999999999",
    "9.999999999999999999999999",
    "0.99999999999999999999999999999999999999999",
    "16777217",
    "16777217.0",
    "16777217.000000000000000001",
    "16777216.999999999999999999",
    "1.00000005960464477539062500000000000000000000001",
    "1.000000059604644775390625",
    "1.0000000596046448",
    "2.2250738585072011e-308",
    "2.2250738585072014e-308",
    "4.9e-324",
    "2e-324",
    "6.631236846766476e-316",
    "8.37377E9",
    "1.00000017881393432617187499",
    "1.00000017881393432617187500",
    "1.00000017881393432617187501",
    # Long runs, and exponents that no integer holds.
    "0." + "0" * 400 + "1",
    "0." + "0" * 44 + "1" + "0" * 400,
    "0."
    + "0" * 44
    + "140129846432481707092372958328991613128026194187651577175706828388979108268586060148663818836212158203125",
    "1" + "0" * 38,
    "1" + "0" * 38 + ".0",
    "123456789" * 100 + "e-880",
    "1" * 39,
    "0." + "123456789" * 100,
    "100000000000000000000000000000000000000000000e-44",
    "0e999999999999999999999999",
    "0.0E+999999999999999999999999",
    "1e-999999999999999999999999",
    "10000000e-9223372036854775809",
    "1e-9223372036854775808",
    "1e-18446744073709551615",
    "0." + "0" * 70 + "1e70",
    "1" + "0" * 70 + "e-70",
    "0." + "0" * 700 + "12345e700",
    "0",
    "-0",
    "0.0",
    "0e0",
    "0E-0",
    "0.0e+0",
    "00.5"[1:],
)
"""Known hard cases of rounding, and of counting digits. The sources of many are the bug reports of other parsers."""

REFUSED = (
    "3.4028235677973366163753939545814256845e38",
    "340282356779733661637539395458142568448",
    # Its double is halfway to 2^128.
    "340282356779733661637539395458142568447",
    "1e39",
    "1e400",
    "1" + "0" * 39,
)
"""Over float32's range."""
