"""Counts of the emulator: a snapshot for tests, and the running counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Statistics:
    """An emulator's counts since it was created or `reset_statistics` was called.

    Attributes:
        requests: `/embed` requests received, including refused ones and those with faults.
        model_requests: Requests to `/models` and `/models/{model_name}`.
        by_status: Answers to all requests, also to other paths, by HTTP status; not those that a fault prevented before the
            status line was sent.
        in_flight: `/embed` requests in flight now.
        max_in_flight: The most `/embed` requests in flight at once.
        inputs_answered: Inputs answered with status 200. The service bills them, even if a fault then spoils the answer.
        tokens_billed: Tokens of these inputs.
        connections_opened: Connections accepted.
        connections_open: Connections open now.
        faults: Number of faults injected, by name.
        answered: How often each text was answered with status 200, including spoiled answers.
        answered_well: How often each text was answered with status 200 and no fault spoiled the answer; empty with
            `record_texts=False`.
    """

    requests: int
    model_requests: int
    by_status: dict[int, int]
    in_flight: int
    max_in_flight: int
    inputs_answered: int
    tokens_billed: int
    connections_opened: int
    connections_open: int
    faults: dict[str, int]
    answered: Counter[str]
    answered_well: Counter[str]


@dataclass(slots=True)
class Tally:
    """The running counts.

    Attributes:
        finished: `/embed` requests no longer in flight. The other fields are those of `Statistics`.
    """

    requests: int = 0
    finished: int = 0
    model_requests: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    max_in_flight: int = 0
    inputs_answered: int = 0
    tokens_billed: int = 0
    connections_opened: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    answered_well: Counter[str] = field(default_factory=Counter)

    def snapshot(self, in_flight: int, connections_open: int) -> Statistics:
        """Copy the counts."""
        return Statistics(
            requests=self.requests,
            model_requests=self.model_requests,
            by_status=dict(self.by_status),
            in_flight=in_flight,
            max_in_flight=self.max_in_flight,
            inputs_answered=self.inputs_answered,
            tokens_billed=self.tokens_billed,
            connections_opened=self.connections_opened,
            connections_open=connections_open,
            faults=dict(self.faults),
            answered=Counter(self.answered),
            answered_well=Counter(self.answered_well),
        )
