"""`pinecone-embed estimate`: the cost of a job, computed from its inputs without a request."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from pinecone_embed_async import Estimate
from pinecone_embed_async._jobs._checking import RowCheck
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._sources import Columns, read_all_rows
from pinecone_embed_async._models import KNOWN_MODELS, tokens_per_minute
from pinecone_embed_async.cli._connection import Settings, unconnected
from pinecone_embed_async.cli._figures import duration
from pinecone_embed_async.cli._output import is_terminal


def print_estimate(
    files: Sequence[InputFile], columns: Columns, settings: Settings, *, as_json: bool, skip_bad_rows: bool
) -> int:
    """Read the rows of `files`, print what embedding them will cost, and return the exit status.

    Raises:
        EmbedError: An input cannot be read, or has rows that cannot be embedded and must not be left out.
    """
    check = RowCheck()
    texts = (row.text for row in check.embeddable(read_all_rows(files, columns)))
    estimate = unconnected(settings).estimate(texts, dedupe=settings.dedupe)
    check.warnings(skip_bad_rows=skip_bad_rows, unique_ids=False)
    if as_json:
        fields = {"model": settings.model, **_fields(estimate, settings), **_price(estimate, settings.price)}
        print(json.dumps({**fields, "skipped": check.bad}))  # noqa: T201 - the command's result
    else:
        _print_table(estimate, settings, skipped=check.bad)
    return 0


def _price(estimate: Estimate, price: float | None) -> dict[str, float]:
    if price is None:
        return {}
    amounts = {"": estimate.tokens, "_low": estimate.tokens_low, "_high": estimate.tokens_high}
    return {f"price{suffix}": tokens * price / 1e6 for suffix, tokens in amounts.items()}


def _quota(plan: str, settings: Settings) -> int:
    known = KNOWN_MODELS.get(settings.model)
    return tokens_per_minute(plan, None if known is None else known.vector_type, settings.parameters.get("input_type"))


def _fields(estimate: Estimate, settings: Settings) -> dict[str, Any]:
    fields = asdict(estimate)
    seconds = fields.pop("seconds")
    plans = {plan: {"tokens_per_minute": _quota(plan, settings), "seconds": waiting} for plan, waiting in seconds.items()}
    return {**fields, "plans": plans}


def _print_table(estimate: Estimate, settings: Settings, *, skipped: int) -> None:
    unsent = "not sent" if settings.dedupe else "--dedupe would not send them"
    console = Console(width=None if is_terminal(sys.stdout) else 100, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for name, value in (
        ("model", settings.model),
        ("inputs", f"{estimate.inputs:,}"),
        ("duplicates", f"{estimate.duplicates:,} ({unsent})" if estimate.duplicates else "0"),
        ("over the model's length", f"{estimate.over_length:,}"),
        ("tokens, about", f"{estimate.tokens:,} ({estimate.tokens_low:,} to {estimate.tokens_high:,})"),
        ("requests", f"{estimate.requests:,}"),
    ):
        table.add_row(name, value)
    if skipped:
        table.add_row("rows left out", f"{skipped:,}")
    price = settings.price
    if price is not None:
        low, amount, high = (tokens * price / 1e6 for tokens in (estimate.tokens_low, estimate.tokens, estimate.tokens_high))
        table.add_row("price, about", f"{amount:,.2f} ({low:,.2f} to {high:,.2f})")
    console.print(table)
    plans = Table(box=None, pad_edge=False)
    plans.add_column("plan", no_wrap=True)
    plans.add_column("tokens a minute", justify="right", no_wrap=True)
    plans.add_column("waiting for the quota, about", no_wrap=True)
    for plan, seconds in estimate.seconds.items():
        plans.add_row(plan, f"{_quota(plan, settings):,}", duration(seconds) if seconds else "none")
    console.print()
    console.print(plans)
