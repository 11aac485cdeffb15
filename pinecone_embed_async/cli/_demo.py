"""`pinecone-embed demo`: real text, a query, the nearest docstrings."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pinecone_embed_async import ConfigurationError, DenseEmbeddings
from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async.cli._docstrings import Docstring, read_docstrings
from pinecone_embed_async.cli._output import print_error, print_line, printable
from pinecone_embed_async.cli._run import Settings, connected, embed_texts

DEFAULT_QUERY = "wait for several coroutines to finish"


def run_demo(query: str, *, top: int, settings: Settings) -> int:
    """Embed the standard library's docstrings against an emulator and print the nearest to `query`.

    Raises:
        EmbedError: Of any kind.
    """
    known = KNOWN_MODELS.get(settings.model)
    if known is None or known.vector_type != "dense":
        raise ConfigurationError(f"the demo needs a dense model that is known, not {settings.model!r}")
    docstrings = read_docstrings()
    if not settings.quiet:
        print_line(f"{len(docstrings):,} docstrings of Python's standard library, against a local emulator")
    settings = replace(settings, emulator=True, parameters={"input_type": "passage"})
    passages, summary = asyncio.run(embed_texts([docstring.text for docstring in docstrings], settings))
    if summary.failed:
        print_error(f"{summary.failed:,} docstrings failed: {passages.failures[0].error}")
        return 1
    vector = asyncio.run(_embed_query(query, settings))
    if not settings.quiet:
        print_line(str(summary))
    _print_nearest(query, _nearest(passages, vector, top), docstrings)
    return 0


async def _embed_query(query: str, settings: Settings) -> npt.NDArray[np.float32]:
    async with connected(settings) as client:
        result = await client.embed(query, input_type="query")
        vector: npt.NDArray[np.float32] = result.vectors[0]
        return vector


def _nearest(passages: DenseEmbeddings | object, vector: npt.NDArray[np.float32], top: int) -> list[tuple[float, int]]:
    # Vectors have length one up to rounding, so their product is the cosine.
    vectors = passages.vectors if isinstance(passages, DenseEmbeddings) else np.empty((0, len(vector)))
    scores = vectors @ vector
    order = np.argsort(-scores, kind="stable")[:top]
    return [(float(scores[row]), int(row)) for row in order]


def _print_nearest(query: str, nearest: Sequence[tuple[float, int]], docstrings: Sequence[Docstring]) -> None:
    print(f"nearest to: {printable(query)}")  # noqa: T201 - the command's result
    for score, row in nearest:
        docstring = docstrings[row]
        first_line = printable(docstring.text.strip().split("\n", 1)[0])[:100]
        print(f"{score:6.3f}  {printable(docstring.name)}  {first_line}")  # noqa: T201 - the same
