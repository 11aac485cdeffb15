"""Uses the file of a shared quota on behalf of one process, in a thread, while event loops wait for the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import itertools
import math
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pinecone_embed_async._errors import ClosedError, ConfigurationError
from pinecone_embed_async._log import logger
from pinecone_embed_async._rate_limit.gate import resolve, warn_of_found_limit
from pinecone_embed_async._rate_limit.lock_file import boot_time
from pinecone_embed_async._rate_limit.quota_file import QuotaFile
from pinecone_embed_async._rate_limit.quota_ledger import Ask, End, Entry

if TYPE_CHECKING:
    from pathlib import Path

    from pinecone_embed_async._rate_limit.quota import PlanName, Quota, QuotaDemand

POLL_SECONDS = 0.01
"""How often a process with waiting requests checks whether others have granted it permits, or tokens have come free."""

LINGER_SECONDS = 1.0
"""How long the thread waits for more work before it ends."""

GLANCE_SECONDS = 0.05
"""How often the idle thread checks whether the interpreter is about to end."""

RETRY_SECONDS = 1.0
"""How long after an error the thread tries again to write the ends of requests, if there is nothing else to write."""

FLOWS_NUMBERED = 1024
"""Number of recently used flows that keep their number."""


@dataclass(slots=True, eq=False)
class Wait:
    """A caller that waits for a permit or for the statistics. Must be created in an event loop.

    Attributes:
        number: number of the request in this process.
        ask: the request for a permit; `None` for the statistics.
        deadline: `boot_time` after which a permit is useless.
        future: receives the tokens granted, or the statistics.
    """

    number: int
    ask: Ask | None = None
    deadline: float = math.inf
    future: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error from the thread, which then expects no `End`."""
        # Reading the exception also keeps asyncio from warning that it was never retrieved.
        return self.future.done() and not self.future.cancelled() and self.future.exception() is not None


_Item = Wait | End | Literal["close"]


