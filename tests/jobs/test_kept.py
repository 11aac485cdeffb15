"""Which types kept columns have, and what their values become."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from pinecone_embed_async._jobs._kept import KeptColumns, KeptTypes, conformed, is_json, kept_array
from pinecone_embed_async._jobs._sources import Row
from tests.pages import ROOT


def row(value: Any) -> Row:
    return Row("0", "text", "in.parquet", 1, 0, (value,))


def column(values: Sequence[Any]) -> tuple[Any, Any, list[str]]:
    types = KeptTypes(["kept"])
    for value in values:
        types.show(row(value))
    [field] = types.schema()
    return field, kept_array(values, field), types.mixed()


def scalars(*arrays: tuple[list[Any], Any]) -> list[Any]:
    return [value for values, kind in arrays for value in pa.array(values, kind)]


NS = 1_600_000_000_123_456_789


@pytest.mark.parametrize(
    ("given", "kind", "kept"),
    [
        ([(["a"], pa.string()), (["b"], pa.large_string())], pa.string(), ["a", "b"]),
        ([(["a"], pa.large_string())], pa.large_string(), ["a"]),
        ([(["a"], pa.dictionary(pa.int32(), pa.string())), (["b"], pa.string())], pa.string(), ["a", "b"]),
        (
            [(["a"], pa.dictionary(pa.int32(), pa.string())), (["b"], pa.dictionary(pa.int8(), pa.string()))],
            pa.string(),
            ["a", "b"],
        ),
        ([([None], pa.null()), ([1], pa.int64())], pa.int64(), [None, 1]),
        ([([None, 1], pa.int32()), ([2**40], pa.int64())], pa.int64(), [None, 1, 2**40]),
        ([([1], pa.int8()), ([200], pa.uint8())], pa.int64(), [1, 200]),
        ([([1], pa.uint8()), ([2**40], pa.uint64())], pa.uint64(), [1, 2**40]),
        ([([-1], pa.int64()), ([2**40], pa.uint64())], pa.int64(), [-1, 2**40]),
        ([([1], pa.int64()), ([2**64 - 1], pa.uint64())], pa.uint64(), [1, 2**64 - 1]),
        ([([1.5], pa.float32()), ([0.1], pa.float64())], pa.float64(), [1.5, 0.1]),
        ([([1], pa.int64()), ([0.5], pa.float64())], pa.float64(), [1.0, 0.5]),
        ([([b"a"], pa.binary()), ([b"b"], pa.large_binary())], pa.binary(), [b"a", b"b"]),
        ([([[1]], pa.list_(pa.int32())), ([[2**40]], pa.large_list(pa.int64()))], pa.list_(pa.int64()), [[1], [2**40]]),
        (
            [([{"a": 1}], pa.struct([("a", pa.int32())])), ([{"a": 2}], pa.struct([("a", pa.int64())]))],
            pa.struct([("a", pa.int64())]),
            [{"a": 1}, {"a": 2}],
        ),
    ],
)
def test_types_that_mean_the_same_are_one(given: list[tuple[list[Any], Any]], kind: Any, kept: list[Any]) -> None:
    field, array, mixed = column(scalars(*given))
    assert (field.type, array.to_pylist(), mixed) == (kind, kept, [])
    assert not is_json(field)


def test_timestamps_of_any_unit_are_of_the_finest() -> None:
    field, array, _ = column(scalars(([NS], pa.timestamp("ns")), ([1], pa.timestamp("s")), ([None], pa.timestamp("us"))))
    assert field.type == pa.timestamp("ns")
    assert array.cast(pa.int64()).to_pylist() == [NS, 10**9, None]


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ([([NS], pa.timestamp("ns")), (["x"], pa.string())], ['"2020-09-13T12:26:40.123456789"', '"x"']),
        (
            [([NS], pa.timestamp("ns", "UTC")), ([NS], pa.timestamp("ns"))],
            ['"2020-09-13T12:26:40.123456789Z"', '"2020-09-13T12:26:40.123456789"'],
        ),
        # Year 9999 is no number of nanoseconds in 64 bits.
        (
            [([NS], pa.timestamp("ns")), ([253_370_764_800], pa.timestamp("s"))],
            ['"2020-09-13T12:26:40.123456789"', '"9999-01-01T00:00:00"'],
        ),
        ([([-1_500_000_000], pa.duration("ns")), (["x"], pa.string())], ['"PT-1.5S"', '"x"']),
        ([([5], pa.time64("ns")), ([1], pa.int64())], ['"00:00:00.000000005"', "1"]),
        ([([2**53 + 1], pa.int64()), ([0.5], pa.float64())], ["9007199254740993", "0.5"]),
        ([([-1], pa.int64()), ([2**64 - 1], pa.uint64())], ["-1", "18446744073709551615"]),
        ([([float("nan")], pa.float64()), (["x"], pa.string())], ['"nan"', '"x"']),
        (
            [([[("k", NS)]], pa.map_(pa.string(), pa.timestamp("ns"))), ([None], pa.string())],
            ['[["k","2020-09-13T12:26:40.123456789"]]', None],
        ),
        (
            [([{"a": [NS]}], pa.struct([("a", pa.list_(pa.timestamp("ns")))])), ([True], pa.bool_())],
            ['{"a":["2020-09-13T12:26:40.123456789"]}', "true"],
        ),
        ([(["a"], pa.dictionary(pa.int32(), pa.string())), ([1], pa.int64())], ['"a"', "1"]),
        ([([10**15], pa.timestamp("s")), (["x"], pa.string())], ["1000000000000000", '"x"']),
    ],
)
def test_what_no_type_holds_unchanged_becomes_exact_json_text_with_a_warning(
    given: list[tuple[list[Any], Any]], texts: list[str | None]
) -> None:
    field, array, mixed = column(scalars(*given))
    assert is_json(field)
    assert array.to_pylist() == texts
    assert len(mixed) == 1


def test_nanoseconds_become_the_same_text_with_and_without_pandas() -> None:
    code = """
import sys

class NoPandas:
    def find_spec(self, name, path, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPandas())
import pyarrow as pa
from pinecone_embed_async._jobs._kept import json_field, kept_array
given = [pa.scalar(1600000000123456789, kind("ns")) for kind in (pa.timestamp, pa.duration)]
print(kept_array(given, json_field("a")).to_pylist())
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "['\"2020-09-13T12:26:40.123456789\"', '\"PT1600000000.123456789S\"']\n"


def test_a_table_is_made_to_fit_wider_columns_without_changing_a_value() -> None:
    table = pa.table({"kept": pa.array([1, None, 2], pa.int32())})
    wide = conformed(table, pa.schema([pa.field("kept", pa.int64())]))
    assert wide["kept"].to_pylist() == [1, None, 2]
    columns = KeptColumns(["kept"], wide.schema, is_settled=False)
    assert columns.take_in([row("x")])
    assert not columns.take_in([row(5)])
    assert conformed(wide, columns.schema)["kept"].to_pylist() == ["1", None, "2"]
    assert len(columns.warnings) == 1
