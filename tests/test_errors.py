import inspect
import pickle

import numpy as np
import pytest

import pinecone_embed_async
from pinecone_embed_async import (
    ApiError,
    DenseEmbeddings,
    EmbedError,
    Failure,
    InputError,
    RateLimitError,
    TransportError,
    Usage,
)

KINDS = [kind for _, kind in inspect.getmembers(pinecone_embed_async, inspect.isclass) if issubclass(kind, EmbedError)]


def make(kind: type[EmbedError]) -> EmbedError:
    if issubclass(kind, ApiError):
        return kind("why", status=429, code="X", details={"a": 1}, request_id="r", retry_after=2.5)
    return InputError("why", index=3) if kind is InputError else kind("why")


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_pickling_with_its_partial_result(kind: type[EmbedError]) -> None:
    error = make(kind)
    error.attempts = 4
    error.failures = (Failure(range(2), TransportError("cut")),)
    error.partial = DenseEmbeddings(np.ones((2, 3), np.float32), model="m", usage=Usage(7, 1), failures=error.failures)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was pickled here
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.attempts == 4
    assert list(copy.failures[0].indices) == [0, 1]
    assert isinstance(copy.partial, DenseEmbeddings)
    assert copy.partial.vectors.tolist() == [[1, 1, 1]] * 2
    assert {**copy.__dict__, "partial": 0, "failures": 0} == {**error.__dict__, "partial": 0, "failures": 0}


def test_an_api_error_says_status_code_message_attempts_and_request() -> None:
    error = make(RateLimitError)
    error.attempts = 3
    assert str(error) == "429 X: why (after 3 attempts) [request r]"
    assert error.message == "why"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_is_the_cause_of_its_own_failure_survives_pickling(kind: type[EmbedError]) -> None:
    error = make(kind)
    error.failures = (Failure((0,), error),)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was pickled here
    assert copy.failures[0].error is copy
    assert str(copy) == str(error)
    assert copy.__dict__.keys() == error.__dict__.keys()
