r"""Where a record's text comes from: one field, or a template such as `{title}\n{body}`."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinecone_embed_async._errors import ConfigurationError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|\\.|[^{}\\]+|\\", re.DOTALL)
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\", "{{": "{", "}}": "}"}


class RecordError(Exception):
    """A record cannot be embedded. The caller, which knows the file and line, adds them.

    Attributes:
        reason: Why not, without any of the record's content.
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
        """The fields the text is made of."""
        return (self.field,)

    def of(self, record: Mapping[str, Any]) -> str:
        """Return the text of a record.

        Raises:
            RecordError: The field is missing or is not text.
        """
        value = value_of(record, self.field)
        if not isinstance(value, str):
            raise RecordError(f"the field {self.field!r} is not text but {kind_of(value)}")
        return value


@dataclass(frozen=True, slots=True)
class TemplateText:
    """The text is built from fields that are text or numbers.

    Attributes:
        parts: Literal texts and field names, alternating, a literal first.
    """

    parts: tuple[str, ...]

    def __str__(self) -> str:
        """The template as it can be given, except that line feeds and tabs are not escaped."""
        shown = [part.replace("{", "{{").replace("}", "}}") for part in self.parts]
        shown[1::2] = [f"{{{name}}}" for name in self.parts[1::2]]
        return "".join(shown)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields the text is made of."""
        return tuple(dict.fromkeys(self.parts[1::2]))

    def of(self, record: Mapping[str, Any]) -> str:
        """Return the text of a record.

        Raises:
            RecordError: A field is missing, or is neither text nor a number.
        """
        filled = list(self.parts)
        for index in range(1, len(filled), 2):
            value = value_of(record, filled[index])
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise RecordError(f"the field {filled[index]!r} is neither text nor a number but {kind_of(value)}")
            filled[index] = str(value)
        return "".join(filled)


TextSource = FieldText | TemplateText


def parse_template(template: str) -> TemplateText:
    r"""Parse a template: `{name}` is replaced by a field, `{{` and `}}` by braces; `\n`, `\t` and `\\` are as in Python.

    Raises:
        ConfigurationError: A brace is unpaired, a field name is empty, or the template has no field.
    """
    parts = [""]
    for token in _TOKEN.finditer(template):
        text = token[0]
        if token[1] is not None:
            if not token[1]:
                raise ConfigurationError(f"--text {template}: {{}} names no field; write {{{{ and }}}} for braces")
            parts += [token[1], ""]
        elif text in {"{", "}"}:
            raise ConfigurationError(f"--text {template}: a {text} is unpaired; write {{{{ and }}}} for braces")
        else:
            parts[-1] += _ESCAPES.get(text, text)
    if len(parts) == 1:
        raise ConfigurationError(f"--text {template}: it names no field; write {{body}} for the field body")
    return TemplateText(tuple(parts))


def field_of(record: Mapping[str, Any], name: str) -> Any:
    """Return a field of a record: the one of exactly this name, else the nested one that its dots lead to.

    Raises:
        RecordError: There is no such field.
    """
    try:
        return record[name]
    except KeyError:
        found = _nested(record, name) if "." in name else _NOTHING
        if found is _NOTHING:
            names = list(record)
            raise RecordError(f"no field {name!r}", f"{meant(name, names)}; it has {names_shown(names)}") from None
        return found


def value_of(record: Mapping[str, Any], name: str) -> Any:
    """Return a field as a Python value; an Arrow scalar stays one if Python has no equivalent.

    Raises:
        RecordError: There is no such field, or it is text that is not UTF-8.
    """
    value = field_of(record, name)
    as_py = getattr(value, "as_py", None)
    if as_py is None:
        return value
    try:
        return as_py()
    except UnicodeDecodeError:
        raise RecordError(f"the field {name!r} is not UTF-8") from None
    except (ValueError, OverflowError):
        return value


_NOTHING = object()


def _nested(record: Mapping[str, Any], name: str) -> Any:
    # Try the longest prefix first, so that a field with dots in its name wins.
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
    """An item of an object or of an Arrow struct; never an attribute."""
    if not _is_record(record):
        return _NOTHING
    try:
        return record[name]
    except KeyError:
        return _NOTHING


def _is_record(value: Any) -> bool:
    # Arrow's struct scalars are mappings too, but a null one has no items.
    return isinstance(value, Mapping) and getattr(value, "is_valid", True)


def beginnings(name: str) -> list[str]:
    """The fields that may contain a dotted name: the name itself first, then its prefixes, longest first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def meant(name: str, names: Sequence[str]) -> str:
    """A "did you mean" hint for a message; empty if no name is similar."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def names_shown(names: list[str]) -> str:
    """Up to eight of the names, for a message."""
    shown = ", ".join(repr(name[:40]) for name in names[:8])
    return f"{shown}, …" if len(names) > 8 else shown or "none"


def kind_of(value: Any) -> str:
    """A description of a value's type, for a message."""
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
