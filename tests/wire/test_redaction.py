import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import ApiError
from pinecone_embed_async._wire import Redactor, error_from_envelope, error_from_response
from pinecone_embed_async._wire.redaction import LOOKED_AT

TEXT = "The patient, born in 1970, was treated for a rare disease of the left knee."


def test_texts_are_replaced_by_their_indices_and_the_key_by_its_name() -> None:
    redactor = Redactor("pcsk_1", [TEXT, "short"], [40, 47])
    message = redactor.clean(f"bad input '{TEXT}' with short, shorter, key pcsk_1")
    assert message == "bad input '<input 40>' with <input 47>, shorter, key <api key>"


def test_escaped_texts_and_parts_of_texts_are_found() -> None:
    text = 'the first line of this text is quoted "so"\nand line two is long enough as well'
    redactor = Redactor("k", [text])
    assert redactor.clean(json.dumps(text)) == '"<input 0>"'
    assert "quoted" not in redactor.clean(f"near {text[3:40]!r}...")


@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_text_is_found_from_its_first_to_its_last_character_however_it_is_escaped(*, is_ascii: bool) -> None:
    text = 'é is the first letter of this "text", and the last one is é'
    assert Redactor("k", [text]).clean(f"no {json.dumps(text, ensure_ascii=is_ascii)}!") == 'no "<input 0>"!'


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"near {TEXT[36:48]}", "near <input 0>"),
        (f"near {TEXT[:12]}!", "near <input 0>!"),
        (f"near {TEXT[:72][-12:]}!", "near <input 0>!"),
        (TEXT[5:30], "<input 0>"),
        # What is before and behind is like the text's, but at its other end.
        (f"{TEXT[12:24]}!{TEXT[11]}", f"<input 0>!{TEXT[11]}"),
        (f"{TEXT[71]}{TEXT[:12]}", f"{TEXT[71]}<input 0>"),
    ],
)
def test_twelve_characters_of_a_text_are_hidden_wherever_they_are(said: str, shown: str) -> None:
    redactor = Redactor("pcsk_1", [TEXT[:72]])
    assert redactor.clean(said) == shown
    assert redactor.work > 0


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("short", "<input 0>"),
        ("no short", "no <input 0>"),
        ("short!", "<input 0>!"),
        ("pcsk_1short", "<api key><input 0>"),
        ("xshort", "xshort"),
        ("shorts", "shorts"),
        ("short_", "short_"),
        ("xsevenlyx", "xsevenlyx"),
        ("xeightishx", "x<input 2>x"),
        ("no eightish", "no <input 2>"),
    ],
)
def test_a_text_of_less_than_eight_characters_is_hidden_only_as_a_word(said: str, shown: str) -> None:
    assert Redactor("pcsk_1", ["short", "sevenly", "eightish"]).clean(said) == shown


def test_a_text_around_two_others_is_hidden_with_what_is_between_them() -> None:
    short = "another input"
    assert Redactor("k", [short, f"{short}, secret, {short}"]).clean(f"no {short}, secret, {short}!") == "no <input 1>!"


@pytest.mark.parametrize("before", ["", "near ", "pcsk_1", "another input"])
@pytest.mark.parametrize("start", [0, 1, 11, 12])
def test_a_part_of_a_text_is_hidden_from_its_first_character_whatever_is_before_it(before: str, start: int) -> None:
    redactor = Redactor("pcsk_1", ["another input", TEXT])
    shown = {"pcsk_1": "<api key>", "another input": "<input 0>"}.get(before, before)
    assert redactor.clean(f"{before}{TEXT[start:40]}...") == f"{shown}<input 1>..."


def test_what_only_begins_like_a_text_is_hidden_as_far_as_it_is_the_texts() -> None:
    said = "The patient, like every other input, has at most 2048 tokens, and this sentence goes on for as long as a text"
    assert Redactor("pcsk_1", [TEXT]).clean(said) == said.replace("The patient, ", "<input 0>")


