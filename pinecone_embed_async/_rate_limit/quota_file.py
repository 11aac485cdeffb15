"""The file of a quota that several processes share: an SQLite database with the steps of its ledger."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import secrets
import time
from typing import TYPE_CHECKING, Any

import msgspec

from pinecone_embed_async import _sqlite
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._rate_limit.lock_file import LockFile, boot_id, boot_time, check_regular
from pinecone_embed_async._rate_limit.quota import limiter_options
from pinecone_embed_async._rate_limit.quota_ledger import Entry, Gone, QuotaLedger, Step, StepResult
from pinecone_embed_async._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pinecone_embed_async._rate_limit.quota import PlanName, Quota, TokenStatistics

STATE_VERSION = 14
"""Version of the stored state; raised whenever an attribute of a stored object changes."""

VERSION = f"{__version__}, state {STATE_VERSION}"

LOCK_SECONDS = 5.0
"""Maximum wait for the lock of another process; a step takes about a millisecond."""

STEPS_KEPT = 256
"""Number of steps after which the whole state is stored, and number of older steps kept for processes that have fallen
behind. So a new process applies at most twice as many steps, which takes about ten milliseconds."""

CHECK_SECONDS = 0.1
"""How often to check for dead processes and for the removal of the file."""

KIND = _sqlite.FileKind(
    "quota",
    application_id=int.from_bytes(b"PEQ\x01", "big"),
    version=1,
    schema=(
        """
        CREATE TABLE terms (id INTEGER PRIMARY KEY CHECK (id = 1), version TEXT NOT NULL, quota TEXT NOT NULL,
            window REAL NOT NULL, opens REAL NOT NULL) STRICT
        """,
        "CREATE TABLE members (id INTEGER PRIMARY KEY AUTOINCREMENT) STRICT",
        """
        CREATE TABLE steps (number INTEGER PRIMARY KEY, at REAL NOT NULL, step BLOB NOT NULL, granted BLOB NOT NULL) STRICT
        """,
        "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, ledger BLOB NOT NULL) STRICT",
    ),
)
_NEW_STEPS = "SELECT number, step, granted FROM steps WHERE number > ? ORDER BY number"

_STEP = msgspec.msgpack.Decoder(Step)
_ENCODER = msgspec.msgpack.Encoder()


class QuotaFile:
    """A member's access to the file, with its own copy of the ledger. Use it in one thread at a time; its methods block.

    Each step is one transaction: read the steps of other members, apply them, apply its own, write it. A process that
    is killed leaves a whole step or none. The result of a step is stored with it, and compared when others apply it.

    Nothing is synced to the disk, because after a crash of the machine the file is void anyway.

    Args:
        path: path of the file; its lock file is next to it, with `-lock` appended.
        quota: the quota that the file must hold, or gets if it is new.

    Raises:
        ConfigurationError: the file is another program's or corrupted, or other processes use it with another quota or
            package version.
        sqlite3.Error: the file cannot be opened, or is locked for too long.
        OSError: the same.

    Attributes:
        member: random number of this member.
        ledger: the ledger as of the last step read.
    """

    def __init__(self, path: Path, quota: Quota | PlanName | None) -> None:
        self._path = path
        self._options = limiter_options(quota)
        # Random, so that no other member ever has it, not even one of a file that was removed.
        self.member = secrets.randbits(48)
        self._check_at = -math.inf
        # What `close` closes, the last first.
        self._resources = contextlib.ExitStack()
        self._locks = self._resources.enter_context(contextlib.closing(LockFile(_beside(path, "-lock"))))
        try:
            with self._locks.opening(time.monotonic() + LOCK_SECONDS), self._explained():
                self._open(msgspec.json.encode(quota).decode())
            self._forget()
            self.step(())
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<QuotaFile {str(self._path)!r}, member {self.member} after step {self._number}>"

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """Limits and usage of each model and input type, as of now."""
        return tuple(self.ledger.limiter.statistics(boot_time()))

    def step(self, entries: Sequence[Entry]) -> StepResult:
        """Append a step with these entries to the ledger. Without entries, only if the step would have an effect.

        Raises:
            ConfigurationError: the file was removed, is corrupted, or was written by a build that makes other decisions.
            sqlite3.Error: the file cannot be written because the disk is full, or is locked for too long.
        """
        try:
            with self._explained():
                dead = self._check()
                # Before waiting for its turn, because this may take longer than the step itself.
                self._read()
                if self._next_step(entries, dead) is None:
                    return StepResult()
                with self._locks.turn(), _sqlite.transaction(self._connection):
                    self._read()
                    step = self._next_step(entries, self._dead())
                    return StepResult() if step is None else self._append(step)
        except BaseException:
            # The step may have been applied here, but it is not in the file.
            self._forget()
            raise

    def leave(self) -> None:
        """End the membership and close the file: waiting requests are withdrawn, and permits held count as possibly sent."""
        with contextlib.closing(self):
            self.step([Gone(self.member)])

    def close(self) -> None:
        """Close the file. Without a `leave`, the member counts as dead."""
        self._resources.close()

    # Opening.

    def _open(self, quota: str) -> None:
        check_regular(self._path)
        is_used, boot = self._locks.has_members, boot_id()
        if self._locks.boot != boot:
            if is_used:
                raise ConfigurationError(
                    f"{str(self._path)!r} is in use by processes with another boot id, such as those of another container"
                )
            self._remove_void()
            self._locks.begin(boot)
        _sqlite.create(self._path)
        self._identity = _sqlite.identity(self._path)
        self._connection = self._resources.enter_context(contextlib.closing(_sqlite.connect(self._path, LOCK_SECONDS)))
        self._execute("PRAGMA synchronous = OFF")
        _sqlite.prepare(self._connection, self._path, KIND)
        with _sqlite.transaction(self._connection):
            self._settle_terms(quota, is_used=is_used)
            # Locked before the commit, because a member without a lock counts as dead.
            self._locks.enter(self.member)
            self._execute("INSERT INTO members VALUES (?)", (self.member,))

    def _remove_void(self) -> None:
        """Remove a file of another boot, which need not be intact, because nothing was synced.

        Raises:
            ConfigurationError: it is another program's.
        """
        # No process has it open, not even this one.
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb", opener=_no_link) as file:
            # Source: "Database File Format" in SQLite's documentation, 1.3: the application id is at offset 68.
            header = file.read(100)
            if header and int.from_bytes(header[68:72], "big") != KIND.application_id:
                raise KIND.not_of_ours(self._path)
        for suffix in ("-wal", "-shm", ""):
            _beside(self._path, suffix).unlink(missing_ok=True)

    def _settle_terms(self, quota: str, *, is_used: bool) -> None:
        """Adopt the terms of the file, or replace them if they differ and no process uses it.

        Raises:
            ConfigurationError: the terms differ, and other processes use the file.
        """
        self._opens = 0.0
        found = self._execute("SELECT version, quota, window, opens FROM terms")
        ((last,),) = self._execute("SELECT max(at) FROM steps")
        # If the system has no boot id, a step in the future shows that the file is of another boot.
        if found and (is_used or last is None or last <= boot_time()):
            version, has, window, opens = found[0]
            if (version, has) == (VERSION, quota):
                self._opens = opens
                return
            if is_used:
                differs = f"the quota {has}, not {quota}" if version == VERSION else f"version {version}, not {VERSION}"
                raise ConfigurationError(
                    f"{str(self._path)!r} is in use by other processes with {differs}; end them, or name another file"
                )
            # The usage under the new terms is unknown, so nothing is granted until a window has passed. A permit of a dead
            # member may have been used just now.
            used_at = boot_time() if self._execute("SELECT 1 FROM members LIMIT 1") else last
            if used_at is not None:
                self._opens = max(opens, used_at + max(window, self._options.window))
        for table in ("terms", "members", "steps", "state"):
            self._execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
        terms = (VERSION, quota, self._options.window, self._opens)
        self._execute("INSERT INTO terms VALUES (1, ?, ?, ?, ?)", terms)

    # Steps.

    def _forget(self) -> None:
        """Begin again with an empty ledger."""
        self._number, self.ledger = 0, QuotaLedger(self._options, self._opens)

    def _read(self) -> None:
        """Apply the steps that others have written."""
        rows = self._execute(_NEW_STEPS, (self._number,))
        if rows and rows[0][0] != self._number + 1:
            ((self._number, state),) = self._execute("SELECT number, ledger FROM state") or [(0, b"")]
            self.ledger = QuotaLedger.load(state)
            rows = self._execute(_NEW_STEPS, (self._number,))
        for number, step, granted in rows:
            result = self.ledger.apply(_STEP.decode(step))
            if _ENCODER.encode(result.granted) != granted or number != self._number + 1:
                raise ConfigurationError(
                    f"{str(self._path)!r} was written by another build of this package, which makes other decisions; use"
                    " one version in all processes, or name another file"
                )
            self._number = number

    def _next_step(self, entries: Sequence[Entry], dead: list[int]) -> Step | None:
        """A step with these entries and for these dead members; `None` if it would have no effect."""
        now = max(boot_time(), self.ledger.at)
        if entries or dead or self.ledger.has_untaken(self.member) or self.ledger.limiter.next_at <= now:
            return Step(self.member, now, (*map(Gone, dead), *entries))
        return None

    def _append(self, step: Step) -> StepResult:
        result = self.ledger.apply(step)
        self._number += 1
        self._execute(
            "INSERT INTO steps VALUES (?, ?, ?, ?)",
            (self._number, step.at, _ENCODER.encode(step), _ENCODER.encode(result.granted)),
        )
        for entry in step.entries:
            if isinstance(entry, Gone):
                self._execute("DELETE FROM members WHERE id = ?", (entry.member,))
        if self._number % STEPS_KEPT == 0:
            self._execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?)", (self._number, self.ledger.dump()))
            self._execute("DELETE FROM steps WHERE number <= ?", (self._number - STEPS_KEPT,))
        return result

    def _check(self) -> list[int]:
        """The members that died; checked every `CHECK_SECONDS`, otherwise none.

        Raises:
            ConfigurationError: the file was removed or replaced.
        """
        now = time.monotonic()
        if now < self._check_at:
            return []
        self._check_at = now + CHECK_SECONDS
        if _sqlite.identity(self._path) != self._identity or not self._locks.is_in_place:
            raise ConfigurationError(f"{str(self._path)!r} was removed or replaced while it was in use")
        return self._dead()

    def _dead(self) -> list[int]:
        members = [member for (member,) in self._execute("SELECT id FROM members")]
        return [member for member in members if member != self.member and not self._locks.is_alive(member)]

    # SQLite.

    def _execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate SQLite's errors about the content of the file and its locks into errors that name the cure."""
        try:
            yield
        except Exception as error:
            code = _sqlite.code_of(error)
            if code in _sqlite.CORRUPTED or isinstance(error, (msgspec.MsgspecError, pickle.UnpicklingError)):
                raise ConfigurationError(
                    f"{str(self._path)!r} is not a quota, or corrupted ({error}); name another file, or remove it while no "
                    "process uses it"
                ) from error
            if not code:
                raise
            what = f"another process has locked it for {LOCK_SECONDS:g} s" if code == _sqlite.BUSY else str(error)
            explained = type(error)(f"{str(self._path)!r}: {what}")
            # SQLite's result code.
            vars(explained).update(vars(error))
            raise explained from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _no_link(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
