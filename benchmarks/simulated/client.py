"""A client that embeds as many texts as it can, until it is told to take no more."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from benchmarks.simulated.service import INPUT_TYPE, MODEL
from benchmarks.simulated.world import LoopClock
from pinecone_embed_async._errors import EmbedError, RateLimitError
from pinecone_embed_async._limits import Flow, Lane, Turnstile
from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async._plan import Learned, Ledger, RequestLimits, Requests
from pinecone_embed_async._retry import RetryPolicy, RetryState
from pinecone_embed_async._stream import Run
from pinecone_embed_async.emulator._tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.simulated.service import Service
    from pinecone_embed_async._limits import Ask, LimiterOptions, Turn
    from pinecone_embed_async._plan import PlannedRequest

_TEXTS = 256
_LONG_TEXTS = 64
"""Different texts; fewer where they are long, which would take a while to make."""

_TAKEN_AT_ONCE = 8
"""Inputs between two looks at the time."""

_LETTERS = "etaoinshrdlucmfw"
_LONGEST_WORD = 6
"""Letters of the longest word that is one token."""


class Corpus:
    """Texts that all have the same number of tokens, but not of bytes: 4 to 7 for a token, differently from text to text.

    Args:
        tokens: of each text, as the service counts.
        seed: of the texts.
    """

    def __init__(self, tokens: int, seed: int) -> None:
        rng = random.Random(f"corpus {seed}")
        probe = count_tokens("")
        self.texts = [self._text(rng, tokens - probe) for _ in range(_TEXTS if tokens < 200 else _LONG_TEXTS)]
        self.tokens = {text: count_tokens(text) for text in self.texts}
        if set(self.tokens.values()) != {tokens}:
            raise ValueError(f"the texts have {sorted(set(self.tokens.values()))} tokens, not {tokens}")

    @staticmethod
    def _text(rng: random.Random, words: int) -> str:
        # Short words, or long ones, so that the bytes of a token differ between texts more than chance would have it.
        shortest = rng.randint(1, _LONGEST_WORD - 2)
        letters = "".join(rng.choices(_LETTERS, k=64))
        starts = rng.choices(range(len(letters) - _LONGEST_WORD), k=words)
        lengths = rng.choices(range(shortest, _LONGEST_WORD + 1), k=words)
        return " ".join(letters[start : start + length] for start, length in zip(starts, lengths, strict=True))

    def count(self, texts: Sequence[str]) -> int:
        """Tokens that the service bills."""
        tokens = self.tokens
        return sum(tokens[text] for text in texts)


class Client:
    """One client: its own limiter, which no other client shares, and one job.

    Args:
        service: that it sends to.
        corpus: of its inputs.
        options: of its limiter.
        concurrency: requests in flight at most.
        seed: of the order of its inputs and of its jitter.

    Attributes:
        accepted: arrival and tokens of each request that was accepted.
        rejected: arrival of each that was rejected.
        taken: inputs that it was given.
    """

    def __init__(
        self, service: Service, corpus: Corpus, options: LimiterOptions, *, concurrency: int = 8, seed: str = ""
    ) -> None:
        self._service = service
        self._corpus = corpus
        self._rng = random.Random(f"client {seed}")
        self._clock = LoopClock()
        self._turnstile = Turnstile(options, clock=self._clock)
        self._lane = Lane(concurrency)
        self._key = (MODEL, INPUT_TYPE)
        self._flow: Flow[Ask] = Flow((self._lane, self._key), "bulk")
        self._window = 2 * concurrency
        self._learned = Learned()
        known = KNOWN_MODELS[MODEL]
        self._limits = RequestLimits(known.max_batch_size, known.max_sequence_length)
        self._policy = RetryPolicy()
        self.accepted: list[tuple[float, int]] = []
        self.rejected: list[float] = []
        self.taken = 0
        self._outcomes = _Outcomes()

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"<Client {self.embedded} of {self.taken} embedded, {self._turnstile!r}>"

    @property
    def embedded(self) -> int:
        """Inputs embedded."""
        return self._outcomes.embedded_count

    @property
    def lost(self) -> int:
        """Inputs that it was given and that are not embedded."""
        return self.taken - self.embedded

    async def work(self, start: float, end: float) -> None:
        """Begin at a time, take inputs until another, and see those through."""
        await self._clock.sleep(start)
        ledger = Ledger(
            Requests(self._inputs(end), self._limits_now),
            self._outcomes,
            limits=self._limits_now,
            learned=self._learned,
            parameters=b"",
            is_single=False,
        )
        run = Run(
            ledger,
            self._turn_for,
            self._send,
            window=self._window,
            clock=self._clock,
            deadline=None,
            settled=lambda: None,
        )
        async with run.running():
            pass

    def _inputs(self, end: float) -> Iterator[str]:
        while self._clock.time() < end:
            self.taken += _TAKEN_AT_ONCE
            yield from self._rng.choices(self._corpus.texts, k=_TAKEN_AT_ONCE)

    def _limits_now(self) -> RequestLimits:
        return self._learned.applied_to(self._limits)

    async def _turn_for(self, request: PlannedRequest) -> Turn:
        least = request.least_tokens(self._limits_now())
        return await self._turnstile.turn(self._flow, self._lane, self._key, request.tokens, least)

    async def _send(
        self, request: PlannedRequest, retry: RetryState, turn: Turn | None, cut: Callable[[int], PlannedRequest]
    ) -> EmbedError | None:
        """Send a request through all its attempts, as the engine does, to a service that refuses for its quota only."""
        while True:
            if turn is None:
                turn = await self._turn_for(request)
                if turn.tokens < request.tokens:
                    request = cut(turn.tokens)
                turn.shrink(request.tokens)
            retry.sent(self._clock.time())
            billed = self._corpus.count(request.texts)
            arrived, message = await self._service.embed(billed)
            retry.in_flight = False
            if message is None:
                self.accepted.append((arrived, billed))
                turn.accepted(billed)
                self._learned.estimator.learn(request, billed, self._limits.sequence_length)
                return None
            self.rejected.append(arrived)
            error = self._reject(turn, message)
            turn = None
            retry.failed(error)
            final = retry.final_error(
                self._policy,
                now=self._clock.time(),
                wait=self._turnstile.pause_left(self._key),
                last_acceptance=self._turnstile.last_acceptance(self._key),
                deadline=None,
            )
            if final is not None:
                return final

    def _reject(self, turn: Turn, message: str) -> RateLimitError:
        error = RateLimitError(message, status=429, code="RESOURCE_EXHAUSTED")
        turn.rejected(message, None, lambda bursts: self._policy.backoff(bursts, error, self._rng.random))
        return error


class _Outcomes:
    """Counts, and sees to it that no input is embedded twice."""

    def __init__(self) -> None:
        self._done: set[int] = set()

    @property
    def embedded_count(self) -> int:
        return len(self._done)

    def embedded(self, request: PlannedRequest) -> None:
        positions = range(request.start, request.stop)
        if not self._done.isdisjoint(positions):
            raise RuntimeError(f"inputs {request.start} to {request.stop} were embedded twice")
        self._done.update(positions)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Count nothing: what is not embedded in the end is lost."""
