"""Requests that probe a service, and assumptions judged by their replies. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

from pinecone_embed_async import EmbedError
from pinecone_embed_async._options import DEFAULT_API_VERSION

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a body that does not match its documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A request; equal probes are sent once.

    Attributes:
        path: The path below the address.
        query: Names and values of the query.
        body: The body of a `POST`; `None` for a `GET`.
        content_type: The type of the body.
        api_version: The API version to ask for; `None` for none.
        key: Which key it carries.
        most_tokens: The most tokens it can cost: a token has at least one byte.
    """

    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = "application/json"
    api_version: str | None = DEFAULT_API_VERSION
    key: Literal["right", "wrong", "none"] = "right"
    most_tokens: int = 0

    def __str__(self) -> str:
        query = "&".join("=".join(pair) for pair in self.query)
        return f"{'GET' if self.body is None else 'POST'} /{self.path}{'?' if query else ''}{query}"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a probe.

    Attributes:
        status: The HTTP status.
        headers: The headers, with names in lower case.
        body: The body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        """Status, code and message; if the body is not an error, status and content type."""
        error = self.error
        if error is None:
            return f"{self.status} with {self.headers.get('content-type', 'no content type')}"
        return f"{self.status} {error.code}: {error.message}"

    @property
    def error(self) -> "_Error | None":
        """The error, if the body is the documented envelope with the same status."""
        try:
            envelope = msgspec.json.decode(self.body, type=_Envelope)
        except UNREADABLE:
            return None
        return envelope.error if envelope.status == self.status else None


class _Error(msgspec.Struct):
    code: str
    message: str


class _Envelope(msgspec.Struct):
    """Schema `ErrorResponse`."""

    status: int
    error: _Error


class Item(msgspec.Struct):
    """A dense or sparse embedding."""

    values: list[float] = []
    sparse_values: list[float] = []
    sparse_indices: list[int] = []
    sparse_tokens: list[str] | None = None
    vector_type: str = ""


class Usage(msgspec.Struct, frozen=True):
    """The usage billed for an answer."""

    total_tokens: int = 0


class Answer(msgspec.Struct):
    """Schema `EmbeddingsList` with every field optional, so that one missing field counts as one difference."""

    vector_type: str = ""
    data: list[Item] = []
    usage: Usage = Usage()


Judgement = Callable[[Reply], tuple[bool, str]]
"""Returns whether a reply is as assumed, and what was seen."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """One thing the service is assumed to do.

    Attributes:
        claim: The assumption in words.
        expected: What the reply should show.
        probe: The request that tests it.
        judge: Judges the reply.
    """

    claim: str
    expected: str
    probe: Probe
    judge: Judgement


class Verdict(StrEnum):
    """The result of testing an assumption."""

    HOLDS = "holds"
    DIFFERS = "differs"
    UNKNOWN = "not seen"
    """There was no answer, or one that says nothing about the assumption: a rate limit, or a failure of the service."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An assumption and the result of testing it.

    Attributes:
        assumption: The assumption.
        verdict: The result.
        seen: What the reply showed.
    """

    assumption: Assumption
    verdict: Verdict
    seen: str


def find(assumption: Assumption, reply: Reply | EmbedError) -> Finding:
    """Judge an assumption by the reply to its probe, or by the error in its place."""
    if isinstance(reply, EmbedError) or reply.status == 429 or reply.status >= 500:
        return Finding(assumption, Verdict.UNKNOWN, str(reply))
    holds, seen = assumption.judge(reply)
    return Finding(assumption, Verdict.HOLDS if holds else Verdict.DIFFERS, seen)


def probes_of(assumptions: Sequence[Assumption]) -> list[Probe]:
    """The requests that test these assumptions, each once."""
    return list(dict.fromkeys(assumption.probe for assumption in assumptions))


def tokens_billed(reply: Reply) -> int:
    """The tokens that a reply bills."""
    if reply.status != 200:
        return 0
    try:
        return max(msgspec.json.decode(reply.body, type=Answer).usage.total_tokens, 0)
    except UNREADABLE:
        return 0
