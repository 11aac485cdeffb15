"""The options of a client, a call and a stream, and their validation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from pinecone_embed_async import _checks, _models
from pinecone_embed_async._cache import CacheStage
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._planning import LearnedLimits, RequestLimits
from pinecone_embed_async._rate_limit import LimiterOptions, Quota, RateLimitGate, SharedQuota, limiter_options
from pinecone_embed_async._sending import (
    RetryPolicy,
    SendingOptions,
    check_api_key,
    check_base_url,
    check_ssl_context,
    user_agent,
)
from pinecone_embed_async._statistics import ProgressBar
from pinecone_embed_async._telemetry import dispatcher_of
from pinecone_embed_async._wire import encode_parameters, encode_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Executor
    from typing import Generic, Literal, Required, TypedDict, TypeVar

    import aiohttp
    from yarl import URL

    from pinecone_embed_async._cache import Cache, CallCache
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._inputs import Input
    from pinecone_embed_async._planning import Learned
    from pinecone_embed_async._rate_limit import PlanName, Priority, QuotaBackend
    from pinecone_embed_async._sending import Transport
    from pinecone_embed_async._statistics import Progress
    from pinecone_embed_async._telemetry import Hook
    from pinecone_embed_async._wire import DecoderName, VectorType

    ItemT = TypeVar("ItemT")

    E5 = Literal["multilingual-e5-large"]
    Llama = Literal["llama-text-embed-v2"]
    Sparse = Literal["pinecone-sparse-english-v0", "pinecone-sparse-multilingual-v0"]

    class ClientArguments(TypedDict, total=False):
        """Keyword arguments of `EmbedClient` for every model."""

        api_key: str | None
        base_url: str | None
        api_version: str
        parameters: Mapping[str, Any] | None
        input_type: str | None
        quota: Quota | int | PlanName | SharedQuota | QuotaBackend | None
        retry: RetryPolicy | None
        max_concurrency: int
        max_batch_size: int | None
        attempt_timeout: float
        connect_timeout: float
        max_answer_bytes: int
        session: aiohttp.ClientSession | None
        ssl_context: ssl.SSLContext | None
        transport: Transport | None
        source_tag: str | None
        allow_http: bool
        decoder: DecoderName | None
        max_delay: float
        hooks: Iterable[Hook]
        cache: Cache | None
        look_up_model: bool | None
        clock: Clock | None
        draw: Callable[[], float]
        executor: Executor | None

    class E5Arguments(ClientArguments, total=False):
        """Keyword arguments of `EmbedClient` for `multilingual-e5-large`."""

        vector_type: Literal["dense"] | None
        truncate: Literal["END", "NONE"] | None

    class LlamaArguments(ClientArguments, total=False):
        """Keyword arguments of `EmbedClient` for `llama-text-embed-v2`."""

        vector_type: Literal["dense"] | None
        dimension: Literal[384, 512, 768, 1024, 2048] | None
        truncate: Literal["END", "START", "NONE"] | None

    class SparseArguments(ClientArguments, total=False):
        """Keyword arguments of `EmbedClient` for Pinecone's own sparse models."""

        vector_type: Literal["sparse"] | None
        truncate: Literal["END", "NONE"] | None

    class OtherDenseArguments(ClientArguments, total=False):
        """Keyword arguments of `EmbedClient` for another model with `vector_type="dense"`."""

        vector_type: Required[Literal["dense"]]
        dimension: int | None
        truncate: str | None

    class OtherSparseArguments(ClientArguments, total=False):
        """Keyword arguments of `EmbedClient` for another model with `vector_type="sparse"`."""

        vector_type: Required[Literal["sparse"]]
        truncate: str | None

    class OtherArguments(ClientArguments, total=False):
        """Keyword arguments of `EmbedClient` for another model without `vector_type`.

        There is no `dimension` here: with it, a known model with an invalid dimension would match this overload.
        """

        vector_type: None
        truncate: str | None

    class ModelArguments(TypedDict, total=False):
        """Keyword arguments of every call for the parameters of the model."""

        input_type: str | None
        dimension: int | None
        truncate: str | None
        parameters: Mapping[str, Any] | None

    class OneArguments(ModelArguments, total=False):
        """Keyword arguments of `EmbedClient.embed_one`."""

        timeout: float | None
        priority: Priority

    class EstimateArguments(ModelArguments, total=False):
        """Keyword arguments of `EmbedClient.estimate`."""

        dedupe: bool

    class ManyArguments(OneArguments, total=False):
        """Keyword arguments of both `EmbedClient.embed` and `EmbedClient.stream`."""

        on_error: Literal["raise", "return"]
        progress: Callable[[Progress], None] | bool | None

    class EmbedArguments(ManyArguments, EstimateArguments, total=False):
        """Keyword arguments of `EmbedClient.embed`."""

    class StreamArguments(ManyArguments, Generic[ItemT], total=False):
        """Keyword arguments of `EmbedClient.stream`."""

        text: Callable[[ItemT], Input] | None
        ordered: bool
        window: int | None
        in_thread: bool
        max_delay: float


