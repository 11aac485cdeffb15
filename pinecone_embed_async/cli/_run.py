"""One run of the client, against the service or a local emulator."""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinecone_embed_async import (
    ConfigurationError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    Quota,
    SparseEmbeddings,
    SqliteCache,
)
from pinecone_embed_async._client import DEFAULT_BASE_URL
from pinecone_embed_async._limits import PlanName
from pinecone_embed_async.cli._progress import Summary, advance_of, reporting
from pinecone_embed_async.emulator import Emulator


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the options of a run say; `None` leaves the client's own default.

    Attributes:
        model: The name of the model.
        parameters: The model's parameters, `input_type` among them.
        quota: What paces the requests: limits, or the name of a plan; learned if there is none.
        concurrency: Requests in flight at most.
        batch_size: Inputs per request at most.
        base_url: The service's address.
        allow_http: Whether the address may be plain HTTP to another machine.
        emulator: Whether an emulator in this process answers, without a key.
        timeout: Seconds that the whole run may take.
        dedupe: Whether equal texts are sent once.
        cache: The file that vectors are kept in; `None` for none.
        dense_only: Whether sparse embeddings are of no use, so that a model that is not known is asked about first.
        quiet: Whether nothing is shown.
    """

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    quota: Quota | PlanName | None = None
    concurrency: int | None = None
    batch_size: int | None = None
    base_url: str | None = None
    allow_http: bool = False
    emulator: bool = False
    timeout: float | None = None
    dedupe: bool = False
    cache: Path | None = None
    dense_only: bool = False
    quiet: bool = False


_API_VERSION = "2025-10"


def service_named(settings: Settings) -> tuple[str, str]:
    """The address of the service and the version of its API, as the fingerprint of a job has them."""
    if settings.emulator:
        return "an emulator in this process", _API_VERSION
    address = settings.base_url or os.environ.get("PINECONE_CONTROLLER_HOST") or DEFAULT_BASE_URL
    return (address if "://" in address else f"https://{address}").rstrip("/"), _API_VERSION


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[EmbedClient[Any]]:
    """Open a client, and the emulator before it where the settings ask for one."""
    async with contextlib.AsyncExitStack() as stack:
        where: dict[str, Any] = {"base_url": settings.base_url}
        if settings.emulator:
            # Nobody looks at what it has recorded.
            emulator = await stack.enter_async_context(Emulator(record_texts=False))
            where = {"base_url": emulator.url, "api_key": emulator.api_key}
        if settings.cache is not None:
            where["cache"] = await stack.enter_async_context(SqliteCache(settings.cache))
        yield await stack.enter_async_context(_client(settings, **where))


def unconnected(settings: Settings) -> EmbedClient[Any]:
    """A client for what needs no request, and so no key.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    key = os.environ.get("PINECONE_API_KEY") or "unused"
    return _client(settings, base_url=settings.base_url, api_key=key)


def check_settings(settings: Settings) -> None:
    """See that the settings can work, as far as that can be told without a request.

    Raises:
        ConfigurationError: They cannot.
    """
    unconnected(settings).estimate(())


def _client(settings: Settings, **options: Any) -> EmbedClient[Any]:
    if settings.concurrency is not None:
        options["max_concurrency"] = settings.concurrency
    return EmbedClient(
        settings.model,
        api_version=_API_VERSION,
        parameters=settings.parameters,
        quota=settings.quota,
        max_batch_size=settings.batch_size,
        allow_http=settings.allow_http,
        **options,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        embeddings: A row for each text, those included that are not embedded.
        summary: What it did.
        error: Why it is not complete; `None` if it is.
    """

    embeddings: DenseEmbeddings | SparseEmbeddings
    summary: Summary
    error: EmbedError | None


async def embed_texts(client: EmbedClient[Any], texts: Sequence[str], settings: Settings) -> Outcome:
    """Embed all texts with progress; what was embedded comes back, whatever became of the rest.

    Raises:
        ConfigurationError: The settings do not fit together or the model; nothing was sent.
        InputError: A text cannot be sent; nothing was.
    """
    if settings.dense_only:
        await _check_dense(client)
    failure: EmbedError | None = None
    with reporting(len(texts), client, quiet=settings.quiet) as reporter:
        started = time.perf_counter()
        try:
            embeddings = await client.embed(
                texts, timeout=settings.timeout, dedupe=settings.dedupe, progress=lambda now: reporter(advance_of(now))
            )
        except EmbedError as error:
            # `on_error="return"` would not tell what ended a run before all was tried.
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


async def _check_dense(client: EmbedClient[Any]) -> None:
    """Ask the service about a model that is not known by name; what it does not say is found out later.

    Raises:
        ConfigurationError: The model gives sparse vectors.
    """
    try:
        model = await client.describe_model()
    except EmbedError:
        return
    if model.vector_type == "sparse":
        raise ConfigurationError(
            f"{model.model} gives sparse vectors and a .npy file holds dense ones; name --out .parquet or .jsonl"
        )
