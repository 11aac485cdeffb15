"""Try the installed package as a new user would: without extras, key or account.

`make dist` runs it with the Python of an environment that has only the wheel and its dependencies.
"""

import asyncio
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import numpy as np

import pinecone_embed_async
from pinecone_embed_async import EmbedClient, EmbedError
from pinecone_embed_async.cli import cli
from pinecone_embed_async.emulator import Emulator

EXTRAS = ("typer", "rich", "pyarrow")
# A wheel for one platform has the native module; the wheel for any platform does not.
IS_FOR_ANY = "Root-Is-Purelib: true" in (importlib.metadata.distribution("pinecone-embed-async").read_text("WHEEL") or "")
DECODER = "msgspec" if IS_FOR_ANY else "native"
TEXTS = [f"text number {number}" for number in range(200)]


def check(is_so: object, what: str) -> None:
    """Exit with an error if the condition is false."""
    if not is_so:
        raise SystemExit(f"the installed package fails the check: {what}")
    print(f"ok: {what}")


async def main() -> None:
    """Check what is installed, then embed."""
    package = Path(pinecone_embed_async.__file__).parent
    check(package.is_relative_to(sys.prefix), "the installed package is the one imported")
    check((package / "py.typed").is_file(), "it is marked as typed")
    check(importlib.metadata.version("pinecone-embed-async") == pinecone_embed_async.__version__, "the versions agree")
    check(not any(map(importlib.util.find_spec, EXTRAS)), "no extra is installed")
    check(cli("models") == 1, "the command line reports the missing extra")
    async with Emulator() as emulator:
        async with EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url) as client:
            passages = await client.embed(TEXTS, input_type="passage")
            check(passages.vectors.shape == (200, 1024), "texts become rows")
            vector = await client.embed_one(TEXTS[7], input_type="query")
            check((passages.vectors @ vector).argmax() == 7, "a query finds its text")
            async with client.stream(iter(TEXTS), input_type="passage") as batches:
                rows = [row async for batch in batches for row in batch.vectors]
            check(np.array_equal(rows, passages.vectors), "a stream gives the same rows")
            check(client.statistics().decoder == DECODER, f"{DECODER} decodes, as this wheel's tag promises")
            emulator.reject = lambda text: text == TEXTS[3]
            try:
                await client.embed(TEXTS, input_type="passage")
            except EmbedError as error:
                check([list(failure.indices) for failure in error.failures] == [[3]], "a refused input fails alone")
            else:
                check(is_so=False, what="a refused input raises an error")
            emulator.reject = None
        async with EmbedClient("pinecone-sparse-english-v0", api_key=emulator.api_key, base_url=emulator.url) as sparse:
            check(len(await sparse.embed(TEXTS, input_type="passage")) == 200, "sparse models work too")


if __name__ == "__main__":
    asyncio.run(main())
