"""Jobs in this process, embedded by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import dataset

from pinecone_embed_async import (
    AuthenticationError,
    DenseEmbeddings,
    EmbeddedBatch,
    EmbedError,
    Failure,
    InvalidRequestError,
    Usage,
)
from pinecone_embed_async._jobs._fingerprint import Fingerprint, take_fingerprint
from pinecone_embed_async._jobs._inputs import find_inputs
from pinecone_embed_async._jobs._job import Job
from pinecone_embed_async._jobs._opening import Options, open_job
from pinecone_embed_async._jobs._sources import Columns, Row
from pinecone_embed_async._jobs._table import Embeddings

PER_REQUEST = 4

Batch = EmbeddedBatch[Row, Embeddings]


class Service:
    """Embeds rows by hand: the vector of a row is its text's number, twice. Remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.refused: Callable[[str], bool] = lambda _: False
        self.fails_after: int | None = None
        self.before_batch: Callable[[], None] = lambda: None

    @contextlib.asynccontextmanager
    async def stream(self, rows: Iterable[Row]) -> AsyncIterator[AsyncIterator[Batch]]:
        yield self._batches(rows)

    async def _batches(self, rows: Iterable[Row]) -> AsyncIterator[Batch]:
        pending: list[Row] = []
        error: EmbedError | None = None
        iterator = iter(rows)
        while error is None:
            try:
                pending.append(next(iterator))
            except StopIteration:
                break
            except EmbedError as raised:
                error = raised
            if len(pending) == PER_REQUEST:
                yield self._answer(pending)
                pending = []
            if self.fails_after is not None and len(self.sent) >= self.fails_after:
                raise AuthenticationError("bad key", status=401)
        if pending:
            yield self._answer(pending)
        if error is not None:
            raise error

    def _answer(self, rows: list[Row]) -> Batch:
        self.before_batch()
        self.sent += [row.text for row in rows]
        refused = [place for place, row in enumerate(rows) if self.refused(row.text)]
        embedded = np.array([place not in refused for place in range(len(rows))])
        vectors = np.array([[float(row.text.split()[-1])] * 2 for row in rows], np.float32)
        failures = tuple(Failure([place], InvalidRequestError("refused", status=400)) for place in refused)
        usage = Usage(total_tokens=len(rows), requests=1)
        return EmbeddedBatch(0, rows, DenseEmbeddings(vectors, model="m", usage=usage, failures=failures, embedded=embedded))


def texts(path: Path, numbers: Iterable[int]) -> Path:
    path.write_text("".join(f"text {number}\n" for number in numbers))
    return path


def opened(
    source: Path, *, columns: Columns | None = None, model: str = "m", **options: Any
) -> contextlib.AbstractContextManager[Job]:
    files, chosen = find_inputs([str(source)]), columns or Columns()

    def fingerprint(given: Any, known: Any) -> Fingerprint:
        return take_fingerprint(
            given,
            chosen,
            service="s",
            api_version="v",
            model=model,
            parameters={},
            known=known,
            layout=options.get("layout"),
        )

    return open_job(source.parent / "out", files, chosen, fingerprint, Options(**options))


def run(source: Path, service: Service, **options: Any) -> Job:
    with opened(source, **options) as job:
        asyncio.run(job.run(service.stream, lambda _: None))
    return job


def table_of(source: Path) -> dict[int, list[float]]:
    read = dataset.dataset(source.parent / "out", format="parquet").to_table().to_pylist()
    assert len({row["row"] for row in read}) == len(read)
    return {row["row"]: row["vector"] for row in read}


def expected(*numbers: int) -> dict[int, list[float]]:
    return {number: [float(number)] * 2 for number in numbers}


def names_in(source: Path) -> list[str]:
    return sorted(path.name for path in (source.parent / "out").iterdir())
