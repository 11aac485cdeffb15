"""`pinecone-embed embed`: read the inputs, embed them, write the output.

Files are read before the event loop starts and written after it has ended, so nothing of it holds up the requests.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pinecone_embed_async import ConfigurationError, InputError
from pinecone_embed_async._jobs import (
    InputFormat,
    JobError,
    OutputFormat,
    SourceError,
    check_output,
    failures_path,
    input_format,
    output_format,
    read_rows,
    write_output,
)
from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async.cli._output import print_error, print_line
from pinecone_embed_async.cli._run import Outcome, Settings, connected, embed_texts


def embed_files(
    inputs: Sequence[str],
    *,
    out: Path,
    format: InputFormat | None,  # noqa: A002 - it is the option's name
    text_field: str,
    id_field: str | None,
    settings: Settings,
) -> int:
    """Embed the rows of `inputs` into `out` and give the exit status: 1 if any row is not embedded.

    If none is, nothing is written, and what `out` held before stays.

    Raises:
        EmbedError: Of any kind; nothing was written.
    """
    written_as = _check_formats(inputs, out, format)
    known = KNOWN_MODELS.get(settings.model)
    if written_as is OutputFormat.NPY and known is not None and known.vector_type == "sparse":
        raise ConfigurationError(
            f"{settings.model} gives sparse vectors and a .npy file holds dense ones; name --out .parquet or .jsonl"
        )
    check_output(out, inputs)
    rows = list(read_rows(inputs, format=format, text_field=text_field, id_field=id_field))
    settings = replace(settings, dense_only=written_as is OutputFormat.NPY and known is None)
    try:
        outcome = asyncio.run(_embed([row.text for row in rows], settings))
    except InputError as error:
        if error.index is None:
            raise
        row = rows[error.index]
        raise SourceError(f"{row.source}:{row.line}: {error}") from error
    summary = outcome.summary
    if not settings.quiet:
        print_line(str(summary))
    if outcome.error is not None and not summary.embedded:
        print_error(f"nothing was embedded, so {out} is not written: {outcome.error}")
        return 1
    write_output(out, rows, outcome.embeddings)
    if outcome.error is not None:
        missing = "NaN in" if written_as is OutputFormat.NPY else "missing from"
        print_error(
            f"{summary.inputs - summary.embedded:,} of {summary.inputs:,} rows are {missing} {out}, "
            f"see {failures_path(out)}: {outcome.error}"
        )
        return 1
    return 0


async def _embed(texts: Sequence[str], settings: Settings) -> Outcome:
    async with connected(settings) as client:
        return await embed_texts(client, texts, settings)


def _check_formats(inputs: Sequence[str], out: Path, given: InputFormat | None) -> OutputFormat:
    # Wrong suffixes are misuse, told before any file is touched.
    try:
        if given is None:
            for name in inputs:
                input_format(name)
        return output_format(out)
    except JobError as error:
        raise ConfigurationError(str(error)) from None
