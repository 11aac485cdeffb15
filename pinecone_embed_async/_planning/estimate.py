"""Estimates the cost of a job without sending a request."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._models import PLANS, QUOTA_WINDOW, REQUESTS_PER_MINUTE, tokens_per_minute
from pinecone_embed_async._planning.load import (
    FEWEST_BYTES_PER_TOKEN,
    MOST_BYTES_PER_TOKEN,
    SPECIAL_TOKENS,
    utf8_length,
)
from pinecone_embed_async._planning.splitting import count_requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from pinecone_embed_async._planning.load import RequestLimits
    from pinecone_embed_async._wire import VectorType


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated cost of a job.

    The service does not publish its tokenizers, so tokens are estimated from UTF-8 bytes: at 4 bytes per token, or the ratio
    that the client has learned from bills. The range covers 6 to 2.5 bytes per token, and that ratio.

    Attributes:
        inputs: number of texts.
        duplicates: number of texts equal to an earlier one, which `dedupe` would not send.
        over_length: number of texts that are probably too long for the model and will be truncated or refused.
        tokens: estimated tokens, without duplicates if `dedupe` is on.
        tokens_low: low end of the range.
        tokens_high: high end of the range.
        requests: number of requests if none fails.
        seconds: for each plan, the wait for its quotas, from `tokens` and `requests`; the service's own time is extra.
    """

    inputs: int
    duplicates: int
    over_length: int
    tokens: int
    tokens_low: int
    tokens_high: int
    requests: int
    seconds: Mapping[str, float]


def estimate_cost(
    texts: Iterable[str], limits: RequestLimits, vector_type: VectorType | None, input_type: object, *, dedupe: bool
) -> Estimate:
    """Estimate the cost of embedding texts, with 16 bytes of memory per text.

    Args:
        texts: the texts, which are read once.
        limits: limits of one request, with the expected number of UTF-8 bytes per token.
        vector_type: the model's vector type; `None` if unknown.
        input_type: the input type of the texts.
        dedupe: whether equal texts are sent once.
    """
    lengths, hashes = array("q"), array("q")
    for text in texts:
        lengths.append(utf8_length(text))
        # Hashes of 64 bits: the chance of any collision among ten million texts is one in 400,000.
        hashes.append(hash(text))
    sizes, ratio, most = np.array(lengths), limits.bytes_per_token, limits.sequence_length
    first = np.sort(np.unique(np.array(hashes), return_index=True)[1])
    sent = sizes[first] if dedupe else sizes
    tokens, requests = _tokens(sent, ratio, most), count_requests(sent.tolist(), limits)
    quotas = {plan: tokens_per_minute(plan, vector_type, input_type) for plan in PLANS}
    return Estimate(
        inputs=len(sizes),
        duplicates=len(sizes) - len(first),
        over_length=int(np.count_nonzero(sizes / ratio + SPECIAL_TOKENS > most)),
        tokens=tokens,
        tokens_low=_tokens(sent, max(ratio, MOST_BYTES_PER_TOKEN), most),
        tokens_high=_tokens(sent, min(ratio, FEWEST_BYTES_PER_TOKEN), most),
        requests=requests,
        seconds={plan: _seconds(quota, tokens, requests) for plan, quota in quotas.items()},
    )


def _tokens(sizes: NDArray[np.int64], bytes_per_token: float, sequence_length: int) -> int:
    tokens = (sizes / bytes_per_token).astype(np.int64) + SPECIAL_TOKENS
    return int(np.minimum(tokens, sequence_length).sum())


def _seconds(quota: int, tokens: int, requests: int) -> float:
    windows = max(math.ceil(tokens / quota), math.ceil(requests / REQUESTS_PER_MINUTE), 1)
    # The quota of the first window is available at once.
    return (windows - 1) * QUOTA_WINDOW
