"""The commands and their options; what they do is in the modules beside this one."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer
from typer.exceptions import TyperException

from pinecone_embed_async import ConfigurationError, EmbedError, Quota, SqliteCache, __version__
from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._inputs import find_inputs, passed_over
from pinecone_embed_async._jobs._layouts import DEFAULT_NAMESPACE, Layout, LayoutName
from pinecone_embed_async._jobs._opening import Options
from pinecone_embed_async._jobs._outputs import output_format
from pinecone_embed_async._jobs._sources import Columns
from pinecone_embed_async._jobs._templates import FieldText, TextSource, parse_template
from pinecone_embed_async._models import PLANS
from pinecone_embed_async._rate_limit import PlanName
from pinecone_embed_async.cli import _demo, _embed, _estimate, _job, _models, _serve
from pinecone_embed_async.cli._connection import Settings, check_settings
from pinecone_embed_async.cli._options import (
    AllowHttp,
    BadRows,
    BaseUrl,
    BatchSize,
    Concurrency,
    DecoderOption,
    Dedupe,
    Delimiter,
    Dimension,
    Format,
    Inputs,
    InputType,
    Model,
    Parameter,
    Price,
    Quiet,
    QuotaOption,
    Text,
    TextField,
    Truncate,
    WithEmulator,
)
from pinecone_embed_async.cli._output import PROGRAM, print_end, print_error
from pinecone_embed_async.cli._signals import Stopped, status_of_stop
from pinecone_embed_async.cli._statuses import KeyMissingError, status_of
from pinecone_embed_async.emulator import Emulator, ServiceQuota, parse_fault

_DEFAULT_MODEL = "multilingual-e5-large"
_SIGNALS = 128

app = typer.Typer(
    name=PROGRAM,
    help="Embed any number of texts with Pinecone's hosted models.\n\n"
    "The API key is read from the environment variable PINECONE_API_KEY and never from an option: options can be seen "
    "in the list of processes. --emulator and the demo need none.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; every error becomes one line on standard error."""
    try:
        return int(app(args=list(arguments), prog_name=PROGRAM, standalone_mode=False) or 0)
    except (Stopped, KeyboardInterrupt) as stop:
        status, message = status_of_stop(stop), "stopped; nothing was written"
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else PROGRAM
        status, message = error.exit_code, f"{error.format_message().rstrip('.')} (see {command} --help)"
    except EmbedError as error:
        status, message = status_of(error), str(error)
    except Exception as error:  # noqa: BLE001 - a person at a terminal gets one line, whatever the error
        status, message = status_of(error), f"unexpected {type(error).__name__}: {error}"
    if status < _SIGNALS or not {"-q", "--quiet"} & set(arguments):
        print_error(message)
    # What gets here has ended no run that could tell its end itself.
    if arguments[:1] == ("embed",) and "--json" in arguments:
        print_end(status, message)
    return int(status)


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's signature
    if value:
        print(f"{PROGRAM} {__version__}")  # noqa: T201 - it was asked for
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback has answered
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> int:
    if context.invoked_subcommand is None:
        print(context.get_help())  # noqa: T201 - the help is the answer to no command
        raise typer.Exit(2)
    return 0


