"""Splits a run of texts into requests within the limits."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from pinecone_embed_async._planning.request import INPUT_OVERHEAD, Load, PlannedRequest, RequestLimits
from pinecone_embed_async._planning.tokens import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


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
            size = len(text) if text.isascii() else len(text.encode())
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
        if self._ahead is None:
            self._ahead = self._plan()
        return self._ahead

    def take(self, tokens: int | None = None) -> PlannedRequest | None:
        """Take the next request, cut to `tokens`; `None` if there is none, or its first input alone has more.

        The rest begins the request after it.
        """
        request = self.ahead()
        if request is None:
            return None
        head: PlannedRequest | None = request
        if tokens is not None:
            head, rest = request.cut(tokens, self._limits())
            if head is None:
                return None
            if rest is not None:
                self._returned.extendleft(reversed(rest.texts))
        self._ahead = None
        self._start += 0 if head is None else len(head.texts)
        return head

    def __iter__(self) -> Iterator[PlannedRequest]:
        while (request := self.take()) is not None:
            yield request

    def _plan(self) -> PlannedRequest | None:
        """Plan the same request as a `Splitter`, without its work per text."""
        if self._is_read and not self._returned:
            return None
        limits = self._limits()
        self._returned.extend(islice(self._texts, max(0, limits.inputs - len(self._returned))))
        if not self._returned:
            self._is_read = True
            return None
        texts = list(islice(self._returned, limits.inputs))
        sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
        most, ratio = limits.sequence_length, limits.bytes_per_token
        tokens = [estimate_tokens(size, most, ratio) for size in sizes]
        sums = list(accumulate(tokens))
        whole = list(accumulate(size + INPUT_OVERHEAD for size in sizes))
        fitting = max(1, min(bisect_right(sums, limits.tokens), bisect_right(whole, limits.bytes)))
        for _ in range(fitting):
            self._returned.popleft()
        opened = [size for size, count in zip(sizes[:fitting], tokens, strict=False) if count < most]
        return PlannedRequest(
            self._start,
            texts[:fitting],
            tokens=sums[fitting - 1],
            bytes=whole[fitting - 1],
            clipped=fitting - len(opened),
            open_bytes=sum(opened),
            origin=self._start,
        )
