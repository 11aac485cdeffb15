"""Checks a command's options and converts them to what the modules behind the commands take."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from pinecone_embed_async import ConfigurationError, EmbedError, Quota
from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._inputs import InputFile, InputFormat, given_twice, passed_over
from pinecone_embed_async._jobs._layouts import DEFAULT_NAMESPACE, Layout, LayoutName
from pinecone_embed_async._jobs._templates import FieldText, TextSource, parse_template
from pinecone_embed_async._models import PLANS
from pinecone_embed_async._rate_limit import PlanName
from pinecone_embed_async.cli._connection import Settings
from pinecone_embed_async.cli._statuses import KeyMissingError

_NAMED = 10


@contextlib.contextmanager
def writing_result() -> Iterator[None]:
    """Context for printing a result: errors of standard output become errors of the command.

    Raises:
        EmbedError: Standard output is closed or cannot be written.
    """
    if sys.stdout is None:
        raise EmbedError("standard output, where the result goes, is closed")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror or error}", errno=error.errno) from None


def about_inputs(
    names: Sequence[str], files: Sequence[InputFile], given: InputFormat | None, out: Path | None = None
) -> list[str]:
    """Warnings about files in folders that are not read, and files that are read twice.

    Args:
        names: The inputs.
        files: The files found for them.
        given: The value of `--format`, which applies to every file.
        out: The output, which is not an input either.
    """
    warnings = []
    if over := [] if given is not None else passed_over(names, leave_out=out):
        warnings.append(f"skipped files of unknown formats: {_first(over)}")
    if twice := given_twice(files):
        warnings.append(f"given twice, so that their rows are read twice: {_first(twice)}; give each file once")
    return warnings


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def text_source(field: str | None, template: str | None) -> TextSource:
    """The text source given by `--text-field` or `--text`.

    Raises:
        ConfigurationError: Both are given, or the template is invalid.
    """
    if template is None:
        return FieldText(field or "text")
    if field is not None:
        raise ConfigurationError("--text and --text-field both say what to embed; give one")
    return parse_template(template)


def layout_of(name: LayoutName, namespace: str, vector_field: str) -> Layout | None:
    """The layout of the files for an index; `None` for the table alone.

    Raises:
        ConfigurationError: An option of a layout is given without the layout.
    """
    if name is not LayoutName.TABLE:
        return Layout(name, namespace, vector_field)
    if (namespace, vector_field) != (DEFAULT_NAMESPACE, "vector"):
        raise ConfigurationError("--namespace and --vector-field are for --layout documents or vectors")
    return None


def check_service(settings: Settings) -> None:
    """Check that there is one service to ask, and a key for it.

    Raises:
        ConfigurationError: The options name two services.
        KeyMissingError: There is no key.
    """
    if settings.emulator:
        if settings.base_url or settings.allow_http:
            raise ConfigurationError("--emulator starts its own service; leave out --base-url and --allow-http")
    elif not os.environ.get("PINECONE_API_KEY"):
        raise KeyMissingError("no API key: set the environment variable PINECONE_API_KEY, or use --emulator")


def quota_of(given: str | None) -> Quota | PlanName | None:
    """The quota given by `--quota`: a plan's name, or tokens a minute.

    Raises:
        ConfigurationError: The value is neither.
    """
    if given is None:
        return None
    if given in PLANS:
        return cast("PlanName", given)
    tokens = given.replace(",", "").replace("_", "")
    if not tokens.isascii() or not tokens.isdigit() or not int(tokens):
        raise ConfigurationError(f"--quota must be one of {', '.join(PLANS)}, or tokens a minute, got {given!r}")
    return Quota(int(tokens))


def check_seconds(seconds: float | None, name: str) -> None:
    """Check that a duration in seconds is valid.

    Raises:
        ConfigurationError: It is not above 0 or not finite.
    """
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise ConfigurationError(f"{name} must be a number of seconds > 0, got {seconds}")


def parameters_of(given: Sequence[str], **named: Any) -> dict[str, Any]:
    """The model's parameters.

    Args:
        given: The values of `--parameter`, each as `KEY=JSON`.
        **named: Parameters with their own options; `None` if not given.

    Raises:
        ConfigurationError: A value is not of this form, or a parameter is given twice.
    """
    parameters = {name: value for name, value in named.items() if value is not None}
    for item in given:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise ConfigurationError(f"--parameter {item}: write KEY=JSON")
        if key in named:
            raise ConfigurationError(f"--parameter {key}: use --{key.replace('_', '-')}")
        if key in parameters:
            raise ConfigurationError(f"--parameter {key}: given twice")
        try:
            parameters[key] = msgspec.json.decode(value)
        except msgspec.MsgspecError:
            raise ConfigurationError(
                f"""--parameter {item}: the value is not JSON; write text as --parameter '{key}="{value}"'"""
            ) from None
    return parameters
