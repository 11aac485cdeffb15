"""Adds a column of vectors to a Ray Data dataset."""

from __future__ import annotations

import asyncio
import os
import re
import weakref
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.extensions import ArrowTensorArray

from pinecone_embed_async import _checks
from pinecone_embed_async._client import EmbedClient
from pinecone_embed_async._errors import ClosedError, ConfigurationError, EmbedError, InputError
from pinecone_embed_async._inputs import text_of
from pinecone_embed_async._jobs._table import vector_columns
from pinecone_embed_async._planning import ends_job
from pinecone_embed_async._results import DenseEmbeddings
from pinecone_embed_async._sending import ApiKey, check_api_key
from pinecone_embed_async._threads import LoopThread
from pinecone_embed_async.integrations._ray.quota import ClusterQuota

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from numpy.typing import NDArray

    from pinecone_embed_async._rate_limit import PlanName, Quota
    from pinecone_embed_async._results import SparseEmbeddings
    from pinecone_embed_async._sending import RetryPolicy
    from pinecone_embed_async._wire import DecoderName

_NAMED_INPUT = re.compile(r"(<input |^InputError: input )(\d+)")


class _ClientOptions(TypedDict, total=False):
    """Keywords passed on to `EmbedClient`; see there."""

    vector_type: str | None
    base_url: str | None
    api_version: str
    retry: RetryPolicy
    max_batch_size: int | None
    attempt_timeout: float
    connect_timeout: float
    max_answer_bytes: int
    source_tag: str | None
    allow_http: bool
    decoder: DecoderName | None


