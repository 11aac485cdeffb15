"""Writes embeddings to one `.jsonl`, `.npy` or Parquet file, whole or not at all."""

import contextlib
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._failures import cause_of, failure_line, skipped_row
from pinecone_embed_async._jobs._files import PARTIAL_SUFFIX, file_errors, replacing
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._sources import BadRow, Row
from pinecone_embed_async._jobs._table import Embeddings, RowIndices, vector_columns
from pinecone_embed_async._results import DenseEmbeddings

# Enough rows to compress well, few enough that a group of 2048-dimensional vectors takes only 64 MiB.
_ROWS_PER_GROUP = 8192


class OutputFormat(StrEnum):
    """The format of the output file."""

    JSONL = "jsonl"
    NPY = "npy"
    PARQUET = "parquet"


_BYTES_PER_NUMBER = {OutputFormat.JSONL: 8, OutputFormat.NPY: 4, OutputFormat.PARQUET: 4}


def output_format(path: Path) -> OutputFormat:
    """Return the output's format, from the suffix of its name.

    Raises:
        OutputError: The suffix is not `.jsonl`, `.npy` or `.parquet`.
    """
    try:
        return OutputFormat(path.suffix.lower().removeprefix("."))
    except ValueError:
        raise OutputError(
            f"{path}: the output must be named .jsonl, .npy or .parquet, or be a folder (no suffix, or a trailing /)"
        ) from None


def failures_path(path: Path) -> Path:
    """The path of the file that lists failed inputs and their causes, beside the output."""
    return path.with_name(f"{path.name}.failures.jsonl")


def check_output(path: Path, inputs: Sequence[InputFile]) -> None:
    """Check that the output can be written, before anything is sent.

    Raises:
        OutputError: The output's folder is missing or not writable, or the output or its file of failures exists and is not
            a file, has too long a name, or would replace an input.
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
        # This also finds a name that is too long.
        with file_errors(written):
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(written.stat().st_mode):
                    raise OutputError(f"{written}: it exists and is not a file")
            for file in inputs:
                if file.path is not None and file.path.resolve() == written.resolve():
                    raise OutputError(f"{written}: it is an input of this run and would be replaced; choose another name")


def check_space(path: Path, rows: int, dimension: int | None) -> None:
    """Check before anything is sent that the vectors fit on the disk, since vectors that cannot be written are lost.

    Args:
        path: The output.
        rows: The number of rows.
        dimension: Dimension of the vectors; `None` if that is not known.

    Raises:
        OutputError: There is not enough space.
    """
    needed = rows * (dimension or 0) * _BYTES_PER_NUMBER[output_format(path)]
    with file_errors(path):
        free = shutil.disk_usage(path.resolve().parent).free
    if needed > free:
        raise OutputError(f"{path}: it needs at least {needed:,} bytes, and {free:,} are free")


def write_output(path: Path, rows: Sequence[Row], embeddings: Embeddings, *, skipped: Sequence[BadRow] = ()) -> None:
    """Write embeddings in the format of `path`'s suffix, and a file of failures beside them.

    Row i of `embeddings` belongs to `rows[i]`. `.jsonl` and Parquet files hold only the embedded rows, in order. In `.npy`,
    failed and skipped rows are NaN, so that row i of the input is row i of the array. Both files are written under temporary
    names, synced and then renamed, so a file of an earlier run is replaced whole or stays. If every row is embedded, the
    failures file of an earlier run is removed.

    Args:
        path: The output.
        rows: The rows to embed.
        embeddings: Their embeddings.
        skipped: The other rows of the input, which cannot be embedded.

    Raises:
        OutputError: The file system refused an operation, or sparse embeddings were to go to `.npy`.
    """
    complete = bool(embeddings.embedded.all()) and not skipped
    written_as = output_format(path)
    with replacing(path, follow=True) as file:
        if written_as is OutputFormat.NPY:
            _write_npy(file, rows, embeddings, len(rows) + len(skipped))
        else:
            _WRITERS[written_as](file, rows, embeddings, np.flatnonzero(embeddings.embedded))
        if not complete:
            with replacing(failures_path(path), private=True, follow=True) as failures_file:
                _write_failures(failures_file, rows, embeddings, skipped)
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


def _write_npy(file: BinaryIO, rows: Sequence[Row], embeddings: Embeddings, count: int) -> None:
    if not isinstance(embeddings, DenseEmbeddings):
        raise OutputError("a .npy file holds dense vectors only; write sparse ones to .parquet or .jsonl")
    vectors = embeddings.vectors
    if count > len(rows):
        vectors = np.full((count, vectors.shape[1]), np.nan, np.float32)
        vectors[[row.number for row in rows]] = embeddings.vectors
    np.save(file, vectors, allow_pickle=False)


def _write_parquet(file: BinaryIO, rows: Sequence[Row], embeddings: Embeddings, kept: RowIndices) -> None:
    writer: Any = None
    try:
        # At least one round, so that a table without rows still has its columns.
        for start in range(0, max(1, len(kept)), _ROWS_PER_GROUP):
            group = kept[start : start + _ROWS_PER_GROUP]
            ids = pa.array([rows[index].id for index in group.tolist()], pa.string())
            table = pa.table({"id": ids, **vector_columns(embeddings, group)})
            if writer is None:
                # Nearly every id and number is different: a dictionary would cost time and save nothing.
                writer = parquet.ParquetWriter(file, table.schema, use_dictionary=False)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_failures(file: BinaryIO, rows: Sequence[Row], embeddings: Embeddings, skipped: Sequence[BadRow]) -> None:
    causes = {index: failure.error for failure in embeddings.failures for index in failure.indices}
    for index in np.flatnonzero(~embeddings.embedded).tolist():
        error = causes.get(index)
        cause = (None, "not tried: the run ended first") if error is None else cause_of(error)
        file.write(failure_line(rows[index], *cause))
    file.writelines(failure_line(row, *cause) for row, cause in map(skipped_row, skipped))


_WRITERS: dict[OutputFormat, Callable[[BinaryIO, Sequence[Row], Embeddings, RowIndices], None]] = {
    OutputFormat.JSONL: _write_jsonl,
    OutputFormat.PARQUET: _write_parquet,
}
