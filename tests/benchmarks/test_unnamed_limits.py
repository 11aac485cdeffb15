"""A short form of `benchmarks.unnamed_limits`: a limiter that got worse fails here, not only there."""

from dataclasses import replace

import pytest

from benchmarks import unnamed_limits
from benchmarks.unnamed_limits import QUARTER, Outcome, Setting, failures, figures, settings, simulate

BUCKETS = [setting for setting in settings() if setting.terms.kind == "bucket" and setting.terms.tokens < 500_000]
SPURIOUS = [setting for setting in settings() if setting.bounds and setting.terms.spurious]


@pytest.mark.parametrize("setting", BUCKETS, ids=lambda setting: setting.name)
def test_bounds_hold_in_buckets(setting: Setting) -> None:
    assert failures(setting, figures(setting, [simulate((setting, 0))], [])) == []


@pytest.mark.long
@pytest.mark.parametrize("setting", SPURIOUS, ids=lambda setting: setting.name)
def test_spurious_rejections_do_not_slow_a_client_down_for_good(setting: Setting) -> None:
    # A seventh of the requests in as much time, and as many spurious rejections.
    slower = replace(setting, terms=replace(setting.terms, latency="even", spurious=1 / 70), seconds=2 * QUARTER)
    # Undisturbed, one half is like the other, and one seed like the others.
    calm = replace(slower, terms=replace(slower.terms, spurious=0.0), seconds=QUARTER)
    outcomes, undisturbed = [simulate((slower, seed)) for seed in range(3)], [simulate((calm, 0))] * 6
    told = figures(slower, outcomes, undisturbed)
    assert told["ratio"] >= setting.bounds["ratio"]
    # In so few requests the pauses are spread unevenly; without the cure it is little over a half.
    assert told["last/first"] >= 0.75


def test_the_same_seed_gives_the_same_outcome() -> None:
    setting = Setting("", replace(SPURIOUS[0].terms, latency="even", spurious=1 / 50), seconds=5)
    assert simulate((setting, 1)) == simulate((setting, 1))
    assert simulate((setting, 1)) != simulate((setting, 2))


def test_broken_bounds_are_told() -> None:
    setting = Setting("", SPURIOUS[0].terms, bounds={"used": 0.8, "rejected": 0.15})
    assert failures(setting, {"used": 0.9, "rejected": 0.1, "lost": 0}) == []
    told = failures(setting, {"used": 0.7, "rejected": 0.2, "lost": 3})
    assert told == ["3 inputs lost", "used 0.700, bound 0.8", "rejected 0.200, bound 0.15"]


def test_an_outcome_tells_of_a_time() -> None:
    outcome = Outcome([(1.0, 10), (2.0, 20), (5.0, 40)], [2.5, 6.0], 0)
    assert outcome.tokens(1, 5) == 30
    assert outcome.rejections(2, 5) == (1, 2)
    assert outcome.rejections(7, 9) == (0, 0)


def test_the_command_prints_a_line_for_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert unnamed_limits.main(["--seeds", "1", "--workers", "1", "--only", "250,000 in a bucket"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("holds") for line in lines] == [True, True]


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--only", "no such setting"]])
def test_misuse_is_told(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        unnamed_limits.main(arguments)
