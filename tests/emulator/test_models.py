from __future__ import annotations

from typing import Any

import pytest

from pinecone_embed_async.emulator import MODELS, EmulatedModel, Parameter
from pinecone_embed_async.emulator._errors import ServiceRefusal

BY_NAME = {model.name: model for model in MODELS}
E5 = BY_NAME["multilingual-e5-large"]
LLAMA = BY_NAME["llama-text-embed-v2"]
SPARSE = BY_NAME["pinecone-sparse-english-v0"]


def test_defaults_are_filled_in() -> None:
    assert LLAMA.settle_parameters({"input_type": "query"}) == {
        "input_type": "query",
        "truncate": "END",
        "dimension": 1024,
    }


@pytest.mark.parametrize(
    ("model", "given", "named"),
    [
        (E5, {}, "input_type"),
        (E5, {"input_type": "document"}, "input_type"),
        (E5, {"input_type": 1}, "input_type"),
        (E5, {"input_type": "query", "truncate": "START"}, "truncate"),
        (E5, {"input_type": "query", "dimension": 1024}, "dimension"),
        (LLAMA, {"input_type": "query", "dimension": 1000}, "dimension"),
        (LLAMA, {"input_type": "query", "dimension": "1024"}, "dimension"),
        (LLAMA, {"input_type": "query", "dimension": True}, "dimension"),
        (SPARSE, {"input_type": "query", "return_tokens": "yes"}, "return_tokens"),
        (SPARSE, {"input_type": "query", "max_tokens_per_sequence": 2049}, "max_tokens_per_sequence"),
        (SPARSE, {"input_type": "query", "max_tokens_per_sequence": 512.5}, "max_tokens_per_sequence"),
    ],
)
def test_a_wrong_parameter_is_named(model: EmulatedModel, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ServiceRefusal) as caught:
        model.settle_parameters(given)
    assert caught.value.status == 400
    assert caught.value.code == "INVALID_ARGUMENT"
    assert f"'{named}'" in caught.value.message


def test_a_model_is_described_with_the_fields_that_it_has() -> None:
    assert LLAMA.to_json()["supported_dimensions"] == [384, 512, 768, 1024, 2048]
    assert "default_dimension" not in SPARSE.to_json()
    assert "vector_type" not in BY_NAME["bge-reranker-v2-m3"].to_json()


def test_a_parameter_is_described_with_the_fields_of_its_type() -> None:
    described = Parameter("size", "numeric_range", "integer", minimum=1, maximum=9, default=5).to_json()
    assert described == {
        "parameter": "size",
        "type": "numeric_range",
        "value_type": "integer",
        "required": False,
        "min": 1,
        "max": 9,
        "default": 5,
    }
