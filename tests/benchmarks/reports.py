"""A report as a run writes it, with figures that are easily checked in one's head."""

from typing import Any

from benchmarks.competitors import BASETEN, FLOOR, HAND_MSGSPEC, HAND_SIMDJSON, MSGSPEC, NATIVE, OFFICIAL
from benchmarks.figures import derived
from benchmarks.settings import MAIN_LOAD
from benchmarks.suites.throughput import summarise

SECONDS = {MSGSPEC: 2.0, HAND_MSGSPEC: 2.0, NATIVE: 1.0, HAND_SIMDJSON: 0.8, OFFICIAL: 4.0, BASETEN: 1.0, FLOOR: 0.2}


def measurement(seconds: float, **changes: float) -> dict[str, Any]:
    """One measurement of 960 inputs."""
    figures = {
        "seconds": seconds,
        "cpu_seconds": seconds,
        "lag_p99_ms": 10 * seconds,
        "lag_max_ms": 20 * seconds,
        "peak_bytes": 90e6,
        "peak_bytes_before": 50e6,
        "result_bytes": 30e6,
    }
    server = {"embed_requests": 10, "connections": 2, "cpu_seconds": 0.1}
    return {**derived({**figures, **changes}, inputs=960, requests=10), "server": server, "stolen_share": 0.0}


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name
        self.title = f"EmbedClient {name}" if name in (MSGSPEC, NATIVE) else name


def report(**changes: Any) -> dict[str, Any]:
    """A run of all suites that there are goals for."""
    rounds = {name: [measurement(seconds), measurement(3 * seconds)] for name, seconds in SECONDS.items()}
    competitors: Any = [_Named(name) for name in SECONDS]
    load = {"load": {}, "job": {"inputs": 960, "concurrency": 8}, "rounds": 2, "competitors": summarise(competitors, rounds)}
    memory = {"title": "EmbedClient (msgspec)", "result_bytes": 400e6, "over_result_bytes": 20e6}
    grown = {"us_per_input_few": 50.0, "us_per_input_many": 60.0, "ratio": 1.2}
    growth = {"title": "EmbedClient (msgspec)", "held": grown, "fresh": {**grown, "ratio": 1.3}, "first_touch_us": 0.5}
    way = {"p50": 1.0, "p99": 2.0, "crowd": {"median": 100.0, "requests": 11}}
    suites: dict[str, Any] = {
        "throughput": {"loads": {MAIN_LOAD.name: load}, "left_out": {"native-uvloop": "uvloop is not installed"}},
        "memory": {"job": {"inputs": 100_000}, "competitors": {MSGSPEC: memory}},
        "growth": {"few": 10, "many": 1000, "competitors": {MSGSPEC: growth}},
        "single": {
            "crowd": 100,
            "calls": 10,
            "ways": {
                "embed_one (msgspec)": {**way, "p50": 1.2},
                "bare aiohttp + msgspec": way,
                "bare aiohttp + json": {**way, "p50": 2.0},
            },
        },
        "decoding": {
            "repeats": 3,
            "ms_per_body": {"EmbedClient's msgspec decoder": 5.0, "json": 25.0},
            "two_threads": {"msgspec": 1.0},
        },
        "streaming": None,
    }
    return {
        "format": 1,
        "date": "2026-11-25",
        "machine": {
            "cpu": "a processor",
            "usable_cores": 2,
            "system": "Linux",
            "python": "CPython 3.11",
            "packages": {"aiohttp": "3.14", "uvloop": None},
            "load_average": 0.1,
        },
        "load_average_after": 1.0,
        "settings": {"rounds": 2, "scale": 1.0, "only": ()},
        "suites": {**suites, **changes},
    }
