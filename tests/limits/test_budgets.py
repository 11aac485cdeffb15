"""What is kept for each input type, where there are thousands of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pinecone_embed_async._limits import Ask, Flow, Lane, Limiter, LimiterOptions, LimitKind, NamedLimit, Turnstile
from pinecone_embed_async._limits._budgets import KEYS_KEPT
from tests.clock import FakeClock

if TYPE_CHECKING:
    from pinecone_embed_async._limits import Grant

WINDOW = 60.0


class Desk:
    """A limiter that requests of ever more input types go through."""

    def __init__(self, **options: Any) -> None:
        self.limiter = Limiter(LimiterOptions(window=WINDOW, **options))
        self.lane = Lane(8)
        self.now = 0.0

    def begin(self, input_type: str, tokens: int = 10) -> Grant:
        key = ("model", input_type)
        grants: list[Grant] = []
        self.limiter.ask(Ask(Flow((self.lane, key), "bulk"), self.lane, key, tokens, 1, grants.append), self.now)
        (grant,) = grants
        return grant

    def send(self, input_type: str, tokens: int = 10) -> None:
        self.limiter.accepted(self.begin(input_type, tokens), tokens, self.now)

    def kept(self) -> set[str]:
        return {told.input_type for told in self.limiter.statistics(self.now)}


def calls_of(desk: Desk, input_type: str) -> int:
    """Calls of functions that a request takes, as a measure of what it costs that no other process disturbs."""
    count = 0

    def counts(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(counts)
    try:
        desk.send(input_type)
    finally:
        sys.setprofile(None)
    return count


def test_no_more_than_so_many_input_types_are_kept() -> None:
    desk = Desk()
    for number in range(3300):
        desk.now += 0.01
        desk.send(f"type {number}")
    assert len(desk.kept()) == KEYS_KEPT
    assert "type 3299" in desk.kept()


def test_what_counts_against_a_known_limit_is_kept_as_long_as_it_does() -> None:
    desk = Desk(tokens=lambda _: 100)
    for number in range(1000):
        desk.now += 0.01
        desk.send(f"type {number}", 60)
    assert len(desk.kept()) == 1000
    assert desk.limiter.tokens(("model", "type 0")).window.used(desk.now) == 60
    desk.now += WINDOW
    for number in range(1000):
        desk.send(f"later {number % 10}", 1)
    assert len(desk.kept()) == KEYS_KEPT


def test_what_is_used_again_and_again_is_kept_with_what_was_learned() -> None:
    desk = Desk()
    grant = desk.begin("passage", 50)
    desk.limiter.rejected(grant, desk.now, named=NamedLimit(LimitKind.TOKENS, 500), backoff=lambda _: 0.0, asked=False)
    for number in range(3000):
        desk.now += 1.0
        desk.send(f"type {number}")
        if number % 100 == 0:
            desk.send("passage")
    assert desk.limiter.tokens(("model", "passage")).known == 500


def test_what_is_in_flight_waits_or_pauses_is_kept() -> None:
    desk = Desk(tokens=lambda key: 100 if key[1] == "waits" else None)
    desk.lane = Lane(1000)
    flying = desk.begin("in flight")
    desk.send("waits", 100)
    key = ("model", "waits")
    flow = Flow[Ask]((desk.lane, key), "bulk")
    granted: list[Grant] = []
    desk.limiter.ask(Ask(flow, desk.lane, key, 100, 100, granted.append), desk.now)
    paused = desk.begin("pauses")
    desk.limiter.rejected(paused, desk.now, named=None, backoff=lambda _: 600.0, asked=True)
    for number in range(2000):
        desk.send(f"type {number}")
    assert desk.kept() >= {"in flight", "waits", "pauses"}
    assert desk.limiter.pause_left(("model", "pauses"), desk.now) == 600
    assert not granted
    desk.now += WINDOW
    desk.limiter.dispatch(desk.now)
    assert len(granted) == 1
    desk.limiter.accepted(flying, 10, desk.now)
    assert desk.limiter.tokens(("model", "in flight")).in_flight == 0


def test_a_request_costs_no_more_however_many_input_types_are_kept() -> None:
    few, many = Desk(tokens=lambda _: 1000), Desk(tokens=lambda _: 1000)
    for number in range(3300):
        many.send(f"type {number}")
    for number in range(10):
        few.send(f"type {number}")
    # One or two of those kept are looked at.
    assert calls_of(many, "type 5") <= calls_of(few, "type 5") + 40


def test_to_ask_for_a_limit_or_a_pause_keeps_nothing() -> None:
    desk = Desk(tokens=lambda _: 77)
    assert desk.limiter.known_tokens(("model", "unheard of")) == 77
    assert desk.limiter.pause_left(("model", "unheard of"), desk.now) == 0
    assert not desk.kept()


async def test_of_when_requests_were_accepted_no_more_is_kept() -> None:
    clock = FakeClock()
    turnstile, lane = Turnstile(LimiterOptions(), clock=clock), Lane(8)
    for number in range(2 * KEYS_KEPT):
        key = ("model", f"type {number}")
        (await turnstile.turn(Flow((lane, key), "bulk"), lane, key, 10, 1)).accepted(10)
    known = [turnstile.last_acceptance(("model", f"type {number}")) for number in range(2 * KEYS_KEPT)]
    assert known == [None] * KEYS_KEPT + [clock.time()] * KEYS_KEPT