@app.command()
def embed(
    inputs: Inputs,
    *,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER|FILE",
            help="A folder for Parquet parts (a name without a suffix, or with / behind it), or one file .jsonl, .npy or "
            ".parquet.",
        ),
    ],
    input_format: Format = None,
    text_field: TextField = None,
    text: Text = None,
    id_field: Annotated[
        str | None,
        typer.Option(
            "--id-field",
            metavar="NAME",
            help="The field or column with the id. Default: the row's number from 0.",
        ),
    ] = None,
    delimiter: Delimiter = None,
    on_bad_row: Annotated[
        BadRows,
        typer.Option(
            "--on-bad-row",
            help="What to do with a row that cannot be embedded: no such field, not text, not JSON, not UTF-8. skip leaves "
            "it out, and lists it in _failures.jsonl.",
        ),
    ] = BadRows.FAIL,
    no_blank: Annotated[
        bool, typer.Option("--no-blank", help="A text without a visible character is a row that cannot be embedded.")
    ] = False,
    unique_ids: Annotated[bool, typer.Option("--unique-ids", help="Two rows with one id are an error.")] = False,
    layout: Annotated[
        LayoutName,
        typer.Option(
            "--layout",
            help="What the folder holds: a table; or files for an index to import, JSON lines of documents or Parquet of "
            "vectors, beside the table.",
        ),
    ] = LayoutName.TABLE,
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="NAME", help="The index's namespace, of --layout documents or vectors.")
    ] = DEFAULT_NAMESPACE,
    vector_field: Annotated[
        str, typer.Option("--vector-field", metavar="NAME", help="The vector's field, of --layout documents.")
    ] = "vector",
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="NAME", help="A field to carry along into the folder's table; may be repeated."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the job that is in the folder and begin anew.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add the rows of another input to the table in the folder.")
    ] = False,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Embed just the rows that failed before.")
    ] = False,
    model: Model = _DEFAULT_MODEL,
    input_type: InputType = "passage",
    dimension: Dimension = None,
    truncate: Truncate = None,
    parameter: Parameter = None,
    quota: QuotaOption = None,
    concurrency: Concurrency = None,
    batch_size: BatchSize = None,
    decoder: DecoderOption = None,
    dedupe: Dedupe = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Give up on what is not embedded by then. Default: never."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", min=1, metavar="N", help="Begin no request that would make this run cost more, by its estimate."
        ),
    ] = None,
    price: Price = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FILE",
            help="Keep vectors in this file, and take from it those that were paid for before.",
        ),
    ] = None,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    emulator: WithEmulator = False,
    events: Annotated[
        bool,
        typer.Option("--json", help="Tell the progress of a job as JSON objects on standard output, one a line."),
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Embed the rows of files into a folder of Parquet parts, or into one file.

    A folder is a job that may be killed: what was answered is written down at once, and the same command goes on with what
    is missing. The table has an id, the row's number, the kept columns, and the vector as a fixed-size list of float32
    (sparse models: lists of indices and values). Rows that fail are in _failures.jsonl with their causes.

    One file, .jsonl, .parquet or .npy (the vectors alone), is for smaller inputs: all is held in memory and written at the
    end. After Ctrl-C, or if nothing could be embedded, the old file is still there. Rows that are not embedded are listed
    with their causes in FILE.failures.jsonl and left out of the output (in .npy they are NaN).

    The exit status is 0 only if every row is embedded, except those that --on-bad-row skip leaves out.

    \b
    Examples:
      pinecone-embed embed docs.jsonl --text-field body --id-field id --out vectors
      pinecone-embed embed corpus/ --text '{title}\\n{body}' --keep url --out vectors
      pinecone-embed embed notes.txt --out notes.parquet --emulator
      zcat log.gz | pinecone-embed embed - --format txt --out log.npy
    """  # noqa: D301 - \b is typer's mark for lines to keep
    if events and sys.stdout is None:
        raise ConfigurationError("--json writes to standard output, which is closed")
    _check_seconds(timeout, "--timeout")
    settings = Settings(
        model=model,
        parameters=_parameters(parameter or [], input_type=input_type, dimension=dimension, truncate=truncate),
        quota=_quota(quota),
        concurrency=concurrency,
        batch_size=batch_size,
        decoder=decoder,
        base_url=base_url,
        allow_http=allow_http,
        emulator=emulator,
        timeout=timeout,
        dedupe=dedupe,
        cache=cache,
        quiet=quiet,
        price=price,
    )
    if cache is not None:
        if emulator:
            raise ConfigurationError("--cache is of no use with --emulator: each has another address, and so other vectors")
        # Found out now, not when all inputs are read.
        SqliteCache(cache)
    columns = Columns(text=_text_source(text_field, text), id=id_field, keep=tuple(keep or ()), no_blank=no_blank)
    path = Path(out)
    # Before anything is written: a job would be remembered as one that cannot be.
    _check_service(settings)
    check_settings(settings)
    if not _is_folder(out):
        given = {
            "--keep": keep,
            "--overwrite": overwrite,
            "--append": append,
            "--retry-failures": retry_failures,
            "--json": events,
            "--on-bad-row": on_bad_row is BadRows.SKIP,
            "--unique-ids": unique_ids,
            "--layout": layout is not LayoutName.TABLE,
            "--max-tokens": max_tokens,
        }
        for name, value in given.items():
            if value:
                raise ConfigurationError(f"{name} is for jobs; give --out a folder")
        files = find_inputs(inputs, format=input_format, delimiter=delimiter)
        return _embed.embed_to_file(files, out=path, columns=columns, settings=settings)
    if overwrite + append + retry_failures > 1:
        raise ConfigurationError("--overwrite, --append and --retry-failures exclude one another")
    files = find_inputs(inputs, format=input_format, leave_out=path, delimiter=delimiter)
    options = Options(
        overwrite=overwrite,
        append=append,
        retry_failures=retry_failures,
        dedupe=dedupe,
        skip_bad_rows=on_bad_row is BadRows.SKIP,
        unique_ids=unique_ids,
        layout=_layout(layout, namespace, vector_field),
        most_tokens=max_tokens,
    )
    over = () if input_format is not None else tuple(passed_over(inputs, leave_out=path))
    job = _job.JobSettings(columns=columns, options=options, events=events, passed_over=over)
    return _job.embed_to_folder(files, out=path, job=job, settings=settings)


@app.command()
def estimate(
    inputs: Inputs,
    *,
    input_format: Format = None,
    text_field: TextField = None,
    text: Text = None,
    model: Model = _DEFAULT_MODEL,
    input_type: InputType = "passage",
    dimension: Dimension = None,
    truncate: Truncate = None,
    parameter: Parameter = None,
    batch_size: BatchSize = None,
    dedupe: Annotated[
        bool, typer.Option("--dedupe", help="Count equal texts once, as `embed --dedupe` sends them.")
    ] = False,
    delimiter: Delimiter = None,
    price: Price = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Tell what embedding the rows of files will cost, without a request and without a key.

    Inputs, tokens, duplicates, inputs over the model's length, requests, and how long each plan's quota makes it take.

    The service does not publish its tokenizers, so tokens are estimated from bytes: at 4 bytes a token, between 6 and 2.5
    for the spread.

    \b
    Examples:
      pinecone-embed estimate docs.jsonl --text-field body
      pinecone-embed estimate corpus/ --text '{title}\\n{body}' --dedupe --json
    """  # noqa: D301 - \b is typer's mark for lines to keep
    settings = Settings(
        model=model,
        parameters=_parameters(parameter or [], input_type=input_type, dimension=dimension, truncate=truncate),
        batch_size=batch_size,
        dedupe=dedupe,
    )
    columns = Columns(text=_text_source(text_field, text))
    check_settings(settings)
    files = find_inputs(inputs, format=input_format, delimiter=delimiter)
    with _standard_output():
        return _estimate.print_estimate(files, columns, settings, as_json=as_json, price=price)


@app.command()
def models(
    *,
    live: Annotated[bool, typer.Option("--live", help="Ask the service, which needs the key.")] = False,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    emulator: WithEmulator = False,
) -> int:
    """Print the models and their limits.

    Those that this version knows, without a key; with --live those that the service has now.
    """
    settings = Settings(model=_DEFAULT_MODEL, base_url=base_url, allow_http=allow_http, emulator=emulator)
    if live:
        _check_service(settings)
        with _standard_output():
            _models.print_live(settings)
    elif base_url or allow_http or emulator:
        raise ConfigurationError("--base-url, --allow-http and --emulator say whom --live asks; add --live")
    else:
        with _standard_output():
            _models.print_known()
    return 0


@app.command()
def demo(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")] = _demo.DEFAULT_QUERY,
    *,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many docstrings to answer.")] = 5,
    model: Model = _DEFAULT_MODEL,
    concurrency: Concurrency = None,
    quiet: Quiet = False,
) -> int:
    """Embed real text, answer a query.

    The text is the docstrings of Python's standard library; the answer is those nearest to the query.

    Against a local emulator: no account, no key, no network. Its vectors know words and parts of words, not their meaning.
    """
    return _demo.run_demo(query, top=top, settings=Settings(model=model, concurrency=concurrency, quiet=quiet))


@app.command("emulator")
def serve_emulator(
    *,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for a free one.")] = 0,
    latency: Annotated[
        float, typer.Option("--latency", min=0, metavar="SECONDS", help="How long answers are held back.")
    ] = 0.0,
    quota_tokens: Annotated[
        int | None,
        typer.Option("--quota-tokens", min=1, metavar="N", help="Tokens per window for each model and input type."),
    ] = None,
    quota_requests: Annotated[
        int | None, typer.Option("--quota-requests", min=1, metavar="N", help="Requests per second.")
    ] = None,
    window: Annotated[
        float, typer.Option("--window", metavar="SECONDS", help="Length of the window of --quota-tokens.")
    ] = 60.0,
    reject: Annotated[
        str | None,
        typer.Option("--reject", metavar="TEXT", help="Refuse requests with an input that contains this text."),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="NAME[=VALUE][:RATE]",
            help="Commit a fault with a share of the requests, status=503:0.1 for a tenth; may be repeated.",
        ),
    ] = None,
) -> int:
    """Serve a local emulator until Ctrl-C.

    It answers /embed and /models like the real service and prints the two lines that point clients at it, as `export`
    commands.
    """
    _check_seconds(window, "--window")
    rule = None if reject is None else (lambda text: reject in text)
    quota = ServiceQuota(
        tokens_per_window=quota_tokens,
        requests_per_second=quota_requests,
        window=window,
    )
    try:
        faults = [parse_fault(text) for text in fault or []]
    except ValueError as error:
        raise ConfigurationError(f"--fault {error}") from None
    # A server that runs for weeks must not keep every text.
    emulator = Emulator(host=host, port=port, latency=latency, quota=quota, reject=rule, faults=faults, record_texts=False)
    try:
        return _serve.serve(emulator)
    except OSError as error:
        print_error(f"cannot listen on {host} port {port}: {error.strerror or error}")
        return 1


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    """Where a result is printed, its errors as errors of the command."""
    if sys.stdout is None:
        raise EmbedError("standard output, where the result goes, is closed")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror or error}", errno=error.errno) from None


