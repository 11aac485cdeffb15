"""Scenarios: plain descriptions, drawn from a seed, that can be printed and shrunk."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from tests.simulation.neighbours import FAULTS, MISLEADING

OneT = TypeVar("OneT")
ClientQuota = Literal["none", "given", "shared", "backend"]
CacheKind = Literal[
    "none", "works", "slow", "raises", "forgets", "short", "garbage", "lies", "hangs", "answers", "stops", "stays"
]
BackendKind = Literal["works", "answers", "stops", "stays"]
QuotaKind = Literal["fixed", "sliding", "bucket"]


@dataclass(frozen=True)
class QuotaPlan:
    """The service's limits.

    Attributes:
        tokens: limit in a window, for a model and input type; `None` for no limit, as with the next two.
        window: seconds.
        burst: tokens that a bucket holds.
        text: whether a rejection names the limit.
        retry_after: whether, and how, it says when to come back.
        changes: times, and the part of the tokens that is allowed from each on.
        tenants: part of the tokens that other tenants use.
    """

    tokens: int | None = None
    requests_per_second: int | None = None
    requests_per_window: int | None = None
    window: float = 10.0
    kind: QuotaKind = "sliding"
    burst: int | None = None
    text: bool = True
    retry_after: Literal["seconds", "date"] | None = None
    changes: tuple[tuple[float, float], ...] = ()
    tenants: float = 0.0


@dataclass(frozen=True)
class ServicePlan:
    """The service and the way to it.

    Attributes:
        vector_type: of the model.
        dimension: of its dense vectors.
        latency: seconds of an answer, the shortest and the longest.
        slow: part of the answers that take a hundred times as long.
        pieces: the most pieces of a body.
        bytes_per_token: ratio of its bills, about.
        faults: equally likely faults, in the emulator's form.
        fault_rate: part of the attempts with a fault.
        outage: from when to when every request is answered 503; `None` for never.
        most_inputs: in a request, fewer than the client expects; `None` for no limit, as with the next.
        most_bytes: of a request's texts.
        bills: JSON of equally likely absurd bills; empty for none.
        bill_rate: part of the answers that have one.
    """

    vector_type: Literal["dense", "sparse"] = "dense"
    dimension: int = 4
    latency: tuple[float, float] = (0.05, 0.25)
    slow: float = 0.0
    pieces: int = 1
    bytes_per_token: float = 4.0
    faults: tuple[str, ...] = ()
    fault_rate: float = 0.0
    outage: tuple[float, float] | None = None
    most_inputs: int | None = None
    most_bytes: int | None = None
    bills: tuple[str, ...] = ()
    bill_rate: float = 0.0
    quota: QuotaPlan | None = None


@dataclass(frozen=True)
class ClientPlan:
    """A client.

    Attributes:
        quota: `none`, `given` (the service's own), `shared` with all others that have this, or `backend` (a neighbour that
            serves the service's own).
        backend: whether it works, returns anything now and then, or hangs: until it is cancelled (`stops`), or in spite of
            that (`stays`).
        backend_fails: part of the backend's calls that end with an exception.
        cache: `none`, or a neighbour: one that works, is slow, raises, forgets, returns too few values, garbage or
            lies, hangs for a time, returns anything, or hangs as a backend does.
        hooks: `none`, one that listens, or one that listens beside one that raises.
        looks_up: whether it looks the model up first.
        knows_dimension: whether it is given the dimension, so that it detects answers of another one.
        closed_at: when it is closed, which ends its calls; `None` for at the end.
    """

    max_concurrency: int = 4
    max_batch_size: int = 4
    max_attempts: int = 8
    max_elapsed: float = 300.0
    initial_backoff: float = 0.5
    max_backoff: float = 20.0
    attempt_timeout: float = 30.0
    max_delay: float = 0.01
    quota: ClientQuota = "none"
    backend: BackendKind = "works"
    backend_fails: float = 0.0
    cache: CacheKind = "none"
    hooks: Literal["none", "listens", "raises"] = "listens"
    looks_up: bool = False
    knows_dimension: bool = False
    closed_at: float | None = None


@dataclass(frozen=True)
class Cancellation:
    """When a call is cancelled: so many iterations of the loop after a time, or after so many requests."""

    after_requests: int | None
    at: float
    iterations: int


@dataclass(frozen=True)
class CallPlan:
    """A call of one of the three kinds.

    Attributes:
        client: its number.
        at: when it begins.
        inputs: number of inputs; of `one`, callers.
        size: UTF-8 bytes of a text, the smallest and the largest.
        input_type: `passage` or `query`.
        variant: a further parameter, which makes other vectors.
        timeout: seconds; `None` for none.
        duplicates: part of the texts that repeat an earlier one of the call.
        refused: part of the texts that the service refuses.
        alike: whether all refused texts are the same.
        bad: part of the items that are no texts.
        odd: part of the items, and of the text function's results, that are any JSON value.
        source: a list, or an asynchronous iterable that waits between items, or an iterable, pulled in a thread by a stream.
        pause: seconds between the items of a source that waits, or between the callers of `one`.
        source_fails_at: item at which the source raises; `None` for never.
        source_hangs: whether it hangs there instead.
        source_stays: whether it keeps hanging when it is cancelled.
        text_fails_at: item of a stream at which the text function raises; -1 if it never does, `None` if there is none.
        takes: seconds that the consumer of a stream takes for a batch.
        leaves_after: batches after which it leaves the stream; `None` for never.
        raises: the exception that its source, its text function and its progress raise.
        progress: whether there is a callback, and whether it raises at some time.
        common: whether it shares its texts with all other such calls, so that there are cache hits.
    """

    kind: Literal["embed", "one", "stream"] = "embed"
    client: int = 0
    at: float = 0.0
    inputs: int = 1
    size: tuple[int, int] = (20, 60)
    input_type: Literal["passage", "query"] = "passage"
    variant: int = 0
    priority: Literal["interactive", "bulk"] = "bulk"
    timeout: float | None = None
    on_error: Literal["raise", "return"] = "raise"
    dedupe: bool = False
    duplicates: float = 0.0
    refused: float = 0.0
    alike: bool = False
    bad: float = 0.0
    odd: float = 0.0
    source: Literal["list", "async", "thread"] = "list"
    pause: float = 0.0
    source_fails_at: int | None = None
    source_hangs: bool = False
    source_stays: bool = False
    text_fails_at: int | None = None
    ordered: bool = True
    window: int | None = None
    max_delay: float = 0.5
    takes: float = 0.0
    leaves_after: int | None = None
    progress: Literal["none", "follows", "raises"] = "none"
    raises: str = "NeighbourError"
    common: bool = False
    cancellation: Cancellation | None = None


@dataclass(frozen=True)
class Scenario:
    """Everything that happens, except what the seed decides during the run."""

    seed: int
    service: ServicePlan = ServicePlan()
    clients: tuple[ClientPlan, ...] = (ClientPlan(),)
    calls: tuple[CallPlan, ...] = (CallPlan(),)


RETRIED = (
    "connection_refused",
    "reset_before_headers",
    "closed_before_headers",
    "stalled_headers",
    "garbage_status_line",
    "status=500",
    "status=503,html",
    "status=502,empty",
    "status=503,json,2",
    "status=429,empty",
    "status=429,json,1",
    "status=409",
    "rate_limited",
    "rate_limited=3",
    "rate_limited=date",
    "rate_limited=rubbish",
    "rate_limited_without_text",
    "rate_limited_without_text=2",
    "request_rate_limited",
    "request_rate_limited=1",
    "error_in_200=503",
    "reset_after_headers",
    "cut_off_body",
    "stalled_body",
    "slow_drip=2",
    "empty_body",
    "html_body",
    "invalid_json",
    "garbage_after_json",
    "bad_utf8",
    "duplicate_keys",
    "nan_values",
    "infinite_values",
    "huge_values",
    "null_values",
    "string_values",
    "wrong_count",
    "extra_count",
    "wrong_dimension",
    "ragged_dimension",
    "mixed_vector_types",
    "wrong_vector_type",
    "index_out_of_range",
    "index_negative",
    "lengths_differ",
    "missing_usage",
    "extra_keys",
    "reordered_keys",
    "white_space",
)
BILLS = ("", "0", "-5", "2.5", '"12"', "null", "true", "[1]", "{}", str(10**6), str(10**12), str(10**309), "1e400")
"""Replacements of the billed tokens; nothing if empty."""

FINAL = ("status=400", "status=401", "status=404", "month_quota_spent", "quota_exceeded", "redirect", "status=418,html")
"""Faults that the client does not retry: the request fails, or the job ends."""


def described(plan: object) -> str:
    """A plan on one line, without its defaults."""
    if isinstance(plan, tuple):
        return f"({', '.join(map(described, plan))}{',' if len(plan) == 1 else ''})"
    if not is_dataclass(plan):
        return repr(plan)
    usual = {field.name: field.default for field in fields(plan)}
    shown = (f"{name}={described(value)}" for name, value in vars(plan).items() if value != usual[name])
    return f"{type(plan).__name__}({', '.join(shown)})"


ODD = 0.25
"""Part of the scenarios with neighbours that return anything or hang for ever, or with absurd bills."""


def waits_for_ever(call: CallPlan, client: ClientPlan) -> bool:
    """Whether a call may rightly wait for a neighbour for ever, because nothing else ends it."""
    hangs = call.source_hangs or {client.cache, client.backend} & {"stops", "stays"}
    return bool(hangs) and call.timeout is None and (client.closed_at is None or call.source_hangs)


MOST_REQUESTS = 60
"""Requests of a scenario without its faults, about."""


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    return _Draw(seed).scenario()


class _Draw:
    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"scenario {seed}")
        self._odd = random.Random(f"oddities {seed}")
        self._seed = seed
        # Some scenarios are about caches: all clients have one, and all calls the same texts.
        self._is_about_caches = self._chance(0.2)

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _one_of(self, *options: OneT) -> OneT:
        return options[int(self._rng.random() * len(options))]

    def _whole(self, least: int, most: int) -> int:
        return least + int(self._rng.random() * (most - least + 1))

    def _seconds(self, least: float, most: float) -> float:
        """Seconds, as likely to be between 0.1 and 1 as between 1 and 10."""
        return round(least * math.exp(math.log(most / least) * self._rng.random()), 3)

    def scenario(self) -> Scenario:
        service = self._service()
        clients = tuple(self._client(service) for _ in range(self._one_of(1, 1, 1, 2, 2, 3, 4)))
        calls: list[CallPlan] = []
        left = float(MOST_REQUESTS)
        for _ in range(self._whole(1, 5)):
            call = self._call(clients)
            left -= call.inputs / clients[call.client].max_batch_size
            if left < 0 and calls:
                break
            calls.append(call)
        scenario = Scenario(self._seed, service, clients, tuple(calls))
        # Drawn from a source of their own, so that the other draws of a seed stay the same.
        return self._with_oddities(scenario) if self._odd.random() < ODD else scenario

    def _with_oddities(self, scenario: Scenario) -> Scenario:
        """The scenario with neighbours that return anything or hang for ever, and with absurd bills."""
        clients = tuple(map(self._odd_client, scenario.clients))
        calls = tuple(self._odd_call(call, clients[call.client]) for call in scenario.calls)
        return replace(scenario, service=self._odd_service(scenario.service), clients=clients, calls=calls)

    def _is_odd(self, probability: float) -> bool:
        return self._odd.random() < probability

    def _odd_service(self, service: ServicePlan) -> ServicePlan:
        if not self._is_odd(0.4):
            return service
        bills = tuple(self._odd.choices(BILLS, k=self._odd.randint(1, 3)))
        return replace(service, bills=bills, bill_rate=self._odd.choice((0.1, 0.5, 1.0)))

    def _odd_client(self, client: ClientPlan) -> ClientPlan:
        changed: dict[str, Any] = {}
        if self._is_odd(0.4):
            changed["cache"] = self._odd.choice(("answers", "stops", "stays"))
        if client.quota == "backend" or (client.quota != "shared" and self._is_odd(0.15)):
            changed |= {"quota": "backend", "backend": self._odd.choice(("answers", "stops", "stays"))}
        return replace(client, **changed)

    def _odd_call(self, call: CallPlan, client: ClientPlan) -> CallPlan:
        changed: dict[str, Any] = {}
        if self._is_odd(0.3):
            changed |= {"refused": self._odd.choice((0.1, 0.5)), "alike": True}
        if self._is_odd(0.2) and call.kind != "one":
            changed |= {"odd": self._odd.choice((0.1, 0.5)), "bad": self._odd.choice((0.0, 0.1))}
        if waits_for_ever(call, client):
            changed["timeout"] = round(self._odd.uniform(1, 30), 3)
        if call.source_hangs and self._is_odd(0.5):
            changed["source_stays"] = True
        elif call.kind != "one" and self._is_odd(0.3):
            changed |= self._odd_faults(call)
        return replace(call, **changed)

    def _odd_faults(self, call: CallPlan) -> dict[str, Any]:
        """Changes that make a source, a text function or a progress callback raise any fault."""
        changed: dict[str, Any] = {"raises": self._odd.choice(FAULTS).__name__}
        whose = self._odd.choice(("source", "text", "progress") if call.kind == "stream" else ("source", "progress"))
        if whose == "progress":
            changed["progress"] = "raises"
        else:
            changed[f"{whose}_fails_at"] = self._odd.randint(0, call.inputs)
        if whose == "source":
            changed["source"] = self._odd.choice(("async", "thread"))
        return changed

    def _service(self) -> ServicePlan:
        vector_type = self._one_of("dense", "dense", "dense", "sparse")
        is_faulty = self._chance(0.6)
        faults = tuple(self._one_of(*RETRIED) for _ in range(self._whole(1, 6))) if is_faulty else ()
        if is_faulty and self._chance(0.15):
            faults = (*faults, self._one_of(*FINAL))
        latency, spread = self._seconds(0.01, 2), self._one_of(1.0, 1.5, 4.0)
        return ServicePlan(
            vector_type="sparse" if vector_type == "sparse" else "dense",
            dimension=self._whole(2, 8),
            latency=(latency, round(latency * spread, 3)),
            slow=self._one_of(0.0, 0.0, 0.0, 0.02),
            pieces=self._whole(1, 4),
            bytes_per_token=self._one_of(2.0, 3.0, 4.0, 4.0, 5.0, 8.0),
            faults=faults,
            fault_rate=self._one_of(0.05, 0.2, 0.5) if is_faulty else 0.0,
            outage=self._outage() if self._chance(0.1) else None,
            most_inputs=self._whole(1, 3) if self._chance(0.1) else None,
            most_bytes=self._whole(60, 400) if self._chance(0.1) else None,
            quota=self._quota() if self._chance(0.6) else None,
        )

    def _outage(self) -> tuple[float, float]:
        start = self._seconds(0.1, 20)
        return start, round(start + self._seconds(1, 40), 3)

    def _quota(self) -> QuotaPlan:
        window = self._one_of(2.0, 10.0, 60.0)
        tokens = self._whole(100, 1500) if self._chance(0.85) else None
        kind: QuotaKind = self._one_of("fixed", "sliding", "sliding", "bucket")
        changes: tuple[tuple[float, float], ...] = ()
        if tokens is not None and self._chance(0.2):
            first = self._seconds(1, 3 * window)
            changes = ((first, 0.5), (round(first + self._seconds(1, 3 * window), 3), 1.0))
        return QuotaPlan(
            tokens=tokens,
            requests_per_second=self._whole(2, 10) if self._chance(0.2) else None,
            requests_per_window=self._whole(5, 30) if self._chance(0.2) else None,
            window=window,
            kind=kind,
            burst=self._whole(100, 400) if kind == "bucket" and self._chance(0.5) else None,
            text=self._chance(0.6),
            retry_after=self._one_of(None, None, "seconds", "date"),
            changes=changes,
            tenants=self._one_of(0.0, 0.0, 0.0, 0.3) if tokens is not None else 0.0,
        )

    def _client(self, service: ServicePlan) -> ClientPlan:
        quota: ClientQuota = self._one_of("none", "none", "shared")
        if service.quota is not None:
            quota = self._one_of("none", "given", "given", "shared", "shared", "backend")
        return ClientPlan(
            max_concurrency=self._whole(1, 6),
            max_batch_size=self._whole(1, 6),
            max_attempts=self._one_of(1, 3, 8, 8),
            max_elapsed=self._one_of(5.0, 60.0, 300.0, 300.0),
            initial_backoff=self._one_of(0.01, 0.5, 2.0),
            max_backoff=self._one_of(1.0, 20.0),
            attempt_timeout=self._one_of(3.0, 30.0),
            max_delay=self._one_of(0.001, 0.01, 0.3),
            quota=quota,
            backend_fails=self._one_of(0.0, 0.0, 0.05) if quota == "backend" else 0.0,
            cache=self._cache(),
            hooks=self._one_of("none", "listens", "listens", "raises"),
            looks_up=self._chance(0.1),
            knows_dimension=self._chance(0.5),
            closed_at=self._seconds(0.1, 30) if self._chance(0.12) else None,
        )

    def _cache(self) -> CacheKind:
        if not self._chance(1.0 if self._is_about_caches else 0.2):
            return "none"
        return self._one_of("works", "works", "slow", "raises", "forgets", "short", "garbage", "lies", "hangs")

    def _call(self, clients: tuple[ClientPlan, ...]) -> CallPlan:
        kind = self._one_of("embed", "embed", "one", "stream", "stream")
        smallest = self._whole(8, 60)
        inputs = self._whole(1, self._one_of(3, 12, 30))
        source = self._one_of("list", "list", "async", "async", "thread") if kind != "one" else "list"
        is_stream = kind == "stream"
        timeout = self._seconds(0.05, 60) if self._chance(0.3) else None
        # Without a deadline a call waits for its source for ever, as it should.
        hangs = timeout is not None and source in ("async", "thread") and kind != "one" and self._chance(0.2)
        return CallPlan(
            kind=kind,  # type: ignore[arg-type]
            client=self._whole(0, len(clients) - 1),
            at=self._one_of(0.0, 0.0, self._seconds(0.1, 20)),
            inputs=inputs,
            size=(smallest, smallest + self._whole(0, 120)),
            input_type="query" if self._chance(0.3) else "passage",
            variant=self._one_of(0, 0, 0, 1),
            priority="interactive" if self._chance(0.6 if kind == "one" else 0.15) else "bulk",
            timeout=timeout,
            on_error="return" if self._chance(0.4) else "raise",
            dedupe=kind == "embed" and self._chance(0.3),
            duplicates=self._one_of(0.0, 0.0, 0.4),
            refused=self._one_of(0.0, 0.0, 0.0, 0.1, 0.5),
            bad=self._one_of(0.0, 0.0, 0.1, 0.8) if is_stream else 0.0,
            source="async" if source == "thread" and (hangs or kind == "embed") else source,  # type: ignore[arg-type]
            pause=self._one_of(0.0, 0.0, self._seconds(0.001, 0.6)),
            source_fails_at=self._whole(0, inputs) if source != "list" and (hangs or self._chance(0.1)) else None,
            source_hangs=hangs,
            text_fails_at=self._one_of(-1, -1, self._whole(0, inputs)) if is_stream and self._chance(0.2) else None,
            ordered=not is_stream or self._chance(0.6),
            window=self._whole(1, 4) if is_stream and self._chance(0.4) else None,
            max_delay=self._one_of(0.01, 0.5, 2.0),
            takes=self._one_of(0.0, 0.0, self._seconds(0.01, 2)) if is_stream else 0.0,
            leaves_after=self._whole(0, 4) if is_stream and self._chance(0.15) else None,
            progress=self._one_of("none", "follows", "follows", "follows", "raises") if kind != "one" else "none",
            raises=self._one_of(*FAULTS, *3 * MISLEADING).__name__ if self._chance(0.5) else "NeighbourError",
            common=self._chance(1.0 if self._is_about_caches else 0.2),
            cancellation=self._cancellation() if self._chance(0.2) else None,
        )

    def _cancellation(self) -> Cancellation:
        after = self._whole(1, 12) if self._chance(0.7) else None
        return Cancellation(after, self._seconds(0.01, 20), self._whole(0, 40))