class AddVectors:
    """Adds vectors of a text column to batches: a class for Ray Data's `map_batches` with the format `"pyarrow"`.

    `add_vectors` passes it to `map_batches` with suitable options. One object can process many batches at once. It has its
    own client in its own event loop, because Ray's event loop stands still while it waits for a block to be taken.

    A dense vector becomes a tensor of float32 with shape (dimension,), filled with NaN if the row failed. A sparse vector
    becomes two lists, `<into>_indices` of uint32 and `<into>_values` of float32, and `<into>_tokens` if the model's
    parameters request the tokens; they are null if the row failed.

    Args:
        model: name of the hosted model.
        text: name of the text column.
        into: name of the vector column.
        errors: name of a column for errors: the kind and message of a failed row's error, null for other rows. With `None`,
            the first row that fails ends the whole job. Errors that every row would get, such as a wrong key, always end it.
        input_type: `"passage"` or `"query"`; shorthand for that key of `parameters`.
        parameters: the model's parameters.
        api_key: the key; by default `PINECONE_API_KEY` from the worker's environment. An `ApiKey` does not show in a repr.
        quota: a quota for the whole cluster; by default, each object learns the limits for itself.
        max_concurrency: most requests in flight.
        options: further keywords of `EmbedClient`.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        model: str,
        *,
        text: str = "text",
        into: str = "vector",
        errors: str | None = None,
        input_type: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        api_key: str | ApiKey | None = None,
        quota: ClusterQuota | None = None,
        max_concurrency: int = 16,
        **options: Unpack[_ClientOptions],
    ) -> None:
        if quota is not None and not isinstance(quota, ClusterQuota):
            raise ConfigurationError(
                f"quota must be a ClusterQuota, got {type(quota).__name__}, which would apply to each worker separately"
            )
        self._text = _checks.text("text", text)
        self._into = _checks.text("into", into)
        self._errors = None if errors is None else _checks.text("errors", errors)
        self._input_type = input_type
        self._client: EmbedClient[DenseEmbeddings | SparseEmbeddings] = EmbedClient(
            model,
            api_key=api_key.reveal() if isinstance(api_key, ApiKey) else api_key,
            parameters=parameters,
            quota=quota,
            max_concurrency=max_concurrency,
            # The overloads of `EmbedClient` depend on the vector type, which is known only at run time.
            **cast("Any", options),
        )
        # An estimate without texts still checks the parameters.
        self._client.estimate((), input_type=input_type)
        self._loop_thread = LoopThread("embed")
        self._end = weakref.finalize(self, _close, self._client, self._loop_thread)

    def __repr__(self) -> str:
        return f"<AddVectors {self._text!r} into {self._into!r} by {self._client!r}>"

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Add the columns to one batch; other columns are unchanged.

        Raises:
            EmbedError: a row failed and there is no error column; the error would occur for every row; or no row of the
                batch was embedded and the dimension of the vectors is unknown.
            ClosedError: it was closed.
            ConfigurationError: there is no such text column, or a new column's name is already used.
        """
        # Client and thread end one after the other, and would raise different errors.
        if not self._end.alive:
            raise ClosedError("this AddVectors is closed; create another")
        return await asyncio.wrap_future(self._loop_thread.submit(self._with_vectors(batch)))

    def close(self) -> None:
        """Close the client, end its thread, and wait for both. Optional: garbage collection does it as well."""
        self._end()

    async def _with_vectors(self, batch: pa.Table) -> pa.Table:
        if self._text not in batch.column_names:
            raise ConfigurationError(f"the dataset has no column {self._text!r}, only {', '.join(batch.column_names)}")
        columns = await self._columns(batch.column(self._text).to_pylist())
        for name, column in columns.items():
            if name in batch.column_names:
                raise ConfigurationError(f"the dataset already has a column {name!r}; choose another by `into` or `errors`")
            batch = batch.append_column(name, column)
        return batch

    async def _columns(self, values: list[Any]) -> dict[str, Any]:
        """The new columns for the values of the text column."""
        if self._errors is None:
            return self._vectors(await self._embed(values), np.arange(len(values)))
        texts, problems = _sorted_out(values)
        sent = [row for row in range(len(values)) if row not in problems]
        result = await self._embed(texts)
        # For each row, its row in the result; -1 if it has no vector.
        rows = np.full(len(values), -1, np.intp)
        rows[sent] = np.where(result.embedded, np.arange(len(texts)), -1)
        said = {row: _said(problem) for row, problem in problems.items()}
        for failure in result.failures:
            # The input numbers in an error count only what was sent; replace them by rows of the batch.
            told = _NAMED_INPUT.sub(lambda found: f"{found[1]}{sent[int(found[2])]}", _said(failure.error))
            for index in failure.indices:
                problems[sent[index]], said[sent[index]] = failure.error, told
        if problems and isinstance(result, DenseEmbeddings) and not result.vectors.shape[1]:
            error = problems[min(problems)]
            error.add_note("No row of the batch was embedded, so the dimension of the vectors is not known.")
            raise error
        errors = pa.array([said.get(row) for row in range(len(values))], pa.string())
        return {**self._vectors(result, rows), self._errors: errors}

    async def _embed(self, texts: list[Any]) -> DenseEmbeddings | SparseEmbeddings:
        """Embed texts; if there is an error column, return failures in the result."""
        try:
            return await self._client.embed(texts, input_type=self._input_type)
        except EmbedError as error:
            # Otherwise the vectors would be sent to the driver with the error, where nobody needs them.
            result: DenseEmbeddings | SparseEmbeddings | None = error.partial
            error.partial = None
            if self._errors is None or result is None or ends_job(error) or len(result.not_tried):
                raise
            return result

    def _vectors(self, result: DenseEmbeddings | SparseEmbeddings, rows: NDArray[np.intp]) -> dict[str, Any]:
        """The vector columns: row i is row `rows[i]` of the result, or empty if that is -1."""
        if isinstance(result, DenseEmbeddings):
            vectors = result.vectors
            if not np.array_equal(rows, np.arange(len(result))):
                vectors = np.full((len(rows), vectors.shape[1]), np.nan, np.float32)
                vectors[rows >= 0] = result.vectors[rows[rows >= 0]]
            return {self._into: ArrowTensorArray.from_numpy(vectors)}
        taken = pa.array(rows, mask=rows < 0)
        columns = vector_columns(result, np.arange(len(result)))
        return {f"{self._into}_{name}": column.take(taken) for name, column in columns.items()}


