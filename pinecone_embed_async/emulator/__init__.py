"""A local `/embed` service to develop and test against: no account, no key, no network.

It follows the API's reference independently and imports nothing from the rest of the package, so that client and emulator
check each other.

```python
from pinecone_embed_async import EmbedClient
from pinecone_embed_async.emulator import Emulator

async with Emulator() as emulator:
    client = EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url)
    async with client:
        print(await client.embed("what is a vector?", input_type="query"))
```
"""

from pinecone_embed_async.emulator._faults import (
    CHAOS_FAULTS,
    Fault,
    FaultMix,
    FaultName,
    FaultRule,
    FaultSource,
    Outlook,
    parse_fault,
)
from pinecone_embed_async.emulator._models import MODELS, EmulatedModel, Parameter
from pinecone_embed_async.emulator._quota import ServiceQuota
from pinecone_embed_async.emulator._requests import EmbedRequest
from pinecone_embed_async.emulator._server import Emulator
from pinecone_embed_async.emulator._statistics import Statistics

__all__ = [
    "CHAOS_FAULTS",
    "MODELS",
    "EmbedRequest",
    "EmulatedModel",
    "Emulator",
    "Fault",
    "FaultMix",
    "FaultName",
    "FaultRule",
    "FaultSource",
    "Outlook",
    "Parameter",
    "ServiceQuota",
    "Statistics",
    "parse_fault",
]
