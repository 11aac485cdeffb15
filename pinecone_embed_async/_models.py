"""Models known to this package, and validation of their parameters.

New models appear at the service first, so unknown models, parameters and values are not errors here: the service decides.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pinecone_embed_async import _checks
from pinecone_embed_async._errors import ConfigurationError

if TYPE_CHECKING:
    from pinecone_embed_async._wire import ModelInfo, VectorType


Choices = tuple[str | int | float | bool, ...]

DEFAULT_MAX_BATCH_SIZE = 96
"""Maximum number of inputs per request to an unknown model: the limit of every model documented so far."""

DEFAULT_MAX_SEQUENCE_LENGTH = 2048
"""Maximum number of tokens per input of an unknown model: the largest limit of the models documented so far."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A hosted model, according to the documentation or the service.

    Attributes:
        name: the model's name in requests.
        vector_type: `"dense"` or `"sparse"`; `None` if the service does not say.
        dimension: numbers per vector without a `dimension` parameter; 0 for sparse and described models.
        max_batch_size: maximum number of inputs per request.
        max_sequence_length: maximum number of tokens per input.
        choices: allowed values of parameters with a closed set of values.
        required: parameters that every request must have.
        ranges: smallest and largest values of numeric parameters; infinite without a bound.
        is_described: whether the data comes from the service rather than from this package.
        is_documented: whether its limits and parameters are documented; if not, the client asks the service for them.
    """

    name: str
    vector_type: VectorType | None
    dimension: int = 0
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    max_sequence_length: int = DEFAULT_MAX_SEQUENCE_LENGTH
    choices: Mapping[str, Choices] = field(default_factory=dict)
    required: tuple[str, ...] = ("input_type",)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    is_described: bool = False
    is_documented: bool = True

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Validate `parameters` that are known for the model; the service decides about other keys.

        Raises:
            ConfigurationError: a required parameter is missing, or a value is not allowed.
        """
        for name in self.required:
            if name not in parameters:
                allowed = " or ".join(f'{name}="{value}"' for value in self.choices.get(name, ()))
                passed = f": pass {allowed}" if allowed else ""
                raise ConfigurationError(f"model {self.name!r} requires {name}{passed}{self._source}")
        for name, allowed_values in self.choices.items():
            if name in parameters and not self._is_one_of(parameters[name], allowed_values):
                named = ", ".join(map(repr, allowed_values))
                got = _checks.short(parameters[name])
                raise ConfigurationError(f"model {self.name!r}: {name} must be one of {named}, got {got}{self._source}")
        for name, (least, most) in self.ranges.items():
            value = parameters.get(name)
            # The service decides about others, as about every unknown value.
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not least <= value <= most:
                bounds, got = f"{least:g} to {most:g}".replace("inf", "∞"), _checks.short(value)
                raise ConfigurationError(f"model {self.name!r}: {name} must be from {bounds}, got {got}{self._source}")

    def _is_one_of(self, value: Any, allowed: Choices) -> bool:
        # Types are compared too: in Python `True == 1` and `1.0 == 1`, but the service distinguishes them. Only the numbers
        # of a description may be either int or float, because JSON has one type for both.
        alike = {int, float} if self.is_described else set()
        return any(
            value == choice and (type(value) is type(choice) or {type(value), type(choice)} == alike) for choice in allowed
        )

    @property
    def _source(self) -> str:
        return " (from the service's description; look_up_model=False skips this check)" if self.is_described else ""

    def sequence_length(self, parameters: Mapping[str, Any]) -> int:
        """Maximum number of tokens of an input that are embedded and billed with these parameters."""
        longer = parameters.get("max_tokens_per_sequence")
        return longer if isinstance(longer, int) and longer > 0 else self.max_sequence_length


_CHOICES: dict[str, Choices] = {"input_type": ("passage", "query"), "truncate": ("END", "NONE")}

# Source: the model pages, as summarized in the table "Models" of the service's documentation (2025-10).
KNOWN_MODELS: Mapping[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel("multilingual-e5-large", "dense", dimension=1024, max_sequence_length=507, choices=_CHOICES),
        KnownModel(
            "llama-text-embed-v2",
            "dense",
            dimension=1024,
            max_sequence_length=2048,
            choices={**_CHOICES, "truncate": ("END", "START", "NONE"), "dimension": (384, 512, 768, 1024, 2048)},
        ),
        KnownModel(
            "pinecone-sparse-english-v0",
            "sparse",
            max_sequence_length=512,
            choices={**_CHOICES, "return_tokens": (True, False)},
        ),
        # The official SDK 10.2 has its name and kind. Its limits and parameters are published nowhere, so until the service
        # describes it, it has the limits of an unknown model and its parameters are not checked.
        KnownModel("pinecone-sparse-multilingual-v0", "sparse", required=(), is_documented=False),
    )
}


def is_documented(model: str) -> bool:
    """Whether the model's limits and parameters are known without asking the service."""
    known = KNOWN_MODELS.get(model)
    return known is not None and known.is_documented


def nearest_known(model: str) -> str | None:
    """The known model whose name is most similar to one that the service does not know; `None` if no name is similar."""
    near = difflib.get_close_matches(model, KNOWN_MODELS, n=1, cutoff=0.5)
    # A known name has no typo: either the address is wrong, or the project has no access to the model.
    return near[0] if near and model not in KNOWN_MODELS else None


