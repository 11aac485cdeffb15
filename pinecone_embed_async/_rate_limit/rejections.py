"""Parsing of rejection messages: which limit was reached."""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

# Source: the documented messages for tokens per minute and requests per second. The message for requests per minute is not
# documented and is assumed to be similar.
LimitKind = Literal["tokens per minute", "requests per second", "requests per minute"]
"""The kind of a limit, as messages name it. Tokens count for a model and an input type, requests for all together."""


class NamedLimit(msgspec.Struct, frozen=True):
    """A limit named by a rejection.

    Attributes:
        kind: kind of the limit.
        limit: value of the limit.
    """

    kind: LimitKind
    limit: int


def named_limit(message: str) -> NamedLimit | None:
    """The limit named in a rejection's message; `None` if it names no known kind of limit, or a limit of 0."""
    for kind in get_args(LimitKind):
        found = re.search(rf"\b{kind} \((\d{{1,15}})\)", message)
        if found is not None and int(found[1]) > 0:
            return NamedLimit(kind, int(found[1]))
    return None
