"""Counts of the requests that a client has sent."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """Counts since the client was created; see `Statistics` for their meaning."""

    attempts: int = 0
    answers: int = 0
    retries: int = 0
    rejections: int = 0
    unreadable_answers: int = 0
    inputs: int = 0
    tokens: int = 0
    joined: int = 0
    joined_requests: int = 0