def add_vectors(
    dataset: ray.data.Dataset,
    model: str,
    *,
    text: str = "text",
    into: str = "vector",
    errors: str | None = None,
    input_type: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    quota: Quota | int | PlanName | ClusterQuota | None = None,
    max_concurrency: int = 16,
    actors: int | tuple[int, int] = 2,
    num_cpus: float = 0.1,
    batch_size: int = 1024,
    calls_per_actor: int = 4,
    **options: Unpack[_ClientOptions],
) -> ray.data.Dataset:
    """Add the vectors of a column to a dataset, with actors that share one quota.

    Arguments are checked here, not in the workers; nothing is sent before the dataset is consumed. By default, the key and
    `base_url` are read from the environment here. They are in no repr.

    Args:
        dataset: any dataset.
        model: as for `AddVectors`, like the next arguments up to `parameters`.
        text: as for `AddVectors`.
        into: as for `AddVectors`.
        errors: as for `AddVectors`.
        input_type: as for `AddVectors`.
        parameters: as for `AddVectors`.
        api_key: the key; by default `PINECONE_API_KEY` from the environment.
        quota: a `ClusterQuota`, or the argument for one: limits, the name of a plan, or `None` to learn them. It applies to
            the whole cluster, however many actors there are.
        max_concurrency: most requests in flight in one actor.
        actors: the number of actors, or the fewest and the most.
        num_cpus: CPUs of one actor, for Ray's scheduling: an actor waits more than it computes.
        batch_size: most rows in a batch.
        calls_per_actor: Ray tasks that one actor runs at once, each on one block with up to four batches in progress. If an
            actor is killed, the rows of its unfinished tasks are embedded, and billed, again.
        options: further keywords of `EmbedClient`.

    Returns:
        The dataset with the new columns; other columns and the rows are unchanged.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    pair = actors if isinstance(actors, tuple) else (actors, actors)
    if len(pair) != 2:
        raise ConfigurationError(f"actors must be an integer, or the fewest and the most, got {len(pair)} numbers")
    fewest, most = (_checks.whole("actors", count) for count in pair)
    if fewest > most:
        raise ConfigurationError(f"actors must be the fewest and the most, got {fewest} and {most}")
    batch_size = _checks.whole("batch_size", batch_size)
    calls_per_actor = _checks.whole("calls_per_actor", calls_per_actor)
    cpus = _checks.as_float(num_cpus)
    if cpus is None or cpus < 0:
        raise ConfigurationError(f"num_cpus must be a number ≥ 0, got {_checks.short(num_cpus)}")
    key = os.environ.get("PINECONE_API_KEY") if api_key is None else _checks.text("api_key", api_key)
    if not key:
        raise ConfigurationError("there is no API key: set PINECONE_API_KEY or pass api_key")
    base_url = options.get("base_url") or os.environ.get("PINECONE_CONTROLLER_HOST")
    arguments: dict[str, Any] = {
        **options,
        "base_url": base_url,
        "model": model,
        "text": text,
        "into": into,
        "errors": errors,
        "input_type": input_type,
        "parameters": parameters,
        "api_key": check_api_key(key),
        "max_concurrency": max_concurrency,
    }
    AddVectors(**arguments).close()
    _checks.instance("dataset", dataset, ray.data.Dataset)
    if not isinstance(quota, ClusterQuota):
        quota = ClusterQuota(quota)
    return dataset.map_batches(
        cast("Any", AddVectors),
        fn_constructor_kwargs={**arguments, "quota": quota},
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(
            min_size=fewest,
            max_size=most,
            max_concurrent_calls_per_actor=calls_per_actor,
        ),
        num_cpus=cpus,
        udf_modifying_row_count=False,
    )


def _close(client: EmbedClient[Any], loop_thread: LoopThread) -> None:
    """Close a client in its event loop, and then end the loop."""
    if loop_thread.process != os.getpid():
        return
    closing = loop_thread.submit(client.aclose())
    if loop_thread.is_here:
        # The garbage collector ran in the loop's own thread.
        closing.add_done_callback(lambda _: loop_thread.close())
    else:
        closing.result()
        loop_thread.close()


def _sorted_out(values: list[Any]) -> tuple[list[str], dict[int, EmbedError]]:
    """The texts among the values, in order, and the errors of the other values, by row."""
    texts: list[str] = []
    problems: dict[int, EmbedError] = {}
    for row, value in enumerate(values):
        try:
            texts.append(text_of(value, row))
        except InputError as error:
            problems[row] = error.with_traceback(None)
    return texts, problems


def _said(error: EmbedError) -> str:
    return f"{type(error).__name__}: {error}"
