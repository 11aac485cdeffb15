"""Answers that arrive in pieces."""

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pinecone_embed_async import EmbedClient, MockResponse, MockTransport, ResponseError, RetryPolicy
from pinecone_embed_async._wire import Decoder, StreamingDecoder, choose_decoder
from pinecone_embed_async._wire.decoding import JOINED, LONGEST_ROW, SMALL_PIECE, installed_decoders
from pinecone_embed_async._wire.rows import RowReader
from tests.wire.reading import DECODERS, decode, decoder_of, finished

ROWS = np.array([[0.5, -1, 2e-3], [7, 0, -0.0], [1e-45, 3.4e38, 9]], np.float32)
BODY = json.dumps(
    {
        "model": "m",
        "vector_type": "dense",
        "data": [{"values": row.tolist(), "vector_type": "dense"} for row in ROWS],
        "usage": {"total_tokens": 7},
    }
).encode()


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return decoder_of(request.param)


class Rows:
    """The caller's matrix, and how often it was requested."""

    def __init__(self, count: int = len(ROWS)) -> None:
        self._count = count
        self.matrix: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self.asked: list[int] = []

    def rows(self, dimension: int) -> NDArray[np.float32]:
        self.asked.append(dimension)
        if not self.matrix.size:
            self.matrix = np.zeros((self._count, dimension), np.float32)
        return self.matrix


def begin(decoder: Decoder, rows: Rows, **changes: Any) -> StreamingDecoder:
    return StreamingDecoder(decoder, **{"count": 3, "vector_type": "dense", "dimension": 3, "rows": rows, **changes})


@pytest.mark.parametrize("most", [None, 1, 10**9])
def test_rows_are_the_same_wherever_a_body_is_cut(decoder: Decoder, most: int | None) -> None:
    for cut in range(len(BODY) + 1):
        rows = Rows()
        answer = decode(decoder, BODY, cuts=(cut,), most=most, count=3, vector_type="dense", dimension=3, rows=rows)
        assert rows.matrix.tobytes() == ROWS.tobytes()
        assert (answer.model, answer.total_tokens) == ("m", 7)


def test_a_body_may_arrive_byte_by_byte(decoder: Decoder) -> None:
    rows = Rows()
    decode(decoder, BODY, cuts=tuple(range(1, len(BODY))), most=1, count=3, vector_type="dense", dimension=3, rows=rows)
    assert rows.matrix.tobytes() == ROWS.tobytes()


def test_small_pieces_are_copied_once_however_often_the_reader_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    read = RowReader.read

    def watched(self: RowReader, pieces: tuple[bytes, ...], position: int, most: int) -> tuple[int, int, int]:
        kept.append(pieces)
        seen.update(map(id, pieces))
        return read(self, pieces, position, most)

    kept: list[tuple[bytes, ...]] = []
    monkeypatch.setattr(RowReader, "read", watched)
    reading, body = begin(decoder_of("msgspec"), Rows()), BODY.replace(b"}, {", b"}, " + b" " * 3 * JOINED + b"{")
    for at in range(0, len(body), SMALL_PIECE - 1):
        reading.add(body[at : at + SMALL_PIECE - 1])
    reading.decode()
    assert len(kept) > 5
    assert len(seen) == len(kept[0])


def test_rows_far_into_a_large_piece_are_placed_as_they_arrive(decoder: Decoder) -> None:
    rows = Rows()
    reading = begin(decoder, rows)
    reading.add(BODY.replace(b"}, {", b"}, " + b" " * 700_000 + b"{", 1))
    reading.decode()
    assert rows.matrix.tobytes() == ROWS.tobytes()


def test_rows_are_in_their_places_before_the_rest_arrives(decoder: Decoder) -> None:
    end = BODY.index(b"9.0")
    for cut in range(end):
        rows = Rows()
        reading = begin(decoder, rows)
        for piece in (BODY[:cut], BODY[cut:end]):
            reading.add(piece)
            reading.decode()
        assert rows.matrix[:2].tobytes() == ROWS[:2].tobytes()
        assert reading.undecoded == 0


def test_it_has_the_callers_matrix_only_once_it_has_asked_for_it(decoder: Decoder) -> None:
    rows = Rows()
    reading = begin(decoder, rows)
    reading.add(BODY)
    assert reading.matrix is None
    while reading.matrix is None:
        reading.decode(1)
    assert rows.asked == [3]
    # So the rest may be decoded in a thread, which must not ask.
    reading.decode()
    assert rows.asked == [3]


