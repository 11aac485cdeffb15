import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pinecone_embed_async import ResponseError
from pinecone_embed_async._wire import Answer, Decoder, choose_decoder
from pinecone_embed_async._wire.decoding import installed_decoders
from pinecone_embed_async._wire.judging import judge_frame
from tests.wire.reading import DECODERS, decode, decoder_of

COUNT, DIMENSION = 2, 3


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return decoder_of(request.param)


def dense(**changes: Any) -> dict[str, Any]:
    answer = {
        "model": "m",
        "vector_type": "dense",
        "data": [{"values": [0.5, -1, 2e-3], "vector_type": "dense"} for _ in range(COUNT)],
        "usage": {"total_tokens": 7},
    }
    return {**answer, **changes}


def sparse(**changes: Any) -> dict[str, Any]:
    items = [{"sparse_values": [1.5], "sparse_indices": [2**32 - 1]}, {"sparse_values": [], "sparse_indices": []}]
    return {"model": "m", "vector_type": "sparse", "data": items, "usage": {"total_tokens": 7}, **changes}


def read(decoder: Decoder, body: Any, *, dimension: int | None = DIMENSION) -> tuple[Answer, NDArray[np.float32]]:
    matrix = np.zeros((COUNT, DIMENSION), np.float32)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = decode(decoder, raw, count=COUNT, vector_type="dense", dimension=dimension, rows=lambda _: matrix)
    return answer, matrix


def refused(decoder: Decoder, body: Any, *, dimension: int | None = DIMENSION) -> str:
    with pytest.raises(ResponseError) as caught:
        read(decoder, body, dimension=dimension)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def test_rows_are_written_and_usage_is_read(decoder: Decoder) -> None:
    answer, matrix = read(decoder, dense())
    assert matrix.tolist() == np.array([[0.5, -1, 2e-3]] * 2, np.float32).tolist()
    assert (answer.vector_type, answer.model, answer.total_tokens) == ("dense", "m", 7)


@pytest.mark.parametrize("usage", [{}, None, {"total_tokens": None}, {"total_tokens": -1}, {"total_tokens": "7"}, 7])
def test_an_answer_that_does_not_say_what_it_cost_is_used(decoder: Decoder, usage: Any) -> None:
    assert read(decoder, dense(usage=usage))[0].total_tokens is None


@pytest.mark.parametrize(("given", "tokens"), [(0, 0), (1, 1), (2**53, 2**53), (2**53 + 1, None), (1.0, None)])
def test_a_bill_is_used_up_to_the_largest_number_that_every_parser_reads_exactly(
    decoder: Decoder, given: Any, tokens: int | None
) -> None:
    assert read(decoder, dense(usage={"total_tokens": given}))[0].total_tokens == tokens


def test_items_may_name_any_vector_type_anywhere_and_carry_extra_keys(decoder: Decoder) -> None:
    items = [
        {"vector_type": "whatever", "values": [1, 2, 3], "extra": {"values": [[1]]}},
        {"id": 'é"\\', "values": [4, 5, 6]},
    ]
    answer = dense(data=items, extra=["data", {"data": []}])
    assert read(decoder, answer)[1].tolist() == [[1, 2, 3], [4, 5, 6]]
    shuffled = json.dumps(dict(reversed(answer.items())), indent=3).encode()
    assert read(decoder, shuffled)[1].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("}, {", "}, {}, {", "cannot be read"),
        ("[0.5, -1, 0.002]", "[0.5, -1]", "$.data[0].values"),
        ("[0.5, -1, 0.002]", "[[0.5], -1, 0.002]", "$.data[0].values[0]"),
        ("[0.5, -1, 0.002]", "[0.5, -1, 0.002, 4]", "$.data[0].values"),
        ("[0.5, -1, 0.002]", "[0.5, null, 0.002]", "$.data[0].values[1]"),
        ("0.5", "1e39", "$.data[0].values[0]"),
        ("0.5", "1e400", "$.data[0].values[0]"),
        ("0.5", "NaN", "malformed"),
        ("0.5", "Infinity", "malformed"),
        ("0.5", "true", "$.data[0].values[0]"),
        ('"dense", "data"', '"sparse", "data"', "expected dense embeddings, got an answer of sparse kind"),
        ('"dense", "data"', '"graph", "data"', "expected dense embeddings, got an answer of unknown kind"),
        ('"vector_type": "dense", "data"', '"data"', 'must have vector_type "dense" or "sparse"'),
        ('0.002], "vector_type": "dense"}]', '1e39], "vector_type": "dense"}]', "$.data[1].values[2]"),
        ('"vector_type": "dense"}', '"vector_type": "a", "vector_type": "b"}', "twice"),
        ('"vector_type": "dense"}]', '"vector_type": "a", "vector_type": "b"}]', "twice at `$.data[1]`"),
        ('{"values"', '{"values": [1, 2, 3], "values"', "twice"),
        ('{"values"', '{"v\\u0061lues": [1, 2, 3], "values"', "twice"),
        ('"usage"', '"usage": {}, "usage"', "twice"),
        ('"total_tokens"', '"total_tokens": 1, "total_tokens"', "twice"),
        ('"model"', '"model": "n", "model"', "twice"),
        # Escaped quotation marks make up for the marks of the other key and text.
        ('"model": "m"', '"model": "n", "model": "\\u0022\\u0022\\u0022\\u0022"', "twice"),
        ('"data"', '"data": [], "data"', "twice"),
    ],
)
def test_a_mismatch_is_refused_with_its_place(decoder: Decoder, old: str, new: str, said: str) -> None:
    body = json.dumps(dense()).replace(old, new, 1)
    assert said in refused(decoder, body.encode())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b"[" * 200_000, b'{"x":' * 50_000]
)
def test_an_invalid_answer_is_refused(decoder: Decoder, body: bytes) -> None:
    refused(decoder, body)


