"""Removes the API key and the request's texts from messages of the service and of foreign code."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHOWN = 500
"""Maximum number of characters kept of a message; the documented ones have fewer than 200."""

LOOKED_AT = 16_384
"""Maximum number of characters searched in all strings of an error together."""

_READ = 4096
_FRAGMENT = 12
_DEPTH = 5
_ITEMS = 20
_KEY = -1
_WORK_A_CHARACTER = 16


class Redactor:
    """Replaces secrets in messages: the key by `<api key>`, a text by `<input 7>`.

    All strings of an error are searched together, in time linear in their length and that of the texts.

    Args:
        api_key: the key of the request.
        texts: the texts of the request.
        positions: positions of the texts in the call; 0, 1, … by default.

    Attributes:
        work: number of characters and pieces of text searched so far.
    """

    def __init__(self, api_key: str, texts: Sequence[str] = (), positions: Sequence[int] = ()) -> None:
        self._api_key = api_key
        self._texts = texts
        self._positions = positions or range(len(texts))
        self.work = 0

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._texts)} texts>"

    def clean(self, message: str) -> str:
        """The message without secrets and invisible characters, cut to `SHOWN` characters.

        A text is found as a whole, also in its JSON-escaped form. If a message quotes only a part of it, no 23 characters of
        that part in a row remain. A text of less than eight characters is replaced only where it is a separate word.
        """
        return str(self.clean_json(message))

    def clean_json(self, value: Any) -> Any:
        """Clean all strings in a JSON value; parts that are nested too deeply or too long are cut off."""
        original = _Copy(self._api_key)
        original.of(value)
        return _Copy(self._api_key, self._cleaned(original.strings)).of(value)

    def _cleaned(self, strings: list[str]) -> list[str]:
        joined = "\0".join(strings)
        hidden = _Hidden(joined, _WORK_A_CHARACTER * (len(joined) + sum(map(len, self._texts))) + 1000)
        hidden.hide_key(self._api_key)
        is_done = not self._texts or hidden.hide_texts(self._texts)
        self.work += hidden.work
        if not is_done:
            return ["(not shown: it repeats the inputs too often)"] * len(strings)
        cleaned, start = [], 0
        for string in strings:
            stop = start + len(string)
            cleaned.append(_tidy("".join(self._shown(hidden, start, stop))))
            start = stop + 1
        return cleaned

    def _shown(self, hidden: _Hidden, start: int, stop: int) -> Iterator[str]:
        for mark, run in groupby(hidden.marks[start:stop]):
            end = start + sum(1 for _ in run)
            if not mark:
                yield hidden.message[start:end]
            else:
                yield "<api key>" if mark == _KEY else f"<input {self._positions[mark - 1]}>"
            start = end


class _Copy:
    """Copies a JSON value as far as it is shown, and collects its strings; no string is cut within the key.

    Args:
        api_key: the key.
        cleaned: the strings to put in place of those of the value, in the order of `strings`; `None` to keep them.

    Attributes:
        strings: the strings of the value.
    """

    def __init__(self, api_key: str, cleaned: Sequence[str] | None = None) -> None:
        self._api_key = api_key
        self._cleaned = cleaned
        self._room = LOOKED_AT
        self.strings: list[str] = []

    def of(self, value: Any, depth: int = _DEPTH) -> Any:
        """The copy; what is nested deeper than `depth` is cut off."""
        if isinstance(value, str):
            return self._string(value)
        self._room -= 8
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth == 0 or self._room <= 0:
            return "..."
        if isinstance(value, dict):
            return {self._string(str(key)): self.of(item, depth - 1) for key, item in islice(value.items(), _ITEMS)}
        if isinstance(value, list):
            return [self.of(item, depth - 1) for item in value[:_ITEMS]]
        return type(value).__name__

    def _string(self, string: str) -> str:
        if self._room <= 0:
            return "..."
        string = _beginning(string, min(_READ, self._room), self._api_key)
        # A constant on top, because even an empty string takes some work.
        self._room -= len(string) + 8
        self.strings.append(string)
        return string if self._cleaned is None else self._cleaned[len(self.strings) - 1]


def _beginning(string: str, most: int, key: str) -> str:
    """The first `most` characters of a string; fewer if the cut would be within the key."""
    at = string.find(key, max(0, most - len(key) + 1), most + len(key) - 1) if key else -1
    return string[: most if at < 0 else at]


def _tidy(message: str) -> str:
    # Control characters, and invisible characters that affect the text, such as those that change its direction.
    message = "".join(character if character.isprintable() else "\n" for character in message)
    message = re.sub("\n+", " ", message).strip()
    return message if len(message) <= SHOWN else f"{message[: SHOWN - 3]}..."


class _Hidden:
    """Finds and marks the secrets in a message.

    Args:
        message: the message to search.
        most: amount of work after which the search is given up.

    Attributes:
        message: the original message.
        marks: for each character: 0, the number (from 1) of the text to hide, or `_KEY`.
        work: number of look-ups and characters compared.
    """

    def __init__(self, message: str, most: int) -> None:
        self.message = message
        self.marks = [0] * len(message)
        self.work = len(message)
        self._most = most

    def hide_key(self, key: str) -> None:
        """Hide every occurrence of the key."""
        for found in re.finditer(re.escape(key), self.message) if key else ():
            self._mark(*found.span(), _KEY)

    def hide_texts(self, texts: Sequence[str]) -> bool:
        """Hide the texts; return `False` if they repeat so often that the search was given up."""
        message = self.message
        places: dict[str, list[int]] = defaultdict(list)
        for at in range(len(message) - _FRAGMENT + 1):
            places[message[at : at + _FRAGMENT]].append(at)
        forms = self._forms_of(texts)
        # Longest first, so that hiding a text within another does not leave the rest visible.
        forms.sort(key=lambda form: len(form[0]), reverse=True)
        long = [form for form in forms if len(form[0]) >= _FRAGMENT]
        if places:
            if not all(self._hide_whole(form, number, places) for form, number in long):
                return False
            for number, text in sorted(enumerate(texts, 1), key=lambda pair: len(pair[1]), reverse=True):
                self._hide_parts(text, number, places)
        self._hide_short(forms[len(long) :])
        return True

    def _forms_of(self, texts: Sequence[str]) -> list[tuple[str, int]]:
        """The texts in the forms in which they may be quoted, each with its number from 1."""
        is_escaped = "\\" in self.message
        forms = []
        for number, text in enumerate(texts, 1):
            own = {text, text.strip()}
            if is_escaped:
                own |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
                self.work += 2 * len(text)
            forms += [(form, number) for form in own if form]
        self.work += len(forms)
        return forms

    def _hide_whole(self, form: str, number: int, places: dict[str, list[int]]) -> bool:
        length, marks = len(form), self.marks
        # `get`, because indexing would add an entry to the defaultdict.
        for at in places.get(form[:_FRAGMENT], ()):
            stop = at + length
            self.work += 1
            if self.work > self._most:
                return False
            if stop <= len(marks) and not (marks[at] and marks[stop - 1]) and self._occurs_at(at, form):
                self._mark(at, stop, number)
        return True

    def _occurs_at(self, at: int, form: str) -> bool:
        """Whether the whole form occurs at a position; compares pieces, each as long as all before it."""
        done, piece = 0, _FRAGMENT
        while done < len(form):
            self.work += piece
            if self.message[at + done : at + done + piece] != form[done : done + piece]:
                return False
            done, piece = done + piece, min(done + piece, len(form) - done - piece)
        return True

    def _hide_parts(self, text: str, number: int, places: dict[str, list[int]]) -> None:
        """Hide every run of characters that the message shares with a text and that has a fragment at a multiple of twelve.

        Searching only every twelfth position still finds each run of 23 characters, in a twelfth of the time.
        """
        self.work += len(text) // _FRAGMENT
        for begin in range(0, len(text) - _FRAGMENT + 1, _FRAGMENT):
            # Each position of the message is visited once, and each character hidden once.
            for at in places.pop(text[begin : begin + _FRAGMENT], ()):
                self._hide_run(text, number, begin, at)

    def _hide_run(self, text: str, number: int, begin: int, at: int) -> None:
        message, marks = self.message, self.marks
        left, right = at, at + _FRAGMENT
        end = begin + _FRAGMENT
        while left > 0 and begin > 0 and not marks[left - 1] and message[left - 1] == text[begin - 1]:
            left, begin = left - 1, begin - 1
        while right < len(message) and end < len(text) and not marks[right] and message[right] == text[end]:
            right, end = right + 1, end + 1
        self._mark(left, right, number)

    def _hide_short(self, forms: list[tuple[str, int]]) -> None:
        """Hide forms shorter than a fragment, with one look-up per position and length."""
        by_length: dict[int, dict[str, int]] = defaultdict(dict)
        for form, number in forms:
            by_length[len(form)].setdefault(form, number)
        message = self.message
        for length, numbers in by_length.items():
            self.work += len(message)
            for at in range(len(message) - length + 1):
                number = numbers.get(message[at : at + length], 0)
                if number and (length >= 8 or (self._is_border(at - 1) and self._is_border(at + length))):
                    self._mark(at, at + length, number)

    def _is_border(self, at: int) -> bool:
        """Whether a word may end before this character, or begin after it."""
        if not 0 <= at < len(self.message) or self.marks[at]:
            return True
        return not (self.message[at].isalnum() or self.message[at] == "_")

    def _mark(self, start: int, stop: int, mark: int) -> None:
        """Mark the characters that are not marked yet."""
        self.marks[start:stop] = [old or mark for old in self.marks[start:stop]]
        self.work += stop - start
