"""The folder a job writes to: its file names, its lock and the job's saved state."""

import contextlib
import fcntl
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._files import PARTIAL_SUFFIX, file_errors, open_own, replacing, sync_folder
from pinecone_embed_async._jobs._fingerprint import Fingerprint
from pinecone_embed_async._jobs._layouts import DEFAULT_NAMESPACE, Layout

_PART = re.compile(r"part-(\d{5,})\.parquet")
_SEGMENT = re.compile(r"_journal-(\d{5,})\.log")
_LEFTOVER = re.compile(rf"_.*{re.escape(PARTIAL_SUFFIX)}")
_EXPORT = re.compile(rf"part-\d{{5,}}\.(?:jsonl|parquet)|_export-[0-9a-f]+{re.escape(PARTIAL_SUFFIX)}")
_FORMATS = (1, 2)


class Portion(msgspec.Struct, frozen=True):
    """The rows of one input: the job's first, or one added by `--append`.

    Attributes:
        fingerprint: The fingerprint of the job.
        first_row: The number of the portion's first row.
        rows: Its number of rows; `None` until its input was read to the end.
    """

    fingerprint: Fingerprint
    first_row: int
    rows: int | None = None


class _State(msgspec.Struct, omit_defaults=True):
    portions: tuple[Portion, ...]
    # The lowest format version that can represent this state: version 1 has no layouts.
    format: int


