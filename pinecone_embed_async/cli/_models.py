"""`pinecone-embed models`: prints models and their limits."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async.cli._connection import Settings, connected
from pinecone_embed_async.cli._output import is_terminal, printable
from pinecone_embed_async.cli._signals import run_until_stopped

# Without a terminal to set the width, nothing is wrapped or cut.
_WIDTH_OF_A_FILE = 500


def print_known() -> None:
    """Print the models this version knows, without a request."""
    _print_table(
        (
            model.name,
            model.vector_type or "",
            _dimensions(model.dimension, model.choices.get("dimension", ())),
            _number(model.max_sequence_length if model.is_documented else None),
            _number(model.max_batch_size if model.is_documented else None),
        )
        for model in KNOWN_MODELS.values()
    )


def print_live(settings: Settings) -> None:
    """Ask the service for its embedding models and print them.

    Raises:
        EmbedError: The service did not answer, or answered with an error.
    """
    run_until_stopped(_print_live(settings))


async def _print_live(settings: Settings) -> None:
    async with connected(settings) as client:
        found = await client.list_models()
    _print_table(
        (
            model.model,
            model.vector_type or "–",
            _dimensions(model.default_dimension, model.supported_dimensions or ()),
            _number(model.max_sequence_length),
            _number(model.max_batch_size),
        )
        for model in found
        if model.type == "embed"
    )


def _print_table(rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("vectors", no_wrap=True)
    table.add_column("dimension")
    table.add_column("tokens per input", justify="right")
    table.add_column("inputs per request", justify="right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if is_terminal(sys.stdout) else _WIDTH_OF_A_FILE, highlight=False).print(table)


def _dimensions(default: int | None, supported: Iterable[object]) -> str:
    others = [str(dimension) for dimension in supported if dimension != default]
    if not default:
        return ", ".join(others) or "–"
    return f"{default} (or {', '.join(others)})" if others else str(default)


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
