"""A service that finds the lines of a file that are nearest in meaning to a query.

    python examples/search_service.py texts.txt --port 8080
    curl 'http://127.0.0.1:8080/search?q=how+vectors+are+compared'

The key is in PINECONE_API_KEY. The lines are embedded once, when the service starts; queries that come at the same time
share a request. To try it without a key, run `pinecone-embed emulator` in another terminal and set the two variables that it
prints.
"""

import argparse
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from aiohttp import web

from pinecone_embed_async import DeadlineExceededError, DenseEmbeddings, EmbedClient, EmbedError, InputError

CLIENT: web.AppKey[EmbedClient[DenseEmbeddings]] = web.AppKey("client", EmbedClient)
LINES: web.AppKey[list[str]] = web.AppKey("lines", list)
VECTORS: web.AppKey[np.ndarray] = web.AppKey("vectors", np.ndarray)


async def index(app: web.Application) -> AsyncIterator[None]:
    """Open the client and embed the lines before the first query; close the client after the last answer."""
    async with EmbedClient("multilingual-e5-large") as client:
        passages = await client.embed(app[LINES], input_type="passage")
        app[CLIENT], app[VECTORS] = client, passages.vectors
        yield


async def search(request: web.Request) -> web.Response:
    """Answer `/search?q=…` with the five nearest lines, the nearest first."""
    query = request.query.get("q")
    if not query:
        raise web.HTTPBadRequest(text="q must be a query, as in /search?q=vectors")
    try:
        vector = await request.app[CLIENT].embed_one(query, input_type="query", timeout=2.0)
    except InputError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    except DeadlineExceededError:
        raise web.HTTPGatewayTimeout from None
    except EmbedError:
        raise web.HTTPServiceUnavailable from None
    scores = request.app[VECTORS] @ vector
    nearest = np.argsort(-scores)[:5]
    return web.json_response([{"line": request.app[LINES][row], "score": round(float(scores[row]), 4)} for row in nearest])


def main() -> None:
    """Read the lines, then serve until stopped."""
    parser = argparse.ArgumentParser(description="Serve a search over the lines of a file.")
    parser.add_argument("texts", type=Path, help="a UTF-8 file with a text on each line")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    app = web.Application()
    app[LINES] = [line for line in arguments.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    app.cleanup_ctx.append(index)
    app.router.add_get("/search", search)
    web.run_app(app, host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    main()
