import json

from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._wire import Redactor

TEXT = "The patient, born in 1970, was treated for a rare disease of the left knee."


def test_texts_are_replaced_by_their_indices_and_the_key_by_its_name() -> None:
    redactor = Redactor("pcsk_1", [TEXT, "short"], start=40)
    message = redactor.clean(f"bad input '{TEXT}' with short, shorter, key pcsk_1")
    assert message == "bad input '<input 40>' with <input 41>, shorter, key <api key>"


def test_escaped_texts_and_parts_of_texts_are_found() -> None:
    text = 'the first line of this text is quoted "so"\nand line two is long enough as well'
    redactor = Redactor("k", [text])
    assert redactor.clean(json.dumps(text)) == '"<input 0>"'
    assert "quoted" not in redactor.clean(f"near {text[3:40]!r}...")


def test_messages_are_one_short_line() -> None:
    cleaned = Redactor("k").clean("a\x1b[31m\n" + "b" * 2000)
    assert len(cleaned) == 500
    assert cleaned.isprintable()


def test_json_values_are_cleaned_at_every_depth() -> None:
    cleaned = Redactor("k", [TEXT]).clean_json({TEXT: [{"at": TEXT}], "deep": [[[[["x"]]]]], "n": 1.5})
    assert "patient" not in json.dumps(cleaned)
    assert cleaned["n"] == 1.5


@given(st.lists(st.text(min_size=8), max_size=4), st.text(), st.text())
def test_no_whole_text_survives(texts: list[str], before: str, after: str) -> None:
    redactor = Redactor("", texts)
    for text in texts:
        if len(text.strip()) >= 8 and "input" not in text:
            assert text not in redactor.clean(before + text + after) or text in "<input 0><input 1><input 2><input 3>"
