"""Five thousand inputs through a service of which a third of all answers goes wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import DenseEmbeddings, EmbedClient, RetryPolicy, SparseEmbeddings
from pinecone_embed_async._clock import SystemClock, Timer
from pinecone_embed_async.emulator import CHAOS_FAULTS, EmbedRequest, Emulator, Fault, FaultMix, FaultName, Outlook

PARAMETERS: dict[str, dict[str, Any]] = {
    "llama-text-embed-v2": {"input_type": "passage", "dimension": 384},
    "pinecone-sparse-english-v0": {"input_type": "passage"},
}
COUNT, BATCH = 5_000, 32
TEXTS = [f"document {number} of {number % 13} about {number % 7} things" for number in range(COUNT)]

_OTHERWISE = {FaultName.GZIP_BOMB, FaultName.GIGANTIC_BODY, FaultName.CONNECTION_REFUSED}
FAULTS = (
    *(fault for fault in CHAOS_FAULTS if fault.outlook is Outlook.RETRYABLE and fault.name not in _OTHERWISE),
    # Four times as large as the client takes, and no larger, so that the emulator has less to do.
    Fault(FaultName.GZIP_BOMB, 16),
    Fault(FaultName.GIGANTIC_BODY, 16),
    # Refused for shorter than most backoffs, as with the client's own ones, which start at half a second.
    Fault(FaultName.CONNECTION_REFUSED, 0.01),
    # These end only by the attempt's time-out.
    Fault(FaultName.STALLED_HEADERS),
    Fault(FaultName.STALLED_BODY),
)
MAX_ANSWER_BYTES = 4 * 2**20
ATTEMPT_TIMEOUT = 1.5
"""Of the long test. An undisturbed attempt takes some 50 ms here with client and emulator in one loop."""

QUICK = RetryPolicy(initial_backoff=0.02, max_backoff=0.2, max_retry_after=0.05)
"""The default number of attempts, eight. With a third of the attempts faulted by chance, one request of 3^8 = 6,561 would
use them up, and so would one job of 157 requests in 42. So which attempt of which request suffers is drawn in advance, see
`ByAttempt`; with chance itself, in the long test, a request has forty attempts.
"""

LONGEST_RUN = 4
"""Faults in a row that a request meets at most. The attempts left are for connections that are refused because of
another request's fault, or closed as they are used again."""


STALLS = {FaultName.STALLED_HEADERS, FaultName.STALLED_BODY}
FOREVER = 1e6


class StallClock(SystemClock):
    """Lets the time-out of attempts, which is `FOREVER`, pass as soon as none is under way that can end otherwise.

    So a stalled attempt takes no time, and none is taken for stalled because the machine is busy.
    """

    def __init__(self) -> None:
        self._attempts: dict[StallTimer, None] = {}
        self._stalled = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        if when - self.time() <= FOREVER / 2:
            return super().call_at(when, callback)
        timer = StallTimer(self, callback)
        self._attempts[timer] = None
        return timer

    def ended(self, timer: "StallTimer") -> None:
        """An attempt has ended."""
        del self._attempts[timer]
        self._look()

    def stalled(self) -> None:
        """Another attempt that is under way is stalled."""
        self._stalled += 1
        self._look()

    def _look(self) -> None:
        if self._stalled and self._stalled == len(self._attempts):
            self._stalled = 0
            for timer in self._attempts:
                timer.callback()


