"""Commits have subjects of at most 72 characters; the hook of pre-commit says what is wrong with others."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.commit_message import faults_of

SCRIPT = Path(__file__).parents[2] / "scripts" / "commit_message.py"


@pytest.mark.parametrize(
    "message",
    [
        "Name the limit in the error",
        "x" * 72,
        "Name the limit\n\n" + "A body may have lines of any length. " * 5,
        "\n# a comment\nName the limit\n# another\n",
        "Name the limit\n# ------------------------ >8 ------------------------\n+" + "x" * 80,
        "Merge branch 'one-with-a-very-long-name-that-git-has-put-into-the-subject-of-this-commit'",
        "",
    ],
)
def test_a_good_message_is_taken(message: str) -> None:
    assert faults_of(message) == []


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("x" * 73, "at most 72 characters, got 73"),
        ("# a comment\n" + "ü" * 73 + "\n\nA body.", "at most 72 characters, got 73"),
        ("Name the limit\nin the error", "followed by an empty line"),
        ("Name the limit.", "full stop"),
    ],
)
def test_a_bad_message_is_refused_with_the_reason(message: str, fault: str) -> None:
    (found,) = faults_of(message)
    assert fault in found


@pytest.mark.parametrize(("subject", "status"), [("x" * 72, 0), ("x" * 73, 1)])
def test_the_exit_status_ends_the_commit(tmp_path: Path, subject: str, status: int) -> None:
    (tmp_path / "message").write_text(subject, encoding="utf-8")
    command = (sys.executable, str(SCRIPT), str(tmp_path / "message"))
    assert subprocess.run(command, capture_output=True, check=False).returncode == status
