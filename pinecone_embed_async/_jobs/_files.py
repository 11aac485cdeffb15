"""Files that are replaced whole or not at all, and the file system's errors as errors of the job."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pinecone_embed_async._jobs._errors import OutputError

PARTIAL_SUFFIX = ".partial"


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn the file system's errors into `OutputError` that name the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path, *, prefix: str = ".pinecone-embed-") -> Iterator[BinaryIO]:
    """Yield a file to write; once the block ends it is synced and replaces `path`, for good.

    Args:
        path: The file to replace; the target of a symbolic link.
        prefix: Prefix of the file's name until then.

    Raises:
        OutputError: The file system refused; what was there before is still there.
    """
    target = path.resolve()
    # Short, since the name of the target may already be as long as the file system allows.
    beside = target.with_name(f"{prefix}{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    with file_errors(path):
        try:
            with beside.open("xb") as file:
                if target.exists():
                    shutil.copymode(target, beside)
                yield file
                file.flush()
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