DEFAULT_BASE_URL = "https://api.pinecone.io"
"""Source: `servers` in the reference of the inference API, 2025-10 to 2026-07."""

DEFAULT_API_VERSION = "2026-07"
"""The newest published version of the inference API, which the official SDK 10.2 requests too."""


@dataclass(slots=True, repr=False, eq=False, kw_only=True)
class ClientOptions(SendingOptions):
    """Validated options of a client, and the objects built from them; see `EmbedClient` for their meaning."""

    parameters: Mapping[str, Any]
    max_batch_size: int | None
    max_delay: float
    cache: CacheStage | None
    should_look_up_model: bool


def client_options(model: str, **given: Any) -> ClientOptions:
    """Validate the options of a client: all keyword arguments of `EmbedClient`.

    Raises:
        ConfigurationError: an option is invalid.
    """
    model = model_name("model", model)
    _check_parts(given)
    given_key, given_url = given["api_key"], given["base_url"]
    key = os.environ.get("PINECONE_API_KEY") if given_key is None else _checks.text("api_key", given_key)
    if not key:
        raise ConfigurationError("there is no API key: set PINECONE_API_KEY or pass api_key")
    host = "" if given_url is None else _checks.text("base_url", given_url)
    base_url = check_base_url(
        host or os.environ.get("PINECONE_CONTROLLER_HOST") or DEFAULT_BASE_URL,
        allow_http=_checks.truth("allow_http", given["allow_http"]),
    )
    batch, tag, look_up = given["max_batch_size"], given["source_tag"], given["look_up_model"]
    clock, retry, version = given["clock"] or SystemClock(), given["retry"], _api_version(given["api_version"])
    kind = _models.vector_type_of(model, given["vector_type"])
    others: dict[str, Any] = {
        name: given[name] for name in ("decoder", "session", "ssl_context", "transport", "draw", "executor")
    }
    others |= {name: _checks.whole(name, given[name]) for name in ("max_concurrency", "max_answer_bytes")}
    others |= {name: _checks.seconds(name, given[name]) for name in ("attempt_timeout", "connect_timeout", "max_delay")}
    return ClientOptions(
        model=model,
        api_key=check_api_key(key),
        base_url=base_url,
        api_version=version,
        vector_type=kind,
        retry=retry or RetryPolicy(),
        is_policy_given=retry is not None,
        user_agent=user_agent(None if tag is None else _checks.text("source_tag", tag)),
        dispatcher=dispatcher_of(given["hooks"]),
        parameters=_models.merge_parameters(
            model, {}, (given["parameters"], given["input_type"], given["dimension"], given["truncate"])
        ),
        gate=_gate_of(given["quota"], kind, clock),
        max_batch_size=None if batch is None else _checks.whole("max_batch_size", batch),
        cache=_cache_stage(given["cache"], base_url, version, model, clock),
        should_look_up_model=not _models.is_documented(model)
        if look_up is None
        else _checks.truth("look_up_model", look_up),
        clock=clock,
        **others,
    )


class Parameters(msgspec.Struct, eq=False):
    """Validated model parameters, and the request settings that follow from them.

    Attributes:
        values: the parameters.
        encoded: the model and the parameters, as JSON.
        limits: limits of one request, from what is known about the model and what was learned from answers.
        dimension: numbers per vector; `None` if unknown.
        cache: the cache for calls with these parameters; `None` without one.
    """

    values: dict[str, Any]
    encoded: bytes
    limits: LearnedLimits
    dimension: int | None
    cache: CallCache | None


def check_parameters(
    options: ClientOptions,
    known: _models.KnownModel | None,
    learned: Learned,
    given: _models.Given,
    *,
    is_final: bool,
) -> Parameters:
    """Merge the parameters of a call over the client's, and validate the result.

    Args:
        options: the client's options.
        known: description of the model; `None` if there is none.
        learned: what was learned from answers.
        given: parameters of the call.
        is_final: whether `known` is final; `False` while the service's description of the model is still to come.

    Raises:
        ConfigurationError: the parameters are invalid.
    """
    merged = _models.merge_parameters(options.model, options.parameters, given)
    if known is not None and is_final:
        known.check(merged)
    try:
        encoded = encode_request(options.model, (), merged)
        cache = None if options.cache is None else options.cache.of_call(encode_parameters(merged))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"the parameters cannot be encoded as JSON: {error}") from None
    dimension = _models.expected_dimension(options.model, merged)
    # The service refuses larger batches for a known model.
    batches = [size for size in (options.max_batch_size, known and known.max_batch_size) if size]
    length = _models.DEFAULT_MAX_SEQUENCE_LENGTH if known is None else known.sequence_length(merged)
    limits = RequestLimits(min(batches, default=_models.DEFAULT_MAX_BATCH_SIZE), length)
    return Parameters(merged, encoded, LearnedLimits(limits, learned), dimension, cache)


