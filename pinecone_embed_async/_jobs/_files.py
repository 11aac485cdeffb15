"""Files that are replaced whole or not at all, and the file system's errors as errors of the job."""

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
    """Turn the file system's errors into `OutputError` that name the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}", errno=error.errno) from error


def open_own(path: Path, mode: str, *, buffering: int = -1) -> BinaryIO:
    """Open a file of a job's own, which nobody else may read; it is made if it is missing and the mode allows.

    Raises:
        OSError: The file system refused.
        OutputError: It is a symbolic link, or no file: its target, another's perhaps, would be written to.
    """
    # Not to wait for the other end of a pipe.
    opener = lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)  # noqa: E731 - one line
    try:
        file: Any = open(path, mode, buffering, opener=opener)  # noqa: SIM115 - a Path takes no opener
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OutputError(f"{path}: it is a symbolic link, and a job writes to files of its own; remove it") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OutputError(f"{path}: it is no regular file, and a job writes to files of its own; remove it")
    return cast("BinaryIO", file)


def _mode_of_new_files() -> int:
    # There is no other way to read it; for that moment files of other threads are private.
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


@contextlib.contextmanager
def replacing(
    path: Path, *, prefix: str = ".pinecone-embed-", private: bool = False, follow: bool = False
) -> Iterator[BinaryIO]:
    """Yield a file to write, private until it is whole; once the block ends it is synced and replaces `path`, for good.

    Args:
        path: The file to replace.
        prefix: Prefix of the file's name until then.
        private: Whether it stays its owner's; else it has the permissions of the file replaced, or of any new file.
        follow: Whether a symbolic link's target is replaced instead of being refused.

    Raises:
        OutputError: The file system refused; what was there before is still there.
    """
    target = path.resolve() if follow else path
    if target.is_symlink():
        raise OutputError(f"{path}: it is a symbolic link, and a job writes to files of its own; remove it")
    # Short, since the name of the target may already be as long as the file system allows.
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
    """Sync the names in a folder to the disk.

    Raises:
        OSError: They may not be on the disk.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
