"""The service that `benchmarks.services` measures: searches, and a bulk job on the same client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from pinecone_embed_async import EmbedClient, EmbedError, Progress, Quota

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT = float(os.environ.get("SEARCH_TIMEOUT", "10"))
BATCH = 16
"""Inputs per request: few, so that searches do not wait for the emulator, which computes vectors in Python."""

BULK = 48 * BATCH
"""Inputs per call of the bulk job, which repeats its calls."""

PLENTY = Quota(10**9, requests_per_second=10**6, requests_per_minute=10**6)
"""A quota that is never reached."""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    options: dict[str, Any] = {"dimension": 384, "input_type": "query", "quota": PLENTY, "max_batch_size": BATCH}
    async with EmbedClient("llama-text-embed-v2", **options) as client:
        app.state.client, app.state.job, app.state.done = client, None, 0
        yield
        await _stop(app)


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    retry_after = getattr(error, "retry_after", None)
    return JSONResponse({}, 503, {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))})


app = FastAPI(lifespan=_lifespan, exception_handlers={EmbedError: _unavailable})


@app.get("/search")
async def search(q: str) -> dict[str, int]:
    """Answer a search."""
    return {"dimension": len(await app.state.client.embed_one(q, timeout=TIMEOUT))}


@app.post("/job")
async def begin() -> dict[str, int]:
    """Start the bulk job."""
    app.state.job = asyncio.create_task(_job(app.state))
    return {"done": app.state.done}


@app.delete("/job")
async def end() -> dict[str, int]:
    """End the bulk job; return the number of inputs embedded so far."""
    await _stop(app)
    return {"done": app.state.done}


async def _job(state: Any) -> None:
    for number in itertools.count():
        texts = [f"passage {number} {index} of a text of some words" for index in range(BULK)]
        before = state.done

        def count(progress: Progress, before: int = before) -> None:
            state.done = before + progress.done

        await state.client.embed(texts, input_type="passage", progress=count)


async def _stop(of: FastAPI) -> None:
    if of.state.job is not None:
        of.state.job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await of.state.job
        of.state.job = None
