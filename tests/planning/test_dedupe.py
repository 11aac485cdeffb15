from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._planning import Deduplicator


def distinct_of(*parts: list[str]) -> Deduplicator:
    distinct = Deduplicator()
    for part in parts:
        distinct.add(part)
    return distinct


@given(st.lists(st.lists(st.text(max_size=2))))
def test_each_text_is_there_once_in_order_and_every_input_finds_its_own(parts: list[list[str]]) -> None:
    distinct = distinct_of(*parts)
    texts = [text for part in parts for text in part]
    assert distinct.keys == list(dict.fromkeys(texts))
    if distinct.positions is None:
        assert distinct.keys == texts
    else:
        assert [distinct.keys[position] for position in distinct.positions] == texts


def test_without_duplicates_there_is_nothing_to_put_back() -> None:
    assert distinct_of(["a", "b"], ["c"]).positions is None
    assert distinct_of(["a", "b"], ["a"]).positions is not None


def test_its_repr_has_counts_and_no_texts() -> None:
    assert repr(distinct_of(["secret", "other"], ["secret"])) == "<Deduplicator 2 of 3>"
