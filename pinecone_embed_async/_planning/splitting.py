"""Splits texts into requests within the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pinecone_embed_async._planning.load import Load, utf8_length
from pinecone_embed_async._planning.request import PlannedRequest
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pinecone_embed_async._planning.learned import LearnedLimits
    from pinecone_embed_async._planning.load import RequestLimits
    from pinecone_embed_async._planning.request import Results


class PackedTexts(NamedTuple):
    """The texts of one request.

    Attributes:
        start: position of the first text.
        texts: the texts.
        load: size and estimated cost of the texts.
    """

    start: int
    texts: list[str]
    load: Load


class Packer:
    """Packs texts, as they arrive, into requests as large as the limits allow.

    Args:
        limits: limits of one request; read again for every run of texts, because refusals may tighten them.
    """

    def __init__(self, limits: LearnedLimits) -> None:
        self._limits = limits
        self._start = 0
        self._texts: list[str] = []
        self._load = Load()

    @property
    def position(self) -> int:
        """Position of the next text."""
        return self._start + len(self._texts)

    def fill(self, texts: Iterable[str]) -> PackedTexts | None:
        """Take texts until a request is full.

        Returns:
            The texts of the full request, with or without the last text taken, depending on whether it fits; `None` if
            `texts` ended first.
        """
        limits, full = self._limits.current, None
        for text in texts:
            size = utf8_length(text)
            if not self._load.add(size, limits):
                full = self.flush()
                self._load.add(size, limits)
            self._texts.append(text)
            if full is None and len(self._texts) >= limits.inputs:
                full = self.flush()
            if full is not None:
                break
        return full

    def flush(self) -> PackedTexts | None:
        """Take the texts gathered so far; `None` if there are none."""
        if not self._texts:
            return None
        packed = PackedTexts(self._start, self._texts, self._load)
        self._start += len(self._texts)
        self._texts, self._load = [], Load()
        return packed

    def skip(self) -> PackedTexts | None:
        """Skip the position of one text, and take the texts gathered before it; `None` if there are none."""
        before = self.flush()
        self._start += 1
        return before


def count_requests(sizes: Iterable[int], limits: RequestLimits) -> int:
    """Number of requests for texts of these sizes in UTF-8 bytes."""
    requests, load = 0, Load()
    for size in sizes:
        if not load.add(size, limits):
            requests, load = requests + 1, Load()
            load.add(size, limits)
    return requests + (load.inputs > 0)


class PendingTexts(SilentStruct):
    """The texts of a call that have not been sent yet; each request is planned on demand with the current limits.

    Args:
        texts: all texts of the call.
        limits: limits of one request.
        results: receives the rows and outcomes.
        positions: ascending positions of the texts to send.
    """

    _texts: Sequence[str]
    _limits: LearnedLimits
    _results: Results
    _positions: Sequence[int]
    _taken: int = 0

    def __repr__(self) -> str:
        return f"<PendingTexts {self._taken} of {len(self._positions)} taken>"

    def take(self) -> PlannedRequest | None:
        """Take the next request; `None` if there is none."""
        if self._taken == len(self._positions):
            return None
        limits = self._limits.current
        positions = self._positions[self._taken : self._taken + limits.inputs]
        texts = list(map(self._texts.__getitem__, positions))
        load = Load.of_fitting(texts, limits)
        self._taken += load.inputs
        return PlannedRequest(texts[: load.inputs], positions[: load.inputs], load, self._limits, self._results)

    def give_back(self, rest: PlannedRequest) -> None:
        """Give back what was cut off from the request taken last; it begins the following one, with more inputs."""
        self._taken -= len(rest.texts)