def with_unknown(where: str, key: bytes, value: bytes) -> bytes:
    """An answer with an unknown key."""
    before = {"top": b'"usage"', "usage": b'"total_tokens"', "item": b'"values"'}[where]
    return json.dumps(dense()).encode().replace(before, b"%b: %b, %b" % (key, value, before), 1)


@pytest.mark.parametrize("where", ["top", "usage", "item"])
@pytest.mark.parametrize(
    "string", [b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"a\\\\\\udfff"', b'"\xe2\x82"', b'"\x01"']
)
def test_invalid_strings_are_refused_even_where_they_are_not_read(decoder: Decoder, where: str, string: bytes) -> None:
    refused(decoder, with_unknown(where, string, b"0"))
    refused(decoder, with_unknown(where, b'"x"', string))
    refused(decoder, with_unknown(where, b'"x"', b"[%b]" % string))


@pytest.mark.parametrize("where", ["top", "usage", "item"])
def test_valid_strings_are_accepted_however_they_are_encoded(decoder: Decoder, where: str) -> None:
    for string in (b'"\\ud83d\\uDE00"', '"\U0001f600"'.encode(), b'"\\\\ud800"', b'"\\\\\\\\udc00"', b'"\\"[{\\u005b"'):
        read(decoder, with_unknown(where, string, string))


@pytest.mark.parametrize(("where", "above"), [("top", 1), ("usage", 2), ("item", 3)])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"x":', b"}")])
def test_an_answer_may_have_a_hundred_levels_and_no_more(
    decoder: Decoder, where: str, above: int, opening: bytes, closing: bytes
) -> None:
    for key in (b'"x"', b'"["', b'"\\"]"'):
        levels = 100 - above
        read(decoder, with_unknown(where, key, opening * levels + b"0" + closing * levels))
        assert "nested" in refused(decoder, with_unknown(where, key, opening * (levels + 1) + b"0" + closing * (levels + 1)))


def test_levels_are_counted_in_known_keys_too(decoder: Decoder) -> None:
    for levels in (99, 100):
        deep = json.loads("[" * levels + "]" * levels)
        items = [{"values": [1, 2, 3], "vector_type": deep[0][0]}] * COUNT
        for body in (dense(usage=deep), dense(data=items)):
            if levels == 99:
                read(decoder, body)
            else:
                assert "nested" in refused(decoder, body)


def test_levels_are_counted_in_an_answer_without_usage_too(decoder: Decoder) -> None:
    for levels in (99, 100):
        body = dense(x=json.loads("[" * levels + "]" * levels))
        del body["usage"]
        if levels == 99:
            assert read(decoder, body)[0].total_tokens is None
        else:
            assert "nested" in refused(decoder, body)


def test_levels_of_arrays_and_objects_are_counted_together(decoder: Decoder) -> None:
    # The answer, `data` and the item are three more.
    for pairs in (48, 49):
        deep = json.loads('[{"a":' * pairs + "0" + "}]" * pairs)
        body = dense(data=[{"values": [1, 2, 3], "vector_type": deep}, {"values": [4, 5, 6]}])
        if pairs == 48:
            read(decoder, body)
        else:
            assert "nested" in refused(decoder, body)


def test_levels_are_counted_in_duplicate_keys(decoder: Decoder) -> None:
    data = json.dumps([{"values": [1, 2, 3], "x": []}] * COUNT)
    # Within the answer, and around the array, an item and its "x".
    for levels in (96, 97):
        body = f'{{"x": {"[" * levels + data + "]" * levels}, "vector_type": "dense", "data": {data}}}'.encode()
        if levels == 96:
            read(decoder, body)
        else:
            assert "nested" in refused(decoder, body)


def test_an_answer_of_no_known_kind_is_refused_even_if_any_is_expected(decoder: Decoder) -> None:
    with pytest.raises(ResponseError, match='must have vector_type "dense" or "sparse"'):
        read_sparse(decoder, sparse(vector_type="graph"))


def test_what_is_too_long_for_a_frame_is_not_copied() -> None:
    end = b"]}" + bytes(2**24)
    tracemalloc.start()
    try:
        assert judge_frame([b'{"data":[{"values":['], end) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_garbage_after_the_answer_is_refused(decoder: Decoder) -> None:
    refused(decoder, json.dumps(dense()).encode() + b" x")


def test_a_wrong_count_is_refused(decoder: Decoder) -> None:
    assert "expected 2 embeddings, got 1" in refused(decoder, dense(data=dense()["data"][:1]))


@pytest.mark.parametrize("beside", ["item", "data"])
def test_an_array_that_is_no_embedding_does_not_count_as_one(decoder: Decoder, beside: str) -> None:
    numbers = {"x": [4, 5, 6]}
    item = {"values": [1, 2, 3], **(numbers if beside == "item" else {})}
    body = dense(data=[item], **(numbers if beside == "data" else {}))
    assert "expected 2 embeddings, got 1" in refused(decoder, body)


def test_rows_must_share_a_dimension_even_if_the_first_answer_decides_it(decoder: Decoder) -> None:
    asked: list[int] = []

    def rows(dimension: int) -> NDArray[np.float32]:
        asked.append(dimension)
        return np.zeros((COUNT, dimension), np.float32)

    ragged = dense(data=[{"values": [1]}, {"values": [1, 2]}])
    with pytest.raises(ResponseError, match="expected 1 numbers per row, got 2"):
        decode(decoder, json.dumps(ragged).encode(), count=2, vector_type="dense", dimension=None, rows=rows)
    assert asked == []


def test_empty_rows_are_refused_even_if_the_first_answer_decides_the_dimension(decoder: Decoder) -> None:
    assert "empty" in refused(decoder, dense(data=[{"values": []}] * COUNT), dimension=None)


def read_sparse(decoder: Decoder, body: Any) -> Answer:
    return decode(
        decoder,
        json.dumps(body).encode(),
        count=2,
        vector_type=None,
        dimension=None,
        rows=lambda _: np.zeros((0, 0), np.float32),
    )


def test_sparse_rows_keep_indices_up_to_uint32(decoder: Decoder) -> None:
    block = read_sparse(decoder, sparse()).sparse
    assert block is not None
    assert block.lengths.tolist() == [1, 0]
    assert block.indices.tolist() == [2**32 - 1]
    assert block.indices.dtype == np.uint32
    assert block.values.dtype == np.float32
    assert block.tokens is None


def test_a_sparse_answer_may_carry_extra_keys_and_need_not_name_its_model(decoder: Decoder) -> None:
    assert read_sparse(decoder, sparse()).model == "m"
    items = [{**item, "id": 'é"', "vector_type": "sparse"} for item in sparse()["data"]]
    answer = sparse(data=items, extra=[{"data": []}])
    del answer["model"]
    told = read_sparse(decoder, answer)
    assert (told.model, told.total_tokens) == (None, 7)
    assert told.sparse is not None
    assert told.sparse.lengths.tolist() == [1, 0]


@pytest.mark.parametrize(
    "item",
    [
        {"sparse_values": [1], "sparse_indices": [-1]},
        {"sparse_values": [1], "sparse_indices": [2**32]},
        {"sparse_values": [1], "sparse_indices": [1, 2]},
        {"sparse_values": [1e39], "sparse_indices": [1]},
        {"sparse_values": [1], "sparse_indices": [1], "sparse_tokens": ["a", "b"]},
    ],
)
def test_sparse_rows_that_do_not_fit_are_refused_with_their_place(decoder: Decoder, item: dict[str, Any]) -> None:
    with pytest.raises(ResponseError, match=r"\$\.data\[1\]"):
        read_sparse(decoder, sparse(data=[sparse()["data"][0], item]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NUMBER = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)


@given(
    st.lists(st.lists(NUMBER, min_size=3, max_size=3), min_size=2, max_size=2),
    st.dictionaries(st.text(max_size=6), JSON, max_size=3),
    st.booleans(),
)
@example([[-0.0, 0, 1], [2**53 + 1, 1e-45, 3.4028234663852886e38]], {}, False)
def test_all_decoders_give_bit_equal_rows_whatever_else_is_in_the_answer(
    numbers: list[list[float]], extra: dict[str, Any], spaced: bool
) -> None:
    known = dense(data=[{**extra, "values": row} for row in numbers])
    body = json.dumps({**extra, **known}, indent=1 if spaced else None).encode()
    rows = {read(choose_decoder(name), body)[1].tobytes() for name in installed_decoders()}
    assert rows == {np.array(numbers, np.float64).astype(np.float32).tobytes()}