class StallTimer:
    """The time-out of an attempt."""

    def __init__(self, clock: StallClock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self.callback = callback

    def cancel(self) -> None:
        self._clock.ended(self)


class ByAttempt:
    """A `FaultMix` that draws by a request's first text and the number of its attempt, not by the order of arrival.

    So what a seed does is the same with every run, however the requests overlap.
    """

    def __init__(self, mix: FaultMix) -> None:
        self.mix = mix
        self.attempts: Counter[str] = Counter()
        self.longest_run = 0
        self.clock = StallClock()
        self._runs: Counter[str] = Counter()

    def choose(self, request: EmbedRequest) -> Fault | None:
        first = request.inputs[0]
        self.attempts[first] += 1
        fault = self.mix.choose(replace(request, number=1000 * TEXTS.index(first) + self.attempts[first]))
        self._runs[first] = 0 if fault is None else self._runs[first] + 1
        self.longest_run = max(self.longest_run, self._runs[first])
        if fault is not None and fault.name in STALLS:
            self.clock.stalled()
        return fault


def client_of(emulator: Emulator, model: str, **options: Any) -> EmbedClient[DenseEmbeddings | SparseEmbeddings]:
    return EmbedClient(
        model,
        api_key=emulator.api_key,
        base_url=emulator.url,
        parameters=PARAMETERS[model],
        max_batch_size=BATCH,
        max_answer_bytes=MAX_ANSWER_BYTES,
        **{"retry": QUICK, "attempt_timeout": ATTEMPT_TIMEOUT, **options},
    )


def assert_equal(result: DenseEmbeddings | SparseEmbeddings, undisturbed: DenseEmbeddings | SparseEmbeddings) -> None:
    assert result.embedded.all()
    assert result.failures == ()
    if isinstance(result, DenseEmbeddings):
        assert isinstance(undisturbed, DenseEmbeddings)
        np.testing.assert_array_equal(result.vectors, undisturbed.vectors)
        return
    assert isinstance(undisturbed, SparseEmbeddings)
    np.testing.assert_array_equal(result.indptr, undisturbed.indptr)
    np.testing.assert_array_equal(result.indices, undisturbed.indices)
    np.testing.assert_array_equal(result.values, undisturbed.values)


_UNDISTURBED: dict[str, DenseEmbeddings | SparseEmbeddings] = {}


async def undisturbed(model: str) -> DenseEmbeddings | SparseEmbeddings:
    if model not in _UNDISTURBED:
        async with Emulator() as emulator, client_of(emulator, model) as client:
            _UNDISTURBED[model] = await client.embed(TEXTS)
    return _UNDISTURBED[model]


def test_the_mix_has_every_fault_that_is_retryable() -> None:
    assert {fault.name for fault in FAULTS} == {name for name in FaultName if Fault(name).outlook is Outlook.RETRYABLE}


@pytest.mark.parametrize("seed", [5, 7, 8])
@pytest.mark.parametrize("model", PARAMETERS)
async def test_all_are_embedded_and_in_order_though_a_third_of_all_attempts_is_faulted(model: str, seed: int) -> None:
    source = ByAttempt(FaultMix(seed, 1 / 3, FAULTS))
    options = {"clock": source.clock, "attempt_timeout": FOREVER}
    async with Emulator(faults=source) as emulator, client_of(emulator, model, **options) as client:
        result = await client.embed(TEXTS)
        await emulator.wait_until_idle()
        seen = emulator.statistics()
        said = client.statistics()
    assert_equal(result, await undisturbed(model))
    assert 1 / 4 < sum(seen.faults.values()) / seen.requests < 2 / 5
    assert len(seen.faults) > 15
    assert source.longest_run <= LONGEST_RUN
    # Whatever was answered well was used: nothing is paid for again but what a fault had spoiled.
    assert set(seen.answered_well.values()) == {1}
    assert seen.max_in_flight <= 8
    assert said.in_flight == said.waiting == 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("model", PARAMETERS)
async def test_all_are_embedded_and_in_order_for_many_seeds_when_faults_come_by_chance(model: str, seed: int) -> None:
    patient = RetryPolicy(max_attempts=40, initial_backoff=0.02, max_backoff=0.2, max_retry_after=0.05)
    faults = FaultMix(seed, 1 / 3, FAULTS)
    async with Emulator(faults=faults) as emulator, client_of(emulator, model, retry=patient) as client:
        result = await client.embed(TEXTS)
        said = client.statistics()
    assert_equal(result, await undisturbed(model))
    assert said.in_flight == said.waiting == 0
