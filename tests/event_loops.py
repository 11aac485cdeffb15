"""Run the tests in another kind of event loop: `pytest -p tests.event_loops --event-loop uvloop tests/calls`."""

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest


def _eager() -> asyncio.AbstractEventLoop:
    if sys.version_info < (3, 12):
        raise pytest.UsageError("--event-loop eager needs Python 3.12 or later, which has asyncio.eager_task_factory")
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415  # no other kind of loop needs it

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"eager": _eager, "uvloop": _uvloop}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--event-loop", choices=sorted(FACTORIES), required=True, help="the kind of loop of every test")


def pytest_asyncio_loop_factories(config: pytest.Config) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    name = config.getoption("--event-loop")
    return {name: FACTORIES[name]}
