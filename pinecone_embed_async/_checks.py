"""What arguments may be: other libraries' numbers and texts become Python's own, and what cannot work is refused."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any

from pinecone_embed_async._errors import ConfigurationError

SHOWN = 60
"""Characters of a value that a message shows."""


def short(value: object) -> str:
    """A value's repr, for messages."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - it may be anything
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def as_integer(value: object) -> int | None:
    """A whole number of Python's or NumPy's; `None` if it is none."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def as_float(value: object) -> float | None:
    """A finite number of Python's or NumPy's; `None` if it is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_text(value: object) -> str | None:
    """A text of Python's or NumPy's, or a member of an enumeration of texts; `None` if it is none."""
    if type(value) is str:
        return value
    if isinstance(value, Enum):
        value = value.value
    # Not `str(value)`: an enumeration's member, say, would give its name.
    return str.__str__(value) if isinstance(value, str) else None


def whole(name: str, value: object, otherwise: str = "", *, least: int = 1) -> int:
    """An argument that is a whole number.

    Args:
        name: of the argument.
        value: that was given.
        otherwise: what else it may be, for the message.
        least: the smallest that will do.

    Raises:
        ConfigurationError: it is none, or smaller.
    """
    number = as_integer(value)
    if number is None or number < least:
        raise ConfigurationError(f"{name} must be an integer ≥ {least}{otherwise}, got {short(value)}")
    return number


def seconds(name: str, value: object, *, may_be_0: bool = False) -> float:
    """An argument that is a number of seconds.

    Raises:
        ConfigurationError: it is none, or not over 0.
    """
    number = as_float(value)
    if number is None or number < 0 or (number == 0 and not may_be_0):
        sign = "≥" if may_be_0 else ">"
        raise ConfigurationError(f"{name} must be a number of seconds {sign} 0, got {short(value)}")
    return number


def text(name: str, value: object, *, least: int = 0) -> str:
    """An argument that is a text; the message does not show it, for it may be a secret in a wrong place.

    Args:
        name: of the argument.
        value: that was given.
        least: 1 if it may not be empty.

    Raises:
        ConfigurationError: it is none.
    """
    plain = as_text(value)
    if plain is None or len(plain) < least:
        filled, got = (" that is not empty", "an empty one") if plain is not None else ("", type(value).__name__)
        raise ConfigurationError(f"{name} must be a str{filled}, got {got}")
    return plain


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """An argument that is one of some texts.

    Raises:
        ConfigurationError: it is none of them.
    """
    plain = as_text(value)
    if plain not in choices:
        named = " or ".join(f'"{choice}"' for choice in choices)
        raise ConfigurationError(f"{name} must be {named}, got {short(value)}")
    return plain


def truth(name: str, value: object) -> bool:
    """An argument that is true or false.

    Raises:
        ConfigurationError: it is neither.
    """
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = getattr(value, "item", lambda: None)()
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {short(value)}")
    return value


def instance(name: str, value: object, kind: type) -> None:
    """Refuse an argument that is not of a class.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")


def function(name: str, value: object) -> None:
    """Refuse an argument that cannot be called.

    Raises:
        ConfigurationError: it cannot.
    """
    if not callable(value):
        raise ConfigurationError(f"{name} must be a function, got {short(value)}")


def callback(name: str, value: object) -> None:
    """Refuse an argument that cannot be called, and a coroutine function, which nobody would await.

    Raises:
        ConfigurationError: it is none.
    """
    function(name, value)
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ConfigurationError(f"{name} must be a function that is called, not awaited, got a coroutine function")


def methods(name: str, value: object, required: tuple[str, ...], example: str) -> None:
    """Refuse an argument that has not the methods of what it stands for, or is a class rather than an instance.

    Raises:
        ConfigurationError: it has not.
    """
    missing = [method for method in required if not callable(getattr(value, method, None))]
    if missing or isinstance(value, type):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise ConfigurationError(f"{name} must have {' and '.join(required)}, as {example} has, got {got}")


def parameter(name: str, value: Any) -> Any:
    """A model parameter's value, with what is NumPy's or an enumeration's as Python's own.

    Raises:
        ConfigurationError: a number is not finite: JSON has none of these, and would say `null`.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, Enum):
        return parameter(name, value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return parameter(name, value.tolist())
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigurationError(f"parameter {name} must be a finite number, got {value!r}")
        return float(value)
    if isinstance(value, Mapping):
        return {key: parameter(name, inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [parameter(name, inner) for inner in value]
    return value
