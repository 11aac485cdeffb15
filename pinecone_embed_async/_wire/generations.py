"""Generations of the API: a generation is a group of versions with the same `/embed` and `/models`."""

from __future__ import annotations

# Source: a comparison of the inference API's published documents for these versions.
_FIRST_OF_GENERATION = {"2026-04": "2025-10", "2026-07": "2025-10"}


def generation_of(api_version: str) -> str:
    """The first version of the generation, which names it in data that outlives a client: cache keys and jobs.

    An unknown version may answer differently, so it is a generation of its own.
    """
    return _FIRST_OF_GENERATION.get(api_version, api_version)
