"""The reported statistics of a token limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """The token limit of a model and input type, and its usage.

    Attributes:
        model: name of the model.
        input_type: `""` if requests carry none.
        limit: tokens per window; `None` if unknown.
        source: source of the limit: `"given"`, `"named"` by a rejection, `"found"` by trial, or `"unknown"`.
        used: tokens that count now, including those of requests in flight.
        window: length of a window in seconds.
        waiting: number of requests waiting for a permit.
        is_waiting: whether they wait for this limit, rather than for requests in flight to end.
        waited: seconds during which requests had to wait for the limit.
        rejections: number of requests that the service rejected.
        paused: remaining seconds of the pause after a rejection.
    """

    model: str
    input_type: str
    limit: int | None
    source: str
    used: int
    window: float
    waiting: int
    is_waiting: bool
    waited: float
    rejections: int
    paused: float