class QuotaClerk:
    """Writes the requests of one process and their ends to the file, and delivers the permits.

    Everything goes through one queue to one thread, which writes the queued entries in one step. While requests wait, the
    thread also reads the steps of other processes. It ends when no request has waited for a while.

    Args:
        path: path of the file.
        quota: the quota.
    """

    def __init__(self, path: Path, quota: Quota | PlanName | None) -> None:
        self._path = path
        self._quota = quota
        self._process = os.getpid()
        self._numbers = numbers = itertools.count()
        self._number_of_flow = functools.lru_cache(FLOWS_NUMBERED)(lambda _: next(numbers))
        # A SimpleQueue, because a garbage collection may call `put` in the middle of another `put`.
        self._posted: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        # Held only for moments; reentrant for the same reason.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        # Only the thread uses the attributes below.
        self._file: QuotaFile | None = None
        self._waits: dict[int, Wait] = {}
        self._unwritten: list[Entry] = []
        self._again_at = -math.inf
        self._has_warned = False
        self._is_closing = self._is_closed = False

    def __repr__(self) -> str:
        return f"<QuotaClerk of {str(self._path)!r}, {len(self._waits)} waiting>"

    def __del__(self) -> None:
        # The thread has ended, because otherwise it would hold a reference.
        if self._file is not None and self.is_own:
            self._file.close()

    @property
    def is_own(self) -> bool:
        """Whether it was created in this process, not in a parent that was forked."""
        return self._process == os.getpid()

    def ask(self, demand: QuotaDemand) -> Wait:
        """Ask for a permit. Must be called in an event loop.

        Raises:
            ConfigurationError: the demand cannot be written.
        """
        flow = self._number_of_flow(demand.flow)
        number = next(self._numbers)
        asked = Ask(number, demand.model, demand.input_type, demand.tokens, demand.least, demand.priority, flow)
        _check_writable("demand", asked)
        deadline = math.inf if demand.within is None else boot_time() + demand.within
        return self._waiting(Wait(number, asked, deadline))

    def look(self) -> Wait:
        """Ask for the statistics. Must be called in an event loop."""
        return self._waiting(Wait(next(self._numbers)))

    def end(self, entry: End) -> None:
        """Write the end of a request soon; ignored in a forked child, which does not own its parent's requests.

        Raises:
            ConfigurationError: the entry cannot be written.
        """
        _check_writable("outcome", entry)
        if self.is_own:
            self._post(entry)

    def close(self) -> None:
        """Write everything, leave and close the file; blocks until done."""
        self._post("close")
        thread = self._thread
        if thread is not None:
            thread.join()

    def _waiting(self, wait: Wait) -> Wait:
        self._post(wait)
        return wait

    def _post(self, item: _Item) -> None:
        self._posted.put(item)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="pinecone-embed-quota")
                try:
                    self._thread.start()
                except RuntimeError:
                    # The interpreter is ending. The lock of this process ends with it, so the others notice.
                    self._thread = None

    # All methods below run in the thread.

    def _work(self) -> None:
        idle = 0.0
        while True:
            is_busy = self._accept(POLL_SECONDS if self._waits else GLANCE_SECONDS) or bool(self._waits)
            idle = 0.0 if is_busy else idle + GLANCE_SECONDS
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 - raised in the waiting callers
                self._fail(error)
            if self._is_closing:
                self._leave()
            is_idle = idle >= LINGER_SECONDS and not self._unwritten
            is_over = self._is_closed or is_idle or not threading.main_thread().is_alive()
            with self._lock:
                if is_over and self._posted.empty():
                    self._thread = None
                    return

    def _accept(self, patience: float) -> bool:
        """Take over the posted items for the next step, or wait for one; return whether there are any."""
        items: list[_Item] = []
        with contextlib.suppress(queue.Empty):
            items.append(self._posted.get(timeout=patience))
            while True:
                items.append(self._posted.get_nowait())
        for item in items:
            if item == "close":
                self._is_closing = True
            elif isinstance(item, End):
                self._waits.pop(item.number, None)
                self._unwritten.append(item)
            elif isinstance(item, Wait):
                self._waits[item.number] = item
                if item.ask is not None:
                    self._unwritten.append(item.ask)
        return bool(items)

    def _write(self) -> None:
        if self._is_closed:
            raise _closed()
        should_write = bool(self._unwritten) and (self._is_closing or time.monotonic() >= self._again_at)
        if not (self._waits or should_write):
            return
        file = self._file = self._file or QuotaFile(self._path, self._quota)
        result = file.step(self._unwritten)
        self._unwritten = []
        for key, found in result.found:
            warn_of_found_limit(key, found)
        for number, tokens in result.taken:
            if number in self._waits:
                self._resolve(self._waits[number], tokens)
        self._answer(file)

    def _answer(self, file: QuotaFile) -> None:
        """Deliver the statistics, and fail the callers whose deadline comes before the end of a pause."""
        now = boot_time()
        for wait in [wait for wait in self._waits.values() if wait.ask is None or not math.isinf(wait.deadline)]:
            if wait.ask is None:
                self._resolve(wait, file.statistics())
                continue
            pause = file.ledger.limiter.known_pause((wait.ask.model, wait.ask.input_type), now)
            if pause.outlasts(wait.deadline, now):
                # The next step writes it.
                self._unwritten.append(End(wait.number, "unused"))
                self._resolve(wait, pause.error(now))

    def _resolve(self, wait: Wait, value: object) -> None:
        """Wake a caller, which then waits no more."""
        self._waits.pop(wait.number, None)
        # A copy for each, because a shared exception would collect the tracebacks of all callers.
        own = copy.copy(value) if isinstance(value, Exception) else value
        try:
            wait.future.get_loop().call_soon_threadsafe(resolve, wait.future, own)
        except RuntimeError:
            # The caller's event loop was closed.
            self._unwritten.append(End(wait.number, "unused"))

    def _fail(self, error: Exception) -> None:
        """Raise an error in all waiting callers, including new ones; ends of requests are written later, if at all."""
        self._accept(0)
        waits = [*self._waits.values()]
        # Requests whose `Ask` was written earlier are in the file and must end there.
        unwritten = {*self._unwritten}
        asked = [wait.number for wait in waits if wait.ask is not None and wait.ask not in unwritten]
        ended = [entry for entry in self._unwritten if isinstance(entry, End)]
        self._unwritten = [*ended, *(End(number, "unused") for number in asked)]
        self._again_at = time.monotonic() + RETRY_SECONDS
        if isinstance(error, ConfigurationError) and self._file is not None:
            # The file was replaced or is unusable. To other processes this one is dead, and the permits it held count.
            self._file.close()
            self._file = None
        for wait in waits:
            self._resolve(wait, error)
        if self._file is None:
            # As far as the file is concerned, these requests have ended: this process has left it, or counts as dead.
            self._unwritten = []
        if self._unwritten:
            level = logger.debug if self._has_warned else logger.warning
            self._has_warned = True
            level("the quota %s could not be written; trying again later: %s: %s", self._path, type(error).__name__, error)

    def _leave(self) -> None:
        self._is_closed, self._is_closing = True, False
        file, self._file = self._file, None
        if file is not None:
            try:
                file.leave()
            except Exception as error:  # noqa: BLE001 - the lock is released in any case, so the others notice
                logger.warning("the quota %s could not be closed properly: %s: %s", self._path, type(error).__name__, error)
        self._fail(_closed())


def _closed() -> ClosedError:
    return ClosedError("the quota was closed")


def _check_writable(name: str, entry: Entry) -> None:
    """Reject an entry that cannot be written, because it would block all other entries of the process."""
    try:
        msgspec.msgpack.encode(entry)
    except (UnicodeEncodeError, OverflowError) as error:
        raise ConfigurationError(f"{name} must have only valid Unicode texts and numbers below 2**64: {error}") from None
