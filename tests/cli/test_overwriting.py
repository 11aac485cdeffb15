"""`--overwrite` from the command line: what it costs when nothing can be embedded, and how to go on after it."""

import json
from pathlib import Path

import pytest

from pinecone_embed_async.emulator import Emulator
from tests.cli.program import in_thread, table_of, write_texts


@pytest.mark.parametrize("wrong", [("--model", "llama-text-embed-v22"), ("--parameter", "foo=1")])
async def test_what_the_service_refuses_costs_nobody_the_output_that_is_there(
    tmp_path: Path, emulator: Emulator, wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 5), tmp_path / "out"
    assert await in_thread(emulator, source, "--out", out, "-q") == 0
    before = table_of(out)
    assert await in_thread(emulator, source, "--out", out, "-q", "--overwrite", *wrong) != 0
    assert table_of(out).equals(before)
    assert "rows are kept" not in capsys.readouterr().err
    assert await in_thread(emulator, write_texts(source, 3), "--out", out, "-q", "--overwrite") == 0
    assert table_of(out).num_rows == 3


async def test_after_overwriting_the_way_to_go_on_is_the_command_without_it(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 200), tmp_path / "out"
    options = ("--out", out, "-q", "--batch-size", 2)
    assert await in_thread(emulator, source, *options, "--overwrite", "--max-tokens", 500) == 6
    assert "finished rows are kept; run the same command without --overwrite to continue" in capsys.readouterr().err
    done = table_of(out).num_rows
    assert 0 < done < 200
    assert await in_thread(emulator, source, *options[:2]) == 0
    assert f"{done} of 200 rows are already done" in capsys.readouterr().err
    assert table_of(out).num_rows == 200


async def test_what_it_costs_to_ask_before_overwriting_is_counted(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 5), tmp_path / "out"
    assert await in_thread(emulator, source, "--out", out, "-q") == 0
    before = emulator.statistics()
    assert await in_thread(emulator, source, "--out", out, "--json", "--overwrite") == 0
    now, end = emulator.statistics(), json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end["tokens"] == now.tokens_billed - before.tokens_billed
    assert end["requests"] == now.requests - before.requests == 2
