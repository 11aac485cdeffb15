"""Keys of cached vectors."""

from __future__ import annotations

import hashlib

from pinecone_embed_async._wire import generation_of


class KeyMaker:
    """Makes the keys of texts that are embedded with the same settings.

    Args:
        address: address of the service, so that answers of one service, such as an emulator, never pass for another's.
        api_version: API version; versions of one generation have the same keys.
        model: the model's name in requests.
        parameters: the model's parameters, as JSON with sorted names.
    """

    def __init__(self, address: str, api_version: str, model: str, parameters: bytes) -> None:
        self._common = hashlib.sha256()
        generation = generation_of(api_version)
        for part in (b"pinecone-embed-async 1", address.encode(), generation.encode(), model.encode(), parameters):
            # Each part is prefixed with its length, so that different parts never give the same bytes.
            self._common.update(len(part).to_bytes(8, "little"))
            self._common.update(part)

    def __repr__(self) -> str:
        return "<KeyMaker>"

    def key_of(self, text: str) -> bytes:
        """The key of a text, a SHA-256 digest of 32 bytes."""
        digest = self._common.copy()
        digest.update(text.encode())
        return digest.digest()
