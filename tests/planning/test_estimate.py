from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import ConfigurationError, EmbedClient, Estimate, InputError
from pinecone_embed_async._planning import Learned, LearnedLimits, PendingTexts, RequestLimits, estimate_cost, utf8_length
from pinecone_embed_async._planning.splitting import count_requests
from tests.outcomes import SeenOutcomes

E5 = "multilingual-e5-large"


def estimate(inputs: Any, model: str = E5, input_type: str = "passage", **options: Any) -> Estimate:
    return EmbedClient(model, api_key="k").estimate(inputs, input_type=input_type, **options)


def test_it_tells_inputs_tokens_with_their_spread_duplicates_and_requests() -> None:
    told = estimate(["x" * 40] * 150 + [f"{number:040}" for number in range(50)])
    assert (told.inputs, told.duplicates, told.over_length, told.requests) == (200, 149, 0, 3)
    assert (told.tokens_low, told.tokens, told.tokens_high) == (200 * 8, 200 * 12, 200 * 18)
    assert set(told.seconds.values()) == {0.0}


def test_what_it_tells_cannot_be_changed() -> None:
    told = estimate("a")
    with pytest.raises(FrozenInstanceError):
        told.tokens = 0  # type: ignore[misc]


def test_without_duplicates_the_first_of_equal_texts_counts() -> None:
    told = estimate(["x" * 40] * 150 + ["y" * 40], dedupe=True)
    assert (told.inputs, told.duplicates, told.tokens, told.requests) == (151, 149, 24, 1)


def test_texts_over_the_models_length_are_counted_and_cost_no_more_than_it() -> None:
    told = estimate(["x" * 100_000, "short"])
    assert told.over_length == 1
    assert told.tokens == 507 + 3
    # With its two special tokens, a text of 2,020 bytes has just 507.
    assert estimate(["x" * 2020, "x" * 2021]).over_length == 1


def test_each_plan_makes_a_job_wait_for_the_windows_after_the_first() -> None:
    told = estimate(["x" * 2000] * 2000)
    assert told.tokens == 2000 * 502
    assert told.seconds == {"starter": 240.0, "builder": 240.0, "standard": 60.0, "enterprise": 60.0}
    assert estimate(["x" * 2000] * 2000, input_type="query").seconds["starter"] == 20 * 60
    assert estimate(["x" * 2000] * 2000, model="pinecone-sparse-english-v0").seconds["standard"] == 0


def test_many_requests_wait_for_the_quota_of_requests() -> None:
    client = EmbedClient(E5, api_key="k", max_batch_size=1)
    assert client.estimate(["a"] * 4001, input_type="passage").seconds["standard"] == 120.0


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=60), st.integers(1, 9), st.integers(20, 99))
def test_requests_are_counted_as_they_are_cut(texts: list[str], inputs: int, size: int) -> None:
    limits = LearnedLimits(RequestLimits(inputs=inputs, sequence_length=8, tokens=30, bytes=size), Learned())
    requests = list(iter(PendingTexts(texts, limits, SeenOutcomes(len(texts)), range(len(texts))).take, None))
    assert count_requests(map(utf8_length, texts), limits.current) == len(requests)


@pytest.mark.parametrize(("ratio", "requests"), [(2.0, 5), (4.0, 3)])
def test_requests_are_counted_by_the_learned_ratio(ratio: float, requests: int) -> None:
    limits = RequestLimits(inputs=96, sequence_length=500, tokens=50, bytes_per_token=ratio)
    assert estimate_cost(["x" * 40] * 10, limits, "dense", "passage", dedupe=False).requests == requests


@pytest.mark.parametrize("inputs", [[], "one", {"text": "one"}, iter(["one", {"text": "two"}])])
def test_it_takes_what_embed_takes(inputs: Any) -> None:
    assert estimate(inputs).inputs in (0, 1, 2)


def test_what_cannot_be_embedded_cannot_be_estimated() -> None:
    with pytest.raises(InputError, match="input 1 "):
        estimate(["a", 7])
    with pytest.raises(InputError, match="got bytes"):
        estimate(b"a")
    with pytest.raises(ConfigurationError, match="requires input_type"):
        EmbedClient(E5, api_key="k").estimate("a")
