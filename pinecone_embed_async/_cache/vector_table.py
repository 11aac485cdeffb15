"""The table of a cache file."""

from __future__ import annotations

import contextlib
from itertools import chain
from typing import TYPE_CHECKING

from pinecone_embed_async import _sqlite

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

PAGE_BYTES = 16_384
"""Bytes per page. Three rows of 1024 numbers fit into one page. Reading all rows takes two thirds of the time needed with
pages of 4 KiB, where each row takes two pages."""

KIND = _sqlite.FileKind(
    "cache",
    application_id=int.from_bytes(b"PEA\x01", "big"),
    version=1,
    schema=("CREATE TABLE vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT",),
    page_bytes=PAGE_BYTES,
)

_AT_ONCE = 512
"""Maximum number of keys in one statement. SQLite allows 32,766 parameters; a write needs two per key."""

_PUT = "INSERT INTO vectors (key, value) VALUES {} ON CONFLICT (key) DO UPDATE SET value = excluded.value"


def prepare(file: sqlite3.Connection, path: Path) -> None:
    """Create the table if the file is new. Another program's file is left unchanged.

    Raises:
        ConfigurationError: the file is not a cache of this version.
    """
    # A power failure can then lose only whole transactions, whose vectors are requested again.
    file.execute("PRAGMA synchronous = NORMAL")
    _sqlite.prepare(file, path, KIND)


def read(file: sqlite3.Connection, keys: Sequence[bytes]) -> list[bytes | None]:
    """The value of each key; `None` if there is none."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), _AT_ONCE):
        batch = keys[start : start + _AT_ONCE]
        marks = ",".join("?" * len(batch))
        # By id, so that rows are read in the order in which they are stored.
        statement = f"SELECT key, value FROM vectors WHERE id IN (SELECT id FROM vectors WHERE key IN ({marks}))"  # noqa: S608
        found.update(file.execute(statement, batch))
    return [found.get(key) for key in keys]


def write(file: sqlite3.Connection, entries: Sequence[tuple[bytes, bytes]]) -> None:
    """Write values by key, all or none."""
    # As few statements as possible, because after each the thread must wait for the interpreter's lock. A single one is a
    # transaction by itself.
    with _sqlite.transaction(file) if len(entries) > _AT_ONCE else contextlib.nullcontext():
        for start in range(0, len(entries), _AT_ONCE):
            batch = entries[start : start + _AT_ONCE]
            file.execute(_PUT.format(",".join(["(?,?)"] * len(batch))), [*chain.from_iterable(batch)])
