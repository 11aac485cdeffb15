"""The ledger of several processes: whichever of them decides, all decide the same."""

import hashlib
import heapq
import importlib
import itertools
import os
import pickle
import pickletools
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from pinecone_embed_async import Quota
from pinecone_embed_async._rate_limit import limiter_options
from pinecone_embed_async._rate_limit.quota_file import STATE_VERSION
from pinecone_embed_async._rate_limit.quota_ledger import Ask, End, Entry, Gone, QuotaLedger, Step
from pinecone_embed_async._rate_limit.rejections import NamedLimit

WINDOW = 60.0


def ledger_of(tokens: int | None, *, opens: float = 0.0) -> QuotaLedger:
    return QuotaLedger(limiter_options(Quota(tokens)), opens)


def ask(number: int, tokens: int = 40, *, least: int = 1, interactive: bool = False, flow: int = 0) -> Ask:
    return Ask(number, "m", "passage", tokens, least, "interactive" if interactive else "bulk", flow)


def test_the_member_that_asks_takes_its_permit_at_once() -> None:
    result = ledger_of(100).apply(Step(1, 0.0, (ask(0),)))
    assert (result.granted, result.taken) == ([(1, 0, 40)], [(0, 40)])


def test_what_one_member_gives_back_another_takes_with_its_next_step() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    assert not ledger.apply(Step(2, 1.0, (ask(0, 100, least=60),))).granted
    given = ledger.apply(Step(1, 2.0, (End(0, "unused"),)))
    assert (given.granted, given.taken) == ([(2, 0, 100)], [])
    assert ledger.has_untaken(2)
    assert ledger.apply(Step(2, 3.0)).taken == [(0, 100)]
    assert not ledger.has_untaken(2)


def test_tokens_that_come_free_are_granted_by_whoever_looks() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(1, 1.0, (End(0, "accepted", 100),)))
    ledger.apply(Step(2, 2.0, (ask(0, 100),)))
    assert ledger.limiter.next_at == 1.0 + WINDOW
    assert ledger.apply(Step(3, ledger.limiter.next_at)).granted == [(2, 0, 100)]


def test_what_a_dead_member_had_not_taken_comes_back_and_the_rest_counts_for_a_window() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(2, 0.0, (ask(0, 30, flow=0), ask(1, 30, flow=1))))
    # It has billed 60, so that 40 come free: one of the two requests is granted, and not taken yet.
    assert ledger.apply(Step(1, 1.0, (End(0, "accepted", 60),))).granted == [(2, 0, 30), (2, 1, 10)]
    ledger.apply(Step(3, 2.0, (ask(0, 40, least=40),)))
    died = ledger.apply(Step(3, 3.0, (Gone(2),)))
    assert died.taken == [(0, 40)]
    # What a dead member has taken may have been sent.
    ledger.apply(Step(4, 4.0, (ask(0, 100, least=100),)))
    assert not ledger.apply(Step(4, 5.0, (Gone(3),))).taken
    # The window of what it may have sent begins with its death.
    assert ledger.limiter.next_at == 5.0 + WINDOW
    assert ledger.apply(Step(4, 5.0 + WINDOW)).taken == [(0, 100)]


def test_what_a_dead_member_waited_for_is_nobodys() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(2, 0.0, (ask(0, 100, least=100), ask(1, 100, least=100, flow=1))))
    ledger.apply(Step(3, 0.0, (ask(0, 100, least=100),)))
    assert ledger.apply(Step(3, 1.0, (Gone(2), Gone(1)))).taken == []
    assert "of 1 members" in repr(ledger)
    assert ledger.apply(Step(3, 1.0 + WINDOW)).taken == [(0, 100)]


@pytest.mark.parametrize("end", [End(0, "unused"), Gone(2)])
def test_a_permit_that_ended_before_it_was_taken_is_nobodys(end: Entry) -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(2, 0.0, (ask(0, 100),)))
    assert ledger.apply(Step(1, 1.0, (End(0, "unused"),))).granted == [(2, 0, 100)]
    assert ledger.apply(Step(2, 2.0, (end,))).taken == []
    assert ledger.apply(Step(3, 3.0, (ask(0, 100),))).taken == [(0, 100)]


def test_a_permit_granted_in_the_step_in_which_its_member_is_gone_is_nobodys() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(2, 0.0, (ask(0, 100),)))
    assert not ledger.apply(Step(1, 1.0, (End(0, "unused"), Gone(2)))).granted
    assert not ledger.has_untaken(2)


def test_a_member_that_is_gone_has_nothing_to_take() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(2, 0.0, (ask(0, 100),)))
    ledger.apply(Step(1, 1.0, (End(0, "unused"),)))
    assert ledger.has_untaken(2)
    ledger.apply(Step(3, 2.0, (Gone(2),)))
    assert not ledger.has_untaken(2)
    assert "of 0 members" in repr(ledger)


