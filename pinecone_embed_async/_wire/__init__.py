"""The wire format: requests out, answers and errors in, each judged before it is used."""

from pinecone_embed_async._wire._answers import Answer, SparseBlock
from pinecone_embed_async._wire._errors import error_from_envelope, error_from_response, parse_retry_after
from pinecone_embed_async._wire._reading import DECODERS, Decoder, DecoderName, Reading, choose_decoder
from pinecone_embed_async._wire._redact import Redactor
from pinecone_embed_async._wire._structs import (
    ModelInfo,
    ModelParameter,
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
    "Reading",
    "Redactor",
    "SparseBlock",
    "choose_decoder",
    "decode_model",
    "decode_models",
    "encode_parameters",
    "encode_request",
    "error_from_envelope",
    "error_from_response",
    "parse_retry_after",
]
