import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pinecone_embed_async._jobs._rowset import RowSet, are_among

ROWS = st.lists(st.integers(0, 2000), max_size=60)


def set_of(rows: list[int]) -> RowSet:
    result = RowSet()
    result.add(rows)
    return result


@given(st.lists(ROWS, max_size=6), ROWS)
@example([[], [0, 0, 7, 8]], [8])
def test_it_holds_what_a_set_holds(added: list[list[int]], discarded: list[int]) -> None:
    rows, expected = RowSet(), set[int]()
    for numbers in added:
        assert rows.add(numbers) == len(set(numbers) - expected)
        expected |= set(numbers)
    assert rows.discard(discarded) == len(expected & set(discarded))
    expected -= set(discarded)
    assert len(rows) == len(expected)
    assert [row for row in range(2010) if row in rows] == sorted(expected)
    assert rows.stop() == max(expected, default=-1) + 1


@given(ROWS, ROWS, st.integers(0, 2010), st.integers(0, 2010))
def test_it_counts_and_subtracts(rows: list[int], others: list[int], first: int, stop: int) -> None:
    held = set_of(rows)
    assert held.count_between(first, stop) == len({row for row in rows if first <= row < stop})
    assert held.mask(first, stop).tolist() == [row in rows for row in range(first, stop)]
    both = held.copy()
    both.update(set_of(others))
    assert [row for row in range(2010) if row in both] == sorted({*rows, *others})
    assert len(both) == len({*rows, *others})
    copy = held.copy()
    copy.subtract(set_of(others))
    assert {row for row in range(2010) if row in copy} == set(rows) - set(others)
    assert len(copy) == len(set(rows) - set(others))
    assert len(held) == len(set(rows))


@given(ROWS, ROWS)
def test_rows_are_found_among_others_in_order(rows: list[int], others: list[int]) -> None:
    found = are_among(np.array(rows, np.int64), np.unique(np.array(others, np.int64)))
    assert found.tolist() == [row in others for row in rows]


def test_two_million_rows_take_a_quarter_of_a_megabyte() -> None:
    rows = RowSet()
    for start in range(0, 2_000_000, 100_000):
        rows.add(np.arange(start, start + 100_000))
    assert len(rows) == 2_000_000
    assert len(rows._bits) < 300_000
