"""Answers of `/embed`: embeds the inputs and writes them as JSON the way the service does."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from pinecone_embed_async.emulator._errors import ServiceRefusal
from pinecone_embed_async.emulator._tokens import SPECIAL_TOKENS, count_pieces, split_words, truncate_words
from pinecone_embed_async.emulator._vectors import dense_vectors, sparse_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pinecone_embed_async.emulator._models import EmulatedModel
    from pinecone_embed_async.emulator._requests import EmbedBody
    from pinecone_embed_async.emulator._vectors import WordFeatures

_PASSAGE = "passage"


@dataclass(frozen=True, slots=True)
class Task:
    """A request the service has accepted: its texts are truncated to the model's length and its tokens counted.

    Attributes:
        model: The model.
        input_type: The input type; `passage` if the model has none.
        dimension: Dimension of a dense vector.
        return_tokens: Whether a sparse answer includes the terms.
        texts: The texts, truncated.
        words: The words of each text.
        tokens: Tokens billed for all inputs.
    """

    model: EmulatedModel
    input_type: str
    dimension: int
    return_tokens: bool
    texts: tuple[str, ...]
    words: tuple[list[str], ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer (schema `EmbeddingsList`), item by item, so that a fault can spoil part of it.

    Attributes:
        model: The model's name.
        vector_type: The type of all items.
        items: The JSON of each embedding.
        tokens: `usage.total_tokens`.
    """

    model: str
    vector_type: Literal["dense", "sparse"]
    items: tuple[bytes, ...]
    tokens: int

    def body(self) -> bytes:
        """Encode the answer as JSON, without white space."""
        return b"".join(
            (
                b'{"model":',
                msgspec.json.encode(self.model),
                b',"vector_type":"',
                self.vector_type.encode(),
                b'","data":[',
                b",".join(self.items),
                b'],"usage":{"total_tokens":',
                str(self.tokens).encode(),
                b"}}",
            )
        )


def accept(body: EmbedBody, model: EmulatedModel | None, reject: Callable[[str], bool] | None) -> Task:
    """Check a request against its model and count its tokens.

    Args:
        body: The request.
        model: The model of that name, if there is one.
        reject: The rule for content that the service refuses.

    Raises:
        ServiceRefusal: 404 for an unknown model, else 400.
    """
    if model is None:
        raise ServiceRefusal(404, "NOT_FOUND", f"Model {body.model} not found.")
    if model.vector_type is None:
        raise ServiceRefusal.invalid(f"Model '{model.name}' does not support embedding.")
    if len(body.inputs) > model.max_batch_size:
        raise ServiceRefusal.invalid(
            f"Input length '{len(body.inputs)}' exceeded inputs limit of {model.max_batch_size} for model '{model.name}'"
        )
    parameters = model.settle_parameters(body.parameters)
    if reject is not None:
        for text in body.inputs:
            if reject(text):
                raise ServiceRefusal.invalid(f"Input '{text}' was rejected by model '{model.name}'")
    limit = int(parameters.get("max_tokens_per_sequence", model.max_sequence_length))
    texts: list[str] = []
    words: list[list[str]] = []
    tokens = 0
    for index, text in enumerate(body.inputs):
        cut = split_words(text)
        count = count_pieces(cut) + SPECIAL_TOKENS
        if count > limit:
            if parameters.get("truncate") == "NONE":
                raise ServiceRefusal.invalid(
                    f"Input {index} has {count} tokens, which exceeds the limit of {limit} tokens for model "
                    f"'{model.name}'. Set 'truncate' to 'END' to truncate it."
                )
            cut = truncate_words(cut, limit, keep_end=parameters.get("truncate") == "START")
            count = limit
            text = " ".join(cut)  # noqa: PLW2901 - the model never sees the rest
        texts.append(text)
        words.append(cut)
        tokens += count
    return Task(
        model=model,
        input_type=str(parameters.get("input_type", _PASSAGE)),
        dimension=int(parameters.get("dimension", model.default_dimension or 1)),
        return_tokens=bool(parameters.get("return_tokens", False)),
        texts=tuple(texts),
        words=tuple(words),
        tokens=tokens,
    )


def compute(task: Task, features: WordFeatures) -> Answer:
    """Embed the texts of an accepted request; `features` keeps those of the words it has met."""
    if task.model.vector_type == "sparse":
        items = tuple(_sparse_item(words, task.input_type, return_tokens=task.return_tokens) for words in task.words)
        return Answer(model=task.model.name, vector_type="sparse", items=items, tokens=task.tokens)
    vectors = dense_vectors(task.texts, task.words, task.dimension, task.input_type, features)
    return Answer(model=task.model.name, vector_type="dense", items=dense_items(vectors), tokens=task.tokens)


@functools.cache
def _decimals() -> NDArray[np.object_]:
    """Write out every half-precision number once, at the index of its bits.

    The non-finite ones are there too, but no vector has them.
    """
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    table = np.empty(1 << 16, np.object_)
    table[:] = [repr(value) for value in halves.tolist()]
    return table


def dense_items(vectors: NDArray[np.float16]) -> tuple[bytes, ...]:
    """Write rows of half-precision numbers as items, each number with all its decimals."""
    rows = _decimals().take(vectors.view(np.uint16)).tolist()
    return tuple(f'{{"values":[{",".join(row)}],"vector_type":"dense"}}'.encode("ascii") for row in rows)


def _sparse_item(words: list[str], input_type: str, *, return_tokens: bool) -> bytes:
    row = sparse_row(words, input_type)
    item: dict[str, object] = {"sparse_values": row.values, "sparse_indices": row.indices}
    if return_tokens:
        item["sparse_tokens"] = row.tokens
    item["vector_type"] = "sparse"
    return msgspec.json.encode(item)