class CallOptions(msgspec.Struct, eq=False):
    """Validated options of one call or stream.

    Attributes:
        parameters: the model's parameters.
        deadline: clock time at which the call ends; `None` without a `timeout`.
        priority: priority of its requests.
        raises: whether it raises the error of failed inputs.
        progress: called with the progress; `None` if none was passed.
    """

    parameters: Parameters
    deadline: float | None
    priority: Priority
    raises: bool
    progress: Callable[[Progress], None] | None


def call_options(
    parameters: Parameters,
    now: float,
    *,
    timeout: object,
    priority: object,
    on_error: object = "raise",
    progress: object = None,
) -> CallOptions:
    """Validate the options of a call that starts `now`, except model parameters.

    Raises:
        ConfigurationError: an option is invalid.
    """
    return CallOptions(
        parameters,
        None if timeout is None else now + _checks.seconds("timeout", timeout),
        _checks.one_of("priority", priority, ("interactive", "bulk")),
        _checks.one_of("on_error", on_error, ("raise", "return")) == "raise",
        None if progress is None else _progress(progress),
    )


def _progress(given: object) -> Callable[[Progress], None] | None:
    """The function or bar to call with the progress."""
    if isinstance(given, (bool, np.bool_)):
        return ProgressBar() if given else None
    _checks.callback("progress", given, ", or True for a bar")
    return cast("Callable[[Progress], None]", given)


class StreamOptions(msgspec.Struct, eq=False):
    """Options that only a stream has, validated on creation; see `EmbedClient.stream` for their meaning."""

    text: Callable[[Any], Any] | None
    ordered: bool
    window: int | None
    in_thread: bool
    max_delay: float

    def __post_init__(self) -> None:
        if self.text is not None:
            _checks.callback("text", self.text)
        if self.window is not None:
            self.window = _checks.whole("window", self.window)
        self.max_delay = _checks.seconds("max_delay", self.max_delay)


def model_name(argument: str, value: object) -> str:
    """Validate the name of a model.

    Raises:
        ConfigurationError: no model can have this name.
    """
    name = _checks.as_text(value)
    # In a URL, `.` and `..` would lead to another path of the API, and surrogates cannot be encoded.
    if not name or name in (".", "..") or not name.isprintable():
        raise ConfigurationError(f"{argument} must be the name of a hosted model, got {_checks.short(value)}")
    return name


def _api_version(value: object) -> str:
    version = _checks.text("api_version", value)
    if not version or not version.isascii() or not version.isprintable() or " " in version:
        raise ConfigurationError(f"api_version must be a date such as {DEFAULT_API_VERSION}, got {_checks.short(version)}")
    return version


def _gate_of(
    quota: Quota | int | str | SharedQuota | QuotaBackend | None, vector_type: VectorType | None, clock: Clock
) -> RateLimitGate:
    """The rate limit gate for a quota.

    Raises:
        ConfigurationError: `quota` is not a quota.
    """
    if isinstance(quota, SharedQuota):
        return quota.gate
    is_backend = all(callable(getattr(quota, name, None)) for name in ("acquire", "settle"))
    if is_backend and not isinstance(quota, type):
        return RateLimitGate(LimiterOptions(), clock=clock, backend=cast("QuotaBackend", quota))
    return RateLimitGate(limiter_options(quota, vector_type), clock=clock)


def _cache_stage(cache: Cache | None, base_url: URL, api_version: str, model: str, clock: Clock) -> CacheStage | None:
    if cache is None:
        return None
    address = f"{base_url.scheme}://{base_url.host}:{base_url.port}{base_url.path.rstrip('/')}"
    return CacheStage(cache, address=address, api_version=api_version, model=model, clock=clock)


def _check_parts(given: Mapping[str, Any]) -> None:
    """Reject objects that cannot be used in place of the client's own."""
    retry, session, transport = given["retry"], given["session"], given["transport"]
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry must be a RetryPolicy, got {_checks.short(retry)}")
    if session is not None and (isinstance(session, type) or not hasattr(session, "connector")):
        raise ConfigurationError(f"session must be an aiohttp.ClientSession, got {type(session).__name__}")
    for name, methods, example in (
        ("transport", ("send",), "MockTransport"),
        ("cache", ("get_many", "put_many"), "SqliteCache(path)"),
        ("clock", ("time", "wall_time", "sleep", "timeout_at", "call_at"), "Clock"),
        ("executor", ("submit",), "ThreadPoolExecutor"),
    ):
        if given[name] is not None:
            _checks.methods(name, given[name], methods, example)
    for name in ("session", "ssl_context"):
        if transport is not None and given[name] is not None:
            raise ConfigurationError(f"pass either {name} or transport: the transport replaces aiohttp")
    check_ssl_context(given["ssl_context"])
    _checks.function("draw", given["draw"])