def test_what_failed_counts_for_a_window() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(1, 1.0, (End(0, "failed"), ask(1, 100))))
    assert ledger.limiter.next_at == 1.0 + WINDOW


def test_the_state_does_not_grow_with_the_members_that_are_gone() -> None:
    ledger, sizes = ledger_of(10**9), []
    for member in range(1, 201):
        ledger.apply(Step(member, 0.0, (ask(0), End(0, "unused"))))
        ledger.apply(Step(1000, 0.0, (Gone(member),)))
        sizes.append(len(ledger.dump()))
    assert sizes[199] < 1.2 * sizes[9]


def test_the_state_keeps_a_thousand_flows() -> None:
    ledger, sizes = ledger_of(10**9), []
    for flow in range(3000):
        ledger.apply(Step(1, 0.0, (ask(flow, flow=flow), End(flow, "unused"))))
        if flow in (100, 1000, 2999):
            sizes.append(len(ledger.dump()))
    assert sizes[1] > 5 * sizes[0]
    assert sizes[2] < 1.2 * sizes[1]


def test_an_end_of_what_is_not_known_has_no_effect() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (End(7, "accepted", 50), ask(0, 100), End(0, "unused"), End(0, "accepted", 100), Gone(9))))
    assert ledger.apply(Step(2, 0.0, (ask(0, 100),))).taken == [(0, 100)]


def test_interactive_requests_go_first_whichever_process_they_are_of() -> None:
    ledger = ledger_of(100)
    ledger.apply(Step(1, 0.0, (ask(0, 100),)))
    ledger.apply(Step(2, 1.0, (ask(0, 50, least=50),)))
    ledger.apply(Step(3, 2.0, (ask(0, 100, least=100, interactive=True),)))
    assert ledger.apply(Step(1, 3.0, (End(0, "unused"),))).granted == [(3, 0, 100)]


def test_processes_share_evenly_whatever_the_sizes_of_their_requests() -> None:
    ledger = ledger_of(12_000)
    sizes = {1: 100, 2: 300, 3: 900}
    used = dict.fromkeys(sizes, 0)
    numbers = itertools.count()
    events: list[tuple[float, int, int, tuple[Entry, ...]]] = []

    def happens(at: float, member: int, *entries: Entry) -> None:
        heapq.heappush(events, (at, next(numbers), member, entries))

    def another(member: int) -> Ask:
        return ask(next(numbers), sizes[member], least=sizes[member])

    for member in sizes:
        happens(0.0, member, another(member))
    now = 0.0
    while now < 20 * WINDOW:
        # Somebody looks when something may come free.
        if not events or ledger.limiter.next_at < events[0][0]:
            happens(ledger.limiter.next_at, 1)
        now, _, member, entries = heapq.heappop(events)
        result = ledger.apply(Step(member, now, entries))
        for number, tokens in result.taken:
            used[member] += tokens
            happens(now + 0.1, member, End(number, "accepted", tokens))
            # A client asks for the next one while the last one is in flight.
            happens(now + 0.002, member, another(member))
        for other in {other for other, *_ in result.granted} - {member}:
            # It notices a little later.
            happens(now + 0.01, other)
    assert sum(used.values()) >= 0.97 * 12_000 * 20
    assert max(used.values()) - min(used.values()) <= 0.02 * sum(used.values())


def test_nothing_is_granted_before_it_opens() -> None:
    ledger = ledger_of(100, opens=30.0)
    assert not ledger.apply(Step(1, 1.0, (ask(0),))).granted
    assert ledger.limiter.next_at == 30.0
    assert ledger.apply(Step(1, 30.0)).taken == [(0, 40)]


def test_a_limit_that_a_rejection_names_holds_for_all() -> None:
    ledger = ledger_of(None)
    ledger.apply(Step(1, 0.0, (ask(0),)))
    ledger.apply(Step(1, 1.0, (End(0, "rejected", 40, NamedLimit("tokens per minute", 50), 5.0, 0.5),)))
    assert not ledger.apply(Step(2, 2.0, (ask(0, 100),))).granted
    assert ledger.apply(Step(2, 6.25)).taken == [(0, 50)]


def test_a_limit_found_by_trial_is_told_once() -> None:
    ledger = ledger_of(None)
    found = []
    for number in range(60):
        found += ledger.apply(Step(1, number * 2.0, (ask(number),))).found
        kind = "accepted" if number % 20 != 19 else "rejected"
        found += ledger.apply(Step(1, number * 2.0 + 1, (End(number, kind, 40),))).found  # type: ignore[arg-type]
    assert len(found) == 1


