import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pinecone_embed_async._jobs._duplicates import TextDigests

STANDINGS = st.sampled_from(["done", "failed", "wanted", "other"])


@given(st.lists(st.tuples(st.sampled_from("abcd"), STANDINGS), max_size=30), st.integers(0, 1000))
@example([("a", "other"), ("a", "wanted"), ("a", "wanted"), ("a", "failed"), ("a", "done"), ("a", "done")], 7)
def test_one_of_each_text_is_sent_unless_it_is_done_or_failed(rows: list[tuple[str, str]], first_row: int) -> None:
    digests = TextDigests()
    for text, _ in rows:
        digests.add(text)
    masks = {name: np.array([standing == name for _, standing in rows], np.bool_) for name in ("done", "failed", "wanted")}
    copies = digests.copies(first_row, **masks)
    expected: dict[int, int] = {}
    for number, (text, standing) in enumerate(rows):
        if standing == "wanted":
            of_text = [(each, other) for other, (same, each) in enumerate(rows) if same == text]
            best = min(of_text, key=lambda each: (["done", "failed", "wanted", "other"].index(each[0]), each[1]))
            if best[1] != number:
                expected[number + first_row] = best[1] + first_row
    assert dict(zip(copies.rows.tolist(), copies.sources.tolist(), strict=True)) == expected
    assert copies.rows.tolist() == sorted(expected)


def test_texts_that_only_look_alike_are_not_equal() -> None:
    digests = TextDigests()
    for text in ("é", "e\u0301", "a", "a ", "A", ""):
        digests.add(text)
    nothing, everything = np.zeros(6, np.bool_), np.ones(6, np.bool_)
    assert not digests.copies(0, done=nothing, failed=nothing, wanted=everything).rows.size