def _text_source(field: str | None, template: str | None) -> TextSource:
    if template is None:
        return FieldText(field or "text")
    if field is not None:
        raise ConfigurationError("--text and --text-field both say what to embed; give one")
    return parse_template(template)


def _layout(name: LayoutName, namespace: str, vector_field: str) -> Layout | None:
    if name is not LayoutName.TABLE:
        return Layout(name, namespace, vector_field)
    if (namespace, vector_field) != (DEFAULT_NAMESPACE, "vector"):
        raise ConfigurationError("--namespace and --vector-field are for --layout documents or vectors")
    return None


def _is_folder(out: str) -> bool:
    path = Path(out)
    if out.endswith("/") or path.is_dir() or not path.suffix:
        return True
    try:
        output_format(path)
    except OutputError as error:
        raise ConfigurationError(str(error)) from None
    return False


def _check_service(settings: Settings) -> None:
    if settings.emulator:
        if settings.base_url or settings.allow_http:
            raise ConfigurationError("--emulator is a service of its own; leave out --base-url and --allow-http")
    elif not os.environ.get("PINECONE_API_KEY"):
        raise KeyMissingError("no API key: set the environment variable PINECONE_API_KEY, or use --emulator")


def _quota(given: str | None) -> Quota | PlanName | None:
    if given is None:
        return None
    if given in PLANS:
        return cast("PlanName", given)
    tokens = given.replace(",", "").replace("_", "")
    if not tokens.isascii() or not tokens.isdigit() or not int(tokens):
        raise ConfigurationError(f"--quota must be one of {', '.join(PLANS)}, or tokens a minute, got {given!r}")
    return Quota(int(tokens))


def _check_seconds(seconds: float | None, name: str) -> None:
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise ConfigurationError(f"{name} must be a number of seconds > 0, got {seconds}")


def _parameters(given: Sequence[str], **named: Any) -> dict[str, Any]:
    parameters = {name: value for name, value in named.items() if value is not None}
    for item in given:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise ConfigurationError(f"--parameter {item}: write KEY=JSON")
        if key in named:
            raise ConfigurationError(f"--parameter {key}: use --{key.replace('_', '-')}")
        if key in parameters:
            raise ConfigurationError(f"--parameter {key}: given twice")
        try:
            parameters[key] = msgspec.json.decode(value)
        except msgspec.MsgspecError:
            raise ConfigurationError(
                f"""--parameter {item}: the value is not JSON; text is written --parameter '{key}="{value}"'"""
            ) from None
    return parameters
