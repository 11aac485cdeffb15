import numpy as np

from pinecone_embed_async import TransportError
from pinecone_embed_async._calls import Outcomes


def test_every_input_is_embedded_failed_or_not_tried() -> None:
    outcomes = Outcomes(6)
    outcomes.failed(2, 4, TransportError("cut"))
    outcomes.embedded(0, 2)
    assert outcomes.embedded_mask().tolist() == [True, True, False, False, False, False]
    assert [list(failure.indices) for failure in outcomes.failures()] == [[2, 3]]
    assert outcomes.embedded_count == outcomes.failed_count == 2
    assert repr(outcomes) == "<Outcomes 2 of 6 embedded, 2 failed>"


def test_failures_are_in_order_and_the_first_is_that_of_the_lowest_input() -> None:
    outcomes = Outcomes(2)
    assert outcomes.first_error() is None
    lowest, other = TransportError("first"), TransportError("second")
    outcomes.failed(1, 2, other)
    outcomes.failed(0, 1, lowest)
    assert outcomes.first_error() is lowest
    assert [failure.error for failure in outcomes.failures()] == [lowest, other]


def test_positions_count_only_the_inputs_that_outcomes_are_limited_to() -> None:
    outcomes = Outcomes(6)
    outcomes.limit_to(np.array([1, 3, 5]))
    assert outcomes.embedded_count == 3
    outcomes.embedded(0, 1)
    error = TransportError("no")
    outcomes.failed(1, 3, error)
    assert outcomes.is_settled
    assert outcomes.embedded_mask().tolist() == [True, True, True, False, True, False]
    assert [(list(failure.indices), failure.error) for failure in outcomes.failures()] == [([3, 5], error)]
    assert outcomes.first_error() is error
