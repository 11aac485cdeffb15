"""Shrinks a failing scenario as far as it still fails."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.simulation.scenario import waits_for_ever

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.scenario import Scenario

MOST_TRIES = 600
"""Scenarios that are tried."""


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """The smallest scenario that still `fails`, reached by leaving out one thing after another."""
    tries = MOST_TRIES
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(scenario):
            if any(waits_for_ever(call, candidate.clients[call.client]) for call in candidate.calls):
                continue
            tries -= 1
            if tries < 0:
                return scenario
            if fails(candidate):
                scenario, is_smaller = candidate, True
                break
    return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios with one thing less, the largest things first."""
    if len(scenario.calls) > 1:
        for number in range(len(scenario.calls)):
            yield replace(scenario, calls=scenario.calls[:number] + scenario.calls[number + 1 :])
    for number in range(len(scenario.clients)):
        if len(scenario.clients) > 1 and all(call.client != number for call in scenario.calls):
            calls = tuple(replace(call, client=call.client - (call.client > number)) for call in scenario.calls)
            yield replace(scenario, clients=scenario.clients[:number] + scenario.clients[number + 1 :], calls=calls)
    for service in _plainer(scenario.service):
        yield replace(scenario, service=service)
    for name in ("calls", "clients"):
        plans: tuple[Any, ...] = getattr(scenario, name)
        for number, plan in enumerate(plans):
            for plainer in _plainer(plan):
                # Another client does not make a call plainer.
                if name == "calls" and plainer.client != plan.client:
                    continue
                changed: dict[str, Any] = {name: (*plans[:number], plainer, *plans[number + 1 :])}
                yield replace(scenario, **changed)


def _plainer(plan: Any) -> Iterator[Any]:
    """The plan with one of its values as usual, or closer to that."""
    for field in fields(plan):
        value, usual = getattr(plan, field.name), field.default
        if value == usual:
            continue
        yield replace(plan, **{field.name: usual})
        if is_dataclass(value):
            for inner in _plainer(value) if _has_defaults(value) else ():
                yield replace(plan, **{field.name: inner})
        elif isinstance(value, tuple) and len(value) > 1 and isinstance(value[0], str):
            for number in range(len(value)):
                yield replace(plan, **{field.name: value[:number] + value[number + 1 :]})
        elif isinstance(value, int) and not isinstance(value, bool) and isinstance(usual, int) and value - usual > 1:
            yield replace(plan, **{field.name: (value + usual) // 2})
            yield replace(plan, **{field.name: value - 1})


def _has_defaults(plan: Any) -> bool:
    return all(hasattr(type(plan), field.name) for field in fields(plan))
