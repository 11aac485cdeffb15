"""Scenarios that failed once, made as small as they still did, and what it was; see `described`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

FOUND: dict[str, Scenario] = {}
