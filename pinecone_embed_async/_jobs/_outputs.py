"""Embeddings to one `.jsonl`, `.npy` or Parquet file, whole or not at all."""

import secrets
import shutil
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._failures import cause_of, failure_line
from pinecone_embed_async._jobs._files import PARTIAL_SUFFIX, file_errors, replacing
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._jobs._table import Embeddings, RowIndices, vector_columns
from pinecone_embed_async._results import DenseEmbeddings

# Enough rows to compress well, few enough that one group of 2048 dimensions stays at 64 MiB.
_ROWS_PER_GROUP = 8192


class OutputFormat(StrEnum):
    """The layout of the output file."""

    JSONL = "jsonl"
    NPY = "npy"
    PARQUET = "parquet"


_BYTES_PER_NUMBER = {OutputFormat.JSONL: 8, OutputFormat.NPY: 4, OutputFormat.PARQUET: 4}


def output_format(path: Path) -> OutputFormat:
    """Return the format of the output by the suffix of its name.

    Raises:
        OutputError: The suffix names no format that can be written.
    """
    try:
        return OutputFormat(path.suffix.lower().removeprefix("."))
    except ValueError:
        raise OutputError(
            f"{path}: the output must be named .jsonl, .npy or .parquet, or be a folder (no suffix, or / behind it)"
        ) from None


def failures_path(path: Path) -> Path:
    """The path of the file beside an output that lists the failed inputs and their causes."""
    return path.with_name(f"{path.name}.failures.jsonl")


def check_output(path: Path, inputs: Sequence[InputFile]) -> None:
    """Check before anything is sent that the output can be written.

    Raises:
        OutputError: Its folder is missing or not writable, it is a folder itself, or it (or its file of failures) would
            replace an input.
    """
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"{path}: there is no folder {folder}")
    # `os.access` would check the real user's permission, not the effective user's.
    probe = folder / f".pinecone-embed-{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    with file_errors(path):
        probe.touch(exist_ok=False)
        probe.unlink()
    for written in (path, failures_path(path)):
        # Finds a name that is too long as well.
        with file_errors(written):
            if written.exists() and not written.is_file():
                raise OutputError(f"{written}: it exists and is not a file")
            for file in inputs:
                if file.path is not None and file.path.resolve() == written.resolve():
                    raise OutputError(f"{written}: it is an input of the same run and would be replaced")


def check_space(path: Path, rows: int, dimension: int | None) -> None:
    """Check before anything is sent that there is space for the vectors, for what cannot be written is lost.

    Args:
        path: The output.
        rows: The number of rows.
        dimension: Numbers per vector; `None` if that is not known.

    Raises:
        OutputError: There is not enough space.
    """
    needed = rows * (dimension or 0) * _BYTES_PER_NUMBER[output_format(path)]
    with file_errors(path):
        free = shutil.disk_usage(path.resolve().parent).free
    if needed > free:
        raise OutputError(f"{path}: it will have {needed:,} bytes at least, and there is space for {free:,}")


def write_output(path: Path, rows: Sequence[Row], embeddings: Embeddings) -> None:
    """Write embeddings, and beside them what is not embedded, in the format of the suffix of `path`.

    Row i of `embeddings` belongs to `rows[i]`. `.jsonl` and Parquet hold the rows that are embedded, in order; in `.npy` the
    others are NaN, so that row i stays row i. Both files are written beside their targets, synced and then renamed: a file
    of an earlier run is replaced by a whole one or stays. If all is embedded, a failures file of an earlier run is removed.

    Raises:
        OutputError: The file system refused, or sparse embeddings were to go to `.npy`.
    """
    complete = bool(embeddings.embedded.all())
    write = _WRITERS[output_format(path)]
    with replacing(path, follow=True) as file:
        write(file, rows, embeddings, np.flatnonzero(embeddings.embedded))
        if not complete:
            with replacing(failures_path(path), private=True, follow=True) as failures_file:
                _write_failures(failures_file, rows, embeddings)
    if complete:
        with file_errors(failures_path(path)):
            failures_path(path).unlink(missing_ok=True)


def _write_jsonl(file: BinaryIO, rows: Sequence[Row], embeddings: Embeddings, kept: RowIndices) -> None:
    encode = msgspec.json.Encoder().encode
    for index in kept.tolist():
        record: dict[str, Any] = {"id": rows[index].id}
        if isinstance(embeddings, DenseEmbeddings):
            record["vector"] = embeddings.vectors[index].tolist()
        else:
            start, end = embeddings.indptr[index], embeddings.indptr[index + 1]
            record["indices"] = embeddings.indices[start:end].tolist()
            record["values"] = embeddings.values[start:end].tolist()
            if embeddings.tokens is not None:
                record["tokens"] = embeddings.tokens[index]
        file.write(encode(record) + b"\n")


def _write_npy(file: BinaryIO, _rows: Sequence[Row], embeddings: Embeddings, _kept: RowIndices) -> None:
    if not isinstance(embeddings, DenseEmbeddings):
        raise OutputError("a .npy file holds dense vectors only; write sparse ones to .parquet or .jsonl")
    np.save(file, embeddings.vectors, allow_pickle=False)


def _write_parquet(file: BinaryIO, rows: Sequence[Row], embeddings: Embeddings, kept: RowIndices) -> None:
    writer: Any = None
    try:
        # One round at least, so that a table without rows still has its columns.
        for start in range(0, max(1, len(kept)), _ROWS_PER_GROUP):
            group = kept[start : start + _ROWS_PER_GROUP]
            ids = pa.array([rows[index].id for index in group.tolist()], pa.string())
            table = pa.table({"id": ids, **vector_columns(embeddings, group)})
            if writer is None:
                # Every id and nearly every number is different: a dictionary of them costs time and saves nothing.
                writer = parquet.ParquetWriter(file, table.schema, use_dictionary=False)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_failures(file: BinaryIO, rows: Sequence[Row], embeddings: Embeddings) -> None:
    causes = {index: failure.error for failure in embeddings.failures for index in failure.indices}
    for index in np.flatnonzero(~embeddings.embedded).tolist():
        error = causes.get(index)
        cause = (None, "not tried: the run ended before") if error is None else cause_of(error)
        file.write(failure_line(rows[index], *cause))


_WRITERS: dict[OutputFormat, Callable[[BinaryIO, Sequence[Row], Embeddings, RowIndices], None]] = {
    OutputFormat.JSONL: _write_jsonl,
    OutputFormat.NPY: _write_npy,
    OutputFormat.PARQUET: _write_parquet,
}
