r"""Which text of a record is embedded: one field, or a template such as `{title}\n{body}`."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinecone_embed_async._errors import ConfigurationError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|\\.|[^{}\\]+|\\", re.DOTALL)
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\", "{{": "{", "}}": "}"}


class RecordError(Exception):
    """A record cannot be embedded; the caller, who knows its file and line, adds them.

    Attributes:
        reason: Why, without anything of the record.
    """

    def __init__(self, reason: str, more: str = "") -> None:
        super().__init__(reason + more)
        self.reason = reason


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
    """Return a field of a record: that of exactly this name, else the one that its dots lead to, item by item.

    Raises:
        RecordError: There is none of this name.
    """
    try:
        return record[name]
    except KeyError:
        found = _nested(record, name) if "." in name else _NOTHING
        if found is _NOTHING:
            names = list(record)
            raise RecordError(f"no field {name!r}", f"{meant(name, names)}; it has {names_shown(names)}") from None
        return found


_NOTHING = object()


def _nested(record: Mapping[str, Any], name: str) -> Any:
    # The longest field that it may begin with, so that a name with dots in it wins.
    for place in reversed([place for place, character in enumerate(name) if character == "."]):
        inner, rest = item_of(record, name[:place]), name[place + 1 :]
        if inner is not _NOTHING:
            found = item_of(inner, rest)
            if found is _NOTHING and "." in rest and _is_record(inner):
                found = _nested(inner, rest)
            if found is not _NOTHING:
                return found
    return _NOTHING


def item_of(record: Any, name: str) -> Any:
    """An item of an object, or of a struct of Arrow; never an attribute."""
    if not _is_record(record):
        return _NOTHING
    try:
        return record[name]
    except KeyError:
        return _NOTHING


def _is_record(value: Any) -> bool:
    # Arrow's scalars of structs are mappings, too, but a null one has no items.
    return isinstance(value, Mapping) and getattr(value, "is_valid", True)


def beginnings(name: str) -> list[str]:
    """The fields that a name with dots may lie in, the name itself first, then the longest."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def meant(name: str, names: Sequence[str]) -> str:
    """Which of some names was perhaps meant, for a message; empty if none is like it."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


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
