"""The models of the emulated service, and checks of a request's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pinecone_embed_async.emulator._errors import ServiceRefusal

ParameterValue = str | int | float | bool

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "float": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A supported parameter of a model (schema `ModelInfoSupportedParameter`).

    Attributes:
        name: Its key in a request's `parameters`.
        type: `one_of` (see `allowed_values`), `numeric_range` (see `minimum` and `maximum`, both inclusive) or `any`.
        value_type: `string`, `integer`, `float` or `boolean`.
        required: Whether a request without it is refused.
        allowed_values: The values of a `one_of`.
        minimum: The lowest value of a `numeric_range`.
        maximum: The highest value of a `numeric_range`.
        default: The value if it is left out.
    """

    name: str
    type: Literal["one_of", "numeric_range", "any"]
    value_type: Literal["string", "integer", "float", "boolean"]
    required: bool = False
    allowed_values: tuple[str | int, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    default: ParameterValue | None = None

    def to_json(self) -> dict[str, Any]:
        """Describe the parameter with the fields of its type."""
        described: dict[str, Any] = {
            "parameter": self.name,
            "type": self.type,
            "value_type": self.value_type,
            "required": self.required,
        }
        if self.type == "one_of":
            described["allowed_values"] = list(self.allowed_values)
        if self.type == "numeric_range":
            described["min"] = self.minimum
            described["max"] = self.maximum
        if self.default is not None:
            described["default"] = self.default
        return described

    def check(self, value: Any) -> None:
        """Check one value.

        Raises:
            ServiceRefusal: 400 INVALID_ARGUMENT: the type or the value is not allowed.
        """
        # bool is a subclass of int in Python but not in JSON.
        right_type = isinstance(value, _PYTHON_TYPES[self.value_type]) and (
            self.value_type == "boolean" or not isinstance(value, bool)
        )
        if not right_type:
            raise ServiceRefusal.invalid(f"Invalid value for parameter '{self.name}': expected {self.value_type}")
        if self.type == "one_of" and value not in self.allowed_values:
            allowed = ", ".join(str(one) for one in self.allowed_values)
            raise ServiceRefusal.invalid(
                f"Invalid value '{value}' for parameter '{self.name}': allowed values are {allowed}"
            )
        if self.type == "numeric_range" and not (
            (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)
        ):
            raise ServiceRefusal.invalid(
                f"Invalid value '{value}' for parameter '{self.name}': must be between {self.minimum} and {self.maximum}"
            )


@dataclass(frozen=True, slots=True)
class EmulatedModel:
    """A hosted model, with the fields of schema `ModelInfo`.

    Attributes:
        name: The name used in requests.
        short_description: A summary.
        type: `embed` or `rerank`; `/embed` refuses the latter.
        vector_type: `dense` or `sparse`; `None` for a `rerank` model.
        max_sequence_length: Most tokens of an input, including the two special tokens.
        max_batch_size: Most inputs of a request.
        provider_name: The model's provider.
        default_dimension: Dimension of a dense vector unless the request has a `dimension`.
        supported_dimensions: The dimensions of a dense model.
        supported_metrics: `cosine`, `euclidean`, `dotproduct`.
        parameters: The parameters a request may have.
        modality: Always `text` so far.
    """

    name: str
    short_description: str = "A model of the emulator."
    type: Literal["embed", "rerank"] = "embed"
    vector_type: Literal["dense", "sparse"] | None = "dense"
    max_sequence_length: int = 512
    max_batch_size: int = 96
    provider_name: str = "Emulator"
    default_dimension: int | None = None
    supported_dimensions: tuple[int, ...] = ()
    supported_metrics: tuple[str, ...] = ("cosine",)
    parameters: tuple[Parameter, ...] = ()
    modality: str = "text"

    def to_json(self) -> dict[str, Any]:
        """Describe the model as `GET /models/{model_name}` does, without fields that do not apply."""
        described: dict[str, Any] = {
            "model": self.name,
            "short_description": self.short_description,
            "type": self.type,
        }
        if self.vector_type is not None:
            described["vector_type"] = self.vector_type
        if self.default_dimension is not None:
            described["default_dimension"] = self.default_dimension
        described["modality"] = self.modality
        described["max_sequence_length"] = self.max_sequence_length
        described["max_batch_size"] = self.max_batch_size
        described["provider_name"] = self.provider_name
        if self.supported_dimensions:
            described["supported_dimensions"] = list(self.supported_dimensions)
        if self.type == "embed":
            described["supported_metrics"] = list(self.supported_metrics)
        described["supported_parameters"] = [parameter.to_json() for parameter in self.parameters]
        return described

    def settle_parameters(self, given: dict[str, Any]) -> dict[str, Any]:
        """Check a request's parameters and fill in the defaults.

        Raises:
            ServiceRefusal: 400 INVALID_ARGUMENT, naming the first parameter that is missing, unknown or not allowed.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in given.items():
            if name not in known:
                raise ServiceRefusal.invalid(f"Parameter '{name}' is not supported by model '{self.name}'")
            known[name].check(value)
        settled = dict(given)
        for parameter in self.parameters:
            if parameter.name in settled:
                continue
            if parameter.required:
                raise ServiceRefusal.invalid(f"Missing required parameter '{parameter.name}' for model '{self.name}'")
            if parameter.default is not None:
                settled[parameter.name] = parameter.default
        return settled


def _input_type() -> Parameter:
    return Parameter("input_type", "one_of", "string", required=True, allowed_values=("query", "passage"))


def _truncate(*allowed: str) -> Parameter:
    return Parameter("truncate", "one_of", "string", allowed_values=allowed, default="END")


def _of_sparse_models() -> tuple[Parameter, ...]:
    return (
        _input_type(),
        _truncate("END", "NONE"),
        Parameter("return_tokens", "any", "boolean", default=False),
        Parameter("max_tokens_per_sequence", "numeric_range", "integer", minimum=1, maximum=2048, default=512),
    )


# Source of names, lengths, dimensions and parameters: the table "Models" of the service's documentation (2025-10).
MODELS: tuple[EmulatedModel, ...] = (
    EmulatedModel(
        name="multilingual-e5-large",
        short_description="A dense model for messy data, short queries and many languages.",
        max_sequence_length=507,
        provider_name="Microsoft",
        default_dimension=1024,
        supported_dimensions=(1024,),
        supported_metrics=("cosine", "euclidean"),
        parameters=(_input_type(), _truncate("END", "NONE")),
    ),
    EmulatedModel(
        name="llama-text-embed-v2",
        short_description="A dense model for long documents, with a choice of dimensions.",
        max_sequence_length=2048,
        provider_name="NVIDIA",
        default_dimension=1024,
        supported_dimensions=(384, 512, 768, 1024, 2048),
        supported_metrics=("cosine", "dotproduct"),
        parameters=(
            _input_type(),
            _truncate("END", "NONE", "START"),
            Parameter(
                "dimension",
                "one_of",
                "integer",
                allowed_values=(384, 512, 768, 1024, 2048),
                default=1024,
            ),
        ),
    ),
    EmulatedModel(
        name="pinecone-sparse-english-v0",
        short_description="A sparse model for keyword and hybrid search in English.",
        vector_type="sparse",
        max_sequence_length=512,
        provider_name="Pinecone",
        supported_metrics=("dotproduct",),
        parameters=_of_sparse_models(),
    ),
    # Only its name is public (in the official SDK 10.2); everything else is copied from the English model.
    EmulatedModel(
        name="pinecone-sparse-multilingual-v0",
        short_description="A sparse model for keyword and hybrid search in many languages.",
        vector_type="sparse",
        max_sequence_length=512,
        provider_name="Pinecone",
        supported_metrics=("dotproduct",),
        parameters=_of_sparse_models(),
    ),
    EmulatedModel(
        name="bge-reranker-v2-m3",
        short_description="A reranking model: listed, refused by /embed.",
        type="rerank",
        vector_type=None,
        max_sequence_length=1024,
        max_batch_size=100,
        provider_name="BAAI",
        parameters=(_truncate("END", "NONE"),),
    ),
)
