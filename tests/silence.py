"""A key and texts that are not to be seen, and a search for them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from rich.pretty import pretty_repr

import pinecone_embed_async
from pinecone_embed_async import EmbedClient, EmbedError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinecone_embed_async.emulator import EmbedRequest, Emulator

PACKAGE = str(Path(pinecone_embed_async.__file__).parent)
SENDERS = (PACKAGE, str(Path(aiohttp.__file__).parent))
KEY = "pcsk_4rT9_wholly-secret-key"
MARK = "vermilion-otter"
SHORT = "zqxj7"
TEXTS = [
    f"the {MARK} is not to be seen, number 0",
    f'the "{MARK}" in quotes,\nand on a second line with é and \U0001f600 and a \\ backslash',
    SHORT,
    f"{MARK} " + " ".join(f"word{number}" for number in range(900)) + f" {MARK}",
    f"the {MARK} is not to be seen, number 4",
    f"the {MARK} is not to be seen, number 5",
]
SECRETS = (KEY, "wholly-secret", MARK, "vermilion", SHORT)
QUICK = RetryPolicy(max_attempts=2, max_elapsed=0.05, initial_backoff=0.001, max_backoff=0.002)


def assert_silent(said: object, where: str) -> None:
    text = said.decode("latin-1") if isinstance(said, bytes) else str(said)
    for secret in SECRETS:
        # Not the text itself in the message: it would be shown where the test fails.
        assert secret not in text, f"{SECRETS.index(secret)} in {where}: ...{text.partition(secret)[0][-200:]}"


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, what it came from, and the failures' own errors with what those came from."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
        if isinstance(one, EmbedError):
            todo += [failure.error for failure in one.failures]


def assert_frames_are_silent(error: BaseException) -> None:
    seen = 0
    for one in chain_of(error):
        told = traceback.TracebackException.from_exception(one, capture_locals=True)
        for frame in told.stack:
            if frame.filename.startswith(SENDERS):
                seen += 1
                assert_silent(frame.locals, f"the locals of {frame.name} in {Path(frame.filename).name}")
        # rich shows objects by their `__rich_repr__`, if they have one.
        for running, _ in traceback.walk_tb(one.__traceback__):
            code = running.f_code
            if code.co_filename.startswith(PACKAGE):
                shown = pretty_repr(dict(running.f_locals), max_length=10)
                assert_silent(shown, f"what rich shows of the locals of {code.co_name} in {Path(code.co_filename).name}")
    assert seen


def client_of(emulator: Emulator, model: str, **options: Any) -> EmbedClient[Any]:
    return EmbedClient(
        model,
        api_key=KEY,
        base_url=emulator.url,
        parameters={"input_type": "passage"},
        max_batch_size=1,
        max_answer_bytes=2**20,
        **{"retry": QUICK, **options},
    )


def is_struck(request: EmbedRequest) -> bool:
    return request.inputs[0] in TEXTS[1:4]
