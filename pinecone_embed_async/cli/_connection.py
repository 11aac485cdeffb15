"""The client for a command's options, connected to the service or a local emulator."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pinecone_embed_async import ConfigurationError, EmbedClient, EmbedError, Quota, SqliteCache, SqliteQuota
from pinecone_embed_async._options import DEFAULT_API_VERSION, DEFAULT_BASE_URL
from pinecone_embed_async._rate_limit import PlanName


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a run; `None` leaves the client's own default.

    Attributes:
        model: The name of the model.
        parameters: The model's parameters, `input_type` among them.
        quota: Limits, or the name of a plan; learned if `None`.
        quota_file: The file in which processes share the quota; `None` for a quota of its own.
        concurrency: Requests in flight at most.
        batch_size: Inputs per request at most.
        decoder: The decoder of answers, `"native"` or `"msgspec"`; checked by the client.
        base_url: The service's address.
        allow_http: Whether the address may be plain HTTP to another machine.
        emulator: Whether an emulator beside the client answers, without a key.
        timeout: Seconds that the whole run may take.
        dedupe: Whether equal texts are sent once.
        cache: The file of cached vectors; `None` for none.
        quiet: Whether nothing is shown.
        price: What a million tokens cost; `None` if that is not known.
    """

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    quota: Quota | PlanName | None = None
    quota_file: Path | None = None
    concurrency: int | None = None
    batch_size: int | None = None
    decoder: str | None = None
    base_url: str | None = None
    allow_http: bool = False
    emulator: bool = False
    timeout: float | None = None
    dedupe: bool = False
    cache: Path | None = None
    quiet: bool = False
    price: float | None = None


def service_named(settings: Settings) -> tuple[str, str]:
    """The address of the service and the version of its API, for the fingerprint of a job."""
    if settings.emulator:
        return "an emulator in this process", DEFAULT_API_VERSION
    return address_of(settings), DEFAULT_API_VERSION


def address_of(settings: Settings) -> str:
    """The address of the service, if it is not an emulator."""
    address = settings.base_url or os.environ.get("PINECONE_CONTROLLER_HOST") or DEFAULT_BASE_URL
    return (address if "://" in address else f"https://{address}").rstrip("/")


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[EmbedClient[Any]]:
    """Open a client, and before it the emulator if the settings want one."""
    async with contextlib.AsyncExitStack() as stack:
        where: dict[str, Any] = {"base_url": settings.base_url}
        if settings.emulator:
            # Nothing else here uses it, and importing it takes a tenth of a second.
            from pinecone_embed_async.emulator import Emulator  # noqa: PLC0415

            # The records would not be read.
            emulator = await stack.enter_async_context(Emulator(record_texts=False))
            where = {"base_url": emulator.url, "api_key": emulator.api_key}
        if settings.cache is not None:
            where["cache"] = await stack.enter_async_context(SqliteCache(settings.cache))
        if settings.quota_file is not None:
            where["quota"] = await stack.enter_async_context(_shared_quota(settings.quota_file, settings.quota))
        yield await stack.enter_async_context(_client(settings, **where))


def unconnected(settings: Settings) -> EmbedClient[Any]:
    """Make a client for work without requests, and so without a key.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    key = os.environ.get("PINECONE_API_KEY") or "unused"
    return _client(settings, base_url=settings.base_url, api_key=key)


def check_settings(settings: Settings) -> None:
    """Check the settings as far as possible without a request.

    Raises:
        ConfigurationError: They cannot.
    """
    unconnected(settings).estimate(())


@contextlib.asynccontextmanager
async def _shared_quota(path: Path, quota: Quota | PlanName | None) -> AsyncIterator[SqliteQuota]:
    """Open a quota's file now, so that what is wrong with it is told before anything is read.

    Raises:
        ConfigurationError: It cannot be used.
    """
    async with SqliteQuota(path, quota) as shared:
        try:
            await shared.statistics()
        except EmbedError:
            raise
        except Exception as error:
            raise ConfigurationError(f"--quota-file {str(path)!r} cannot be used: {error}") from error
        yield shared


def check_files(settings: Settings) -> None:
    """Check the files that the client would use, as far as possible without opening them.

    Raises:
        ConfigurationError: They cannot be.
    """
    if settings.cache is not None:
        if settings.emulator:
            raise ConfigurationError("--cache is of no use with --emulator: each has another address, and so other vectors")
        SqliteCache(settings.cache)
    if settings.quota_file is not None:
        if settings.emulator:
            raise ConfigurationError("--quota-file is of no use with --emulator: each is a service of its own")
        SqliteQuota(settings.quota_file, settings.quota)


def _client(settings: Settings, **options: Any) -> EmbedClient[Any]:
    if settings.concurrency is not None:
        options["max_concurrency"] = settings.concurrency
    options.setdefault("quota", settings.quota)
    return EmbedClient(
        settings.model,
        parameters=settings.parameters,
        max_batch_size=settings.batch_size,
        # The client checks it.
        decoder=cast("Any", settings.decoder),
        allow_http=settings.allow_http,
        **options,
    )
