from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._plan import Distinct


@given(st.lists(st.text(max_size=2)))
def test_each_text_is_there_once_in_order_and_every_input_finds_its_own(texts: list[str]) -> None:
    distinct = Distinct(texts)
    assert distinct.texts == list(dict.fromkeys(texts))
    assert [distinct.texts[position] for position in distinct.positions] == texts


def test_its_repr_has_counts_and_no_texts() -> None:
    assert repr(Distinct(["secret", "other", "secret"])) == "<Distinct 2 of 3>"
