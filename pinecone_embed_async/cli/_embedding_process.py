"""Embeds a job's rows in a process of its own: file access here would keep the interpreter's lock from its event loop."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Self

from pinecone_embed_async import Statistics
from pinecone_embed_async._jobs._errors import JobError
from pinecone_embed_async._jobs._recorder import Batch
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._threads import in_thread
from pinecone_embed_async.cli._channel import Channel
from pinecone_embed_async.cli._connection import Settings
from pinecone_embed_async.cli._embedder import Counted, Embedded, Ended, MoreWanted, Texts, main
from pinecone_embed_async.cli._slots import Slots

MESSAGES_AHEAD = 3
"""Messages of texts sent ahead: some are there when the other process wants one, others on their way."""

ROWS_PER_MESSAGE, CHARACTERS_PER_MESSAGE = 192, 2**20
"""Size at which a message is full: two full requests of short texts, or half of a request of long ones."""

PATIENCE = 0.05
"""Seconds after which the rows of a slow pipe are sent, although the next is not there yet."""

GRACE_SECONDS = 5.0
"""Seconds for the other process to end once it has nothing to do."""


class EmbeddingProcess:
    """Embeds the rows of a job in another process, which exists while a `with` block runs.

    Args:
        settings: The client's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._statistics: Statistics | None = None
        self._is_used = False
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Raised when a stream is opened, for perhaps none will be.
        self._problem: OSError | None = None
        try:
            self._channel, self._process = _started()
        except OSError as problem:
            self._problem = problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel is None or self._process is None:
            return
        # This ends the other process.
        self._channel.close()
        try:
            if self._is_used:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(GRACE_SECONDS)
        finally:
            # It has no file of the job that could be left unfinished.
            self._process.kill()
            self._process.wait()

    @property
    def statistics(self) -> Statistics | None:
        """Its client's latest statistics; `None` before there are any. May be read from any thread."""
        return self._statistics

    @contextlib.asynccontextmanager
    async def stream(self, rows: Iterable[Row]) -> AsyncIterator[AsyncIterator[Batch]]:
        """Embed the texts of rows, and yield them by requests, as completed; the rows are pulled in a thread.

        A process has one stream, and nothing to do after it.

        Raises:
            EmbedError: The client could not be opened; while the stream is iterated: it ended before all was tried.
            JobError: The other process could not be started, or ended on its own.
        """
        if self._channel is None:
            raise JobError(f"the process that embeds cannot be started: {self._problem}") from self._problem
        channel, self._is_used = self._channel, True
        with contextlib.suppress(OSError):
            await channel.send(self._settings)
        self._note(await _received(channel))
        feeder = _Feeder(channel, rows)
        own: BaseException | None = None
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(feeder.feed(), name="feed")
            try:
                async with contextlib.aclosing(self._batches(channel, feeder)) as batches:
                    yield batches
            except BaseException as error:  # noqa: BLE001 - raised again once the task is done, as it was
                own = error
            finally:
                feeding.cancel()
        # Requests in flight are of no use any more.
        channel.close()
        if own is not None:
            raise own

    def _note(self, message: object) -> None:
        """Handle a message that is not about rows.

        Raises:
            EmbedError: The error that ended the stream.
        """
        if isinstance(message, Counted):
            self._statistics = message.statistics
        elif isinstance(message, Ended) and message.error is not None:
            raise message.error

    async def _batches(self, channel: Channel, feeder: "_Feeder") -> AsyncGenerator[Batch, None]:
        message: object = None
        while not isinstance(message, Ended):
            message = await _received(channel)
            if isinstance(message, Embedded):
                yield Batch(feeder.take_back(message.start, len(message.embeddings)), message.embeddings)
            elif isinstance(message, MoreWanted):
                feeder.more_wanted()
            else:
                self._note(message)
        if feeder.error is not None:
            raise feeder.error


def _started() -> tuple[Channel, subprocess.Popen[bytes]]:
    """Start the other process; returns this end of the channel to it, and the process."""
    own, other = socket.socketpair()
    with contextlib.ExitStack() as upon_error, contextlib.ExitStack() as given_away:
        upon_error.enter_context(own)
        given_away.enter_context(other)
        given, slots = [other.fileno()], None
        # Without shared memory it works, but slower.
        with contextlib.suppress(OSError):
            slots = given_away.enter_context(contextlib.closing(Slots.new()))
            given.append(slots.descriptor)
        process = subprocess.Popen(  # noqa: S603 - it is this interpreter, with this package
            # -P leaves out the working directory, where anything may have the name of a module.
            [sys.executable, "-P", "-c", f"from {main.__module__} import main; main(*{given})"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=given,
            # Ctrl-C is for this process, which ends the other.
            start_new_session=True,
        )
        upon_error.pop_all()
        return Channel(own, filled=slots), process


class _Feeder:
    """Reads rows, sends their texts on demand, and holds the rows until they are embedded.

    Attributes:
        error: The error of reading them; `None` if there was none.
    """

    def __init__(self, channel: Channel, rows: Iterable[Row]) -> None:
        self._channel = channel
        self._rows = iter(rows)
        self._wanted = asyncio.Semaphore(MESSAGES_AHEAD)
        self._gathered: deque[Row] = deque()
        self._is_exhausted = False
        self._sent: dict[int, Row] = {}
        self._position = 0
        self.error: Exception | None = None

    def more_wanted(self) -> None:
        """Allow another message."""
        self._wanted.release()

    def take_back(self, start: int, count: int) -> list[Row]:
        """Remove and return the embedded rows from position `start` on."""
        return [self._sent.pop(position) for position in range(start, start + count)]

    async def feed(self) -> None:
        """Send all texts; a cancellation waits for the row that is being read."""
        async with asyncio.TaskGroup() as group:
            reading: asyncio.Task[None] | None = None
            is_last = False
            while not is_last:
                await self._wanted.acquire()
                if reading is None or reading.done():
                    reading = group.create_task(self._read(), name="read")
                # At least once, whatever was gathered before: more may come.
                while True:
                    await asyncio.wait({reading}, timeout=PATIENCE)
                    if self._gathered or reading.done():
                        break
                # Read before the rows are taken: the thread may add some in between.
                is_last = self._is_exhausted
                await self._send(is_last=is_last)

    async def _send(self, *, is_last: bool) -> None:
        texts: list[str] = []
        while self._gathered:
            row = self._gathered.popleft()
            texts.append(row.text)
            self._sent[self._position] = row
            self._position += 1
        with contextlib.suppress(OSError):
            # The receiver finds out that the other process is gone.
            await self._channel.send(Texts(texts, is_last))

    async def _read(self) -> None:
        try:
            self._is_exhausted = await in_thread(self._gather)
        except Exception as error:  # noqa: BLE001 - it is the source's, and given to the caller behind what was read
            self.error, self._is_exhausted = error, True

    def _gather(self) -> bool:
        """Pull rows for a message; returns whether the source is exhausted."""
        count = characters = 0
        for row in self._rows:
            self._gathered.append(row)
            count, characters = count + 1, characters + len(row.text)
            if count >= ROWS_PER_MESSAGE or characters >= CHARACTERS_PER_MESSAGE:
                return False
        return True


async def _received(channel: Channel) -> object:
    try:
        message: object = await channel.receive()
    except EOFError:
        raise JobError("the process that embeds has ended on its own, killed for want of memory perhaps") from None
    return message