def test_a_step_decodes_no_more_than_requested(decoder: Decoder) -> None:
    rows = Rows()
    reading = begin(decoder, rows)
    reading.add(BODY)
    left = [reading.undecoded]
    while reading.undecoded:
        reading.decode(1)
        left.append(reading.undecoded)
    assert left == sorted(set(left), reverse=True)
    # No two rows in one step.
    assert len(left) > len(ROWS)


def test_a_usual_answer_is_not_validated_in_steps(decoder: Decoder) -> None:
    rows = Rows()
    reading = begin(decoder, rows)
    reading.add(BODY)
    assert reading.finish(1) is not None
    assert rows.matrix.tobytes() == ROWS.tobytes()


def test_a_small_piece_stays_before_a_large_one(decoder: Decoder) -> None:
    rows = Rows()
    reading = begin(decoder, rows)
    reading.add(BODY[:20])
    reading.add(BODY[20:] + b" " * SMALL_PIECE)
    reading.finish()
    assert rows.matrix.tobytes() == ROWS.tobytes()


def test_the_dimension_of_an_invalid_answer_is_not_passed_on(decoder: Decoder) -> None:
    rows = Rows()
    reading = begin(decoder, rows, dimension=None)
    reading.add(BODY.replace(b'"total_tokens": 7}}', b'"total_tokens": 7}'))
    with pytest.raises(ResponseError):
        reading.finish()
    assert rows.asked == []


def test_an_answer_of_unknown_vector_type_is_not_written_before_it_is_known_to_be_dense(decoder: Decoder) -> None:
    rows = Rows()
    reading = begin(decoder, rows, vector_type=None)
    reading.add(BODY)
    reading.decode()
    assert rows.asked == []
    assert finished(reading).vector_type == "dense"
    assert rows.matrix.tobytes() == ROWS.tobytes()


def test_sparse_rows_of_one_length_are_not_taken_for_dense_ones(decoder: Decoder) -> None:
    indices = [2**32 - 1, 2**24 + 1, 3]
    item = {"sparse_values": [0.5, 1, 2], "sparse_indices": indices}
    body = json.dumps({"vector_type": "sparse", "data": [item] * 3, "usage": {"total_tokens": 7}}).encode()
    answer = decode(decoder, body, cuts=(150,), most=10**9, count=3, vector_type=None, dimension=None, rows=Rows())
    assert answer.sparse is not None
    assert answer.sparse.indices.tolist() == indices * 3


def test_an_unusual_answer_is_judged_whole_even_after_pieces_were_freed(decoder: Decoder) -> None:
    rows = Rows()
    body = BODY.replace(b'"values": [7', b'"other": [[1]], "values": [7')
    decode(decoder, body, cuts=(120, 130), most=10**9, count=3, vector_type="dense", dimension=3, rows=rows)
    assert rows.matrix.tobytes() == ROWS.tobytes()


def test_a_number_beyond_float32s_range_is_named_even_after_its_piece_was_freed(decoder: Decoder) -> None:
    body = BODY.replace(b"-1.0", b"-1e39")
    with pytest.raises(ResponseError, match=r"range at `\$\.data\[0\]\.values\[1\]`"):
        decode(decoder, body, cuts=(120, 130), most=10**9, count=3, vector_type="dense", dimension=3, rows=Rows())


def test_pieces_are_freed_and_the_body_can_still_be_rebuilt(decoder: Decoder) -> None:
    reading = begin(decoder, Rows())
    for start in range(0, len(BODY), 20):
        reading.add(BODY[start : start + 20])
        reading.decode()
    assert sum(map(len, reading._pieces)) == 0
    assert np.array([item["values"] for item in json.loads(reading.body())["data"]], np.float32).tobytes() == ROWS.tobytes()
    rest = {**json.loads(BODY), "data": None}
    assert {**json.loads(reading.body()), "data": None} == rest


def item_with(before: str, values: str) -> str:
    return f'{{"tokens": {before}, "values": {values}}}'