def test_part_of_a_text_is_hidden_to_its_end_even_if_a_shorter_text_begins_alike() -> None:
    redactor = Redactor("pcsk_1", ["The patient, his wife and two children.", TEXT])
    assert redactor.clean(f"bad input '{TEXT[:23]}'") == "bad input '<input 1>'"


KEY = "pcsk_4Zq7Lm_" + "SECRET" * 10


@pytest.mark.parametrize("most", [4096, 300])
def test_no_part_of_a_key_is_shown_where_a_string_is_cut(most: int) -> None:
    text = "".join(f"word{number} " for number in range(2000))
    # The first three use up so much of the search that only the beginning of the last is left.
    before = [] if most == 4096 else ["x" * 4096] * 3 + ["y" * (16_384 - 3 * 4096 - 5 * 8 - most)]
    for at in range(most - len(KEY), most + 1):
        redactor = Redactor(KEY, [text])
        said = text[:at] + KEY
        for shown in ([redactor.clean(said)] if most == 4096 else []) + redactor.clean_json([*before, said]):
            assert "pcsk" not in shown
        assert "<input 0>" in shown


def after_others(value: Any, room: int, key: str = "a key") -> Any:
    """The cleaned form of a value when so many characters of the search are left."""
    used = ["x" * 5000] * 3 + ["y" * (16_384 - 8 - 3 * (4096 + 8) - 8 - room)]
    return Redactor(key).clean_json([*used, value])[-1]


@pytest.mark.parametrize(
    ("value", "room", "shown"),
    [("zzz", 0, "..."), ("zzz", 1, "z"), ("zzz", 3, "zzz"), ([1], 8, "..."), ([1], 9, [1]), ({}, 9, {}), (7, 0, 7)],
)
def test_all_strings_of_an_error_share_one_search(value: Any, room: int, shown: Any) -> None:
    assert after_others(value, room) == shown


@pytest.mark.parametrize(
    ("string", "room", "shown"),
    [
        ("abcdef", 1, ""),
        ("abcdef", 2, ""),
        ("abcdef", 3, "<api key>"),
        ("abcdef", 4, "<api key>d"),
        ("xabc", 1, "x"),
        ("xabc", 2, "x"),
        ("xxabc", 3, "xx"),
        ("xxabc", 5, "xx<api key>"),
    ],
)
def test_a_string_is_cut_before_a_key_that_does_not_fit(string: str, room: int, shown: str) -> None:
    assert after_others(string, room, "abc") == shown


def test_five_levels_and_twenty_items_of_each_are_kept() -> None:
    redactor = Redactor("k")
    assert redactor.clean_json([[[[["a", 1]]]]]) == [[[[["a", 1]]]]]
    assert redactor.clean_json([[[[[["a"]]]]]]) == [[[[["..."]]]]]
    assert redactor.clean_json({"a": {"b": {"c": {"d": {"e": "f"}}}}}) == {"a": {"b": {"c": {"d": {"e": "f"}}}}}
    assert redactor.clean_json({"a": {"b": {"c": {"d": {"e": {}}}}}}) == {"a": {"b": {"c": {"d": {"e": "..."}}}}}
    assert redactor.clean_json([*range(21)]) == [*range(20)]
    assert list(redactor.clean_json({str(number): number for number in range(21)}).values()) == [*range(20)]


def test_a_message_of_500_characters_is_shown_whole() -> None:
    assert Redactor("k").clean("b" * 500) == "b" * 500
    assert Redactor("k").clean("b" * 501) == "b" * 497 + "..."


def test_messages_are_one_short_line() -> None:
    cleaned = Redactor("k").clean("a\x1b[31m\n" + "b" * 2000)
    assert len(cleaned) == 500
    assert cleaned.isprintable()


def test_json_values_are_cleaned_at_every_depth() -> None:
    cleaned = Redactor("k", [TEXT]).clean_json({TEXT: [{"at": TEXT}], "deep": [[[[[["x"]]]]]], "n": 1.5})
    assert "patient" not in json.dumps(cleaned)
    assert cleaned["n"] == 1.5


