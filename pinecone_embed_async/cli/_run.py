"""Runs the client once over texts in memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinecone_embed_async import DenseEmbeddings, EmbedClient, EmbedError, SparseEmbeddings
from pinecone_embed_async.cli._connection import Settings
from pinecone_embed_async.cli._figures import advance_of
from pinecone_embed_async.cli._progress import Summary, reporting
from pinecone_embed_async.cli._warnings import LibraryWarnings


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        embeddings: A row for each text, including those that are not embedded.
        summary: The summary.
        error: Why it is incomplete; `None` if it is complete.
    """

    embeddings: DenseEmbeddings | SparseEmbeddings
    summary: Summary
    error: EmbedError | None


async def embed_texts(
    client: EmbedClient[Any], texts: Sequence[str], settings: Settings, warnings: LibraryWarnings
) -> Outcome:
    """Embed all texts and show the progress and the warnings; return what was embedded, even if the rest failed.

    Raises:
        ConfigurationError: The settings do not fit together; nothing was sent.
    """
    failure: EmbedError | None = None
    with reporting(len(texts), client, warnings.take, quiet=settings.quiet) as reporter:
        started = time.perf_counter()
        try:
            embeddings = await client.embed(
                texts, timeout=settings.timeout, dedupe=settings.dedupe, progress=lambda now: reporter(advance_of(now))
            )
        except EmbedError as error:
            # Not `on_error="return"`, which would hide an error that ended the run before all inputs were tried.
            if error.partial is None:
                raise
            failure, embeddings = error, error.partial
        seconds = time.perf_counter() - started
    summary = Summary(
        inputs=len(texts),
        embedded=int(embeddings.embedded.sum()),
        requests=embeddings.usage.requests,
        tokens=embeddings.usage.total_tokens,
        retries=client.statistics().retries,
        seconds=seconds,
        waited=client.statistics().waited,
    )
    return Outcome(embeddings, summary, failure)