class OutputFolder:
    """A job's folder, locked by this process. Names of files outside the table begin with `_`.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout: Layout | None = None

    def lay_out(self, layout: Layout | None) -> None:
        """Set where the files go: with a layout, the table and the files for an index get a folder each.

        Raises:
            OutputError: The folders cannot be made.
        """
        if self.layout not in {None, layout}:
            self.remove_stale_exports()
            _remove_empty(self._exports, self._table)
        self.layout = layout
        for folder in () if layout is None else (self._table, self._exports):
            with file_errors(folder):
                folder.mkdir(exist_ok=True)

    @property
    def _table(self) -> Path:
        return self.path if self.layout is None else self._table_beside_exports

    @property
    def _table_beside_exports(self) -> Path:
        return self.path / "_table"

    @property
    def _exports(self) -> Path:
        return self.path / (DEFAULT_NAMESPACE if self.layout is None else self.layout.namespace)

    def _export_folders(self) -> list[Path]:
        default = self.path / DEFAULT_NAMESPACE
        folders = {default, self._exports}
        if self.layout is None and self._table_beside_exports.is_dir() and not default.is_dir():
            # A job was here whose saved state is lost, and its namespace with it.
            visible = [self.path / name for name in _names_in(self.path) if not name.startswith(("_", "."))]
            found = [each for each in visible if each.is_dir() and all(map(_EXPORT.fullmatch, _names_in(each)))]
            # Of several, one may be a person's copy.
            folders.update(found if len(found) == 1 else ())
        return [folder for folder in folders if folder.is_dir()]

    def export_path(self, number: int) -> Path:
        """The file for an index, made from the part of this number."""
        return self._exports / f"part-{number:05}{'' if self.layout is None else self.layout.suffix}"

    def part_path(self, number: int) -> Path:
        """The file of the part of this number."""
        return self._table / f"part-{number:05}.parquet"

    def segment_path(self, number: int) -> Path:
        """The file of a journal segment; the segment becomes the part of the same number."""
        return self.path / f"_journal-{number:05}.log"

    @property
    def failures_path(self) -> Path:
        """The file of failed rows."""
        return self.path / "_failures.jsonl"

    @property
    def _state_path(self) -> Path:
        return self.path / "_job.json"

    def parts(self) -> list[int]:
        """The numbers of the parts, ascending.

        Raises:
            OutputError: The folder cannot be read.
        """
        return self._numbers(_PART, self._table)

    def segments(self) -> list[int]:
        """The numbers of the journal's segments, ascending.

        Raises:
            OutputError: The folder cannot be read.
        """
        return self._numbers(_SEGMENT, self.path)

    @staticmethod
    def _numbers(pattern: re.Pattern[str], folder: Path) -> list[int]:
        return sorted(int(match[1]) for name in _names_in(folder) if (match := pattern.fullmatch(name)))

    def portions(self) -> tuple[Portion, ...]:
        """The job's saved portions, in row order; empty if there is no job here.

        Raises:
            OutputError: The state cannot be read, or has an unknown version.
        """
        with file_errors(self._state_path):
            try:
                with open_own(self._state_path, "rb") as file:
                    content = file.read()
            except FileNotFoundError:
                return ()
        try:
            state = msgspec.json.decode(content, type=_State)
        except msgspec.MsgspecError as error:
            raise OutputError(f"{self._state_path}: it cannot be read: {error}; --overwrite starts over") from None
        if state.format not in _FORMATS:
            raise OutputError(f"{self._state_path}: another version of this program wrote it; --overwrite starts over")
        return state.portions

    def remember(self, portions: tuple[Portion, ...]) -> None:
        """Save and sync the job's state.

        Raises:
            OutputError: The file system refused an operation.
        """
        state = _State(portions, 1 + any(each.fingerprint.layout is not None for each in portions))
        with replacing(self._state_path, prefix="_job-", private=True) as file:
            file.write(msgspec.json.format(msgspec.json.encode(state)) + b"\n")

    def strangers(self) -> list[str]:
        """Files that no job writes and that a reader would take for part of the table.

        Raises:
            OutputError: The folder cannot be read.
        """
        names = [name for name in _names_in(self.path) if not name.startswith(("_", "."))]
        own = {folder.name for folder in self._export_folders()}
        own.update(name for name in names if (self.layout is None and _PART.fullmatch(name)) or _is_empty(self.path / name))
        return sorted(set(names) - own)

    def holds_rows(self) -> bool:
        """Whether there is a part, of whatever layout, or a journal segment that is not empty.

        Raises:
            OutputError: The folder cannot be read.
        """
        with file_errors(self.path):
            tables = (self.path, self._table_beside_exports)
            return any(self._numbers(_PART, table) for table in tables) or any(
                self.segment_path(number).stat().st_size for number in self.segments()
            )

    def clear(self) -> None:
        """Remove the job and everything it has written, whatever its layout.

        Raises:
            OutputError: The file system refused an operation.
        """
        exports = self._export_folders()
        with file_errors(self.path):
            for folder in exports:
                _remove_files(_EXPORT, folder)
            for folder in (self._table_beside_exports, self.path):
                _remove_files(_PART, folder)
            _remove_files(_SEGMENT, self.path)
            self.failures_path.unlink(missing_ok=True)
            _remove_empty(*exports, self._table_beside_exports)
            sync_folder(self.path)
            # The state last: what a kill leaves is then known to be this job's, and no other job takes it over.
            self._state_path.unlink(missing_ok=True)
            sync_folder(self.path)

    def remove_stale_exports(self) -> None:
        """Remove the files for an index whose parts are gone, because other rows may get their numbers.

        Raises:
            OutputError: The file system refused an operation.
        """
        if self.layout is not None:
            with file_errors(self._exports):
                _remove_files(_EXPORT, self._exports, but={self.export_path(number).name for number in self.parts()})

    def remove_segment(self, number: int) -> None:
        """Remove a segment that has become a part.

        Raises:
            OutputError: The file system refused an operation.
        """
        path = self.segment_path(number)
        with file_errors(path):
            path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove the unfinished files of a run that was killed.

        Raises:
            OutputError: The file system refused an operation.
        """
        for folder in {self.path, self._table_beside_exports, self._exports}:
            with file_errors(folder):
                _remove_files(_LEFTOVER, folder)


def _names_in(folder: Path) -> list[str]:
    with file_errors(folder):
        return os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - only the names are needed


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not _names_in(path)


def _remove_files(pattern: re.Pattern[str], folder: Path, but: Collection[str] = ()) -> None:
    stale = [name for name in _names_in(folder) if pattern.fullmatch(name) and name not in but]
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    if stale:
        sync_folder(folder)


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def held_folder(path: Path) -> Iterator[OutputFolder]:
    """Create the folder if it is missing, and lock it while the block runs.

    Raises:
        OutputError: It cannot be created or written to, or another run holds the lock.
    """
    with file_errors(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: it is a file; a job writes to a folder")
        if not path.resolve().parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent} to create it in; create that first: mkdir -p")
        path.mkdir(exist_ok=True)
    lock = path / "_lock"
    with contextlib.ExitStack() as stack:
        with file_errors(lock):
            # Never removed: a process waiting for the lock of a removed file would then hold a lock on nothing.
            file: BinaryIO = stack.enter_context(open_own(lock, "a+b"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read(20).decode("ascii", "replace").strip()
                by = f" (process {owner})" if owner.isdigit() else ""
                raise OutputError(f"{path}: another run is writing to this folder{by}; wait for it or end it") from None
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
            file.flush()
        folder = OutputFolder(path)
        folder.remove_leftovers()
        yield folder
