import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit.window import PARTS, RESOLUTION, Window
from tests.rate_limit.world import Count

WINDOW = 10.0
REQUESTS = st.lists(
    st.tuples(st.floats(0, 3), st.floats(0.001, 4), st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=40
)
"""Seconds since the last request, round trip in seconds, fraction of it on the way there, and amount."""


@given(REQUESTS, st.floats(0, WINDOW), st.sampled_from(["fixed", "sliding"]))
def test_no_window_of_the_service_exceeds_the_limit_kept_here(
    requests: list[tuple[float, float, float, int]], phase: float, kind: str
) -> None:
    window, limit, in_flight = Window(WINDOW), 100, 0
    service = Count(WINDOW, "fixed" if kind == "fixed" else "sliding", phase)
    now = 0.0
    events: list[tuple[float, str, int]] = []
    for pause, travel, there, amount in requests:
        now += pause
        for when, what, size in sorted(events):
            if what == "settle" and when <= now:
                in_flight -= size
                window.add(size, when)
                events.remove((when, what, size))
        if window.fits_at(in_flight + amount, limit, now) == now:
            in_flight += amount
            events += [(now + there * travel, "arrive", amount), (now + travel, "settle", amount)]
    for when, _, amount in sorted(event for event in events if event[1] == "arrive"):
        assert service.fits(when, amount, limit)
        service.add(when, amount)


@given(REQUESTS, st.integers(1, 60), st.integers(60, 120))
def test_fits_at_is_the_earliest_time(requests: list[tuple[float, float, float, int]], amount: int, limit: int) -> None:
    window, now = Window(WINDOW), 0.0
    for pause, _, _, size in requests:
        now += pause
        window.add(size, now)
    when = window.fits_at(amount, limit, now)
    assert math.isfinite(when)
    if when > now:
        assert window.used(math.nextafter(when, 0)) + amount > limit
    assert window.used(when) + amount <= limit


def test_an_amount_counts_for_a_window() -> None:
    window = Window(WINDOW)
    assert window.fits_at(1, 0, 1000.0) == math.inf
    window.add(70, 1000.0)
    assert window.fits_at(1, 70, 1000.0) == 1010.0
    assert window.used(1000.0) == 70
    assert window.fits_at(110, 100, 1000.0) == math.inf
    assert window.fits_at(50, 100, 1000.0) == 1010.0
    assert window.used(1009.999) == 70
    assert window.fits_at(1, 0, 1010.0) == math.inf
    assert window.used(1010.0) == 0


def test_amounts_in_one_entry_expire_with_the_latest() -> None:
    window = Window(WINDOW)
    for now in (1.0, 1.0 + WINDOW / RESOLUTION / 2):
        window.add(5, now)
    assert len(window._ends) == 1 + 1
    assert window.used(1.0 + WINDOW) == 10
    assert window.used(1.0 + WINDOW + WINDOW / RESOLUTION / 2) == 0


@pytest.mark.parametrize(("later", "used"), [(WINDOW / 1024.5, 10), (WINDOW / 1024, 5)])
def test_amounts_within_a_1024th_of_a_window_form_one_entry(later: float, used: int) -> None:
    window = Window(WINDOW)
    for now in (0.0, later):
        window.add(5, now)
    assert window.fits_at(1, 10, later) == WINDOW + (later if used == 10 else 0)
    assert window.used(WINDOW) == used


def test_an_amount_fits_up_to_the_limit_and_even_a_single_one_counts() -> None:
    window = Window(WINDOW)
    window.add(1, 0.0)
    assert window.fits_at(99, 100, 1.0) == 1.0
    assert window.fits_at(100, 100, 1.0) == WINDOW
    assert window.fits_at(101, 100, 1.0) == math.inf


@pytest.mark.parametrize("per_step", [1, 3, 20])
def test_memory_is_bounded(per_step: int) -> None:
    window = Window(WINDOW)
    for step in range(3 * RESOLUTION):
        for _ in range(per_step):
            window.add(1, step * WINDOW / RESOLUTION / per_step)
    assert len(window._ends) == len(window._totals) <= RESOLUTION + 2
    assert len([*window._left(window._begun)]) <= PARTS
    assert window.used(math.inf) == 0


@given(REQUESTS, st.integers(1, 60), st.floats(60, 120), st.sampled_from([0.25, 0.5]))
def test_a_part_of_a_window_counts_like_a_shorter_one(
    requests: list[tuple[float, float, float, int]], amount: int, limit: float, part: float
) -> None:
    window, shorter, now = Window(WINDOW), Window(part * WINDOW), 0.0
    for pause, _, _, size in requests:
        # Further apart than what one entry holds, and in steps that floats hold exactly.
        now += 1 / 64 + int(64 * pause) / 64
        window.add(size, now)
        shorter.add(size, now)
        assert window.used(now, part) == shorter.used(now)
        assert window.fits_at(amount, limit, now, part) == shorter.fits_at(amount, limit, now)


def test_looking_ahead_changes_nothing() -> None:
    window = Window(WINDOW)
    window.add(5, 1.0)
    assert window.used(1.0 + WINDOW) == 0
    assert window.used(1.0) == 5


def test_a_correction_changes_what_was_added_last_as_long_as_it_counts() -> None:
    window = Window(WINDOW)
    window.add(5, 0.0)
    window.add(7, 1.0)
    window.correct(-3)
    assert (window.used(1.0), window.used(WINDOW)) == (9, 4)
    assert window.over_at == 1.0 + WINDOW
    assert window.used(1.0 + WINDOW) == 0
    window.correct(-3)
    assert window.used(1.0 + WINDOW) == 0
