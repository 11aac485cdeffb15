"""`pinecone-embed demo`: real text, a query, the nearest docstrings."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pinecone_embed_async import ConfigurationError, DenseEmbeddings
from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async.cli._docstrings import Docstring, read_docstrings
from pinecone_embed_async.cli._output import print_error, print_line, printable
from pinecone_embed_async.cli._run import Settings, Summary, connected, embed_texts

DEFAULT_QUERY = "wait for several coroutines to finish"
