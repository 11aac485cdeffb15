"""What was found to be refused is not sent again for a while. Plain synchronous code."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinecone_embed_async._errors import InvalidRequestError

MOST_REFUSALS = 10_000
"""Refused inputs that are remembered; the oldest are forgotten first."""

REFUSAL_SECONDS = 600.0
"""How long an input is not sent again: the service may come to take it."""

_NAMED_INPUT = re.compile(r"<input \d+>")


class Refusals:
    """The inputs that were refused by themselves, with what the service said.

    They are known by digests under a key of this object's own, so that nobody can tell texts from its memory.

    Attributes:
        changes: inputs that have been added so far.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._told: OrderedDict[bytes, tuple[float, InvalidRequestError]] = OrderedDict()
        self.changes = 0

    def __repr__(self) -> str:
        return f"<Refusals of {len(self._told)} inputs>"

    def __len__(self) -> int:
        return len(self._told)

    def add(self, text: str, request_parameters: bytes, error: InvalidRequestError, now: float) -> None:
        """Note that a text was refused by itself.

        Args:
            text: the input.
            request_parameters: model and parameters as JSON.
            error: what it was refused with.
            now: the time.
        """
        message = _NAMED_INPUT.sub("<the input>", error.message)
        kept = type(error)(
            f"{message} (said of an equal input before; not sent again)",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        )
        digest = self._digest(text, request_parameters)
        self._told[digest] = now + REFUSAL_SECONDS, kept
        self._told.move_to_end(digest)
        self.changes += 1
        if len(self._told) > MOST_REFUSALS:
            self._told.popitem(last=False)

    def find(self, text: str, request_parameters: bytes, now: float) -> InvalidRequestError | None:
        """The error for a text that was refused before; `None` if it was not, or that is too long ago."""
        digest = self._digest(text, request_parameters)
        until, error = self._told.get(digest, (0.0, None))
        if error is None:
            return None
        if now >= until:
            self._told.pop(digest, None)
            return None
        return type(error)(error.message, status=error.status, code=error.code, request_id=error.request_id)

    def _digest(self, text: str, request_parameters: bytes) -> bytes:
        # The parameters are one JSON object, so what begins behind it is the text.
        return hashlib.blake2b(request_parameters + text.encode(), key=self._key, digest_size=16).digest()
