"""The lock file beside a quota's file: turns, live members, and the boot."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import struct
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._sqlite import identity

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = b"PEQ\x01"
"""The first bytes of the file; the boot's id follows."""

BOOT_BYTES = 36

_MEMBERS, _TICKETS = 2**32, 2**62
"""Offsets of the bytes that stand for members and for tickets. A byte can be locked without existing; byte 0 is locked to
open the quota's file."""

TICKET_NANOSECONDS = 10**9
"""Age after which a ticket is ignored: its process was stopped while it waited, or holds SQLite's lock on the file, which
then keeps the others out."""

POLL_SECONDS = 0.0005
"""How often a process checks whether it has its turn; a step takes about as long."""

_IS_DARWIN = sys.platform == "darwin"
_FLOCK = struct.Struct("qqihh" if _IS_DARWIN else "hhqqi4x")
"""C's `struct flock`: type, whence, start, length, process; on macOS start, length, process, type, whence."""


class LockFile:
    """A file with byte locks of the open file description, which the system releases when a process is killed.

    Args:
        path: path of the file, which is created if it is missing.

    Raises:
        ConfigurationError: the file is a link, not a regular file, or another program's; or the system has no such locks.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        if not hasattr(fcntl, "F_OFD_SETLK"):
            raise ConfigurationError("SqliteQuota needs locks of open file descriptions, which only Linux and macOS have")
        check_regular(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        self._path = path
        self._close = weakref.finalize(self, os.close, self._file)
        # At the exit of the interpreter outcomes may still be written; the system closes the file.
        self._close.atexit = False
        found = os.fstat(self._file)
        self._identity = found.st_dev, found.st_ino
        _to_close_in_children().add(self)
        if os.pread(self._file, len(MARK), 0) not in (b"", MARK):
            self.close()
            raise ConfigurationError(f"{str(path)!r} is not the lock of a quota; remove it, or name another file")

    def __repr__(self) -> str:
        return f"<LockFile {str(self._path)!r}>"

    def close(self) -> None:
        """Close the file, which releases its locks, except in a forked child."""
        self._close()

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to this file."""
        return identity(self._path) == self._identity

    @property
    def boot(self) -> str:
        """The id of the boot that the quota's file belongs to; empty for a new file."""
        return os.pread(self._file, BOOT_BYTES, len(MARK)).rstrip(b"\0").decode(errors="replace")

    def begin(self, boot: str) -> None:
        """Mark the file as belonging to a boot."""
        # Version 0.2 ignores a header without the eight bytes at the end.
        os.pwrite(self._file, MARK + boot.encode()[:BOOT_BYTES].ljust(BOOT_BYTES + 8, b"\0"), 0)

    @contextlib.contextmanager
    def opening(self, until: float) -> Iterator[None]:
        """Let one process at a time open the quota's file.

        Args:
            until: when to give up, by `time.monotonic`.

        Raises:
            TimeoutError: another process takes too long.
        """
        while not self._lock(0):
            if time.monotonic() >= until:
                raise TimeoutError(f"{str(self._path)!r} is locked by another process")
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            self._unlock(0)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until all earlier processes have had their turn.

        A ticket is a locked byte whose position is the time. Its owner has its turn once no byte before it is locked. This
        gives an order but does not exclude: two processes that come within microseconds may both go on to SQLite's lock.
        """
        ticket = _TICKETS + time.monotonic_ns()
        while not self._lock(ticket):
            ticket += 1
        try:
            while (first := _TICKETS + time.monotonic_ns() - TICKET_NANOSECONDS) < ticket and self._is_locked(first, ticket):
                time.sleep(POLL_SECONDS)
            yield
        finally:
            self._unlock(ticket)

    def enter(self, member: int) -> None:
        """Mark a member as alive while this file is open."""
        self._lock(_MEMBERS + member)

    def is_alive(self, member: int) -> bool:
        """Whether another member is alive."""
        return self._is_locked(_MEMBERS + member, _MEMBERS + member + 1)

    @property
    def has_members(self) -> bool:
        """Whether any other member is alive."""
        return self._is_locked(_MEMBERS, _TICKETS)

    def _lock(self, at: int) -> bool:
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, at, 1))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, at: int) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, at, 1))

    def _is_locked(self, start: int, end: int) -> bool:
        """Whether another open file description locks a byte from `start` to before `end`."""
        found = _FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, start, end - start)))
        return bool(found[3 if _IS_DARWIN else 0] != fcntl.F_UNLCK)


def check_regular(path: Path) -> None:
    """Reject a path at which there is something other than a regular file.

    Raises:
        ConfigurationError: there is a link, or another kind of file.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
            raise ConfigurationError(f"{str(path)!r} is {kind}; remove it, or name another file for the quota")


def boot_id() -> str:
    """Identifies the current boot of the machine; `"?"` if the system tells none.

    Source: random(4) and proc(5) for Linux, sysctl(3) for macOS.
    """
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    if not _IS_DARWIN:
        return "?"
    import subprocess  # noqa: PLC0415 - only for macOS, and only once

    # Not the boot's time, which changes when the clock is corrected.
    found = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "?"


def boot_time() -> float:
    """Seconds since the machine was booted, including sleep; the same in all processes.

    `time.monotonic` if the system has no such clock (`CLOCK_BOOTTIME`).
    """
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _flock(kind: int, start: int, length: int) -> bytes:
    fields = (start, length, 0, kind, os.SEEK_SET) if _IS_DARWIN else (kind, os.SEEK_SET, start, length, 0)
    return _FLOCK.pack(*fields)


@functools.cache
def _to_close_in_children() -> weakref.WeakSet[LockFile]:
    """The lock files of this process. A forked child closes them, or it would hold their locks after its parent has died."""
    # One set for all files, because a function registered for forks cannot be unregistered.
    files: weakref.WeakSet[LockFile] = weakref.WeakSet()

    def close() -> None:
        for file in [*files]:
            file.close()

    os.register_at_fork(after_in_child=close)
    return files
