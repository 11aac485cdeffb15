"""Files that are replaced whole or not at all, and conversion of file system errors to `OutputError`."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pinecone_embed_async._jobs._errors import OutputError

PARTIAL_SUFFIX = ".partial"


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Convert file system errors to an `OutputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}", errno=error.errno) from error


def open_own(path: Path, mode: str, *, buffering: int = -1) -> BinaryIO:
    """Open one of the job's own files, readable only by its owner; created if it is missing and the mode allows that.

    Raises:
        OSError: The file system refused an operation.
        OutputError: It is a symbolic link, whose target may be somebody else's file, or not a regular file.
    """
    # Non-blocking, since opening a pipe would wait for its other end.
    opener = lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)  # noqa: E731 - one line
    try:
        file: Any = open(path, mode, buffering, opener=opener)  # noqa: SIM115 - a Path takes no opener
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OutputError(f"{path}: it is a symbolic link, and must be a regular file; remove it") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OutputError(f"{path}: it must be a regular file; remove it")
    return cast("BinaryIO", file)


def _mode_of_new_files() -> int:
    # The umask can be read only by setting it; for that moment, files that other threads create are private.
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


@contextlib.contextmanager
def replacing(
    path: Path, *, prefix: str = ".pinecone-embed-", private: bool = False, follow: bool = False
) -> Iterator[BinaryIO]:
    """Yield a private file to write; when the block ends, it is synced and replaces `path`.

    Args:
        path: The file to replace.
        prefix: Prefix of the temporary file's name.
        private: Whether it stays private; else it gets the permissions of the file it replaces, or those of any new file.
        follow: Whether to replace the target of a symbolic link instead of refusing the link.

    Raises:
        OutputError: The file system refused an operation; the earlier file is unchanged.
    """
    target = path.resolve() if follow else path
    if target.is_symlink():
        raise OutputError(f"{path}: it is a symbolic link, and must be a regular file; remove it")
    # Short, since the target's name may already be as long as the file system allows.
    beside = target.with_name(f"{prefix}{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    with file_errors(path):
        try:
            with open_own(beside, "xb") as file:
                yield file
                file.flush()
                if not private:
                    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else _mode_of_new_files()
                    os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            beside.replace(target)
            sync_folder(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to the disk.

    Raises:
        OSError: They may not be on the disk.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
