"""Generations of the API: versions whose `/embed` and `/models` differ in nothing but the version."""

from __future__ import annotations

# Source: the inference API's published documents of these versions, compared.
_FIRST_OF_GENERATION = {"2026-04": "2025-10", "2026-07": "2025-10"}


def generation_of(api_version: str) -> str:
    """The first version of the generation: what names it in whatever outlives a client, cache keys and jobs.

    A version that is not known may answer differently, and is a generation of its own.
    """
    return _FIRST_OF_GENERATION.get(api_version, api_version)
