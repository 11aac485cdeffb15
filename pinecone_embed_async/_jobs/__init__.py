"""Embedding jobs: rows of text in from files; embeddings out to one file, or to a folder of a job that can be resumed."""

from pinecone_embed_async._jobs._errors import JobChangedError, JobError, OutputError, SourceError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, InputPrint, take_fingerprint
from pinecone_embed_async._jobs._inputs import InputFile, InputFormat, find_inputs
from pinecone_embed_async._jobs._job import Job, JobProgress
from pinecone_embed_async._jobs._opening import Options, open_job
from pinecone_embed_async._jobs._outputs import (
    OutputFormat,
    check_output,
    check_space,
    failures_path,
    output_format,
    write_output,
)
from pinecone_embed_async._jobs._recorder import Batch
from pinecone_embed_async._jobs._sources import Columns, Row, read_rows
from pinecone_embed_async._jobs._table import vector_columns
from pinecone_embed_async._jobs._templates import FieldText, TextSource, parse_template

__all__ = [
    "Batch",
    "Columns",
    "FieldText",
    "Fingerprint",
    "InputFile",
    "InputFormat",
    "InputPrint",
    "Job",
    "JobChangedError",
    "JobError",
    "JobProgress",
    "Options",
    "OutputError",
    "OutputFormat",
    "Row",
    "SourceError",
    "TextSource",
    "check_output",
    "check_space",
    "failures_path",
    "find_inputs",
    "open_job",
    "output_format",
    "parse_template",
    "read_rows",
    "take_fingerprint",
    "vector_columns",
    "write_output",
]
