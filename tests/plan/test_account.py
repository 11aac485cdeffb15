import numpy as np

from pinecone_embed_async import TransportError
from pinecone_embed_async._plan import Account


def test_every_input_is_embedded_failed_or_not_tried() -> None:
    account = Account(6)
    account.failed(2, 4, TransportError("cut"))
    account.embedded(0, 2)
    assert account.embedded_mask().tolist() == [True, True, False, False, False, False]
    assert [list(failure.indices) for failure in account.failures()] == [[2, 3]]
    assert account.embedded_count == account.failed_count == 2
    assert repr(account) == "<Account 2 of 6 embedded, 2 failed>"


def test_failures_are_in_order_and_the_first_is_that_of_the_lowest_input() -> None:
    account = Account(2)
    assert account.first_error() is None
    lowest, other = TransportError("first"), TransportError("second")
    account.failed(1, 2, other)
    account.failed(0, 1, lowest)
    assert account.first_error() is lowest
    assert [failure.error for failure in account.failures()] == [lowest, other]


def test_of_inputs_that_were_found_elsewhere_only_the_others_are_told_of() -> None:
    account = Account(6)
    account.limit_to(np.array([1, 3, 5]))
    assert account.embedded_count == 3
    account.embedded(0, 1)
    error = TransportError("no")
    account.failed(1, 3, error)
    assert account.is_settled
    assert account.embedded_mask().tolist() == [True, True, True, False, True, False]
    assert [(list(failure.indices), failure.error) for failure in account.failures()] == [([3, 5], error)]
    assert account.first_error() is error
