"""The network: what a transport is, the one that aiohttp is behind, and one for tests that needs no sockets."""

from pinecone_embed_async._sending.aiohttp_transport import AiohttpTransport, check_ssl_context
from pinecone_embed_async._sending.mock import MockResponse, MockTransport
from pinecone_embed_async._sending.transport import Transport, TransportRequest, TransportResponse

__all__ = [
    "AiohttpTransport",
    "MockResponse",
    "MockTransport",
    "Transport",
    "TransportRequest",
    "TransportResponse",
    "check_ssl_context",
]
