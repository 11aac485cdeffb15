"""Options that commands share: types, names and help texts."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pinecone_embed_async._jobs._inputs import InputFormat
from pinecone_embed_async._jobs._layouts import LayoutName

DEFAULT_QUERY = "parse a date in ISO 8601 format"


class BadRows(StrEnum):
    """What to do with rows that cannot be embedded."""

    FAIL = "fail"
    SKIP = "skip"


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files (.txt, .jsonl, .ndjson, .csv, .tsv or .parquet, also with .gz or .zst), folders, quoted patterns, or "
        "- for standard input; read in this order.",
    ),
]
Format = Annotated[
    InputFormat | None,
    typer.Option("--format", "-f", help="The format of every INPUT, whatever its name; required for standard input."),
]
TextField = Annotated[
    str | None, typer.Option("--text-field", metavar="NAME", help="The field or column to embed. Default: text.")
]
Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="TEMPLATE",
        help=r"A template for the text, such as '{title}\n{body}'; write {{ and }} for braces.",
    ),
]
InputType = Annotated[str, typer.Option("--input-type", metavar="TYPE", help="The kind of text: passage or query.")]
Dimension = Annotated[
    int | None,
    typer.Option("--dimension", min=1, metavar="N", help="Dimension of the vectors, if the model offers a choice."),
]
Truncate = Annotated[
    str | None,
    typer.Option(
        "--truncate",
        metavar="END|START|NONE",
        help="Where to cut a text over the model's length; NONE makes it fail.",
    ),
]
Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="KEY=JSON", help="Another parameter of the model; may be repeated."),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, metavar="N", help="Most inputs per request. Default: the model's limit."),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", metavar="NAME", help="The model; `pinecone-embed models` lists the known ones."),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, metavar="N", help="Most requests in flight. Default: 8."),
]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        "--decoder", metavar="native|msgspec", help="The decoder of responses. Default: the faster one that is installed."
    ),
]
QuotaOption = Annotated[
    str | None,
    typer.Option(
        "--quota",
        metavar="PLAN|TOKENS",
        help="The quota to stay within: starter, builder, standard or enterprise, or tokens a minute. Default: learned from "
        "the service's rejections.",
    ),
]
QuotaFile = Annotated[
    Path | None,
    typer.Option(
        "--quota-file",
        metavar="FILE",
        help="Share the quota with every process on this machine that names the same file, such as other jobs or a service.",
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
    typer.Option("--allow-http", help="Allow plain HTTP to another machine; the key is sent unencrypted."),
]
WithEmulator = Annotated[
    bool,
    typer.Option("--emulator", help="Start a local emulator and use it instead of the service; needs no key."),
]
Delimiter = Annotated[
    str | None,
    typer.Option("--delimiter", metavar="C", help=r"The character between fields. Default: a comma; in .tsv a tab ('\t')."),
]
Dedupe = Annotated[bool, typer.Option("--dedupe", help="Send equal texts once; every row gets its embedding.")]
Price = Annotated[
    float | None,
    typer.Option(
        "--price-per-million", min=0, metavar="PRICE", help="Price per million tokens; adds the price to the output."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no summary, only errors.")]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER|FILE",
        help="A folder for Parquet parts (a name without a suffix, or with a trailing /), or one .jsonl, .npy or .parquet "
        "file.",
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
        help="What to do with a row that cannot be embedded: its field is missing, or it is not text, JSON or UTF-8. skip "
        "leaves it out and lists it in _failures.jsonl (for one file in FILE.failures.jsonl).",
    ),
]
NoBlank = Annotated[
    bool, typer.Option("--no-blank", help="Treat a text without a visible character as a row that cannot be embedded.")
]
UniqueIds = Annotated[bool, typer.Option("--unique-ids", help="Treat repeated ids as an error.")]
LayoutOption = Annotated[
    LayoutName,
    typer.Option(
        "--layout",
        help="What the folder holds: a table, or a table and files for an index to import (documents as JSON lines, or "
        "vectors as Parquet).",
    ),
]
Namespace = Annotated[
    str, typer.Option("--namespace", metavar="NAME", help="The index's namespace, for --layout documents or vectors.")
]
VectorField = Annotated[
    str, typer.Option("--vector-field", metavar="NAME", help="The vector's field, for --layout documents.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="NAME", help="A field to keep in the folder's table; may be repeated."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the job in the folder and start over.")]
Append = Annotated[bool, typer.Option("--append", help="Add the rows of another input to the table in the folder.")]
RetryFailures = Annotated[bool, typer.Option("--retry-failures", help="Embed only the rows that failed before.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Stop after this time and leave the rest. Default: never."),
]
MostTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        min=1,
        metavar="N",
        help="Start no row that would make this run cost more than N tokens, by estimate.",
    ),
]
CacheFile = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FILE",
        help="Store vectors in this file, and reuse those already in it.",
    ),
]
Events = Annotated[
    bool,
    typer.Option("--json", help="Report a job's progress as JSON objects on standard output, one per line."),
]
