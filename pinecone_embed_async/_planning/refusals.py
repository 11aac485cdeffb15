"""Remembers refused inputs, so that they are not sent again for a while. Plain synchronous code."""

from __future__ import annotations

import copy
import hashlib
import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinecone_embed_async._errors import InvalidRequestError

MOST_REFUSALS = 10_000
"""Maximum number of remembered inputs; the oldest are forgotten first."""

REFUSAL_SECONDS = 600.0
"""How long a refused input is not sent again; after that the service may accept it."""

_NAMED_INPUT = re.compile(r"<input \d+>")


class Refusals:
    """The inputs that were refused in a request of their own, with the service's errors.

    Inputs are stored as digests with a random key, so that the memory of this object reveals no texts.

    Attributes:
        changes: number of inputs added so far.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._errors: OrderedDict[bytes, tuple[float, InvalidRequestError]] = OrderedDict()
        self.changes = 0

    def __repr__(self) -> str:
        return f"<Refusals of {len(self._errors)} inputs>"

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, text: str, request_parameters: bytes, error: InvalidRequestError, now: float) -> None:
        """Record that a text was refused alone.

        Args:
            text: the input.
            request_parameters: model and parameters, as JSON.
            error: the refusal.
            now: the current time.
        """
        message = _NAMED_INPUT.sub("<the input>", error.message)
        kept = type(error)(
            f"{message} (an equal input was refused before; not sent again)",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        )
        digest = self._digest(text, request_parameters)
        self._errors[digest] = now + REFUSAL_SECONDS, kept
        self._errors.move_to_end(digest)
        self.changes += 1
        if len(self._errors) > MOST_REFUSALS:
            self._errors.popitem(last=False)

    def find(self, text: str, request_parameters: bytes, now: float) -> InvalidRequestError | None:
        """The error for a text that was refused in the last `REFUSAL_SECONDS`; `None` if it was not."""
        digest = self._digest(text, request_parameters)
        until, error = self._errors.get(digest, (0.0, None))
        if error is None:
            return None
        if now >= until:
            self._errors.pop(digest, None)
            return None
        return copy.copy(error)

    def _digest(self, text: str, request_parameters: bytes) -> bytes:
        # Unambiguous without a separator, because the parameters are a single JSON object.
        return hashlib.blake2b(request_parameters + text.encode(), key=self._key, digest_size=16).digest()