class Work:
    """Random entries of several members: requests, their ends, and deaths."""

    def __init__(self, seed: int, members: int = 4) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.alive = list(range(1, members + 1))
        self.held: dict[int, dict[int, int]] = {member: {} for member in self.alive}
        self.waits: dict[int, list[int]] = {member: [] for member in self.alive}
        self.number = 0

    def step(self) -> Step:
        draw = self.random
        self.now += draw.expovariate(1.0)
        member = draw.choice(self.alive)
        entries: list[Entry] = []
        for _ in range(draw.randrange(3)):
            self.number += 1
            tokens = draw.randrange(1, 2000)
            key = draw.choice(["passage", "query"])
            priority = "interactive" if draw.random() < 0.2 else "bulk"
            least = draw.randrange(1, tokens + 1)
            entries.append(Ask(self.number, "m", key, tokens, least, priority, draw.randrange(3)))  # type: ignore[arg-type]
            self.waits[member].append(self.number)
        for number, tokens in [*self.held[member].items()]:
            if draw.random() < 0.5:
                del self.held[member][number]
                entries.append(self.end(number, tokens))
        if self.waits[member] and draw.random() < 0.1:
            entries.append(End(self.waits[member].pop(0), "unused"))
        if len(self.alive) > 2 and draw.random() < 0.01:
            died = draw.choice([other for other in self.alive if other != member])
            self.alive.remove(died)
            self.alive.append(max(self.held) + 1)
            self.held[self.alive[-1]], self.waits[self.alive[-1]] = {}, []
            entries.append(Gone(died))
        return Step(member, self.now, tuple(entries))

    def end(self, number: int, tokens: int) -> End:
        kind = self.random.choices(["accepted", "rejected", "failed", "unused"], [20, 1, 1, 1])[0]
        named = self.random.choice([None, NamedLimit("tokens per minute", 9000), NamedLimit("requests per second", 7)])
        wait = self.random.choice([None, None, 3.0])
        return End(number, kind, self.random.randrange(tokens + 1), named, wait, self.random.random())  # type: ignore[arg-type]

    def took(self, member: int, taken: Sequence[tuple[int, int]]) -> None:
        for number, tokens in taken:
            if number in self.waits[member]:
                self.waits[member].remove(number)
                self.held[member][number] = tokens


@pytest.mark.parametrize("tokens", [10_000, None])
@pytest.mark.parametrize("seed", range(8))
def test_ledgers_restored_from_their_state_decide_as_those_that_have_seen_every_step(seed: int, tokens: int | None) -> None:
    work = Work(seed)
    options = limiter_options(Quota(tokens))
    first, second = QuotaLedger(options), QuotaLedger(options)
    coded = msgspec.msgpack.Decoder(Step)
    for number in range(600):
        step = work.step()
        result = first.apply(step)
        again = second.apply(coded.decode(msgspec.msgpack.encode(step)))
        assert again == result
        assert second.limiter.next_at == first.limiter.next_at
        work.took(step.member, result.taken)
        if number % 50 == 0:
            second = QuotaLedger.load(second.dump())
            assert repr(second) == repr(first)
            assert second.limiter.statistics(step.at) == QuotaLedger.load(first.dump()).limiter.statistics(step.at)


def decisions(seed: int) -> list[object]:
    """What follows from random work."""
    work, ledger = Work(seed), QuotaLedger(limiter_options(Quota(10_000)))
    decided: list[object] = []
    for _ in range(400):
        step = work.step()
        result = ledger.apply(step)
        work.took(step.member, result.taken)
        decided.append((result.granted, result.taken, ledger.limiter.next_at))
    return decided


def test_a_process_whose_hashes_are_others_decides_the_same() -> None:
    code = f"from {__name__} import decisions; print(decisions(1))"
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent.parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] == f"{decisions(1)}\n"


def shape_of_state() -> str:
    """A digest of the classes in a stored state and the names of their attributes."""
    work, ledger = Work(0), ledger_of(None)
    for _ in range(600):
        step = work.step()
        work.took(step.member, ledger.apply(step).taken)
    names = {argument for _, argument, _ in pickletools.genops(ledger.dump()) if isinstance(argument, str)}
    for module in [importlib.import_module(name) for name in names if name.startswith("pinecone_embed_async.")]:
        for name in names & vars(module).keys():
            names = names.union(f"{name}.{field}" for field in getattr(vars(module)[name], "__struct_fields__", ()))
    return hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[:16]


def test_another_shape_of_the_state_is_another_version_of_it() -> None:
    # If the shape has changed, raise the version, so that no process loads a state that it cannot use.
    assert (STATE_VERSION, shape_of_state()) == (14, "76c130e41c75acb0")


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("harm",)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"nonsense",
        pickle.dumps(Harm()),
        pickle.dumps({"a": 1}),
        pickle.dumps(random.Random(1)),
        # What a module of the limiter imports, and what can be reached from there.
        b"cpinecone_embed_async._rate_limit.gate\nos\n.",
        b"\x80\x04\x8c\x25pinecone_embed_async._rate_limit.gate\x8c\x09os.system\x93.",
        b"\x80\x04\x8c\x25pinecone_embed_async._rate_limit.gate\x8c\x07Limiter\x93.",
    ],
)
def test_a_state_holds_nothing_but_a_ledger(state: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pickle.UnpicklingError):
        QuotaLedger.load(state)
    assert capsys.readouterr().out == ""
