"""Odd bodies in pieces."""

import pytest

from pinecone_embed_async._wire import choose_decoder
from tests.wire.odd_bodies import assert_same_at_every_cut, corpus
from tests.wire.reading import DECODERS, decoder_of


@pytest.mark.parametrize("drawn", [8, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", DECODERS)
def test_a_body_cut_at_any_byte_is_read_as_msgspec_reads_the_whole(name: str, drawn: int) -> None:
    decoder, msgspec = decoder_of(name), choose_decoder("msgspec")
    for body in corpus(drawn):
        assert_same_at_every_cut(decoder, msgspec, body)
