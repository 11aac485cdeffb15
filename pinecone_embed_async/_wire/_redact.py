"""Takes the key and the request's own texts out of messages that come from outside."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 500
"""Characters of a message that are kept: the documented ones have fewer than 200."""

_READ = 4096
_FRAGMENT = 12
_DEPTH = 4
_ITEMS = 20


class Redactor:
    """Replaces secrets in messages: the key by `<api key>`, a text by `<input 7>`.

    Args:
        api_key: the key that the request carried.
        texts: the texts that the request carried.
        start: the position in the call of the first of them.
        names: the positions in the call of all of them, if they are not side by side.
    """

    def __init__(self, api_key: str, texts: Sequence[str] = (), start: int = 0, names: Sequence[int] | None = None) -> None:
        self._api_key = api_key
        self._texts = texts
        self._names = range(start, start + len(texts)) if names is None else names

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._texts)} texts>"

    def clean(self, message: str) -> str:
        """The message without secrets and without characters that do not show, at most `SHOWN` characters long.

        A text is found whole, also in its JSON-escaped form, and in parts of two dozen characters or more.
        Texts shorter than eight characters are replaced only where they stand as words of their own.
        """
        message = message[:_READ]
        if self._api_key:
            message = message.replace(self._api_key, "<api key>")
        # Longest first, so that a text within another does not leave the rest of it standing.
        named = sorted(zip(self._names, self._texts, strict=True), key=lambda pair: len(pair[1]), reverse=True)
        for index, text in named:
            message = _replace_whole(message, text, f"<input {index}>")
        fragments = _fragments(message)
        for index, text in named:
            # Looking at every twelfth place finds each run of 23 characters, in a twelfth of the time.
            for at in range(0, len(text) - _FRAGMENT + 1, _FRAGMENT):
                if text[at : at + _FRAGMENT] in fragments:
                    message = _replace_runs(message, text, at, f"<input {index}>")
                    fragments = _fragments(message)
        if not message.isprintable():
            # Control characters, and those that steer the text without showing, such as the one that turns its direction.
            message = "".join(character if character.isprintable() else "\n" for character in message)
            message = re.sub("\n+", " ", message)
        message = message.strip()
        return message if len(message) <= SHOWN else f"{message[: SHOWN - 3]}..."

    def clean_json(self, value: Any, depth: int = _DEPTH) -> Any:
        """The same for every string in a JSON value; what is deeper or longer than is useful is cut off."""
        if isinstance(value, str):
            return self.clean(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth == 0:
            return "..."
        if isinstance(value, dict):
            items = list(value.items())[:_ITEMS]
            return {self.clean(str(key)): self.clean_json(item, depth - 1) for key, item in items}
        if isinstance(value, list):
            return [self.clean_json(item, depth - 1) for item in value[:_ITEMS]]
        return type(value).__name__


def _replace_whole(message: str, text: str, name: str) -> str:
    forms = {text, text.strip()}
    if "\\" in message:
        forms |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    for form in forms:
        if not form or form not in message:
            continue
        if len(form) >= 8:
            message = message.replace(form, name)
        else:
            message = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", lambda _: name, message)
    return message


def _fragments(message: str) -> set[str]:
    return {message[at : at + _FRAGMENT] for at in range(len(message) - _FRAGMENT + 1)}


def _replace_runs(message: str, text: str, at: int, name: str) -> str:
    """Replace every run that `message` shares with `text` around the fragment of `text` at `at`."""
    fragment = text[at : at + _FRAGMENT]
    while (left := message.find(fragment)) >= 0:
        right = left + _FRAGMENT
        text_left, text_right = at, at + _FRAGMENT
        while left > 0 and text_left > 0 and message[left - 1] == text[text_left - 1]:
            left, text_left = left - 1, text_left - 1
        while right < len(message) and text_right < len(text) and message[right] == text[text_right]:
            right, text_right = right + 1, text_right + 1
        message = f"{message[:left]}{name}{message[right:]}"
    return message
