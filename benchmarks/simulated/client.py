"""The real client in the simulation: its transport leads to the simulated service, and its clock is the loop's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from benchmarks.simulated.service import INPUT_TYPE, MODEL
from benchmarks.simulated.world import LoopClock
from pinecone_embed_async import EmbedClient, RateLimitError
from pinecone_embed_async.emulator._tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.simulated.service import Service
    from pinecone_embed_async import DenseEmbeddings, Quota

_TEXTS = 256
_LONG_TEXTS = 64
"""Number of different texts; fewer if they are long, since those take time to generate."""

_TAKEN_AT_ONCE = 8
"""Inputs taken between two checks of the time."""

_LETTERS = "etaoinshrdlucmfw"
_LONGEST_WORD = 6
"""Letters of the longest word that counts as one token."""


class Corpus:
    """Texts with equal numbers of tokens and different numbers of bytes: 4 to 7 per token, varying from text to text.

    Args:
        tokens: tokens per text, by the service's count.
        seed: seed of the texts.
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
        # Each text has mostly short or mostly long words, so that bytes per token vary more than by chance.
        shortest = rng.randint(1, _LONGEST_WORD - 2)
        letters = "".join(rng.choices(_LETTERS, k=64))
        starts = rng.choices(range(len(letters) - _LONGEST_WORD), k=words)
        lengths = rng.choices(range(shortest, _LONGEST_WORD + 1), k=words)
        return " ".join(letters[start : start + length] for start, length in zip(starts, lengths, strict=True))

    def take(self, other: Corpus) -> None:
        """Count another corpus's texts as well."""
        self.tokens |= other.tokens

    def count(self, texts: Sequence[str]) -> int:
        """The tokens that the service bills for these texts."""
        tokens = self.tokens
        return sum(tokens[text] for text in texts)


class Client:
    """A client with default settings and its own quota, and its jobs.

    Args:
        service: the service it sends to.
        corpus: the corpus of its inputs.
        quota: the quota it is given; `None` to learn everything.
        seed: seed of the order of its inputs and of its jitter.
        options: options of `EmbedClient`.

    Attributes:
        taken: inputs given to its jobs.
        embedded: inputs embedded.
        way: its transport to the service, which records accepted and rejected requests.
    """

    def __init__(
        self, service: Service, corpus: Corpus, quota: Quota | None = None, *, seed: str = "", **options: Any
    ) -> None:
        self._corpus = corpus
        self._rng = random.Random(f"client {seed}")
        self._clock = LoopClock()
        self.way = service.way(corpus)
        self.taken = self.embedded = 0
        self._client: EmbedClient[DenseEmbeddings] = EmbedClient(
            MODEL,
            vector_type="dense",
            api_key="simulated",
            quota=quota,
            look_up_model=False,
            decoder="msgspec",
            transport=self.way,
            clock=self._clock,
            draw=random.Random(f"jitter {seed}").random,
            **options,
        )

    def __repr__(self) -> str:
        """Show its progress."""
        return f"<Client {self.embedded} of {self.taken} embedded>"

    @property
    def lost(self) -> int:
        """Inputs taken and not embedded."""
        return self.taken - self.embedded

    async def work(self, start: float, end: float, corpus: Corpus | None = None) -> None:
        """Run a job that takes inputs from `start` to `end`, of another corpus if given, and wait for its end."""
        await self._clock.sleep(start)
        source = self._inputs(end, corpus or self._corpus)
        # Inputs that a job has not embedded when it gives up count as lost.
        with contextlib.suppress(RateLimitError):
            async with self._client.stream(source, input_type=INPUT_TYPE, on_error="return") as batches:
                async for batch in batches:
                    self.embedded += int(batch.embeddings.embedded.sum())

    async def ask(self, text: str) -> float:
        """Embed a single text; return the seconds it took."""
        asked = self._clock.time()
        self.taken += 1
        await self._client.embed_one(text, input_type=INPUT_TYPE)
        self.embedded += 1
        return self._clock.time() - asked

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    def _inputs(self, end: float, corpus: Corpus) -> Iterator[str]:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            self.taken += _TAKEN_AT_ONCE
            yield from self._rng.choices(corpus.texts, k=_TAKEN_AT_ONCE)
