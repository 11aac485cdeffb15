"""Parsing of rejection messages: which limit was reached."""

from __future__ import annotations

import re
from enum import Enum, auto

import msgspec


class LimitKind(Enum):
    """The kind of a limit."""

    TOKENS = auto()
    """Tokens per window, for a model and an input type."""
    REQUESTS_PER_SECOND = auto()
    REQUESTS_PER_MINUTE = auto()


class NamedLimit(msgspec.Struct, frozen=True):
    """A limit named by a rejection.

    Attributes:
        kind: kind of the limit.
        limit: value of the limit.
    """

    kind: LimitKind
    limit: int


_NUMBER = r"\((\d{1,15})\)"

# Source: the documented messages for tokens per minute and requests per second. The message for requests per minute is not
# documented and is assumed to be similar.
_PATTERNS = (
    (LimitKind.TOKENS, re.compile(rf"\btokens per minute {_NUMBER}")),
    (LimitKind.REQUESTS_PER_SECOND, re.compile(rf"\brequests per second {_NUMBER}")),
    (LimitKind.REQUESTS_PER_MINUTE, re.compile(rf"\brequests per minute {_NUMBER}")),
)


def named_limit(message: str) -> NamedLimit | None:
    """The limit named in a rejection's message; `None` if it names no known kind of limit, or a limit of 0."""
    for kind, pattern in _PATTERNS:
        found = pattern.search(message)
        if found is not None and int(found[1]) > 0:
            return NamedLimit(kind, int(found[1]))
    return None
