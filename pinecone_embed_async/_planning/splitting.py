"""Splits a run of texts into requests within the limits."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pinecone_embed_async._planning.request import Load
from pinecone_embed_async._planning.tokens import utf8_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pinecone_embed_async._planning.request import PlannedRequest, RequestLimits


class Splitter:
    """Packs texts, in order, into requests as large as the limits allow.

    Args:
        limits: what one request may hold; called for every run of texts, since refusals may tighten the limits.
    """

    def __init__(self, limits: Callable[[], RequestLimits]) -> None:
        self._limits = limits
        self._start = 0
        self._texts: list[str] = []
        self._load = Load()

    def __len__(self) -> int:
        """Texts gathered for the next request."""
        return len(self._texts)

    @property
    def position(self) -> int:
        """Position of the next text."""
        return self._start + len(self._texts)

    def add(self, text: str) -> PlannedRequest | None:
        """Take one more text; see `fill`."""
        return self.fill((text,))

    def fill(self, texts: Iterable[str]) -> PlannedRequest | None:
        """Take texts until a request is full.

        Returns:
            The full request: of the texts before the last one if that does not fit, or with it; `None` at their end.
        """
        limits, full = self._limits(), None
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

    def flush(self) -> PlannedRequest | None:
        """The request of the texts gathered so far; `None` if there are none."""
        if not self._texts:
            return None
        request = self._load.request(self._start, self._texts, origin=self._start)
        self._start = request.stop
        self._texts, self._load = [], Load()
        return request

    def skip(self) -> PlannedRequest | None:
        """Skip the position of one text; return the request of the texts gathered before it."""
        before = self.flush()
        self._start += 1
        return before


def count_requests(sizes: Iterable[int], limits: RequestLimits) -> int:
    """Number of requests for texts of these UTF-8 lengths."""
    requests, load = 0, Load()
    for size in sizes:
        if not load.add(size, limits):
            requests, load = requests + 1, Load()
            load.add(size, limits)
    return requests + (load.inputs > 0)


class Requests:
    """The requests for a run of texts, each planned on demand by the limits of that moment.

    Args:
        texts: the texts; read only as far as the next request needs.
        limits: what one request may hold.
    """

    def __init__(self, texts: Iterable[str], limits: Callable[[], RequestLimits]) -> None:
        self._texts = iter(texts)
        self._limits = limits
        self._start = 0
        self._ahead: PlannedRequest | None = None
        self._returned: deque[str] = deque()
        self._is_read = False

    def ahead(self) -> PlannedRequest | None:
        """The next request, without taking it; `None` if there is none."""
        if self._ahead is None and (self._returned or not self._is_read):
            self._ahead = self._plan()
        return self._ahead

    def take(self, tokens: int | None = None) -> PlannedRequest | None:
        """Take the next request, cut to `tokens`; `None` if there is none, or its first input alone has more.

        The rest begins the request after it.
        """
        head, rest = self.ahead(), None
        if head is not None and tokens is not None:
            head, rest = head.cut(tokens, self._limits())
        if head is None:
            return None
        if rest is not None:
            self._returned.extendleft(reversed(rest.texts))
        self._ahead = None
        self._start = head.stop
        return head

    def __iter__(self) -> Iterator[PlannedRequest]:
        while (request := self.take()) is not None:
            yield request

    def _plan(self) -> PlannedRequest | None:
        limits, load = self._limits(), Load()
        texts: list[str] = []
        while len(texts) < limits.inputs:
            text = self._returned.popleft() if self._returned else next(self._texts, None)
            if text is None:
                self._is_read = True
                break
            if not load.add(utf8_length(text), limits):
                self._returned.appendleft(text)
                break
            texts.append(text)
        return load.request(self._start, texts, origin=self._start) if texts else None
