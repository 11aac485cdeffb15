import pytest

from pinecone_embed_async.emulator._tokens import count_pieces, count_tokens, split_words, truncate_words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 2),
        ("cat", 3),
        ("cats and dogs", 5),
        ("incomprehensible", 5),
        ("don't stop!", 7),
        ("snake_case", 5),
        ("1234567", 5),
        ("東京都", 5),
        ("東京 tower", 5),
        ("привет", 4),
        ("  \n\t ", 2),
    ],
)
def test_words_pieces_digits_and_signs_are_tokens(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_texts_of_the_same_length_do_not_cost_the_same() -> None:
    assert count_tokens("a b c d e f") > count_tokens("abcdefghijk")


def test_a_text_is_cut_at_its_end_or_at_its_start() -> None:
    words = split_words("one two three four")
    assert truncate_words(words, 4) == ["one", "two"]
    assert truncate_words(words, 4, keep_end=True) == ["three", "four"]
    assert truncate_words(words, 6) == truncate_words(words, 6, keep_end=True) == words


def test_a_word_that_fits_in_part_is_dropped() -> None:
    assert truncate_words(["incomprehensible"], 4) == []


def test_both_ways_of_splitting_agree_on_ascii() -> None:
    text = "The quick_brown fox: 42 times (or more), it's fine\x0b."
    assert split_words(text) == split_words(text + " é")[:-1]


@pytest.mark.parametrize("words", [["cat"], ["incomprehensible", "cat"]])
def test_counts_do_not_change_when_more_words_than_are_kept_have_come(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = count_pieces(words)
    monkeypatch.setattr("pinecone_embed_async.emulator._tokens._CACHED_WORDS", 1)
    assert count_pieces([*words, "another", *words]) == 2 * counted + count_pieces(["another"])
