"""Argument validation: rejects invalid values, and converts numbers and texts of other libraries to Python's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeVar

from pinecone_embed_async._errors import ConfigurationError

ChoiceT = TypeVar("ChoiceT", bound=str)

SHOWN = 60
"""Maximum number of characters of a value in a message."""


def short(value: object) -> str:
    """The `repr` of a value, cut to `SHOWN` characters, for messages."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def as_integer(value: object) -> int | None:
    """An integer from Python or NumPy as `int`; `None` for anything else."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def as_float(value: object) -> float | None:
    """A finite number from Python or NumPy as `float`; `None` for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_text(value: object) -> str | None:
    """A text from Python or NumPy, or a member of an enum of texts, as `str`; `None` for anything else."""
    if isinstance(value, Enum):
        value = value.value
    # Not `str(value)`, which returns the name of an enum member.
    return str.__str__(value) if isinstance(value, str) else None


def whole(name: str, value: object, otherwise: str = "", *, least: int = 1) -> int:
    """Validate an argument that must be an integer.

    Args:
        name: name of the argument.
        value: value passed.
        otherwise: other allowed types, for the message.
        least: smallest allowed value.

    Raises:
        ConfigurationError: the value is not an integer, or too small.
    """
    number = as_integer(value)
    if number is None or number < least:
        raise ConfigurationError(f"{name} must be an integer ≥ {least}{otherwise}, got {short(value)}")
    return number


def seconds(name: str, value: object, *, may_be_0: bool = False) -> float:
    """Validate an argument that must be a number of seconds.

    Raises:
        ConfigurationError: the value is not a finite number, is negative, or is 0 without `may_be_0`.
    """
    number = as_float(value)
    if number is None or number < 0 or (number == 0 and not may_be_0):
        sign = "≥" if may_be_0 else ">"
        raise ConfigurationError(f"{name} must be a number of seconds {sign} 0, got {short(value)}")
    return number


def text(name: str, value: object, *, least: int = 0) -> str:
    """Validate an argument that must be a text; the message does not show it, because it may be a misplaced secret.

    Args:
        name: name of the argument.
        value: value passed.
        least: minimum length: 1 if it must not be empty.

    Raises:
        ConfigurationError: the value is not a text, or too short.
    """
    plain = as_text(value)
    if plain is None or len(plain) < least:
        filled, got = (" that is not empty", "an empty text") if plain is not None else ("", type(value).__name__)
        raise ConfigurationError(f"{name} must be a str{filled}, got {got}")
    return plain


def one_of(name: str, value: object, choices: tuple[ChoiceT, ...]) -> ChoiceT:
    """Validate an argument that must be one of `choices`.

    Raises:
        ConfigurationError: the value is none of them.
    """
    plain = value if type(value) is str else as_text(value)
    if plain not in choices:
        named = " or ".join(f'"{choice}"' for choice in choices)
        raise ConfigurationError(f"{name} must be {named}, got {short(value)}")
    return plain


def truth(name: str, value: object) -> bool:
    """Validate an argument that must be true or false.

    Raises:
        ConfigurationError: the value is not a bool.
    """
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = getattr(value, "item", lambda: None)()
        if isinstance(value, bool):
            return value
    raise ConfigurationError(f"{name} must be True or False, got {short(value)}")


def instance(name: str, value: object, kind: type) -> None:
    """Reject an argument that is not an instance of a class.

    Raises:
        ConfigurationError: the value is not an instance of the class.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")


def function(name: str, value: object, otherwise: str = "") -> None:
    """Reject an argument that is not callable.

    Args:
        name: name of the argument.
        value: value passed.
        otherwise: other allowed types, for the message.

    Raises:
        ConfigurationError: the value is not callable.
    """
    if not callable(value):
        raise ConfigurationError(f"{name} must be a function{otherwise}, got {short(value)}")


def callback(name: str, value: object, otherwise: str = "") -> None:
    """Reject an argument that is not callable, or is a coroutine function, whose result would never be awaited.

    Raises:
        ConfigurationError: the value is not callable, or is a coroutine function.
    """
    function(name, value, otherwise)
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ConfigurationError(f"{name} must be a plain function, got a coroutine function, which would not be awaited")


def methods(name: str, value: object, required: tuple[str, ...], example: str) -> None:
    """Reject an argument that lacks required methods, or is a class rather than an instance.

    Raises:
        ConfigurationError: the value lacks a method, or is a class.
    """
    missing = [method for method in required if not callable(getattr(value, method, None))]
    if missing or isinstance(value, type):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise ConfigurationError(f"{name} must have {' and '.join(required)}, as {example} has, got {got}")


def parameter(name: str, value: Any) -> Any:
    """The value of a model parameter, with values from NumPy and enums converted to Python's own.

    Raises:
        ConfigurationError: a number is not finite; msgspec would encode it as `null`, since JSON has no such numbers.
    """
    if isinstance(value, Enum):
        return parameter(name, value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
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
