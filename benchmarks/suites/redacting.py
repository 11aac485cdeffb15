"""The cost of searching an error for inputs: CPU milliseconds, relative to decoding one answer, and with longer texts.

The errors have the largest size that is searched, and each is difficult in a different way. The tests count the work; this
measures its time.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import run_module
from benchmarks.seeded import MAX_BATCH
from benchmarks.settings import MAIN_LOAD
from benchmarks.suites.decoding import as_it_arrives, full_body
from benchmarks.tables import Table, number
from pinecone_embed_async._wire import Redactor, choose_decoder, error_from_response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.settings import Settings

REPEATS = 20
LENGTH = 2_000
"""Characters per text; a request has 96 texts. Measured again with twice as many."""

LOOKED_AT = 64 * 1024
"""Bytes of an error that are searched."""

DECODE = "decode"


def errors(length: int) -> dict[str, tuple[list[str], Any]]:
    """Return a request's texts and an error's details, by title."""
    worded = [f"{place} {'a word of a text ' * length}"[:length] for place in range(MAX_BATCH)]
    alike = ["a" * (length - 3) + f"{place:03}" for place in range(MAX_BATCH)]
    return {
        "many strings that are in no text": (worded, [[["another string"] * 20] * 20] * 8),
        "the texts themselves": (worded, [text[: LOOKED_AT // 25] for text in worded[:20]]),
        "parts of texts that are alike": (alike, [text[:100] for text in alike] * 5),
        "long strings of the letter that all texts begin with": (alike, ["a" * 3000] * 20),
    }


def measure_here(repeats: int) -> dict[str, list[float]]:
    """Measure everything in turn in this process; return median CPU milliseconds, at each length, and of one decode."""
    body, decoder = full_body(), choose_decoder("msgspec")
    rows = np.zeros((MAX_BATCH, MAIN_LOAD.dimension), np.float32)
    measured: dict[tuple[str, int], Callable[[], object]] = {(DECODE, 0): lambda: as_it_arrives(decoder, body, rows)}
    for place, length in enumerate((LENGTH, 2 * LENGTH)):
        for title, (texts, details) in errors(length).items():
            envelope = {"code": "INVALID_ARGUMENT", "message": texts[1], "details": details}
            error = json.dumps({"status": 400, "error": envelope}).encode()
            if len(error) > LOOKED_AT:
                raise ValueError(f"the error with {title} would not be searched: it has {len(error)} bytes")
            measured[title, place] = lambda texts=texts, error=error: error_from_response(  # type: ignore[misc]
                400, {}, error, redactor=Redactor("pcsk_key", texts), now=0.0
            )
    taken: dict[tuple[str, int], list[float]] = {what: [] for what in measured}
    for _ in range(repeats + 1):
        for what, do in measured.items():
            started = time.process_time()
            do()
            taken[what].append(1000 * (time.process_time() - started))
    found: dict[str, list[float]] = {}
    for (title, _), times in taken.items():
        # The first repeat is a warm-up.
        found.setdefault(title, []).append(statistics.median(islice(times, 1, None)))
    return found


def measure(settings: Settings) -> dict[str, Any]:
    """Measure in a separate process."""
    repeats = max(3, round(REPEATS * min(1.0, settings.scale)))
    said = run_module("suites.redacting", [str(repeats)], limit=300, who="redacting")
    found = json.loads(said.splitlines()[-1])
    return {"repeats": repeats, "ms_per_decode": found.pop(DECODE)[0], "ms_per_error": found}


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of errors."""
    decode = part["ms_per_decode"]
    rows = tuple(
        (title, number(once, 2), number(once / decode, 2), number(twice, 2), number(twice / once, 2))
        for title, (once, twice) in part["ms_per_error"].items()
    )
    header = ("details of the error", f"{LENGTH:,} characters, ms", "× a decode", f"{2 * LENGTH:,} characters, ms", "×")
    return [Table(f"Looking for {MAX_BATCH} texts in an error, CPU; a decode takes {decode:.2f} ms", header, rows)]


if __name__ == "__main__":
    print(json.dumps(measure_here(int(sys.argv[1]))))
