"""What the text of a rejection says: which limit was reached, and what it is for."""

from __future__ import annotations

import re
from enum import Enum, auto

import msgspec


class LimitKind(Enum):
    """What a limit counts."""

    TOKENS = auto()
    """Tokens in a window, for a model and an input type."""
    REQUESTS_PER_SECOND = auto()
    REQUESTS_PER_MINUTE = auto()


class NamedLimit(msgspec.Struct, frozen=True):
    """A limit as a rejection named it.

    Attributes:
        kind: what it counts.
        limit: how many.
    """

    kind: LimitKind
    limit: int


_NUMBER = r"\((\d{1,15})\)"

# Source: the documented message of a minute's tokens, and that of a second's requests; the one of a minute's requests is not
# documented and taken to be like them.
_PATTERNS = (
    (LimitKind.TOKENS, re.compile(rf"\btokens per minute {_NUMBER}")),
    (LimitKind.REQUESTS_PER_SECOND, re.compile(rf"\brequests per second {_NUMBER}")),
    (LimitKind.REQUESTS_PER_MINUTE, re.compile(rf"\brequests per minute {_NUMBER}")),
)


def named_limit(message: str) -> NamedLimit | None:
    """The limit that a rejection's message names; `None` if it names none that is known, or one of 0."""
    for kind, pattern in _PATTERNS:
        found = pattern.search(message)
        if found is not None and int(found[1]) > 0:
            return NamedLimit(kind, int(found[1]))
    return None