@pytest.mark.parametrize(
    ("items", "right"),
    [
        ([item_with("[5, 6, 7]", "[0]")], [[0]]),
        ([item_with("[1.0]", "[0e999999]")], [[0]]),
        # More than any placeholder.
        ([item_with("[5]", "[9007199254740992]")], [[9007199254740992]]),
        ([item_with("[1.0]", "[0.0]"), item_with("[2.0]", "[1]")], [[0], [1]]),
        ([item_with("[5, 6, 7]", "[0]"), '{"values": [1]}'], [[0], [1]]),
        (['{"values": [0]}', item_with("[5]", "[1]"), '{"values": [2]}'], [[0], [1], [2]]),
        (['{"of": {"values": [5]}, "values": [0]}'], [[0]]),
        (['{"\\"values": [5], "values": [0]}'], [[0]]),
        ([item_with('"["', "[0]")], [[0]]),
    ],
)
@pytest.mark.parametrize("is_known", [False, True])
def test_numbers_outside_values_are_never_taken_for_rows(
    decoder: Decoder, items: list[str], right: list[list[float]], *, is_known: bool
) -> None:
    body = f'{{"vector_type": "dense", "data": [{", ".join(items)}], "usage": {{"total_tokens": 7}}}}'.encode()
    matrix = np.full((len(items), 1), 9, np.float32)

    def rows(dimension: int) -> NDArray[np.float32]:
        if dimension != 1:
            raise ResponseError("another dimension")
        return matrix

    for cut in range(len(body)):
        matrix[:] = 9
        dimension = 1 if is_known else None
        decode(decoder, body, cuts=(cut,), most=1, count=len(items), vector_type="dense", dimension=dimension, rows=rows)
        assert matrix.tolist() == right


def memory_for(reading: StreamingDecoder, pieces: Iterable[bytes], slice_bytes: int = 2**19) -> int:
    """Peak memory of decoding an answer slice by slice, as an engine does."""
    tracemalloc.start()
    try:
        with contextlib.suppress(ResponseError):
            for piece in pieces:
                reading.add(piece)
                while reading.undecoded >= slice_bytes:
                    reading.decode(slice_bytes)
            reading.finish()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def byte_by_byte(body: bytes) -> Iterable[bytes]:
    return (body[at : at + 1] for at in range(len(body)))


@pytest.mark.parametrize("expectations", [{}, {"vector_type": None, "dimension": None}, {"vector_type": "sparse"}])
def test_many_small_pieces_take_no_more_memory_than_a_few_times_their_bytes(
    decoder: Decoder, expectations: dict[str, Any]
) -> None:
    row = b'{"values":[%b1.0]},' % (b"0.125," * LONGEST_ROW)
    body = b'{"vector_type":"dense","data":[%b]}' % (row * 3)[:-1]
    reading = (
        begin(decoder, Rows(), dimension=LONGEST_ROW + 1, **expectations)
        if "dimension" not in expectations
        else begin(decoder, Rows(), **expectations)
    )
    # Of three bytes, because single bytes are objects that Python keeps anyway.
    pieces = (body[at : at + 3] for at in range(0, len(body), 3))
    assert memory_for(reading, pieces, 2**17) < 6 * len(body)


TINY = {
    "dense": b'{"values":[1]},',
    "spaced": b'{ "values" : [ 1 ] } ,',
    "nothing": b'{"":0},',
    "empty": b"{},",
    "number": b"0,",
    "sparse": b'{"sparse_values":[1],"sparse_indices":[1]},',
}


