"""A cache in a file of SQLite."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from pinecone_embed_async._checks import short
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._log import logger
from pinecone_embed_async._threads import in_thread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

APPLICATION_ID = int.from_bytes(b"PEA\x01", "big")
"""Tells this package's files from those of other programs. Source: `PRAGMA application_id` of SQLite's documentation."""

SCHEMA_VERSION = 1

BUSY_SECONDS = 2.0
"""How long another process's write is waited for: each takes milliseconds."""

PAGE_BYTES = 16_384
"""Bytes of a page. Three rows of 1024 numbers fit into one: reading them all takes two thirds of the time that they take
from pages of 4 KiB, of which each row needs two."""

_AT_ONCE = 512
"""Keys asked for in one statement; SQLite takes 32,766 of them."""

_CREATE = """
CREATE TABLE vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT
"""
_PUT = "INSERT INTO vectors (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

ResultT = TypeVar("ResultT")


class SqliteCache:
    """Keeps vectors in a file, for any number of clients, threads and processes on this machine.

    The file holds SHA-256 digests and float32 vectors, no texts, and is readable by its owner only. It grows without a
    bound, and is removed by whoever wants to be rid of it. A file that is corrupted is reported as a warning and set aside
    under another name, and a new one is begun. It is opened when it is first needed, and again after `aclose`.

    Args:
        path: of the file; two more, with `-wal` and `-shm` behind the name, are beside it while it is open.

    Raises:
        ConfigurationError: there is no folder for the file, or no file can be at that path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
            raise ConfigurationError(f"path must be a path of a file, got {short(path)}")
        self._path = Path(path)
        if self._path.is_dir() or not self._path.parent.is_dir():
            raise ConfigurationError(f"the cache needs a file in a folder that exists, got {str(self._path)!r}")
        self._process = os.getpid()
        self._executor = _new_executor()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._inherited: list[object] = []

    def __repr__(self) -> str:
        return f"<SqliteCache {str(self._path)!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SqliteCache cannot be pickled: it holds an open file; make one in each process")

    def __del__(self) -> None:
        # Only there if the constructor got that far.
        connection = getattr(self, "_connection", None)
        if connection is not None and self._process == os.getpid():
            connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`.

        Raises:
            ConfigurationError: the file is a database of another program, or of a later version of this one.
            sqlite3.Error: the file cannot be read, for a reason other than that it is corrupted.
        """
        return await in_thread(lambda: self._with_file(lambda file: _read(file, keys)), self._thread())

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """See `Cache.put_many`.

        Raises:
            ConfigurationError: the file is a database of another program, or of a later version of this one.
            sqlite3.Error: the file cannot be written, for a reason other than that it is corrupted.
        """
        await in_thread(lambda: self._with_file(lambda file: _write(file, entries)), self._thread())

    async def aclose(self) -> None:
        """Close the file, once what is under way is done."""
        executor = self._thread()
        self._executor = _new_executor()
        await in_thread(self._close, executor)
        executor.shutdown()

    def _thread(self) -> ThreadPoolExecutor:
        """The thread that the file belongs to: one, so that whatever waits, waits here and not in the loop's threads."""
        if self._process != os.getpid():
            # SQLite forbids to use, or to close, a connection on this side of a fork; and the thread is on the other.
            self._inherited += [self._connection, self._executor]
            self._connection, self._executor = None, _new_executor()
            self._process = os.getpid()
        return self._executor

    # All that follows runs in that thread.

    def _with_file(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        import sqlite3  # noqa: PLC0415 - only programs with a cache should pay for importing it

        try:
            return work(self._opened())
        except sqlite3.DatabaseError as error:
            if not _is_corruption(error):
                raise
            self._set_aside(str(error))
        return work(self._opened())

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        # Beginning a file is more than one transaction, and it must not be set aside meanwhile.
        with _locked_folder(self._path.parent):
            self._create_file()
            self._file = self._identity()
            connection = _connect(self._path)
            try:
                _prepare(connection, self._path)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return connection

    def _create_file(self) -> None:
        """Have a file that only its owner can read, before anything is in it; SQLite gives its two others the same mode."""
        # One that is there is not opened: closing it would release the locks of this process's other connections.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def _identity(self) -> tuple[int, int] | None:
        """What tells the file from another one of its name."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            return found.st_dev, found.st_ino
        return None

    def _set_aside(self, problem: str) -> None:
        """Give a corrupted file another name, unless another process has done so already."""
        broken = self._file
        self._close()
        with _locked_folder(self._path.parent):
            if broken is None or self._identity() != broken:
                return
            number = 1
            while (aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
                number += 1
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        logger.warning(
            "the cache %s is corrupted (%s); it is kept as %s, and a new one is begun", self._path, problem, aside
        )

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _new_executor() -> ThreadPoolExecutor:
    # It starts its thread with the first work, and the thread ends when nobody has the executor any more.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="pinecone-embed-cache")


def _connect(path: Path) -> sqlite3.Connection:
    import sqlite3  # noqa: PLC0415 - as above

    # Used in one thread at a time: that of the cache, or, when it is closed, none.
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _prepare(file: sqlite3.Connection, path: Path) -> None:
    """Make the table if the file is new. Nothing is changed in a file that is another program's.

    Raises:
        ConfigurationError: it is no cache of this version.
    """
    if _pragma(file, "application_id") == 0 and _is_empty(file):
        file.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        # Readers do not wait for writers. It stays with the file.
        file.execute("PRAGMA journal_mode = WAL")
        with _transaction(file):
            file.execute(_CREATE)
            file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            file.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    if _pragma(file, "application_id") != APPLICATION_ID:
        raise ConfigurationError(f"{str(path)!r} is a database of another program; name another file for the cache")
    if _pragma(file, "user_version") != SCHEMA_VERSION:
        raise ConfigurationError(f"{str(path)!r} is a cache of another version of this package; name another file")
    # What is lost when the power fails is lost as a whole, and only costs requests.
    file.execute("PRAGMA synchronous = NORMAL")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.chmod(mode & 0o700)


def _is_empty(file: sqlite3.Connection) -> bool:
    return file.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


def _pragma(file: sqlite3.Connection, name: str) -> int:
    (value,) = file.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _read(file: sqlite3.Connection, keys: Sequence[bytes]) -> list[bytes | None]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), _AT_ONCE):
        asked = keys[start : start + _AT_ONCE]
        marks = ",".join("?" * len(asked))
        # By way of the ids, so that the rows are read in the order in which they stand in the file.
        statement = f"SELECT key, value FROM vectors WHERE id IN (SELECT id FROM vectors WHERE key IN ({marks}))"  # noqa: S608
        found.update(file.execute(statement, asked))
    return [found.get(key) for key in keys]


def _write(file: sqlite3.Connection, entries: Mapping[bytes, bytes]) -> None:
    with _transaction(file):
        file.executemany(_PUT, entries.items())


@contextlib.contextmanager
def _transaction(file: sqlite3.Connection) -> Iterator[None]:
    """Begin a transaction that writes; commit at the end of the block, or undo it."""
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def _is_corruption(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite says that the file is no database, or a broken one.

    Source: "Result and Error Codes" of its documentation; the low byte is the kind.
    """
    import sqlite3  # noqa: PLC0415 - as above

    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time in."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
