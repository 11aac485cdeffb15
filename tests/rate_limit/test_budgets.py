"""Budgets with thousands of input types."""

from __future__ import annotations

import sys
from typing import Any

from pinecone_embed_async._rate_limit import Backoff, ConcurrencyLimiter, Flow, LimiterOptions, RateLimitGate
from pinecone_embed_async._rate_limit.budgets import KEYS_KEPT
from pinecone_embed_async._rate_limit.limiter import Limiter
from pinecone_embed_async._rate_limit.permit import LimiterPermit
from pinecone_embed_async._rate_limit.rejections import NamedLimit
from tests.clock import FakeClock
from tests.permits import acquire_permit
from tests.rate_limit.world import OneLimit

WINDOW = 60.0


class Harness:
    """A limiter for requests of ever more input types."""

    def __init__(self, kind: type[LimiterOptions] = LimiterOptions, **options: Any) -> None:
        self.limiter = Limiter(kind(window=WINDOW, **options))
        self.concurrency = ConcurrencyLimiter(8)
        self.now = 0.0

    def request(self, input_type: str, tokens: int = 10) -> LimiterPermit:
        flow = Flow(self.concurrency, ("model", input_type), "bulk")
        request = LimiterPermit(flow, flow.key, tokens, tokens)
        self.limiter.enqueue(request, self.now)
        return request

    def begin(self, input_type: str, tokens: int = 10) -> LimiterPermit:
        request = self.request(input_type, tokens)
        assert request.is_granted
        return request

    def send(self, input_type: str, tokens: int = 10) -> None:
        self.limiter.accepted(self.begin(input_type, tokens), tokens, self.now)

    def kept(self) -> set[str]:
        return {known.input_type for known in self.limiter.statistics(self.now)}


def calls_of(harness: Harness, input_type: str) -> int:
    """Function calls that a request takes: a measure of its cost that no other process disturbs."""
    count = 0

    def counts(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(counts)
    try:
        harness.send(input_type)
    finally:
        sys.setprofile(None)
    return count


def test_a_limited_number_of_input_types_is_kept() -> None:
    harness = Harness()
    for number in range(3300):
        harness.now += 0.01
        harness.send(f"type {number}")
    assert len(harness.kept()) == 256
    assert "type 3299" in harness.kept()


def test_usage_of_a_known_limit_is_kept_as_long_as_it_counts() -> None:
    harness = Harness(tokens_per_minute=100)
    for number in range(1000):
        harness.now += 0.01
        harness.send(f"type {number}", 60)
    assert len(harness.kept()) == 1000
    assert harness.limiter._budgets[("model", "type 0")].limit.window.used(harness.now) == 60
    harness.now += WINDOW
    for number in range(1000):
        harness.send(f"later {number % 10}", 1)
    assert len(harness.kept()) == KEYS_KEPT


def test_a_recently_used_budget_keeps_its_learned_limit() -> None:
    harness = Harness()
    named = NamedLimit("tokens per minute", 500)
    harness.limiter.rejected(harness.begin("passage", 50), named, Backoff(0.0, 0.0, lambda: 0.0), harness.now)
    for number in range(3000):
        harness.now += 1.0
        harness.send(f"type {number}")
        if number % 100 == 0:
            harness.send("passage")
    assert harness.limiter._budgets[("model", "passage")].limit.known == 500


def test_budgets_in_flight_waiting_or_paused_are_kept() -> None:
    harness = Harness(OneLimit, tokens_per_minute=100, input_type="waits")
    harness.concurrency = ConcurrencyLimiter(1000)
    flying = harness.begin("in flight")
    harness.send("waits", 100)
    waits = harness.request("waits", 100)
    harness.limiter.rejected(harness.begin("pauses"), None, Backoff(0.0, 0.0, lambda: 0.0, 600.0), harness.now)
    for number in range(2000):
        harness.send(f"type {number}")
    assert harness.kept() >= {"in flight", "waits", "pauses"}
    assert harness.limiter.known_pause(("model", "pauses"), harness.now).left(harness.now) == 600
    assert not waits.is_granted
    harness.now += WINDOW
    harness.limiter.dispatch(harness.now)
    assert waits.is_granted
    harness.limiter.accepted(flying, 10, harness.now)
    assert harness.limiter._budgets[("model", "in flight")].limit.in_flight == 0


def test_a_budget_that_is_kept_does_not_keep_others() -> None:
    harness = Harness()
    harness.begin("in flight")
    for number in range(1000):
        harness.send(f"type {number}")
    assert len(harness.kept()) == 256


def test_a_budget_is_dropped_from_the_end_of_its_pause_on() -> None:
    harness = Harness()
    harness.limiter.rejected(harness.begin("pauses"), None, Backoff(0.0, 0.0, lambda: 0.0, 10.0), harness.now)
    harness.now += 10
    for number in range(1000):
        harness.send(f"type {number}")
    assert "pauses" not in harness.kept()


def test_the_cost_of_a_request_does_not_grow_with_the_input_types_kept() -> None:
    few, many = Harness(tokens_per_minute=1000), Harness(tokens_per_minute=1000)
    for number in range(3300):
        many.send(f"type {number}")
    for number in range(10):
        few.send(f"type {number}")
    # One or two of the others are checked.
    assert calls_of(many, "type 5") <= calls_of(few, "type 5") + 40


def test_reading_a_limit_or_a_pause_creates_no_budget() -> None:
    harness = Harness(tokens_per_minute=77)
    assert harness.limiter.known_tokens(("model", "unheard of")) == 77
    assert harness.limiter.known_pause(("model", "unheard of"), harness.now).left(harness.now) == 0
    assert not harness.kept()


def test_the_acceptance_times_of_recently_used_keys_are_kept() -> None:
    harness = Harness()
    for number in range(2 * KEYS_KEPT):
        harness.send("passage")
        harness.send(f"type {number}")
    assert harness.limiter.accepted_at["model", "passage"] == harness.now


async def test_a_limited_number_of_acceptance_times_is_kept() -> None:
    clock = FakeClock()
    gate, concurrency = RateLimitGate(LimiterOptions(), clock=clock), ConcurrencyLimiter(8)
    for number in range(2 * KEYS_KEPT):
        key = ("model", f"type {number}")
        (await acquire_permit(gate, Flow(concurrency, key, "bulk"), 10, 1)).accepted(10)
    known = [gate.last_acceptance(("model", f"type {number}")) for number in range(2 * KEYS_KEPT)]
    assert known == [None] * KEYS_KEPT + [clock.time()] * KEYS_KEPT
