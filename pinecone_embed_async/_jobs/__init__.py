"""Readers and writers of embedding jobs: rows of text in from files, embeddings out to one file."""

from pinecone_embed_async._jobs._errors import JobError, OutputError, SourceError
from pinecone_embed_async._jobs._outputs import (
    OutputFormat,
    check_output,
    failures_path,
    output_format,
    write_output,
)
from pinecone_embed_async._jobs._sources import STANDARD_INPUT, InputFormat, Row, input_format, read_rows

__all__ = [
    "STANDARD_INPUT",
    "InputFormat",
    "JobError",
    "OutputError",
    "OutputFormat",
    "Row",
    "SourceError",
    "check_output",
    "failures_path",
    "input_format",
    "output_format",
    "read_rows",
    "write_output",
]
