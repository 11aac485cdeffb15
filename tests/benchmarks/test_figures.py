import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import difference, medians, percentile, ratio
from tests.benchmarks.reports import measurement

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 99, 0.0),
        ([5.0], 99, 5.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 102)), 99, 100),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


@given(VALUES, st.floats(1, 100))
def test_a_percentile_is_a_value_that_was_measured_and_enough_others_are_no_higher(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
    assert sum(value < found for value in values) < percent / 100 * len(values)


def test_rates_and_memory_follow_from_a_measurement() -> None:
    figures = measurement(2.0)
    assert figures["inputs_per_second"] == 480
    assert figures["cpu_us_per_input"] == pytest.approx(2e6 / 960)
    assert figures["cpu_ms_per_request"] == 200
    assert figures["memory_bytes"] == 40e6
    assert figures["memory_over_result_bytes"] == 10e6


def test_ratios_are_taken_round_by_round_so_that_a_slow_spell_hits_both() -> None:
    slow_in_the_second = [measurement(1.0), measurement(10.0), measurement(1.0)]
    twice_as_fast = [measurement(0.5), measurement(5.0), measurement(0.5)]
    assert ratio(twice_as_fast, slow_in_the_second, "seconds") == 0.5
    assert difference(slow_in_the_second, twice_as_fast, "lag_p99_ms") == 5.0


def test_rounds_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratio([measurement(1.0)], [measurement(1.0), measurement(1.0)], "seconds")


def test_the_median_is_not_moved_by_one_bad_round() -> None:
    assert medians([measurement(1.0), measurement(2.0), measurement(900.0)])["seconds"] == 2.0
