r"""Which text of a record is embedded: one field, or a template such as `{title}\n{body}`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pinecone_embed_async._errors import ConfigurationError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|\\.|[^{}\\]+|\\", re.DOTALL)
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\", "{{": "{", "}}": "}"}


class RecordError(Exception):
    """A record lacks what is needed of it; the caller, who knows its file and line, adds them."""


@dataclass(frozen=True, slots=True)
class FieldText:
    """The text is the value of one field."""

    field: str

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the text is made of."""
        return (self.field,)

    def of(self, record: Mapping[str, Any]) -> str:
        """Return the text of a record.

        Raises:
            RecordError: The field is missing or holds no text.
        """
        value = field_of(record, self.field)
        if not isinstance(value, str):
            raise RecordError(f"the field {self.field!r} is not text but {kind_of(value)}")
        return value


@dataclass(frozen=True, slots=True)
class TemplateText:
    """The text is put together from fields: text, whole numbers and other numbers.

    Attributes:
        parts: Literal texts and names of fields, alternating, a literal first.
    """

    parts: tuple[str, ...]

    def __str__(self) -> str:
        """Show the template as it may be given, except that line feeds and tabs are not escaped."""
        shown = [part.replace("{", "{{").replace("}", "}}") for part in self.parts]
        shown[1::2] = [f"{{{name}}}" for name in self.parts[1::2]]
        return "".join(shown)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the text is made of."""
        return tuple(dict.fromkeys(self.parts[1::2]))

    def of(self, record: Mapping[str, Any]) -> str:
        """Return the text of a record.

        Raises:
            RecordError: A field is missing, or is neither text nor a number.
        """
        filled = list(self.parts)
        for index in range(1, len(filled), 2):
            value = field_of(record, filled[index])
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise RecordError(f"the field {filled[index]!r} is neither text nor a number but {kind_of(value)}")
            filled[index] = str(value)
        return "".join(filled)


TextSource = FieldText | TemplateText


def parse_template(template: str) -> TemplateText:
    r"""Read a template: `{name}` stands for a field, `{{` and `}}` for braces, `\n`, `\t` and `\\` as in Python.

    Raises:
        ConfigurationError: A brace stands alone, a name is empty, or there is no field in it.
    """
    parts = [""]
    for token in _TOKEN.finditer(template):
        text = token[0]
        if token[1] is not None:
            if not token[1]:
                raise ConfigurationError(f"--text {template}: {{}} names no field; {{{{ and }}}} stand for braces")
            parts += [token[1], ""]
        elif text in {"{", "}"}:
            raise ConfigurationError(f"--text {template}: a {text} stands alone; {{{{ and }}}} stand for braces")
        else:
            parts[-1] += _ESCAPES.get(text, text)
    if len(parts) == 1:
        raise ConfigurationError(f"--text {template}: it names no field; write {{body}} for the field body")
    return TemplateText(tuple(parts))


def field_of(record: Mapping[str, Any], name: str) -> Any:
    """Return a field of a record.

    Raises:
        RecordError: There is none of this name.
    """
    try:
        return record[name]
    except KeyError:
        raise RecordError(f"no field {name!r}; it has {names_shown(list(record))}") from None


def names_shown(names: list[str]) -> str:
    """Some of the names, for a message."""
    shown = ", ".join(repr(name[:40]) for name in names[:8])
    return f"{shown}, …" if len(names) > 8 else shown or "none"


def kind_of(value: Any) -> str:
    """What a value of a record is, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"of the type {type(value).__name__}"
