"""The wire format: encodes requests, decodes and validates answers and errors, and knows the API's generations."""

from pinecone_embed_async._wire.decoding import StreamingDecoder, choose_decoder
from pinecone_embed_async._wire.errors import error_from_envelope, error_from_response
from pinecone_embed_async._wire.generations import generation_of
from pinecone_embed_async._wire.judging import Answer, SparseBlock
from pinecone_embed_async._wire.redaction import Redactor
from pinecone_embed_async._wire.rows import Decoder, DecoderName
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
]
