"""What a cache's file and a quota's file have in common: path, creation, connection, tables, transactions, result codes."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pinecone_embed_async._checks import short
from pinecone_embed_async._errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

BUSY = 5
LOCKED = (BUSY, 6)
CORRUPTED = (11, 26)
"""SQLite's primary result codes for a lock of another connection (`BUSY`), for a locked file or table (`LOCKED`), and for a
file that is malformed or not a database (`CORRUPTED`). They are numbers because only programs with such a file should pay
for importing `sqlite3`. Source: "Result and Error Codes" in SQLite's documentation."""


def code_of(error: Exception) -> int:
    """SQLite's primary result code of an error; 0 for other errors."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def file_path(path: object) -> Path:
    """The absolute path of a file, which need not exist.

    Raises:
        ConfigurationError: the folder of the file does not exist, or the path cannot be a file.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise ConfigurationError(f"path must be the path of a file, got {short(path)}")
    # Absolute, because SQLite has other ideas of `:memory:` and `file:`, and the program may change its folder.
    absolute = Path(path).absolute()
    if absolute.is_dir() or not absolute.parent.is_dir():
        raise ConfigurationError(f"path must be a file in an existing folder, got {str(absolute)!r}")
    return absolute


def create(path: Path) -> bool:
    """Create a file, empty and readable by its owner only; return whether it was missing.

    SQLite gives the two files beside it the same mode.
    """
    # An existing file is not opened, because closing it would release the locks of this process's other connections.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        return True
    return False


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, which distinguish a file from another one of the same name; `None` if there is none."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def connect(path: Path, timeout: float, *, cached_statements: int = 128) -> sqlite3.Connection:
    """Open a file; statements wait at most `timeout` seconds for a lock.

    Only one thread at a time may use the connection, but not always the same one.
    """
    import sqlite3  # noqa: PLC0415 - only programs with such a file should pay for importing it

    return sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=cached_statements
    )


def pragma(file: sqlite3.Connection, name: str) -> int:
    """The value of a setting."""
    return int(file.execute(f"PRAGMA {name}").fetchone()[0])


class FileKind(NamedTuple):
    """A kind of file of this package.

    Attributes:
        name: what the file is, for messages.
        application_id: distinguishes it from other programs' files. Source: `PRAGMA application_id` in SQLite's
            documentation.
        version: version of the tables.
        schema: statements that create the tables.
        page_bytes: bytes per page; SQLite's own default.
    """

    name: str
    application_id: int
    version: int
    schema: tuple[str, ...]
    page_bytes: int = 4096

    def not_of_ours(self, path: Path) -> ConfigurationError:
        """The error of a file that is another program's."""
        return ConfigurationError(f"{str(path)!r} is a file of another program; name another file for the {self.name}")


def prepare(file: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    """Create the tables if the file is new, and let only its owner use it. Another program's file is left unchanged.

    Raises:
        ConfigurationError: the file is another program's, or of another version.
    """
    is_empty = file.execute("SELECT 1 FROM sqlite_schema").fetchone() is None
    if is_empty and pragma(file, "application_id") in (0, kind.application_id):
        file.execute(f"PRAGMA page_size = {kind.page_bytes}")
        # Before the WAL mode, so that it is in the file itself, even if the process is killed before it creates the tables.
        file.execute(f"PRAGMA application_id = {kind.application_id}")
        # In WAL mode readers do not wait for writers. The setting is stored in the file.
        file.execute("PRAGMA journal_mode = WAL")
        with transaction(file):
            for statement in kind.schema:
                file.execute(statement)
            file.execute(f"PRAGMA user_version = {kind.version}")
    if pragma(file, "application_id") != kind.application_id:
        raise kind.not_of_ours(path)
    if pragma(file, "user_version") != kind.version:
        raise ConfigurationError(f"{str(path)!r} is a {kind.name} of another version of this package; name another file")
    # The two others too, because they had the file's mode when it was opened. If another user's program has the file open,
    # they may be that user's, who can read them anyway.
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError, *([PermissionError] if suffix else [])):
            one = Path(f"{path}{suffix}")
            mode = stat.S_IMODE(one.stat().st_mode)
            if mode & 0o077:
                one.chmod(mode & 0o700)


@contextlib.contextmanager
def transaction(file: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: committed at the end of the block, or rolled back."""
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise
