"""`pinecone-embed check`: compares a service with what the client and the emulator assume about it."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pinecone_embed_async import ConfigurationError, EmbedError, TransportError
from pinecone_embed_async._sending import (
    AiohttpTransport,
    Transport,
    TransportRequest,
    check_api_key,
    check_base_url,
    user_agent,
)
from pinecone_embed_async._wire import Redactor, error_from_response
from pinecone_embed_async.cli._assumptions import ASSUMPTIONS
from pinecone_embed_async.cli._connection import Settings, address_of
from pinecone_embed_async.cli._output import is_terminal, print_line, printable, without_key
from pinecone_embed_async.cli._probes import Finding, Probe, Reply, Verdict, find, probes_of, tokens_billed
from pinecone_embed_async.cli._signals import run_until_stopped
from pinecone_embed_async.cli._statuses import ExitStatus

_WRONG_KEY = "pinecone-embed-check-wrong-key"
_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_MOST_BYTES = 2**22
_MOST_SHOWN = 160
_COLUMNS_OF_A_FILE = 500
_STYLES = {Verdict.HOLDS: "green", Verdict.DIFFERS: "bold red", Verdict.UNKNOWN: "yellow"}


def check(settings: Settings, *, is_agreed: bool, as_json: bool) -> int:
    """Announce the cost, ask whether to continue, send the requests, print the findings, and return the exit status.

    Args:
        settings: Where the service is.
        is_agreed: Whether to continue without asking; an emulator costs nothing, so there is no question.
        as_json: Whether to print one JSON object instead of a table.

    Raises:
        ConfigurationError: There is nobody to ask.
        EmbedError: The first request shows that there is no such service or that it refuses the key.
    """
    probes = probes_of(ASSUMPTIONS)
    address = "an emulator in this process" if settings.emulator else address_of(settings)
    most = sum(probe.most_tokens for probe in probes)
    print_line(f"{len(ASSUMPTIONS)} assumptions take {len(probes)} requests to {address} and at most {most:,} tokens")
    if not (settings.emulator or is_agreed or _is_wanted()):
        print_line("nothing was sent")
        return ExitStatus.FAILED
    replies = run_until_stopped(_ask_service(settings, probes))
    findings = [find(assumption, replies[assumption.probe]) for assumption in ASSUMPTIONS]
    tokens = sum(tokens_billed(reply) for reply in replies.values() if isinstance(reply, Reply))
    if as_json:
        _print_json(address, findings, requests=len(probes), tokens=tokens)
    else:
        _print_table(findings)
    counts = Counter(finding.verdict for finding in findings)
    hold, differ, unknown = (counts[verdict] for verdict in (Verdict.HOLDS, Verdict.DIFFERS, Verdict.UNKNOWN))
    print_line(f"{hold} hold, {differ} differ, {unknown} not seen; {len(probes)} requests, {tokens:,} tokens billed")
    return _status(counts)


def _status(counts: Mapping[Verdict, int]) -> ExitStatus:
    if counts[Verdict.DIFFERS]:
        return ExitStatus.DIFFERS
    return ExitStatus.FAILED if counts[Verdict.UNKNOWN] else ExitStatus.DONE


def _is_wanted() -> bool:
    """Ask whether to continue.

    Raises:
        ConfigurationError: Standard input is not a terminal.
    """
    if not is_terminal(sys.stdin) or sys.stderr is None:
        raise ConfigurationError("check asks before it sends anything, and standard input is not a terminal; give --yes")
    sys.stderr.write("continue? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


async def _ask_service(settings: Settings, probes: Sequence[Probe]) -> dict[Probe, Reply | EmbedError]:
    """Send the requests to the service, or to an emulator started for them."""
    if not settings.emulator:
        return await _ask_all(address_of(settings), os.environ.get("PINECONE_API_KEY", ""), settings, probes)
    from pinecone_embed_async.emulator import Emulator  # noqa: PLC0415 - only a dry run needs it

    async with Emulator(record_texts=False) as emulator:
        return await _ask_all(emulator.url, emulator.api_key, settings, probes)


async def _ask_all(address: str, key: str, settings: Settings, probes: Sequence[Probe]) -> dict[Probe, Reply | EmbedError]:
    """Send the requests one after the other and without retries, which would hide what the check looks for.

    Raises:
        EmbedError: The first request has no answer, or an error as its answer.
    """
    base_url, api_key = check_base_url(address, allow_http=settings.allow_http), check_api_key(key)
    transport = AiohttpTransport(base_url, max_connections=1, connect_timeout=_CONNECT_SECONDS, session=None)
    replies: dict[Probe, Reply | EmbedError] = {}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(transport.aclose)
        await transport.open()
        for probe in probes:
            url = base_url.joinpath(probe.path, encoded=True).with_query(probe.query)
            method = "GET" if probe.body is None else "POST"
            request = TransportRequest(method, url, _headers(probe, api_key.reveal()), probe.body)
            reply = await _ask(transport, request)
            if not replies:
                _check_first(reply, Redactor(api_key.reveal()))
            replies[probe] = reply
    return replies


def _check_first(reply: Reply | EmbedError, redactor: Redactor) -> None:
    """If the first reply is an error, raise it: every other request would get the same."""
    if isinstance(reply, TransportError):
        reply.ends_job = True
        raise reply
    if isinstance(reply, Reply) and reply.status != 200:
        raise error_from_response(reply.status, reply.headers, reply.body, redactor=redactor, now=time.time())


async def _ask(transport: Transport, request: TransportRequest) -> Reply | EmbedError:
    """Send one request; return the error instead of raising it."""
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS), transport.send(request) as response:
            while piece := await response.read():
                body += piece
                if len(body) > _MOST_BYTES:
                    return TransportError(f"the answer is larger than {_MOST_BYTES:,} bytes")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, headers, bytes(body))
    except TransportError as error:
        return error
    except TimeoutError:
        return TransportError(f"no complete answer within {_SECONDS:g} s")


def _headers(probe: Probe, key: str) -> dict[str, str]:
    headers = {"Accept": "application/json", "User-Agent": user_agent(None)}
    if probe.key != "none":
        headers["Api-Key"] = key if probe.key == "right" else _WRONG_KEY
    if probe.api_version is not None:
        headers["X-Pinecone-Api-Version"] = probe.api_version
    if probe.body is not None:
        headers["Content-Type"] = probe.content_type
    return headers


def _seen(finding: Finding) -> str:
    """What was seen, without the API key. The key is removed before the text is cut, since a cut could leave part of it."""
    text = without_key(finding.seen)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def _print_json(address: str, findings: Sequence[Finding], *, requests: int, tokens: int) -> None:
    rows = [
        {
            "assumption": finding.assumption.claim,
            "request": str(finding.assumption.probe),
            "expected": finding.assumption.expected,
            "seen": _seen(finding),
            "verdict": finding.verdict.value,
        }
        for finding in findings
    ]
    fields = {"address": address, "requests": requests, "tokens": tokens, "assumptions": rows}
    print(json.dumps(fields))  # noqa: T201 - the command's result


def _print_table(findings: Sequence[Finding]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("assumption", "expected", "seen", ""):
        table.add_column(name, overflow="fold", no_wrap=not name)
    for finding in findings:
        cells = (finding.assumption.claim, finding.assumption.expected, _seen(finding))
        table.add_row(*(Text(printable(cell)) for cell in cells), Text(finding.verdict, style=_STYLES[finding.verdict]))
    Console(width=None if is_terminal(sys.stdout) else _COLUMNS_OF_A_FILE, highlight=False).print(table)
