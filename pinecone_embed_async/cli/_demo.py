"""`pinecone-embed demo`: embeds real text and finds the docstrings nearest to a query."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pinecone_embed_async import ConfigurationError
from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async.cli._connection import Settings, connected
from pinecone_embed_async.cli._docstrings import Docstring, read_docstrings
from pinecone_embed_async.cli._output import print_error, print_line, printable
from pinecone_embed_async.cli._progress import Summary
from pinecone_embed_async.cli._run import embed_texts
from pinecone_embed_async.cli._signals import run_until_stopped
from pinecone_embed_async.cli._warnings import LibraryWarnings, library_warnings


def run_demo(query: str, *, top: int, settings: Settings) -> int:
    """Embed the standard library's docstrings with an emulator and print the nearest to `query`.

    Raises:
        EmbedError: Any error of the client.
    """
    known = KNOWN_MODELS.get(settings.model)
    if known is None or known.vector_type != "dense":
        raise ConfigurationError(f"the demo needs a known dense model, not {settings.model!r}")
    docstrings = read_docstrings()
    if not settings.quiet:
        print_line(f"{len(docstrings):,} docstrings of Python's standard library, embedded by a local emulator")
    settings = replace(settings, emulator=True, parameters={"input_type": "passage"})
    with library_warnings(print_error) as warnings:
        scores, summary = run_until_stopped(_scores(query, docstrings, settings, warnings))
    if not settings.quiet:
        print_line(str(summary))
    _print_nearest(query, _nearest(scores, top), docstrings)
    return 0


async def _scores(
    query: str, docstrings: Sequence[Docstring], settings: Settings, warnings: LibraryWarnings
) -> tuple[npt.NDArray[np.float32], Summary]:
    async with connected(settings) as client:
        outcome = await embed_texts(client, [docstring.text for docstring in docstrings], settings, warnings)
        if outcome.error is not None:
            raise outcome.error
        answer: Any = await client.embed(query, input_type="query")
        passages: Any = outcome.embeddings
        # Vectors have length 1 up to rounding, so their product is the cosine.
        scores: npt.NDArray[np.float32] = passages.vectors @ answer.vectors[0]
        return scores, outcome.summary


def _nearest(scores: npt.NDArray[np.float32], top: int) -> list[tuple[float, int]]:
    # Stable, so that equal scores stay in the library's order.
    order = np.argsort(-scores, kind="stable")[:top]
    return [(float(scores[row]), int(row)) for row in order]


def _print_nearest(query: str, nearest: Sequence[tuple[float, int]], docstrings: Sequence[Docstring]) -> None:
    print(f"nearest to: {printable(query)}")  # noqa: T201 - the command's result
    for score, row in nearest:
        docstring = docstrings[row]
        first_line = printable(docstring.text.strip().split("\n", 1)[0])[:100]
        print(f"{score:6.3f}  {printable(docstring.name)}  {first_line}")  # noqa: T201 - the same
