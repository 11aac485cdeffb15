"""Opens the client for a command's options, connected to the service or a local emulator."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pinecone_embed_async import ConfigurationError, EmbedClient, EmbedError, Quota, SqliteCache, SqliteQuota
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._options import DEFAULT_API_VERSION, DEFAULT_BASE_URL
from pinecone_embed_async._rate_limit import PlanName


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a run; `None` means the client's default.

    Attributes:
        model: The name of the model.
        parameters: The model's parameters, including `input_type`.
        quota: Limits, or the name of a plan; `None` to learn them.
        quota_file: The file through which processes share the quota; `None` not to share it.
        concurrency: Most requests in flight.
        batch_size: Most inputs per request.
        decoder: The decoder of responses, `"native"` or `"msgspec"`; the client checks it.
        base_url: The service's address.
        allow_http: Whether plain HTTP to another machine is allowed.
        emulator: Whether to use an emulator in this process, without a key.
        timeout: Time limit of the whole run in seconds.
        dedupe: Whether to send equal texts once.
        cache: The file of cached vectors; `None` for none.
        quiet: Whether to show nothing.
        price: Price of a million tokens; `None` if not given.
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
    """The service's address and API version, for the fingerprint of a job."""
    if settings.emulator:
        return "an emulator in this process", DEFAULT_API_VERSION
    return address_of(settings), DEFAULT_API_VERSION


def address_of(settings: Settings) -> str:
    """The address of the service, which must not be an emulator."""
    address = settings.base_url or os.environ.get("PINECONE_CONTROLLER_HOST") or DEFAULT_BASE_URL
    return (address if "://" in address else f"https://{address}").rstrip("/")


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[EmbedClient[Any]]:
    """Open a client and, if the settings ask for one, an emulator for it."""
    async with contextlib.AsyncExitStack() as stack:
        where: dict[str, Any] = {"base_url": settings.base_url}
        if settings.emulator:
            # Only this function uses it, and importing it takes a tenth of a second.
            from pinecone_embed_async.emulator import Emulator  # noqa: PLC0415

            # Nothing reads the recorded texts.
            emulator = await stack.enter_async_context(Emulator(record_texts=False))
            where = {"base_url": emulator.url, "api_key": emulator.api_key}
        if settings.cache is not None:
            where["cache"] = await stack.enter_async_context(SqliteCache(settings.cache))
        if settings.quota_file is not None:
            where["quota"] = await stack.enter_async_context(_shared_quota(settings.quota_file, settings.quota))
        yield await stack.enter_async_context(_client(settings, **where))


def unconnected(settings: Settings) -> EmbedClient[Any]:
    """Make a client for work that needs no request and no key.

    Raises:
        ConfigurationError: The settings are invalid.
    """
    key = os.environ.get("PINECONE_API_KEY") or "unused"
    return _client(settings, base_url=settings.base_url, api_key=key)


def check_settings(settings: Settings) -> None:
    """Check the settings as far as possible without a request.

    Raises:
        ConfigurationError: The settings are invalid.
    """
    unconnected(settings).estimate(())


@contextlib.asynccontextmanager
async def _shared_quota(path: Path, quota: Quota | PlanName | None) -> AsyncIterator[SqliteQuota]:
    """Open the quota's file now, so that a problem with it is reported before anything is read.

    Raises:
        ConfigurationError: The file cannot be used.
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
    """Check the cache and quota files as far as possible without opening them.

    Raises:
        ConfigurationError: A file cannot be used.
    """
    if settings.cache is not None:
        if settings.emulator:
            raise ConfigurationError(
                "--cache cannot be used with --emulator: each emulator has a new address, and vectors are cached by address"
            )
        SqliteCache(settings.cache)
    if settings.quota_file is not None:
        if settings.emulator:
            raise ConfigurationError("--quota-file cannot be used with --emulator: each emulator is a separate service")
        SqliteQuota(settings.quota_file, settings.quota)


def check_apart(settings: Settings, files: Sequence[InputFile], written: Sequence[Path]) -> None:
    """Check that the cache and quota files are files of their own.

    Args:
        settings: The settings of the run.
        files: Its inputs.
        written: Its output, a file or a folder, and any other file it writes.

    Raises:
        ConfigurationError: One of them is an input or is written as output, or both are the same file.
    """
    inputs = {file.path.resolve() for file in files if file.path is not None}
    given = {"--cache": settings.cache, "--quota-file": settings.quota_file}
    places = {name: path.resolve() for name, path in given.items() if path is not None}
    for name, place in places.items():
        if place in inputs:
            raise ConfigurationError(f"{name} {given[name]} is an input of this run; give {name} a file of its own")
        if any(place.is_relative_to(path.resolve()) for path in written):
            raise ConfigurationError(
                f"{name} {given[name]} is in the output, which other programs read; give {name} a file of its own elsewhere"
            )
    if len(set(places.values())) < len(places):
        raise ConfigurationError(f"--cache and --quota-file are both {settings.cache}; give each a file of its own")


def _client(settings: Settings, **options: Any) -> EmbedClient[Any]:
    if settings.concurrency is not None:
        options["max_concurrency"] = settings.concurrency
    options.setdefault("quota", settings.quota)
    return EmbedClient(
        settings.model,
        parameters=settings.parameters,
        max_batch_size=settings.batch_size,
        # The client checks its value.
        decoder=cast("Any", settings.decoder),
        allow_http=settings.allow_http,
        **options,
    )
