"""Sending of requests: attempts, retries, the transport interface, its aiohttp implementation, and a mock."""

from pinecone_embed_async._sending.aiohttp_transport import AiohttpTransport, check_ssl_context
from pinecone_embed_async._sending.attempts import Callers, Sender, get_body
from pinecone_embed_async._sending.counters import Counters
from pinecone_embed_async._sending.discovery import Discovery
from pinecone_embed_async._sending.endpoint import ApiKey, check_api_key, check_base_url, user_agent
from pinecone_embed_async._sending.engine import Engine
from pinecone_embed_async._sending.mock import MockResponse, MockTransport
from pinecone_embed_async._sending.options import SendingOptions
from pinecone_embed_async._sending.retry import RetryPolicy
from pinecone_embed_async._sending.transport import Transport, TransportRequest, TransportResponse

__all__ = [
    "AiohttpTransport",
    "ApiKey",
    "Callers",
    "Counters",
    "Discovery",
    "Engine",
    "MockResponse",
    "MockTransport",
    "RetryPolicy",
    "Sender",
    "SendingOptions",
    "Transport",
    "TransportRequest",
    "TransportResponse",
    "check_api_key",
    "check_base_url",
    "check_ssl_context",
    "get_body",
    "user_agent",
]
