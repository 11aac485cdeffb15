"""The fixtures, as a user's own test suite has them."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pinecone_embed_async.emulator import Fault
from pinecone_embed_async.integrations.pytest_plugin import LocalEmulator

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "testing.md").read_text(), re.MULTILINE | re.DOTALL)
PLUGIN = "pytest_pinecone_embed_async"


@pytest.fixture(autouse=True)
def _this_package_and_no_other_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(pytester: pytest.Pytester, code: str) -> pytest.RunResult:
    """Run tests in a process of their own, with warnings as errors."""
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    pytester.makepyfile(code)
    return pytester.runpytest_subprocess("-p", PLUGIN, "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider")


def test_it_is_an_entry_point() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    assert f'[project.entry-points.pytest11]\npinecone_embed_async = "{PLUGIN}"' in declared


def test_loading_it_imports_nothing_of_the_package() -> None:
    heavy = ("aiohttp", "numpy", "pinecone_embed_async")
    code = f"import sys, {PLUGIN}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_users_test_their_code_with_and_without_an_event_loop(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import asyncio
        import os

        from pinecone_embed_async import EmbedClient, ServiceError, RetryPolicy
        import pytest

        async def code():
            async with EmbedClient("multilingual-e5-large", retry=RetryPolicy(initial_backoff=0)) as client:
                return await client.embed(["a", "b"], input_type="query")

        def test_without_a_loop(pinecone_emulator):
            assert len(asyncio.run(code())) == 2
            assert pinecone_emulator.statistics().requests == 1

        async def test_in_a_loop(pinecone_emulator):
            assert len(await code()) == 2

        def test_with_faults(pinecone_faults, pinecone_emulator):
            pinecone_faults("status=503", times=2)
            assert len(asyncio.run(code())) == 2
            assert pinecone_emulator.statistics().faults == {"status": 2}

        async def test_nothing_of_one_test_is_there_in_the_next(pinecone_emulator):
            assert pinecone_emulator.statistics().requests == 0
            await code()
            assert pinecone_emulator.statistics().faults == {}

        @pytest.fixture
        def before():
            return dict(os.environ)

        def test_the_environment_is_set(before, pinecone_emulator):
            assert os.environ["PINECONE_CONTROLLER_HOST"] == pinecone_emulator.url
            assert os.environ["PINECONE_API_KEY"] == pinecone_emulator.api_key
            assert before.get("PINECONE_CONTROLLER_HOST") != pinecone_emulator.url

        def test_and_restored():
            assert "PINECONE_CONTROLLER_HOST" not in os.environ
        """,
    )
    result.assert_outcomes(passed=6)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_tests_of_the_docs_pass(pytester: pytest.Pytester, block: str) -> None:
    result = run(pytester, block)
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}
    assert outcomes["passed"] == len(re.findall(r"^(?:async )?def test_", block, re.MULTILINE)) > 0


def test_a_local_emulator_is_asked_from_any_thread_and_leaves_none() -> None:
    with LocalEmulator(latency=0.01) as emulator:
        assert emulator.call(lambda running: running.latency) == 0.01
        emulator.call(lambda running: running.hold())
        emulator.call(lambda running: running.release())
        assert emulator.call(lambda running: running.wait_until_idle()) is None
        emulator.inject(Fault("status", "503"), times=3)
        emulator.clear_faults()
        assert emulator.environment == {"PINECONE_CONTROLLER_HOST": emulator.url, "PINECONE_API_KEY": emulator.api_key}
        assert emulator.url in repr(emulator)
        with pytest.raises(ValueError, match="there is no fault"):
            emulator.inject("no such fault")
    assert "pinecone-emulator" not in {thread.name for thread in threading.enumerate()}


def test_one_that_cannot_start_leaves_no_thread() -> None:
    with LocalEmulator() as emulator:
        port = int(emulator.url.rpartition(":")[2])
        with pytest.raises(OSError, match="ddress already in use"):
            LocalEmulator(port=port)
        assert sum(thread.name == "pinecone-emulator" for thread in threading.enumerate()) == 1
