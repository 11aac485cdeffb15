from collections.abc import Sequence

import numpy as np
import pytest

from pinecone_embed_async import ResponseError, TransportError
from pinecone_embed_async._cache import Found
from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._planning import PlannedRequest
from pinecone_embed_async._results import Dimension, all_steps
from pinecone_embed_async._wire import Answer
from tests.outcomes import planned


def request_of(builder: ResultBuilder, positions: Sequence[int]) -> PlannedRequest:
    return planned([str(position) for position in positions], builder, positions=positions)


def test_every_input_is_embedded_failed_or_not_tried() -> None:
    builder = ResultBuilder(10, 6, Dimension(1))
    builder.failed(request_of(builder, range(12, 14)), TransportError("cut"))
    answered = request_of(builder, range(10, 12))
    builder.rows(answered, 1)[:] = 1
    builder.embedded(answered)
    assert repr(builder) == "<ResultBuilder 2 of 6 embedded, 2 failed>"
    assert (builder.embedded_count, builder.failed_count, builder.is_settled) == (2, 2, False)
    result = all_steps(builder.finish("m", "dense"))
    assert result.embedded.tolist() == [True, True, False, False, False, False]
    assert [list(failure.indices) for failure in result.failures] == [[2, 3]]
    assert result.not_tried.tolist() == [4, 5]


def test_failures_are_in_order_and_the_first_is_that_of_the_lowest_input() -> None:
    builder = ResultBuilder(0, 2, Dimension(1))
    assert builder.first_error() is None
    lowest, other = TransportError("first"), TransportError("second")
    builder.failed(request_of(builder, range(1, 2)), other)
    builder.failed(request_of(builder, range(1)), lowest)
    assert builder.first_error() is lowest
    assert [failure.error for failure in builder.failures()] == [lowest, other]
    assert builder.is_settled
    assert not builder.is_complete


def test_cached_rows_and_answers_for_the_others_are_put_in_place() -> None:
    builder = ResultBuilder(0, 6, Dimension(None))
    builder.found(Found(6, np.array([0, 2, 4]), dense=np.array([[0], [2], [4]], np.float32)), np.array([0, 2, 4]))
    assert (builder.embedded_count, builder.cached_count) == (3, 3)
    answered, refused = request_of(builder, [1, 5]), request_of(builder, [3])
    builder.rows(answered, 1)[:] = [[1], [5]]
    builder.answered(answered, Answer("dense", None, 7))
    builder.embedded(answered)
    error = TransportError("no")
    builder.failed(refused, error)
    assert builder.is_settled
    result = all_steps(builder.finish("m", "dense"))
    np.testing.assert_array_equal(result.vectors.ravel(), [0, 1, 2, np.nan, 4, 5])  # type: ignore[union-attr]
    assert [(list(failure.indices), failure.error) for failure in result.failures] == [([3], error)]
    assert result.usage.total_tokens == 7


def test_scattered_rows_of_a_failed_attempt_do_not_leak_into_other_requests() -> None:
    builder = ResultBuilder(0, 4, Dimension(1))
    request = request_of(builder, range(4))
    scattered = request.only([0, 2])
    # Its answer could not be read, and it is cut before the retry.
    builder.rows(scattered, 1)[:] = 5
    rest = scattered.cut(1)
    assert rest is not None
    for part, value in ((scattered, 7), (rest, 8), (request.only([1]), 9), (request.only([3]), 10)):
        builder.rows(part, 1)[:] = value
        builder.embedded(part)
    result = all_steps(builder.finish("m", "dense"))
    assert result.vectors.ravel().tolist() == [7, 9, 8, 10]  # type: ignore[union-attr]
    assert builder.is_complete


def test_the_rows_of_a_probe_are_no_inputs() -> None:
    builder = ResultBuilder(0, 1, Dimension(1))
    request = request_of(builder, range(1))
    probe = planned(["probe"], builder, is_probe=True)
    # Both answers are decoded at the same time.
    rows, probe_rows = builder.rows(request, 1), builder.rows(probe, 1)
    assert probe_rows.shape == (1, 1)
    rows[:], probe_rows[:] = 1, 2
    builder.embedded(request)
    assert all_steps(builder.finish("m", "dense")).vectors.tolist() == [[1]]  # type: ignore[union-attr]


def test_builders_that_share_a_dimension_refuse_another() -> None:
    dimension = Dimension(None)
    first, second = ResultBuilder(0, 4, dimension), ResultBuilder(4, 4, dimension)
    first.rows(request_of(first, range(4)), 3)
    assert second.dimension == 3
    for positions in (range(4, 8), [4, 7]):
        with pytest.raises(ResponseError, match="expected 3 numbers per row"):
            second.rows(request_of(second, positions), 4)


def test_the_log_says_which_inputs_failed_and_after_how_many_attempts(caplog: pytest.LogCaptureFixture) -> None:
    builder, error = ResultBuilder(10, 6, Dimension(1)), TransportError("cut")
    error.attempts = 3
    builder.failed(request_of(builder, range(12, 14)), error)
    assert caplog.messages == ["inputs 12:14 failed after 3 attempts: TransportError"]
