"""A job's fingerprint: its input, service, model and settings. A change to any of these makes it another job."""

import hashlib
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._inputs import STANDARD_INPUT_NAME, InputFile
from pinecone_embed_async._jobs._layouts import Layout
from pinecone_embed_async._jobs._sources import Columns, Stamp, opened, stamp_of
from pinecone_embed_async._jobs._templates import FieldText
from pinecone_embed_async._wire import generation_of


class InputPrint(msgspec.Struct, frozen=True):
    """The identity of one file's contents.

    Attributes:
        name: The file's name in messages; a file that was moved is still the same input.
        format: How it is read, including the compression.
        digest: BLAKE2b of its bytes in hexadecimal; `None` for standard input that has not been read to the end.
        size: Bytes; `None` for standard input that has not been read to the end.
        modified: Nanoseconds since 1970, so that an unchanged file is not read again; `None` for standard input.
    """

    name: str
    format: str
    digest: str | None
    size: int | None = None
    modified: int | None = None

    @property
    def stamp(self) -> Stamp | None:
        """The file's state when the print was taken."""
        return None if self.size is None or self.modified is None else Stamp(self.size, self.modified)


class Fingerprint(msgspec.Struct, frozen=True):
    """The identity of a job.

    Attributes:
        inputs: The files, in order.
        service: The service's address.
        api_version: The generation of the API, named by its first version.
        model: The model's name.
        parameters: The model's parameters, including the dimension.
        text: The text field or the template.
        id: The id field.
        keep: The kept columns.
        layout: The files for an index to import; `None` if there are none.
        no_blank: Whether blank texts count as rows that cannot be embedded; `None` if an earlier version did not save it.
    """

    inputs: tuple[InputPrint, ...]
    service: str
    api_version: str
    model: str
    parameters: Mapping[str, Any]
    text: str
    id: str | None
    keep: tuple[str, ...]
    layout: Layout | None = None
    no_blank: bool | None = None

    def stamps(self) -> dict[str, Stamp]:
        """The states of the files when the prints were taken, by name."""
        return {each.name: each.stamp for each in self.inputs if each.stamp is not None}


def take_fingerprint(
    files: Iterable[InputFile],
    columns: Columns,
    *,
    service: str,
    api_version: str,
    model: str,
    parameters: Mapping[str, Any],
    known: Iterable[InputPrint] = (),
    layout: Layout | None = None,
) -> Fingerprint:
    """Take the fingerprint of a job; this reads the files, at about a gigabyte per second.

    Args:
        files: The input.
        columns: The fields taken from each record.
        service: The service's address.
        api_version: The version of the API.
        model: The model's name.
        parameters: The model's parameters.
        known: Prints from earlier runs; a file whose size and time match one of them is not read.
        layout: The files for an index to import.

    Raises:
        SourceError: A file cannot be read, or only once.
    """
    earlier = {(each.name, each.stamp): each.digest for each in known if each.stamp is not None}
    text = columns.text
    return Fingerprint(
        inputs=tuple([_input_print(file, earlier) for file in files]),
        service=service,
        api_version=generation_of(api_version),
        model=model,
        parameters=dict(parameters),
        text=f"the field {text.field!r}" if isinstance(text, FieldText) else f"the template {str(text)!r}",
        id=columns.id,
        keep=columns.keep,
        layout=layout,
        no_blank=columns.no_blank,
    )


def _input_print(file: InputFile, earlier: Mapping[tuple[str, Stamp], str | None]) -> InputPrint:
    if file.path is None:
        return InputPrint(file.name, file.format_name, None)
    stamp, digest = _digest(file.path, file.name, earlier)
    # Standard input is saved to a file whose time says nothing.
    modified = None if file.name == STANDARD_INPUT_NAME else stamp.modified
    return InputPrint(file.name, file.format_name, digest, stamp.size, modified)


def _digest(path: Path, name: str, earlier: Mapping[tuple[str, Stamp], str | None]) -> tuple[Stamp, str]:
    try:
        # Checked before opening, since opening a pipe waits for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(
                f"{name}: it is not a regular file, and a job reads its input more than once; "
                "save it to a file, or pass it as standard input: -"
            )
        with path.open("rb") as file:
            stamp = stamp_of(file.fileno())
            digest = earlier.get((name, stamp))
            if digest is None:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            return stamp, digest
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror or error}") from error


