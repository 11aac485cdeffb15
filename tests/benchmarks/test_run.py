"""The benchmarks run: a few inputs, no figure of any meaning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.competitors import COMPETITORS
from benchmarks.settings import LOADS
from pinecone_embed_async._wire.decoding import installed_decoders

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.mark.timeout(180)
def test_a_small_run_measures_compares_and_draws(tmp_path: Path) -> None:
    names = [installed_decoders()[0], "official", "floor"]
    suites = ["throughput", "decoding", "filling", "redacting"]
    process = run(
        *suites,
        *("--only", ",".join(names), "--loads", "dense-1024-half", "--rounds", "1", "--scale", "0.05"),
        *("--json", str(tmp_path / "run.json"), "--plots", str(tmp_path)),
    )
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "run.json").read_text())
    (dense,) = report["suites"]["throughput"]["loads"].values()
    assert list(dense["competitors"]) == names
    for entry in dense["competitors"].values():
        assert entry["median"]["inputs_per_second"] > 0
    # The others may be done before the first tick.
    assert dense["competitors"]["official"]["rounds"][0]["ticks"] > 0
    assert "What must hold, in this run" in process.stdout
    assert "<svg" in (tmp_path / "speed.svg").read_text()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everybody_can_still_be_measured(tmp_path: Path) -> None:
    process = run("--rounds", "1", "--scale", "0.005", "--json", str(tmp_path / "run.json"))
    assert process.returncode == 0, process.stderr
    loads = json.loads((tmp_path / "run.json").read_text())["suites"]["throughput"]["loads"]
    for name, load in LOADS.items():
        assert list(loads[name]["competitors"]) == [one.name for one in COMPETITORS.values() if load.kind in one.kinds]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "unknown 'nothing'"),
        (("throughput", "--only", "nobody"), "unknown 'nobody'"),
        (("decoding", "--only", "native"), "none of them is chosen"),
        (("single", "--loads", "sparse-half"), "not chosen"),
        (("--scale", "0"), "--scale"),
        (("--json", "no-such-folder/run.json"), "no folder"),
        (("--write-docs", "no-such-file.json"), "--write-docs"),
    ],
)
def test_misuse_is_told_at_once(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
