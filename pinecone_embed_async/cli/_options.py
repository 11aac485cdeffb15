"""The options that commands share: their types, names and help."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pinecone_embed_async._jobs._inputs import InputFormat
from pinecone_embed_async._jobs._layouts import LayoutName

DEFAULT_QUERY = "parse a date in ISO 8601 format"


class BadRows(StrEnum):
    """What is done with rows that cannot be embedded."""

    FAIL = "fail"
    SKIP = "skip"


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files .txt, .jsonl, .ndjson, .csv, .tsv or .parquet, each also .gz or .zst; folders and quoted patterns; "
        "- for standard input. They are read in this order.",
    ),
]
Format = Annotated[
    InputFormat | None,
    typer.Option("--format", "-f", help="How to read every INPUT, whatever its name; needed for standard input."),
]
TextField = Annotated[
    str | None, typer.Option("--text-field", metavar="NAME", help="The field or column to embed. Default: text.")
]
Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="TEMPLATE",
        help=r"The text put together from fields, '{title}\n{body}' say; {{ and }} stand for braces.",
    ),
]
InputType = Annotated[str, typer.Option("--input-type", metavar="TYPE", help="What the texts are: passage or query.")]
Dimension = Annotated[
    int | None,
    typer.Option("--dimension", min=1, metavar="N", help="Numbers per vector, where the model has a choice."),
]
Truncate = Annotated[
    str | None,
    typer.Option(
        "--truncate",
        metavar="END|START|NONE",
        help="Where a text over the model's length is cut; NONE: it fails.",
    ),
]
Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="KEY=JSON", help="Another parameter of the model; may be repeated."),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, metavar="N", help="Inputs per request at most. Default: the model's limit."),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", metavar="NAME", help="The model; `pinecone-embed models` lists those known."),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, metavar="N", help="Requests in flight at most. Default: 8."),
]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        "--decoder", metavar="native|msgspec", help="What reads the answers. Default: the faster one that is installed."
    ),
]
QuotaOption = Annotated[
    str | None,
    typer.Option(
        "--quota",
        metavar="PLAN|TOKENS",
        help="What paces the requests: starter, builder, standard or enterprise, or tokens a minute. Default: learned from "
        "the service's rejections.",
    ),
]
QuotaFile = Annotated[
    Path | None,
    typer.Option(
        "--quota-file",
        metavar="FILE",
        help="Share the quota with all processes of this machine that name the same file: other jobs, or a service.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="The service's address. Default: PINECONE_CONTROLLER_HOST, else https://api.pinecone.io.",
    ),
]
AllowHttp = Annotated[
    bool,
    typer.Option("--allow-http", help="Let the address be plain HTTP to another machine: the key goes unencrypted."),
]
WithEmulator = Annotated[
    bool,
    typer.Option("--emulator", help="Ask a local emulator of the command's own instead of the service; needs no key."),
]
Delimiter = Annotated[
    str | None,
    typer.Option("--delimiter", metavar="C", help=r"What stands between fields. Default: a comma, in .tsv a tab ('\t')."),
]
Dedupe = Annotated[bool, typer.Option("--dedupe", help="Send equal texts once; every row gets its embedding.")]
Price = Annotated[
    float | None,
    typer.Option("--price-per-million", min=0, metavar="PRICE", help="What a million tokens cost, to be told the price."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors are still told.")]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER|FILE",
        help="A folder for Parquet parts (a name without a suffix, or with / behind it), or one file .jsonl, .npy or "
        ".parquet.",
    ),
]
IdField = Annotated[
    str | None,
    typer.Option(
        "--id-field",
        metavar="NAME",
        help="The field or column with the id. Default: the row's number from 0.",
    ),
]
OnBadRow = Annotated[
    BadRows,
    typer.Option(
        "--on-bad-row",
        help="What to do with a row that cannot be embedded: no such field, not text, not JSON, not UTF-8. skip leaves "
        "it out, and lists it in _failures.jsonl (of one file in FILE.failures.jsonl).",
    ),
]
NoBlank = Annotated[
    bool, typer.Option("--no-blank", help="A text without a visible character is a row that cannot be embedded.")
]
UniqueIds = Annotated[bool, typer.Option("--unique-ids", help="Two rows with one id are an error.")]
LayoutOption = Annotated[
    LayoutName,
    typer.Option(
        "--layout",
        help="What the folder holds: a table; or files for an index to import, JSON lines of documents or Parquet of "
        "vectors, beside the table.",
    ),
]
Namespace = Annotated[
    str, typer.Option("--namespace", metavar="NAME", help="The index's namespace, of --layout documents or vectors.")
]
VectorField = Annotated[
    str, typer.Option("--vector-field", metavar="NAME", help="The vector's field, of --layout documents.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="NAME", help="A field to carry along into the folder's table; may be repeated."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the job that is in the folder and begin anew.")]
Append = Annotated[bool, typer.Option("--append", help="Add the rows of another input to the table in the folder.")]
RetryFailures = Annotated[bool, typer.Option("--retry-failures", help="Embed just the rows that failed before.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Give up on what is not embedded by then. Default: never."),
]
MostTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=1, metavar="N", help="Begin no request that would make this run cost more, by its estimate."
    ),
]
CacheFile = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FILE",
        help="Keep vectors in this file, and take from it those that were paid for before.",
    ),
]
Events = Annotated[
    bool,
    typer.Option("--json", help="Tell the progress of a job as JSON objects on standard output, one a line."),
]
