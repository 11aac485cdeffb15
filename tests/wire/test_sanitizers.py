"""The native module under AddressSanitizer and UndefinedBehaviorSanitizer, where the machine's compiler has them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.wire.sanitized import NO_SANITIZERS, ROOT


@pytest.mark.timeout(300)
def test_the_sanitizers_find_nothing_in_the_native_module(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.wire.sanitized", str(tmp_path))
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode == NO_SANITIZERS:
        pytest.skip("needs a gcc with AddressSanitizer and UndefinedBehaviorSanitizer, and this machine has none")
    assert run.returncode == 0, run.stderr[-4000:]
