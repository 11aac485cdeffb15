"""The wire format: encodes requests, decodes and validates answers and errors, and knows the API's generations."""

from pinecone_embed_async._wire.decoding import (
    DECODERS,
    Decoder,
    StreamingDecoder,
    choose_decoder,
    installed_decoders,
)
from pinecone_embed_async._wire.errors import error_from_envelope, error_from_response, parse_retry_after
from pinecone_embed_async._wire.generations import generation_of
from pinecone_embed_async._wire.judging import Answer, SparseBlock
from pinecone_embed_async._wire.redaction import Redactor
from pinecone_embed_async._wire.rows import DecoderName
from pinecone_embed_async._wire.structs import (
    ModelInfo,
    ModelParameter,
    VectorType,
    decode_model,
    decode_models,
    encode_parameters,
    encode_request,
)

__all__ = [
    "DECODERS",
    "Answer",
    "Decoder",
    "DecoderName",
    "ModelInfo",
    "ModelParameter",
    "Redactor",
    "SparseBlock",
    "StreamingDecoder",
    "VectorType",
    "choose_decoder",
    "decode_model",
    "decode_models",
    "encode_parameters",
    "encode_request",
    "error_from_envelope",
    "error_from_response",
    "generation_of",
    "installed_decoders",
    "parse_retry_after",
]
