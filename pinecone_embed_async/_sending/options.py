"""How requests are sent: the part of a client's options that sending needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinecone_embed_async._wire import Redactor

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from concurrent.futures import Executor

    import aiohttp
    from yarl import URL

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._rate_limit import RateLimitGate
    from pinecone_embed_async._sending.endpoint import ApiKey
    from pinecone_embed_async._sending.retry import RetryPolicy
    from pinecone_embed_async._sending.transport import Transport
    from pinecone_embed_async._telemetry import HookDispatcher
    from pinecone_embed_async._wire import DecoderName, VectorType


@dataclass(slots=True, repr=False, eq=False, kw_only=True)
class SendingOptions:
    """How requests are sent; see `EmbedClient` for the meaning of each option."""

    model: str
    vector_type: VectorType | None
    base_url: URL
    api_key: ApiKey
    api_version: str
    user_agent: str
    max_concurrency: int
    attempt_timeout: float
    connect_timeout: float
    max_answer_bytes: int
    decoder: DecoderName | None
    session: aiohttp.ClientSession | None
    transport: Transport | None
    ssl_context: ssl.SSLContext | None
    executor: Executor | None
    retry: RetryPolicy
    is_policy_given: bool
    dispatcher: HookDispatcher | None
    gate: RateLimitGate
    clock: Clock
    draw: Callable[[], float]

    def redactor(self, request: PlannedRequest | None = None) -> Redactor:
        """A redactor for the service's messages about a request."""
        key = self.api_key.reveal()
        return Redactor(key) if request is None else Redactor(key, request.texts, request.positions)
