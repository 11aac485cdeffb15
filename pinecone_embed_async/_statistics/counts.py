"""The progress of a call, and the statistics of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit import TokenStatistics


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a call, passed to `progress` after each request that succeeds or fails for good.

    Attributes:
        done: number of inputs embedded.
        failed: number of inputs failed.
        total: number of inputs of the call (distinct ones with `dedupe`); `None` for a stream, whose length is unknown.
        requests: number of requests answered.
        tokens: tokens billed.
        retries: number of attempts beyond the first of a request, by the whole client.
    """

    done: int
    failed: int
    total: int | None
    requests: int
    tokens: int
    retries: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of a client since its creation.

    Attributes:
        attempts: requests sent, including retries.
        answers: requests answered with embeddings.
        retries: attempts beyond the first of a request.
        rejections: attempts rejected for going over a limit of the service (429).
        unreadable_answers: answers that could not be read or did not match the request; they were billed.
        inputs: inputs embedded.
        tokens: tokens billed, as reported by the answers.
        in_flight: requests on the wire or being decoded now.
        concurrency: requests that may be in flight now; fewer than `max_concurrency` after overloads and time-outs.
        waiting: requests waiting for a permit now, either for a request in flight to end or for the quota.
        quotas: known limit and usage of tokens, for each model and input type with requests so far; with a `SharedQuota`,
            of all clients that share it.
        waited: seconds that requests spent waiting for the quota.
        bytes_per_token: UTF-8 bytes of text per token, estimated from the bills so far.
        decoder: `"native"` or `"msgspec"`.
        joined: calls of `embed_one` answered with a vector.
        joined_requests: requests that answered these calls.
        cache_hits: inputs found in the cache.
        cache_misses: inputs looked up in the cache but not found.
        retry_budget: retry tokens left, out of 100. A failure of the service or the connection takes one, an answer returns
            one. Below 50, one request is in flight at a time.
    """

    attempts: int
    answers: int
    retries: int
    rejections: int
    unreadable_answers: int
    inputs: int
    tokens: int
    in_flight: int
    concurrency: int
    waiting: int
    quotas: tuple[TokenStatistics, ...]
    waited: float
    bytes_per_token: float
    decoder: str
    joined: int
    joined_requests: int
    cache_hits: int
    cache_misses: int
    retry_budget: int
