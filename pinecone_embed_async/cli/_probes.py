"""A request that shows something of a service, and what becomes of an assumption by its reply. Plain decisions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

from pinecone_embed_async import EmbedError
from pinecone_embed_async._options import DEFAULT_API_VERSION

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a body that is not as documented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A request; equal ones are sent once.

    Attributes:
        path: The path below the address.
        query: The query's names and values.
        body: The body of a `POST`; `None` for a `GET`.
        content_type: The type of the body.
        api_version: The version of the API that it asks for; `None` for no version.
        key: Which key it carries.
        most_tokens: Tokens that it can cost at most: no token has less than a byte.
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
        headers: The headers, their names in lower case.
        body: The body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        """Status, code and message; of a body that is no error's, only the type."""
        error = self.error
        if error is None:
            return f"{self.status} with {self.headers.get('content-type', 'no content type')}"
        return f"{self.status} {error.code}: {error.message}"

    @property
    def error(self) -> "_Error | None":
        """The error, if the body is its documented envelope, with the same status."""
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
    """An embedding of either kind."""

    values: list[float] = []
    sparse_values: list[float] = []
    sparse_indices: list[int] = []
    sparse_tokens: list[str] | None = None
    vector_type: str = ""


class Usage(msgspec.Struct, frozen=True):
    """What an answer bills."""

    total_tokens: int = 0


class Answer(msgspec.Struct):
    """Schema `EmbeddingsList` without what is required, so that one missing field is one difference."""

    vector_type: str = ""
    data: list[Item] = []
    usage: Usage = Usage()


Judgement = Callable[[Reply], tuple[bool, str]]
"""Whether a reply is as assumed, and what was seen."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that the service is taken to do.

    Attributes:
        claim: What.
        expected: What is expected of the reply.
        probe: The request that shows it.
        judge: Judges the reply.
    """

    claim: str
    expected: str
    probe: Probe
    judge: Judgement


class Verdict(StrEnum):
    """What became of an assumption."""

    HOLDS = "holds"
    DIFFERS = "differs"
    UNKNOWN = "not seen"
    """There was no answer, or one that says nothing of it: a rate limit, or a failure of the service."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An assumption and what became of it.

    Attributes:
        assumption: The assumption.
        verdict: What became of it.
        seen: What was seen instead of what was expected, or as that.
    """

    assumption: Assumption
    verdict: Verdict
    seen: str


def find(assumption: Assumption, reply: Reply | EmbedError) -> Finding:
    """Judge an assumption by the reply to its probe, or by why there is none."""
    if isinstance(reply, EmbedError) or reply.status == 429 or reply.status >= 500:
        return Finding(assumption, Verdict.UNKNOWN, str(reply))
    holds, seen = assumption.judge(reply)
    return Finding(assumption, Verdict.HOLDS if holds else Verdict.DIFFERS, seen)


def probes_of(assumptions: Sequence[Assumption]) -> list[Probe]:
    """The requests that show them, each once."""
    return list(dict.fromkeys(assumption.probe for assumption in assumptions))


def tokens_billed(reply: Reply) -> int:
    """The tokens that a reply bills."""
    if reply.status != 200:
        return 0
    try:
        return max(msgspec.json.decode(reply.body, type=Answer).usage.total_tokens, 0)
    except UNREADABLE:
        return 0
