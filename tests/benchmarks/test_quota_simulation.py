"""A short form of the table of `benchmarks.quota_simulation`: a limiter that got worse fails here, not only there."""

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks import quota_simulation
from benchmarks.simulated.cases import SMALL, Bounds, Case, Result, Summary, jain, must_hold, simulate, summarise
from benchmarks.simulated.client import Corpus
from benchmarks.simulated.service import Service, Terms
from benchmarks.simulated.sweep import NEIGHBOURS, Variant, chosen_value, simulate_variant, variants
from benchmarks.simulated.world import NothingHappensError, run_virtually

# Cases on the large quota take four times as long and go the same ways.
SHORT = [case for case in must_hold() if case.terms.tokens == SMALL]
CROWD = next(case for case in must_hold() if case.clients > 1)


@pytest.mark.parametrize(
    "case",
    [*(pytest.param(case, id=case.title) for case in SHORT), pytest.param(CROWD, id=CROWD.title, marks=pytest.mark.long)],
)
def test_bounds_hold(case: Case) -> None:
    assert summarise(case, [0]).failures == []


def test_the_same_seed_gives_the_same_result() -> None:
    case = Case("", Terms(SMALL, text=False, latency="long-tailed"), None)
    assert simulate(case, 3, windows=2) == simulate(case, 3, windows=2)
    assert simulate(case, 3, windows=2) != simulate(case, 4, windows=2)


def test_broken_bounds_are_told() -> None:
    bounds = Bounds(used=0.9, rejected=0.1, fairness=0.9)
    good = Result(used=0.95, rejected=0.05, lost=0, fairness=0.95, requests=1, accepted=[], rejections=[])
    bad = Result(used=0.5, rejected=0.5, lost=7, fairness=0.5, requests=1, accepted=[], rejections=[])
    case = Case("", Terms(SMALL), bounds)
    assert Summary(case, [good]).failures == []
    assert len(Summary(case, [good, bad]).failures) == 4


def test_a_client_that_knows_too_high_a_limit_breaks_them() -> None:
    # Its quota is half of what it is told from the beginning on, and no rejection says so.
    case = Case("", Terms(SMALL, text=False, halved=(0, 10)), Bounds(used=0.98, rejected=0.005), knows=True)
    assert summarise(case, [0], windows=3).failures


def test_inputs_that_are_given_up_are_lost() -> None:
    # Requests of the other tenants take everything, so nothing is accepted for five minutes.
    case = Case("", Terms(96 * 95 + 1, tenants=1000.0), None)
    assert simulate(case, 0, windows=6).lost > 0


def test_time_passes_only_while_everything_waits() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200))
        return loop.time()

    assert run_virtually(wait()) == pytest.approx(7200)


def test_a_wake_up_that_never_comes_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingHappensError):
        run_virtually(wait())


@pytest.mark.parametrize(
    ("terms", "windows"),
    [
        (Terms(100), 10),
        (Terms(100, kind="sliding"), 10),
        (Terms(100, kind="sliding", phase=0.5), 10),
        # It meets ten fixed windows and the rest of the one before.
        (Terms(100, phase=0.5), 11),
        (Terms(100, halved=(2, 4)), 9),
    ],
)
def test_an_all_knowing_sender_gets_each_window_once(terms: Terms, windows: int) -> None:
    assert Service(terms, 0).best(10) == 100 * windows


def test_a_request_over_the_limit_is_refused_whole_and_counts_for_nothing() -> None:
    async def send() -> list[bool]:
        service = Service(Terms(100, text=False), 0)
        return [(await service.embed(tokens))[1] is None for tokens in (90, 20, 10, 1)]

    assert run_virtually(send()) == [True, False, True, False]


def test_texts_have_the_tokens_asked_for_in_different_bytes() -> None:
    corpus = Corpus(95, 0)
    assert corpus.count(corpus.texts) == 95 * len(corpus.texts)
    lengths = [len(text) / 95 for text in corpus.texts]
    assert min(lengths) < 4.5
    assert max(lengths) > 6


def test_fairness_is_one_for_equal_shares_and_one_nth_for_one_taker() -> None:
    assert jain([5, 5, 5, 5]) == 1
    assert jain([5, 0, 0, 0]) == 0.25


def test_a_variant_changes_its_constant_for_one_simulation() -> None:
    chosen = chosen_value("CUT")
    case = Case("", Terms(SMALL, text=False), None)
    changed = simulate_variant((Variant("CUT", 0.5), case, 0))
    assert chosen_value("CUT") == chosen
    assert changed.used < simulate_variant((Variant(), case, 0)).used


def test_chosen_constants_lie_between_their_neighbours() -> None:
    assert len(variants()) == 1 + 2 * len(NEIGHBOURS)
    for name, (low, high) in NEIGHBOURS.items():
        assert low < chosen_value(name) < high


def test_the_command_prints_a_table_and_writes_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    only = "250,000 known, fixed"
    assert quota_simulation.main(["--only", only, "--seeds", "2", "--workers", "1", "--json", str(file)]) == 0
    assert f"{only}  " in capsys.readouterr().out
    report = json.loads(file.read_text())
    assert report["holds"]
    assert len(report["cases"][0]["used"]["seeds"]) == 2


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--only", "nothing has this name"], ["--sweep", "--only", "a"]])
def test_misuse_is_told(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        quota_simulation.main(arguments)
    assert raised.value.code == 2
