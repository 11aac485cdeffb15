"""`pinecone-embed embed` into one file: reads the inputs, embeds them, writes the output.

Files are read before the event loop starts and written after it has ended, so file access never delays requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinecone_embed_async import ConfigurationError, EmbedClient, EmbedError
from pinecone_embed_async._jobs._checking import RowCheck
from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._ledger import is_about_rows
from pinecone_embed_async._jobs._outputs import (
    OutputFormat,
    check_output,
    check_space,
    failures_path,
    output_format,
    write_output,
)
from pinecone_embed_async._jobs._sources import BadRow, Columns, read_all_rows
from pinecone_embed_async._models import KNOWN_MODELS, expected_dimension
from pinecone_embed_async.cli._connection import Settings, check_apart, connected
from pinecone_embed_async.cli._figures import priced
from pinecone_embed_async.cli._output import print_error, print_line
from pinecone_embed_async.cli._run import Outcome, embed_texts
from pinecone_embed_async.cli._signals import run_until_stopped
from pinecone_embed_async.cli._statuses import ExitStatus, status_of
from pinecone_embed_async.cli._warnings import LibraryWarnings, library_warnings


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """Which rows and fields to take from the inputs.

    Attributes:
        columns: The fields taken from each record.
        skip_bad_rows: Whether to leave out rows that cannot be embedded; else they are an error.
        unique_ids: Whether repeated ids are an error.
    """

    columns: Columns
    skip_bad_rows: bool = False
    unique_ids: bool = False


def is_folder(out: str) -> bool:
    """Whether `--out` names a job's folder rather than one file.

    Raises:
        ConfigurationError: The suffix is not one of a format that can be written.
    """
    path = Path(out)
    if out.endswith("/") or path.is_dir() or not path.suffix:
        return True
    try:
        output_format(path)
    except OutputError as error:
        raise ConfigurationError(str(error)) from None
    return False


def embed_to_file(files: Sequence[InputFile], *, out: Path, rows: RowChoice, settings: Settings) -> int:
    """Embed the rows of `files` into the one file `out` and return the exit status.

    Everything is held in memory until the end. If no row is embedded, nothing is written and `out` is unchanged.

    Returns:
        0 only if every row is embedded, not counting rows left out on request.

    Raises:
        EmbedError: Any error; nothing was written.
    """
    written_as = output_format(out)
    known = KNOWN_MODELS.get(settings.model)
    is_for_dense = written_as is OutputFormat.NPY
    if is_for_dense and known is not None and known.vector_type == "sparse":
        raise _no_place_for_sparse(settings.model)
    check_apart(settings, files, [out, failures_path(out)])
    check_output(out, files)
    read = list(read_all_rows(files, rows.columns))
    check = RowCheck(has_ids=rows.columns.id is not None)
    chosen = list(check.embeddable(read))
    for warning in check.warnings(skip_bad_rows=rows.skip_bad_rows, unique_ids=rows.unique_ids):
        print_error(warning)
    check_space(out, len(read), expected_dimension(settings.model, settings.parameters))
    texts, ask_first = [row.text for row in chosen], is_for_dense and known is None
    with library_warnings(print_error) as warnings:
        outcome = run_until_stopped(_embed(texts, settings, warnings, ask_first=ask_first))
    summary = outcome.summary
    if not settings.quiet:
        skipped = f"; {check.bad:,} skipped" if check.bad else ""
        print_line(f"{summary}{priced(summary.tokens, settings.price)}{skipped}")
    if outcome.error is not None and not summary.embedded:
        print_error(f"nothing was embedded, so {out} is not written: {outcome.error}")
        return status_of(outcome.error)
    write_output(out, chosen, outcome.embeddings, skipped=[row for row in read if isinstance(row, BadRow)])
    if outcome.error is not None:
        missing = "NaN in" if is_for_dense else "missing from"
        print_error(
            f"{summary.inputs - summary.embedded:,} of {summary.inputs:,} rows are {missing} {out}, "
            f"see {failures_path(out)}: {outcome.error}"
        )
        return ExitStatus.FAILED if is_about_rows(outcome.error) else status_of(outcome.error)
    return ExitStatus.DONE


async def _embed(texts: Sequence[str], settings: Settings, warnings: LibraryWarnings, *, ask_first: bool) -> Outcome:
    async with connected(settings) as client:
        if ask_first:
            await _check_dense(client)
        return await embed_texts(client, texts, settings, warnings)


async def _check_dense(client: EmbedClient[Any]) -> None:
    """Ask the service whether a model not known by name is dense; without an answer, leave the check for later.

    Raises:
        ConfigurationError: The model is sparse.
    """
    try:
        model = await client.describe_model()
    except EmbedError:
        return
    if model.vector_type == "sparse":
        raise _no_place_for_sparse(model.model)


def _no_place_for_sparse(model: str) -> ConfigurationError:
    return ConfigurationError(
        f"{model} gives sparse vectors, and a .npy file holds only dense ones; give --out a .parquet or .jsonl file"
    )