@pytest.mark.parametrize(
    "expectations", [{"dimension": 1}, {"vector_type": None, "dimension": None}, {"vector_type": "sparse"}]
)
@pytest.mark.parametrize("row", TINY)
def test_many_tiny_rows_take_no_more_memory_than_a_few_times_their_bytes(
    decoder: Decoder, row: str, expectations: dict[str, Any]
) -> None:
    kind = b"sparse" if row == "sparse" else b"dense"
    body = b'{"vector_type":"%b","data":[%b]}' % (kind, (TINY[row] * (2**22 // len(TINY[row])))[:-1])
    pieces = (body[at : at + 2**16] for at in range(0, len(body), 2**16))
    reading = begin(decoder, Rows(), **expectations)
    assert memory_for(reading, pieces) < 4 * len(body)
    with pytest.raises(ResponseError):
        reading.finish()


def filled(kind: bytes, before: bytes, repeated: bytes, behind: bytes) -> bytes:
    """An answer of one item, of four megabytes."""
    return b'{"vector_type":"%b","data":[%b]}' % (kind, before + repeated * (2**22 // len(repeated)) + behind)


LONG = {
    "values": filled(b"dense", b'{"values":[', b"0,", b"0]}"),
    "indices": filled(b"sparse", b'{"sparse_values":[],"sparse_indices":[', b"0,", b"0]}"),
    "tokens": filled(b"sparse", b'{"sparse_values":[],"sparse_indices":[],"sparse_tokens":[', b'"a",', b'"a"]}'),
    "unknown": filled(b"dense", b'{"values":[1],"x":{', b'"a":{},', b'"a":{}}}'),
    "beside": filled(b"dense", b'{"values":[1]}],"x":[', b"{},", b"{}"),
}


@pytest.mark.parametrize("what", LONG)
@pytest.mark.parametrize("count", [1, 9])
def test_an_embedding_over_one_mebibyte_is_refused_before_objects_are_created(
    decoder: Decoder, what: str, count: int
) -> None:
    body = LONG[what].replace(b'"data":[', b'"data":[' + b'{"values":[1]},' * (count - 1))
    vector_type = "sparse" if b'"sparse"' in body else "dense"
    reading = begin(decoder, Rows(), count=count, vector_type=vector_type, dimension=None)
    pieces = (body[at : at + 2**16] for at in range(0, len(body), 2**16))
    assert memory_for(reading, pieces) < 4 * len(body)
    with pytest.raises(ResponseError):
        reading.finish()


def test_a_refusal_for_size_says_so(decoder: Decoder) -> None:
    for count, said in (
        (1, "has more than 2 MiB: one for each"),
        (5, "cannot be read: expected 5 embeddings, got 1"),
    ):
        reading = begin(decoder, Rows(), count=count, dimension=None)
        with pytest.raises(ResponseError, match=said):
            reading.add(LONG["values"])
            reading.finish()
    row = b'{"values":[%b0]},' % (b"0," * 2**19)
    reading = begin(decoder, Rows(), count=3, dimension=None)
    reading.add(b'{"vector_type":"dense","data":[%b]}' % (row + b'{"values":[1]},' * 2)[:-1])
    with pytest.raises(ResponseError, match=r"an embedding has more than 1 MiB at `\$\.data\[0\]`"):
        reading.finish()
    reading = begin(decoder, Rows(), dimension=1)
    reading.add(b'{"x":[%b0],"vector_type":"dense","data":[%b]}' % (b"0," * 2**19, (b'{"values":[1]},' * 3)[:-1]))
    with pytest.raises(ResponseError, match="more than 1 MiB besides its embeddings"):
        reading.finish()


def test_the_largest_rows_that_an_index_takes_are_decoded(decoder: Decoder) -> None:
    rows = Rows()
    body = b'{"vector_type":"dense","data":[%b]}' % b",".join(
        [b'{"values":[%b1]}' % (b"-0.01313018798828125," * 19_999)] * 3
    )
    decode(decoder, body, most=2**19, count=3, vector_type=None, dimension=None, rows=rows)
    assert rows.matrix.shape == (3, 20_000)


def sparse_body(terms: int, beside: bytes = b"") -> bytes:
    item = b'{"sparse_values":[%b1],"sparse_indices":[%b1]%b}' % (b"0.5," * (terms - 1), b"7," * (terms - 1), beside)
    return b'{"vector_type":"sparse","data":[%b]}' % b",".join([item] * 96)


@pytest.mark.parametrize("beside", [b"", b',"x":"\xc3\xa9","x":0'])
def test_sparse_rows_are_judged_a_few_at_a_time(decoder: Decoder, beside: bytes) -> None:
    body = sparse_body(2000, beside)
    reading = begin(decoder, Rows(), count=96, vector_type="sparse", dimension=None)
    reading.add(body)
    steps = 1
    while (answer := reading.finish(2**16)) is None:
        steps += 1
    assert steps >= len(body) // (2**16 + len(body) // 96)
    assert answer.sparse is not None
    assert answer.sparse.lengths.tolist() == [2000] * 96
    assert memory_for(begin(decoder, Rows(), count=96, vector_type="sparse"), [body]) < 4 * len(body)


@pytest.mark.parametrize(
    ("beside", "steps"),
    [
        (b"", 1 + 96),
        (b',"vector_type":"sparse"', 1 + 96),
        (b',"sparse_tokens":null', 1 + 96),
        (b',"sparse_tokens":[%b"a"]' % (b'"a",' * 1999), 1 + 96),
        (b',"x":0', 1 + 96),
        (b',"x":"\xc3\xa9","x":0', 1 + 96),
    ],
)
@pytest.mark.parametrize("most", [1, None])
def test_a_step_of_the_judgement_starts_no_item_after_its_bytes(
    decoder: Decoder, beside: bytes, steps: int, most: int | None
) -> None:
    body = sparse_body(2000, beside)
    item = body[body.index(b"[") + 1 : body.index(b"},") + 1]
    reading = begin(decoder, Rows(), count=96, vector_type="sparse", dimension=None)
    reading.add(body)
    # The first step reads the frame only.
    answers = [reading.finish(most or len(item)) for _ in range(steps)]
    assert [answer is not None for answer in answers] == [False] * (steps - 1) + [True]


@pytest.mark.parametrize(
    ("beside", "most", "steps"),
    [
        (b"", 1, 1 + 3),
        (b',"vector_type":"dense"', 1, 1 + 3),
        (b',"x":0', 1, 1 + 3),
        # Two rows a step.
        (b"", 50_000, 1 + 2),
    ],
)
def test_rows_that_are_too_long_for_a_matrix_are_judged_a_few_at_a_time(
    decoder: Decoder, beside: bytes, most: int, steps: int
) -> None:
    item = b'{"values":[%b1]%b}' % (b"0," * 20_000, beside)
    reading = begin(decoder, Rows(), dimension=None)
    reading.add(b'{"vector_type":"dense","data":[%b]}' % b",".join([item] * 3))
    answers = [reading.finish(most) for _ in range(steps)]
    assert [answer is not None for answer in answers] == [False] * (steps - 1) + [True]


@pytest.mark.parametrize(
    ("where", "said"), [("item", "an embedding has more than 1 MiB"), ("top", "more than 1 MiB beside")]
)
def test_an_item_and_what_is_beside_them_may_have_a_mebibyte_each_and_no_more(
    decoder: Decoder, where: str, said: str
) -> None:
    item = b'{"x":"[]","values":[1]%b}'
    body = b'{"x":"[]","vector_type":"dense","data":[%b]%b}'
    beside = len(body % (b"", b"")) - len(b"[]")
    room = 2**20 - (len(item % b"") if where == "item" else beside)
    for spaces in (room, room + 1):
        blank = b" " * spaces
        whole = body % ((item % blank, b"") if where == "item" else (item % b"", blank))
        reading = begin(decoder, Rows(1), count=1, dimension=1)
        reading.add(whole)
        if spaces == room:
            assert finished(reading).vector_type == "dense"
        else:
            with pytest.raises(ResponseError, match=said):
                reading.finish()


def test_an_answer_may_have_a_mebibyte_for_each_embedding_and_one_beside_them(decoder: Decoder) -> None:
    reading = begin(decoder, Rows())
    reading.add(BODY)
    reading.add(b" " * (4 * 2**20 - len(BODY)))
    assert finished(reading).vector_type == "dense"
    reading = begin(decoder, Rows())
    reading.add(BODY)
    with pytest.raises(ResponseError, match=r"^the answer has more than 4 MiB: one for each embedding, and one"):
        reading.add(b" " * (4 * 2**20 - len(BODY) + 1))


def test_rows_of_20_000_numbers_are_placed_at_once_even_if_their_length_is_not_known(decoder: Decoder) -> None:
    item = b'{"values":[%b1]}' % (b"0," * 19_999)
    reading = begin(decoder, Rows(), dimension=None)
    reading.add(b'{"vector_type":"dense","data":[%b]}' % b",".join([item] * 3))
    assert reading.finish(1) is not None


def test_a_native_module_that_is_built_is_the_decoder_unless_another_is_chosen() -> None:
    is_built = find_spec("pinecone_embed_async._wire._native") is not None
    names = ("native", "msgspec") if is_built else ("msgspec",)
    assert installed_decoders() == names
    assert choose_decoder(None).name == names[0]
    assert [choose_decoder(name).releases_lock for name in installed_decoders()] == [name == "native" for name in names]


def test_surplus_rows_are_refused_before_many_are_stored(decoder: Decoder) -> None:
    reading = begin(decoder, Rows(), dimension=1)
    size = 0
    with pytest.raises(ResponseError, match="more than 4 MiB"):
        for piece in (b'{"vector_type":"dense","data":[', *[TINY["dense"] * 2**12] * 1000):
            reading.add(piece)
            reading.decode()
            size += len(piece)
    assert size < 2**22
    reading = begin(decoder, Rows(), dimension=1)
    reading.add(b'{"vector_type":"dense","data":[%b]}' % (TINY["dense"] * 2**17)[:-1])
    with pytest.raises(ResponseError, match="Expected `array` of length 3"):
        reading.finish()


def test_a_long_end_without_rows_is_not_taken_for_rows(decoder: Decoder) -> None:
    rows = Rows()
    long = b', "notes": [%b]}' % b",".join([b'{"values": [1]}'] * 20_000)
    decode(decoder, BODY[:-1] + long, most=10**6, count=3, vector_type="dense", dimension=3, rows=rows)
    assert rows.matrix.tobytes() == ROWS.tobytes()


def transport_of(body: bytes | list[bytes]) -> MockTransport:
    return MockTransport(lambda _: MockResponse(body=body))


async def iterations_of(client: EmbedClient[Any], texts: list[str]) -> int:
    """Iterations of the event loop while a client embeds."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await client.embed(texts)
    counting.cancel()
    return turns


async def test_buffered_pieces_do_not_block_the_event_loop() -> None:
    pieces = [*byte_by_byte(BODY), *[b" "] * 20_000]
    async with EmbedClient(
        "m", api_key="k", transport=transport_of(pieces), vector_type="dense", look_up_model=False
    ) as client:
        assert await iterations_of(client, ["a", "b", "c"]) > len(pieces) / 300


async def test_an_answer_that_is_too_large_for_its_inputs_is_an_unreadable_answer() -> None:
    transport = transport_of([BODY[:-1], *[b" " * 2**16] * 100])
    options: dict[str, Any] = {"transport": transport, "retry": RetryPolicy(max_attempts=1), "look_up_model": False}
    async with EmbedClient("m", api_key="k", **options) as client:
        with pytest.raises(ResponseError, match="the answer has more than 2 MiB"):
            await client.embed("a")
        assert client.statistics().unreadable_answers == 1


async def test_a_large_sparse_answer_does_not_block_the_event_loop() -> None:
    turns = []
    for terms in (1, 5000):
        transport = transport_of(sparse_body(terms))
        async with EmbedClient("m", api_key="k", transport=transport, vector_type="sparse", look_up_model=False) as client:
            turns.append(await iterations_of(client, ["a"] * 96))
    assert turns[1] >= turns[0] + len(sparse_body(5000)) // 2**20


async def test_a_large_answer_with_much_between_its_rows_does_not_block_the_event_loop() -> None:
    turns = []
    for digits in (0, 2**13):
        # All rows are found, but the bytes between them are not equal, and 96 * 16 KiB are too many for a frame.
        items = [b'{"x":"%b","values":[%b0]}' % (b"%02d" % row * digits, b"0.125," * 2**13) for row in range(96)]
        transport = transport_of(b'{"vector_type":"dense","data":[%b]}' % b",".join(items))
        async with EmbedClient("m", api_key="k", transport=transport, decoder="msgspec", look_up_model=False) as client:
            turns.append(await iterations_of(client, ["a"] * 96))
    assert turns[1] >= turns[0] + 96 * 2**16 // 2**19


def test_a_long_row_in_many_pieces_is_decoded_in_linear_time(decoder: Decoder) -> None:
    rows = Rows()
    values = b"0.125," * 2**15 + b"1"
    body = b'{"vector_type":"dense","data":[%b]}' % b",".join([b'{"values":[%b]}' % values] * 3)
    # If each piece caused another scan of the row so far, it would take a quarter of an hour.
    cuts = tuple(range(1, len(body), 3))
    decode(decoder, body, cuts=cuts, most=1, count=3, vector_type="dense", dimension=2**15 + 1, rows=rows)
    assert (rows.matrix[:, -1] == 1).all()