def described_model(info: ModelInfo) -> KnownModel:
    """A model as the service describes it, with defaults for missing and implausible values.

    The dimension is ignored: answers show it, and a wrong description must not make them invalid.
    """
    choices: dict[str, Choices] = {"dimension": info.supported_dimensions} if info.supported_dimensions else {}
    ranges = {}
    for parameter in info.supported_parameters:
        least, most = parameter.min, parameter.max
        if parameter.type == "one_of" and parameter.allowed_values:
            choices[parameter.parameter] = parameter.allowed_values
        elif parameter.type == "numeric_range":
            ranges[parameter.parameter] = -math.inf if least is None else least, math.inf if most is None else most
    kind: VectorType | None = "dense" if info.vector_type == "dense" else "sparse" if info.vector_type == "sparse" else None
    return KnownModel(
        info.model,
        kind,
        max_batch_size=_positive(info.max_batch_size, DEFAULT_MAX_BATCH_SIZE),
        max_sequence_length=_positive(info.max_sequence_length, DEFAULT_MAX_SEQUENCE_LENGTH),
        choices=choices,
        required=tuple(parameter.parameter for parameter in info.supported_parameters if parameter.required),
        ranges=ranges,
        is_described=True,
    )


MOST_OF_ANYTHING = 2**31 - 1
"""Largest plausible number in a description; larger ones would overflow where they are used."""


def _positive(value: int | None, otherwise: int) -> int:
    return value if value is not None and 0 < value <= MOST_OF_ANYTHING else otherwise


QUOTA_WINDOW = 60.0
"""Seconds over which the service counts a quota. Source: the limits in the service's documentation (2025-10)."""

REQUESTS_PER_MINUTE = 2_000
"""Inference requests per minute and project, in every plan. Source: the same."""

# For each vector type, those of passages and of queries.
_SMALL: Mapping[VectorType, tuple[int, int]] = {"dense": (250_000, 50_000), "sparse": (250_000, 250_000)}
_LARGE: Mapping[VectorType, tuple[int, int]] = {"dense": (1_000_000, 250_000), "sparse": (3_000_000, 3_000_000)}
PLANS: Mapping[str, Mapping[VectorType, tuple[int, int]]] = {
    "starter": _SMALL,
    "builder": _SMALL,
    "standard": _LARGE,
    "enterprise": _LARGE,
}
"""Tokens per minute and model, by plan, vector type and input type. Source: the same."""


def tokens_per_minute(plan: str, vector_type: VectorType | None, input_type: object) -> int:
    """A plan's tokens per minute for a model; unknown vector types count as dense, other input types as passage."""
    passage, query = PLANS[plan][vector_type or "dense"]
    return query if input_type == "query" else passage


Given = tuple[Any, Any, Any, Any]
"""Parameters as passed to a call: `parameters`, and the shorthand arguments for its keys in the order of `SHORT`."""

SHORT = ("input_type", "dimension", "truncate")


def merge_parameters(model: str, client: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """Merge a call's parameters over the client's, key by key.

    Args:
        model: name of the model.
        client: parameters of the client.
        given: parameters of the call; `None` for each that was not passed.

    Raises:
        ConfigurationError: the parameters are not a mapping, a name is not a text, or a value cannot be encoded as JSON; or
            a parameter is passed twice with different values, has the wrong type, or is a shorthand for a parameter that
            the model is known not to have.
    """
    parameters, *short = given
    if not isinstance(parameters, (Mapping, type(None))):
        raise ConfigurationError(f"parameters must be a mapping, got {_checks.short(parameters)}")
    own = {}
    for key, value in (parameters or {}).items():
        name = _checks.as_text(key)
        if name is None:
            raise ConfigurationError(f"parameters must have names that are strings, got {type(key).__name__}")
        try:
            own[name] = _checks.parameter(name, value)
        except RecursionError:
            raise ConfigurationError(f"the parameters cannot be encoded as JSON: {name} is nested too deeply") from None
    known = KNOWN_MODELS.get(model)
    for name, argument in zip(SHORT, short, strict=True):
        if argument is None:
            continue
        is_number = name == "dimension"
        value = _checks.whole(name, _checks.parameter(name, argument)) if is_number else _checks.text(name, argument)
        if own.get(name, value) != value:
            raise ConfigurationError(
                f"{name} is passed twice: {_checks.short(value)} and, in parameters, {_checks.short(own[name])}"
            )
        if known is not None and known.is_documented and name not in known.choices:
            raise ConfigurationError(
                f"model {model!r} takes no {name}; if the service now accepts it, pass parameters={{{name!r}: {value!r}}}"
            )
        own[name] = value
    return {**client, **own}


def vector_type_of(model: str, vector_type: object) -> VectorType | None:
    """The vector type of a model: the known one, else the one passed, else `None`.

    Raises:
        ConfigurationError: `vector_type` is neither `"dense"` nor `"sparse"`, or contradicts a known model.
    """
    known = KNOWN_MODELS.get(model)
    if vector_type is None:
        return None if known is None else known.vector_type
    passed: VectorType = _checks.one_of("vector_type", vector_type, ("dense", "sparse"))
    if known is not None and passed != known.vector_type:
        raise ConfigurationError(f"vector_type must be {known.vector_type!r} for model {model!r}, got {passed!r}")
    return passed


def expected_dimension(model: str, parameters: Mapping[str, Any]) -> int | None:
    """Numbers per dense vector with these parameters; `None` if only an answer can show it."""
    if "dimension" in parameters:
        requested = _checks.as_integer(parameters["dimension"])
        return requested if requested and requested > 0 else None
    known = KNOWN_MODELS.get(model)
    return None if known is None else known.dimension or None
