"""The tokens billed for an answer."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._wire.strict_json import MOST_BYTES, TOO_MUCH_BESIDE, check_form, pairs_of, refuse_duplicates

MOST_TOKENS = 2**53
"""Maximum plausible number of tokens: more than any answer costs, and the largest integer that all JSON parsers read
exactly."""


class _TotalTokens(Struct):
    total_tokens: int | UnsetType = UNSET


_USAGE = msgspec.json.Decoder(_TotalTokens)


def billed_tokens(usage: Raw) -> int | None:
    """Tokens billed; `None` if the answer does not report them, which is no reason to reject it and pay again."""
    try:
        total = _USAGE.decode(usage).total_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return total if isinstance(total, int) and 0 <= total <= MOST_TOKENS else None


def check_usage(usage: Raw) -> None:
    """Reject usage that is not strict JSON; an answer may have none."""
    text = bytes(usage)
    # A single key cannot occur twice.
    if text.count(b'"') <= 2:
        return
    if len(text) > MOST_BYTES:
        raise ResponseError(TOO_MUCH_BESIDE)
    check_form(text, levels_above=1)
    refuse_duplicates(pairs_of(text), _TotalTokens.__struct_fields__, "$.usage")
