"""What the endpoint's reference (2025-10) says: requests, and msgspec structs of answers with their decoders.

If the reference leaves a type open, the field accepts anything; keys that are not in the reference are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from pinecone_embed_async._wire.strict_json import decoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VectorType = Literal["dense", "sparse"]
"""The vector type of a model, as in `vector_type`."""


class DenseItem(Struct, gc=False):
    """One dense embedding. Its own `vector_type` is kept raw, because that of the answer decides."""

    values: list[float]
    vector_type: Raw | UnsetType = UNSET


Index = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""A sparse index. Source: `sparse_indices` in the reference, 0 to 4294967295."""


class SparseItem(Struct, gc=False):
    """One sparse embedding: parallel lists of indices, values and, on request, tokens."""

    sparse_values: list[float]
    sparse_indices: list[Index]
    sparse_tokens: list[str] | UnsetType | None = UNSET
    vector_type: Raw | UnsetType = UNSET


class ErrorBody(Struct):
    """The inner part of the error envelope; types are checked on use."""

    code: Any = None
    message: Any = None
    details: Any = None


class ErrorEnvelope(Struct):
    """`{"status": 429, "error": {...}}`."""

    error: ErrorBody
    status: Any = None


class ModelParameter(Struct, frozen=True, kw_only=True):
    """A parameter of a model, as the service describes it.

    Attributes:
        parameter: name of the parameter.
        type: `"one_of"` (see `allowed_values`), `"numeric_range"` (see `min` and `max`) or `"any"`.
        value_type: `"string"`, `"integer"`, `"float"` or `"boolean"`.
        required: whether requests must have it.
        allowed_values: the values of a `one_of`.
        min: smallest value of a `numeric_range`.
        max: largest value of a `numeric_range`.
        default: the value that the service uses if the parameter is left out.
    """

    parameter: str
    type: str = "any"
    value_type: str = "string"
    required: bool = False
    allowed_values: tuple[str | int | float | bool, ...] | None = None
    min: float | None = None
    max: float | None = None
    default: str | int | float | bool | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A hosted model, as the service describes it; `None` for what it does not describe.

    Attributes:
        model: the model's name in requests.
        short_description: a short description.
        type: `"embed"` or `"rerank"`.
        vector_type: `"dense"` or `"sparse"`; `None` for rerankers.
        default_dimension: numbers per vector by default.
        supported_dimensions: allowed values of the `dimension` parameter.
        modality: modality of the inputs, such as `"text"`.
        max_sequence_length: maximum number of tokens per input.
        max_batch_size: maximum number of inputs per request.
        provider_name: provider of the model.
        supported_metrics: supported distance metrics.
        supported_parameters: parameters that requests may have.
    """

    model: str
    short_description: str = ""
    type: str = "embed"
    vector_type: str | None = None
    default_dimension: int | None = None
    supported_dimensions: tuple[int, ...] | None = None
    modality: str | None = None
    max_sequence_length: int | None = None
    max_batch_size: int | None = None
    provider_name: str | None = None
    supported_metrics: tuple[str, ...] | None = None
    supported_parameters: tuple[ModelParameter, ...] = ()


class ModelList(Struct):
    """The body of `GET /models`."""

    models: list[ModelInfo] = []


_MODEL = msgspec.json.Decoder(ModelInfo)
_MODELS = msgspec.json.Decoder(ModelList)


def encode_request(model: str, texts: Sequence[str], parameters: Mapping[str, Any]) -> bytes:
    """The JSON body of `POST /embed`.

    Raises:
        TypeError: a parameter's value cannot be encoded as JSON.
        ValueError: a parameter's value is an integer or a text that JSON cannot represent.
    """
    body: dict[str, Any] = {"model": model, "inputs": [{"text": text} for text in texts]}
    if parameters:
        body["parameters"] = dict(parameters)
    return msgspec.json.encode(body)


def encode_parameters(parameters: Mapping[str, Any]) -> bytes:
    """The parameters as JSON with sorted names.

    Raises:
        TypeError: a parameter's value cannot be encoded as JSON.
        ValueError: a parameter's value is an integer or a text that JSON cannot represent.
    """
    return msgspec.json.encode(dict(parameters), order="sorted")


def decode_model(body: bytes) -> ModelInfo:
    """Decode the answer to `GET /models/{name}`.

    Raises:
        ResponseError: the body does not match the reference.
    """
    return decoded(_MODEL, body)


def decode_models(body: bytes) -> list[ModelInfo]:
    """Decode the answer to `GET /models`.

    Raises:
        ResponseError: the body does not match the reference.
    """
    return decoded(_MODELS, body).models
