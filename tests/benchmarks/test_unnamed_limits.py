"""A short form of `benchmarks.unnamed_limits`: a limiter that got worse fails here, not only there."""

import dataclasses

import pytest

from benchmarks import unnamed_limits
from benchmarks.unnamed_limits import Outcome, Setting, failures, figures, settings

BUCKETS = [setting for setting in settings() if setting.quota.kind == "bucket"]
STRAY = [setting for setting in settings() if setting.bounds and setting.every]


@pytest.mark.parametrize("setting", BUCKETS, ids=lambda setting: setting.name)
def test_bounds_hold_in_buckets(setting: Setting) -> None:
    assert failures(setting, [figures(setting, 0)]) == []


@pytest.mark.parametrize("setting", STRAY, ids=lambda setting: setting.name)
def test_bounds_hold_with_stray_rejections(setting: Setting) -> None:
    # A fifth of the requests in the same time, and as many stray rejections.
    slower = dataclasses.replace(setting, latency=0.1, every=100)
    assert failures(slower, [figures(slower, 0)]) == []


def test_the_same_seed_gives_the_same_figures() -> None:
    setting = Setting("", every=50, seconds=20)
    assert figures(setting, 1) == figures(setting, 1)
    assert figures(setting, 1) != figures(setting, 2)


def test_broken_bounds_are_told() -> None:
    setting = Setting("", bounds={"used": 0.8, "rejected": 0.15})
    assert failures(setting, [{"used": 0.9, "rejected": 0.1, "lost": 0}]) == []
    told = [{"used": 0.7, "rejected": 0.2, "lost": 3}, {"used": 0.9, "rejected": 0.1, "lost": 0}]
    assert failures(setting, told) == ["3 inputs lost", "used 0.700, bound 0.8", "rejected 0.200, bound 0.15"]


def test_an_outcome_tells_of_a_time() -> None:
    outcome = Outcome([(1.0, 10), (2.0, 20), (5.0, 40)], [2.5, 6.0], 0)
    assert outcome.tokens(1, 5) == 30
    assert outcome.rejected_part(2, 5) == 0.5
    assert outcome.rejected_part(7, 9) == 0


def test_the_command_prints_a_line_for_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert unnamed_limits.main(["--seeds", "1", "--only", "250,000 in a bucket"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("holds") for line in lines] == [True, True]


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--only", "no such setting"]])
def test_misuse_is_told(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        unnamed_limits.main(arguments)