_NAMES = {
    "service": "the service",
    "api_version": "the API version",
    "model": "the model",
    "text": "the text",
    "id": "the id",
    "keep": "the kept columns",
    "layout": "the layout",
}


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """List what changed apart from the input, one phrase each."""
    found = [
        f"{shown} (was {_short(getattr(before, field))}, now {_short(getattr(now, field))})"
        for field, shown in _NAMES.items()
        if getattr(before, field) != getattr(now, field)
    ]
    if before.no_blank is not None and before.no_blank != now.no_blank:
        found.append(f"--no-blank (was {'' if before.no_blank else 'not '}given, now {'' if now.no_blank else 'not '}given)")
    for name in sorted({*before.parameters, *now.parameters}):
        was, is_now = before.parameters.get(name), now.parameters.get(name)
        if was != is_now:
            found.append(f"the parameter {name} (was {_short(was)}, now {_short(is_now)})")
    return found


def is_piped(each: InputPrint) -> bool:
    """Whether this is the print of standard input."""
    return each.name == STANDARD_INPUT_NAME


def input_differences(before: Fingerprint, now: Fingerprint, *, exactly: bool = False) -> list[str]:
    """List the changes to the input, one phrase each; none if the files have the same contents under other names.

    Args:
        before: The earlier fingerprint.
        now: The present one.
        exactly: Whether standard input with unknown contents counts as changed.
    """
    if len(before.inputs) != len(now.inputs):
        return [f"the input (was {len(before.inputs)} files, now {len(now.inputs)})"]
    return [
        f"the input {current.name} (its content differs from that of {earlier.name})"
        for earlier, current in zip(before.inputs, now.inputs, strict=True)
        if earlier.format != current.format or not _same_content(earlier, current, exactly=exactly)
    ]


def _same_content(earlier: InputPrint, current: InputPrint, *, exactly: bool) -> bool:
    if earlier.digest is None or current.digest is None:
        return not exactly and is_piped(earlier) and is_piped(current)
    return earlier.digest == current.digest


_GROWING = ("txt", "jsonl", "csv", "tsv")


def has_grown(before: Fingerprint, now: Fingerprint, files: Sequence[InputFile]) -> bool:
    """Whether the last file has new rows after its earlier contents and the other files are unchanged.

    Raises:
        SourceError: A file cannot be read.
    """
    if len(before.inputs) != len(now.inputs) or not files or files[-1].path is None:
        return False
    earlier, current = before.inputs[-1], now.inputs[-1]
    pairs = zip(before.inputs[:-1], now.inputs[:-1], strict=True)
    if any(one.format != other.format or one.digest != other.digest for one, other in pairs):
        return False
    if earlier.format != current.format or earlier.format.partition("(")[0] not in _GROWING or not earlier.size:
        return False
    if current.size is None or current.size <= earlier.size:
        return False
    return (earlier.size, earlier.digest) in _beginnings(files[-1], [earlier.size])


def held_inputs(before: Iterable[InputPrint], now: Fingerprint, files: Sequence[InputFile]) -> list[str]:
    """List the files that a job holds already, whole or under the same name as their beginning, one phrase each.

    Args:
        before: The inputs of the job.
        now: The present fingerprint.
        files: Its files.

    Raises:
        SourceError: A file cannot be read.
    """
    contents, shorter = set(), defaultdict(set)
    for each in before:
        if each.digest is not None and each.size != 0:
            contents.add((each.format, each.digest))
            shorter[each.format, Path(each.name).name].add((each.size or 0, each.digest))
    found = []
    for file, current in zip(files, now.inputs, strict=True):
        if (current.format, current.digest) in contents:
            found.append(f"{current.name} is already in this job")
        elif file.path is not None and current.format.partition("(")[0] in _GROWING:
            known = {each for each in shorter[current.format, Path(file.name).name] if 0 < each[0] < (current.size or 0)}
            if known and known & _beginnings(file, {size for size, _ in known}):
                found.append(f"{current.name} has grown")
    return found


def _beginnings(file: InputFile, sizes: Iterable[int]) -> set[tuple[int, str]]:
    found, digest, at, last = set(), hashlib.blake2b(digest_size=16), 0, b""
    with opened(file) as raw:
        for size in sorted(sizes):
            while at < size and (piece := raw.read(min(size - at, 2**20))):
                digest.update(piece)
                at, last = at + len(piece), piece
            here, following = digest.hexdigest(), raw.read(1)
            # Without a line end there, the last row may have changed too.
            if last.endswith(b"\n") or following == b"\n":
                found.add((size, here))
            digest.update(following)
            at, last = at + len(following), following
    return found


def _short(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, Layout):
        return f"{value.name} of {value.namespace}, {value.vector_field}"
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"{text[:80]}…" if len(text) > 80 else text or "none"
