import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import ConfigurationError
from pinecone_embed_async._jobs._templates import FieldText, RecordError, parse_template

RECORD = {"title": "Tea", "body": "hot {leaf}", "n": 7, "rate": 0.5, "nothing": None, "flag": True, "a b": "c"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{title}", "Tea"),
        (r"{title}\n{body}", "Tea\nhot {leaf}"),
        ("{{{title}}}", "{Tea}"),
        ("{n}{rate}", "70.5"),
        (r"a\tb\\n{title}\x", "a\tb\\nTea\\x"),
        ("{a b}", "c"),
        ("{title}\n{title}", "Tea\nTea"),
    ],
)
def test_a_template_is_filled_from_a_record(template: str, text: str) -> None:
    assert parse_template(template).of(RECORD) == text


@given(st.text())
def test_text_with_its_braces_and_backslashes_doubled_stands_for_itself(text: str) -> None:
    doubled = text.replace("\\", r"\\").replace("{", "{{").replace("}", "}}")
    assert parse_template(doubled + "{title}").of(RECORD) == text + "Tea"


@given(st.lists(st.text(st.characters(exclude_characters="\\")), min_size=1))
def test_a_template_is_shown_as_it_may_be_given(literals: list[str]) -> None:
    doubled = [text.replace("{", "{{").replace("}", "}}") for text in literals]
    template = parse_template("{title}".join(["", *doubled]))
    assert parse_template(str(template)) == template


@pytest.mark.parametrize("template", ["no field", "{}", "{title", "title}", "{a{b}", "{{title}}"])
def test_a_template_that_cannot_be_meant_is_misuse(template: str) -> None:
    with pytest.raises(ConfigurationError, match="--text"):
        parse_template(template)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{title} {author}", "no field 'author'; it has 'title'"),
        ("{nothing}", "the field 'nothing' is neither text nor a number but null"),
        ("{flag}", "but true or false"),
    ],
)
def test_a_record_that_does_not_fill_it_is_told(template: str, said: str) -> None:
    with pytest.raises(RecordError) as raised:
        parse_template(template).of(RECORD)
    assert said in str(raised.value)


def test_the_fields_are_each_named_once() -> None:
    assert parse_template("{b}{a}{b}").fields == ("b", "a")
    assert FieldText("a").fields == ("a",)
