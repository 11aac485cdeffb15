"""Searches of a service with a job beside them, and in a pause: the benchmark, shortened."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import services


async def test_searches_in_a_pause_are_answered_at_once_and_take_no_request() -> None:
    figures = await services.measure_pause(100)
    assert (figures["searches"], figures["unavailable"], figures["with_retry_after"], figures["requests"]) == (
        100,
        100,
        100,
        0,
    )
    assert 20 < figures["least_retry_after"] <= 31


async def test_searches_are_answered_beside_a_job() -> None:
    figures = await services.measure_beside_job(1, 50)
    assert figures["passages_per_second"] > 0
    # How long it takes is for a machine that does nothing else.
    assert min(figures["alone_p99"] + figures["beside_p99"]) >= services.LATENCY


@pytest.mark.long
def test_the_bounds_hold(tmp_path: Path) -> None:
    assert services.main(["--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["beside"]["searches"] == 1000


def test_a_bound_that_does_not_hold_is_told() -> None:
    beside = {"ratio": 1.5}
    pause: dict[str, Any] = {"requests": 0, "searches": 9, "unavailable": 9, "with_retry_after": 9, "p99": 0.1}
    assert services.problems(beside, pause) == []
    assert len(services.problems({"ratio": 1.51}, pause | {"requests": 1, "with_retry_after": 8, "p99": 0.2})) == 4
