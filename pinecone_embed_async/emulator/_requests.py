"""An `/embed` request before it is answered, and the parsing of its body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from pinecone_embed_async.emulator._errors import ServiceRefusal


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """A `POST /embed` as predicates, fault sources and tests see it.

    If the body cannot be read, `model` and `inputs` are empty; the request still has a number.

    Attributes:
        number: Position among the emulator's requests, counted from 1 in order of arrival.
        model: The model's name, as sent.
        inputs: The texts, as sent.
        vector_type: The model's vector type; `None` for an unknown model.
        input_type: The input type, as sent; `passage` if there is none.
    """

    number: int
    model: str = ""
    inputs: tuple[str, ...] = ()
    vector_type: Literal["dense", "sparse"] | None = None
    input_type: str = "passage"


@dataclass(frozen=True, slots=True)
class EmbedBody:
    """The body of a request, well-formed but not yet checked against its model.

    Attributes:
        model: The model's name.
        inputs: The texts.
        parameters: The parameters, as sent.
    """

    model: str
    inputs: tuple[str, ...]
    parameters: dict[str, Any]

    def seen_as(self, number: int, vector_type: Literal["dense", "sparse"] | None) -> EmbedRequest:
        """The request as predicates, fault sources and tests see it."""
        input_type = self.parameters.get("input_type")
        return EmbedRequest(
            number, self.model, self.inputs, vector_type, input_type if isinstance(input_type, str) else "passage"
        )


def read_body(body: bytes) -> EmbedBody:
    """Parse the JSON of a request (schema `EmbedRequest`).

    Raises:
        ServiceRefusal: 400 INVALID_ARGUMENT: it is not JSON or does not match the schema.
    """
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ServiceRefusal.invalid("Bad request. The request body is not valid JSON.") from None
    if not isinstance(decoded, dict):
        raise ServiceRefusal.invalid("Bad request. The request body must be a JSON object.")
    model = decoded.get("model")
    if not isinstance(model, str) or not model:
        raise ServiceRefusal.invalid("Bad request. 'model' must be a string.")
    inputs = decoded.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise ServiceRefusal.invalid("Bad request. 'inputs' must be a list with at least one input.")
    parameters = decoded.get("parameters", {})
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise ServiceRefusal.invalid("Bad request. 'parameters' must be an object.")
    texts = tuple(_text(index, one) for index, one in enumerate(inputs))
    return EmbedBody(model=model, inputs=texts, parameters=parameters)


def _text(index: int, one: Any) -> str:
    if not isinstance(one, dict) or not isinstance(one.get("text"), str):
        raise ServiceRefusal.invalid(f"Bad request. inputs[{index}] must be an object with a string 'text'.")
    text: str = one["text"]
    return text