@given(st.lists(st.text(min_size=8), max_size=4), st.text(), st.text())
def test_no_whole_text_survives(texts: list[str], before: str, after: str) -> None:
    redactor = Redactor("", texts)
    for text in texts:
        if len(text.strip()) >= 8 and "input" not in text:
            assert text not in redactor.clean(before + text + after) or text in "<input 0><input 1><input 2><input 3>"


LONG = [f"{number} {'a word of a text ' * 125}" for number in range(96)]
SAME = ["a" * 2000 for _ in range(96)]
NEARLY = ["a" * 2000 + str(number) for number in range(96)]
PREFIXED = [f"The following is a question of somebody: {number:04}" for number in range(96)]


@pytest.mark.parametrize(
    "details",
    [
        [[[["a string"] * 20] * 20] * 20] * 20,
        [LONG[0]] * 20,
        [{text: text} for text in LONG[:20]],
        ["a" * 4000] * 20,
        [text[:100] for text in NEARLY[:20]],
        [PREFIXED[:20]] * 20,
        ["\\" * 4000] * 20,
        "The following is a question of somebody: " * 100,
    ],
    ids=range(8),
)
@pytest.mark.parametrize("texts", [LONG, SAME, NEARLY, PREFIXED, ["a"] * 96, list("abcdefghijkl" * 8), [""] * 96])
def test_the_work_is_linear_in_the_error_and_the_texts_whatever_they_are(details: Any, texts: list[str]) -> None:
    redactor = Redactor("pcsk_1", texts)
    envelope = {"code": "INVALID_ARGUMENT", "message": LONG[1], "details": details}
    body = json.dumps({"status": 400, "error": envelope}).encode()
    error = error_from_response(400, {"x-request-id": "7"}, body[:65_536], redactor=redactor, now=0.0)
    assert redactor.work <= 40 * (16_384 + sum(map(len, texts))) + 10_000
    if len(body) <= 65_536:
        assert error.code == "INVALID_ARGUMENT"
        assert len(json.dumps(error.details)) < 65_536


def test_no_more_than_64_kib_of_a_body_is_looked_at() -> None:
    body = json.dumps({"status": 400, "error": {"code": "X", "message": "m", "details": ["x" * 10] * 10_000}}).encode()
    redactor = Redactor("k", LONG)
    error = error_from_response(400, {"content-type": "application/json"}, body, redactor=redactor, now=0.0)
    assert "is not an error message" in error.message
    assert error_from_envelope(body, redactor=redactor) is None
    assert redactor.work == 0


def test_even_empty_strings_take_up_room() -> None:
    def flat(value: Any) -> list[Any]:
        return [inner for item in value for inner in flat(item)] if isinstance(value, list) else [value]

    cleaned = flat(Redactor("k").clean_json([[[""] * 100] * 100] * 100))
    assert 0 < cleaned.count("") <= LOOKED_AT // 8
    assert set(cleaned) == {"", "..."}


def test_a_message_that_repeats_the_texts_too_often_is_not_shown() -> None:
    cleaned = Redactor("k", NEARLY).clean_json(["a" * 1900] * 8)
    assert "aaaa" not in json.dumps(cleaned)


def test_texts_with_a_common_prefix_are_distinguished() -> None:
    cleaned = Redactor("k", PREFIXED).clean(f"no: {PREFIXED[70]}, {PREFIXED[7]}")
    assert cleaned == "no: <input 70>, <input 7>"


def test_codes_of_any_type_do_not_extend_the_search() -> None:
    for code in ({"a": ["b"] * 1000}, 10**400, None, ["x"]):
        body = json.dumps({"status": "?", "error": {"code": code, "message": "m"}}).encode()
        error = error_from_envelope(body, redactor=Redactor("k"))
        assert isinstance(error, ApiError)
        assert (error.status, error.code) == (500, None)
