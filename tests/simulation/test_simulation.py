"""The real client in drawn scenarios: the invariants hold in every run, and a run can be repeated to the last step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.__main__ import report, run_all
from tests.simulation.found import FOUND
from tests.simulation.neighbours import FAULTS
from tests.simulation.run import run
from tests.simulation.scenario import BILLS, CallPlan, ClientPlan, Scenario, described, draw
from tests.simulation.shrink import shrink

SEEDS, AT_ONCE = 1000, 50


@pytest.mark.parametrize("start", range(0, SEEDS, AT_ONCE))
def test_invariants_hold_in_every_run(start: int) -> None:
    failed = [outcome for outcome in run_all(range(start, start + AT_ONCE)) if outcome.violations]
    assert not failed, report(failed[0])


@pytest.mark.parametrize("name", FOUND)
def test_fixed_bugs_stay_fixed(name: str) -> None:
    assert not run(FOUND[name]).violations


REPEATED = range(7000, 7030)
DIGESTS = "from tests.simulation.__main__ import run_all; print(*(one.digest for one in run_all(range({}, {}))))"


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_seed_gives_the_same_run_in_another_process_and_under_another_hash_seed(hash_seed: str) -> None:
    program = DIGESTS.format(REPEATED.start, REPEATED.stop)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.split() == [outcome.digest for outcome in run_all(REPEATED)]


def test_scenarios_cover_everything() -> None:
    scenarios = [draw(seed) for seed in range(SEEDS)]
    calls = [call for scenario in scenarios for call in scenario.calls]
    clients = [client for scenario in scenarios for client in scenario.clients]
    assert {call.kind for call in calls} == {"embed", "one", "stream"}
    assert {call.source for call in calls} == {"list", "async", "thread"}
    assert {client.quota for client in clients} == {"none", "given", "shared", "backend"}
    assert len({client.cache for client in clients}) == 12
    assert {scenario.service.quota.kind for scenario in scenarios if scenario.service.quota} == {
        "fixed",
        "sliding",
        "bucket",
    }
    assert sum(call.cancellation is not None for call in calls) > SEEDS / 4
    assert sum(client.closed_at is not None for client in clients) > SEEDS / 10
    assert any(call.leaves_after is not None for call in calls)
    assert any(call.source_hangs for call in calls)
    assert {call.raises for call in calls} == {"NeighbourError", *(fault.__name__ for fault in FAULTS)}
    assert {client.backend for client in clients} == {"works", "answers", "stops", "stays"}
    assert {bill for scenario in scenarios for bill in scenario.service.bills} == set(BILLS)
    assert any(call.source_stays for call in calls)
    assert any(call.alike for call in calls)
    assert any(call.odd and call.kind == "embed" for call in calls)
    assert any(call.odd and call.text_fails_at is not None for call in calls)


def test_most_scenarios_are_not_absurd() -> None:
    absurd = [
        scenario
        for scenario in map(draw, range(SEEDS))
        if scenario.service.bills
        or any(call.odd or call.alike or call.source_stays for call in scenario.calls)
        or any(client.backend != "works" or client.cache in ("answers", "stops", "stays") for client in scenario.clients)
    ]
    assert SEEDS / 5 < len(absurd) < SEEDS / 3


def test_a_printed_scenario_can_be_read_again() -> None:
    for seed in range(100):
        text = described(draw(seed))
        assert eval(text, vars(sys.modules["tests.simulation.scenario"]).copy()) == draw(seed)  # noqa: S307


def test_a_failing_scenario_is_shrunk_as_far_as_it_still_fails() -> None:
    def fails(scenario: Scenario) -> bool:
        return any(call.inputs >= 3 and scenario.clients[call.client].max_batch_size > 5 for call in scenario.calls)

    big = next(scenario for scenario in map(draw, range(1000)) if fails(scenario) and len(scenario.calls) > 3)
    small = shrink(big, fails)
    assert small == Scenario(big.seed, clients=(ClientPlan(max_batch_size=6),), calls=(CallPlan(inputs=3),))
