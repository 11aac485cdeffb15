"""The commands and their options; the modules beside this one do the work."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from pinecone_embed_async import ConfigurationError, EmbedError, __version__
from pinecone_embed_async._jobs._inputs import find_inputs
from pinecone_embed_async._jobs._layouts import DEFAULT_NAMESPACE, LayoutName
from pinecone_embed_async.cli._arguments import (
    about_inputs,
    check_seconds,
    check_service,
    layout_of,
    parameters_of,
    quota_of,
    text_source,
    writing_result,
)
from pinecone_embed_async.cli._connection import Settings, check_files, check_settings, unconnected
from pinecone_embed_async.cli._options import (
    DEFAULT_QUERY,
    AllowHttp,
    Append,
    BadRows,
    BaseUrl,
    BatchSize,
    CacheFile,
    Concurrency,
    DecoderOption,
    Dedupe,
    Delimiter,
    Dimension,
    Events,
    Format,
    IdField,
    Inputs,
    InputType,
    Keep,
    LayoutOption,
    Model,
    MostTokens,
    Namespace,
    NoBlank,
    OnBadRow,
    Out,
    Overwrite,
    Parameter,
    Price,
    Quiet,
    QuotaFile,
    QuotaOption,
    RetryFailures,
    Text,
    TextField,
    Timeout,
    Truncate,
    UniqueIds,
    VectorField,
    WithEmulator,
)
from pinecone_embed_async.cli._output import PROGRAM, print_end, print_error
from pinecone_embed_async.cli._signals import Stopped, status_of_stop
from pinecone_embed_async.cli._statuses import missing_extra, status_of

_DEFAULT_MODEL = "multilingual-e5-large"
_SIGNALS = 128

app = typer.Typer(
    name=PROGRAM,
    help="Embed any number of texts with Pinecone's hosted models.\n\n"
    "The API key is read from the environment variable PINECONE_API_KEY, never from an option: options are visible "
    "in the process list. --emulator and the demo need no key.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; every error becomes one line on standard error."""
    try:
        return _run(arguments)
    except (Stopped, KeyboardInterrupt) as stop:
        status, message = status_of_stop(stop), "stopped; nothing was written"
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else PROGRAM
        status, message = error.exit_code, f"{error.format_message().rstrip('.')} (see {command} --help)"
    except EmbedError as error:
        status, message = status_of(error), str(error)
    except Exception as error:  # noqa: BLE001 - a person at a terminal gets one line, whatever the error
        status, message = status_of(error), missing_extra(error) or f"unexpected {type(error).__name__}: {error}"
    if status < _SIGNALS or not {"-q", "--quiet"} & set(arguments):
        print_error(message)
    # Errors that reach this point ended the command before a run could report its own end.
    if arguments[:1] == ("embed",) and "--json" in arguments:
        print_end(status, message)
    return int(status)


def _run(arguments: Sequence[str]) -> int:
    # Typer prints help and version itself. If standard output is closed, nobody wants them.
    if sys.stdout is not None and not {"-h", "--help", "--version"}.isdisjoint(arguments):
        # A broken pipe is no error: the reader has what it wanted.
        with contextlib.suppress(BrokenPipeError), writing_result():
            return int(app(args=list(arguments), prog_name=PROGRAM, standalone_mode=False) or 0)
        return 0
    return int(app(args=list(arguments), prog_name=PROGRAM, standalone_mode=False) or 0)


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
    out: Out,
    input_format: Format = None,
    text_field: TextField = None,
    text: Text = None,
    id_field: IdField = None,
    delimiter: Delimiter = None,
    on_bad_row: OnBadRow = BadRows.FAIL,
    no_blank: NoBlank = False,
    unique_ids: UniqueIds = False,
    layout: LayoutOption = LayoutName.TABLE,
    namespace: Namespace = DEFAULT_NAMESPACE,
    vector_field: VectorField = "vector",
    keep: Keep = None,
    overwrite: Overwrite = False,
    append: Append = False,
    retry_failures: RetryFailures = False,
    model: Model = _DEFAULT_MODEL,
    input_type: InputType = "passage",
    dimension: Dimension = None,
    truncate: Truncate = None,
    parameter: Parameter = None,
    quota: QuotaOption = None,
    quota_file: QuotaFile = None,
    concurrency: Concurrency = None,
    batch_size: BatchSize = None,
    decoder: DecoderOption = None,
    dedupe: Dedupe = False,
    timeout: Timeout = None,
    max_tokens: MostTokens = None,
    price: Price = None,
    cache: CacheFile = None,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    emulator: WithEmulator = False,
    events: Events = False,
    quiet: Quiet = False,
) -> int:
    """Embed the rows of files into a folder of Parquet parts, or into one file.

    A folder is a job that can be killed at any time: every answer is saved as it arrives, and the same command continues
    with the missing rows. The table has an id, the row's number, the kept columns, and the vector as a fixed-size list of
    float32 (sparse models: lists of indices and values). _failures.jsonl lists the rows that failed, with their causes.

    One file, .jsonl, .parquet or .npy (vectors only), is for smaller inputs: everything is held in memory and written at
    the end. After Ctrl-C, or if nothing could be embedded, the old file is unchanged. Rows that are not embedded are listed
    with their causes in FILE.failures.jsonl and left out of the output (in .npy they are NaN).

    The exit status is 0 only if every row is embedded, not counting rows that --on-bad-row skip leaves out.

    \b
    Examples:
      pinecone-embed embed docs.jsonl --text-field body --id-field id --out vectors
      pinecone-embed embed corpus/ --text '{title}\\n{body}' --keep url --out vectors
      pinecone-embed embed notes.txt --out notes.parquet --emulator
      zcat log.gz | pinecone-embed embed - --format txt --out log.npy
    """  # noqa: D301 - \b is typer's mark for lines to keep
    from pinecone_embed_async._jobs._opening import Options
    from pinecone_embed_async._jobs._sources import Columns
    from pinecone_embed_async.cli import _embed, _job

    if events and sys.stdout is None:
        raise ConfigurationError("--json writes to standard output, which is closed")
    check_seconds(timeout, "--timeout")
    settings = Settings(
        model=model,
        parameters=parameters_of(parameter or [], input_type=input_type, dimension=dimension, truncate=truncate),
        quota=quota_of(quota),
        quota_file=quota_file,
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
    # Check now, not after all inputs are read.
    check_files(settings)
    columns = Columns(text=text_source(text_field, text), id=id_field, keep=tuple(keep or ()), no_blank=no_blank)
    path = Path(out)
    # Before anything is written, so that no folder is left with the state of a job that cannot run.
    check_service(settings)
    check_settings(settings)
    if not _embed.is_folder(out):
        given = {
            "--keep": keep,
            "--overwrite": overwrite,
            "--append": append,
            "--retry-failures": retry_failures,
            "--json": events,
            "--layout": layout is not LayoutName.TABLE,
            "--max-tokens": max_tokens,
        }
        for name, value in given.items():
            if value:
                raise ConfigurationError(f"{name} is only for jobs; give --out a folder")
        files = find_inputs(inputs, format=input_format, delimiter=delimiter)
        for warning in about_inputs(inputs, files, input_format, path):
            print_error(warning)
        rows = _embed.RowChoice(columns=columns, skip_bad_rows=on_bad_row is BadRows.SKIP, unique_ids=unique_ids)
        return _embed.embed_to_file(files, out=path, rows=rows, settings=settings)
    if overwrite + append + retry_failures > 1:
        raise ConfigurationError("--overwrite, --append and --retry-failures cannot be combined")
    files = find_inputs(inputs, format=input_format, leave_out=path, delimiter=delimiter)
    options = Options(
        overwrite=overwrite,
        append=append,
        retry_failures=retry_failures,
        dedupe=dedupe,
        skip_bad_rows=on_bad_row is BadRows.SKIP,
        unique_ids=unique_ids,
        layout=layout_of(layout, namespace, vector_field),
        most_tokens=max_tokens,
    )
    warnings = about_inputs(inputs, files, input_format, path)
    job = _job.JobSettings(columns=columns, options=options, events=events, warnings=warnings)
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
    on_bad_row: OnBadRow = BadRows.FAIL,
    no_blank: NoBlank = False,
    price: Price = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Estimate the cost of embedding the rows of files, without a request or a key.

    It counts inputs, tokens, duplicates, inputs over the model's length and requests, and says how long each plan's quota
    makes the job wait. The service does not publish its tokenizers, so tokens are estimated from bytes: at 4 bytes per
    token, and from 6 to 2.5 for the range.

    \b
    Examples:
      pinecone-embed estimate docs.jsonl --text-field body
      pinecone-embed estimate corpus/ --text '{title}\\n{body}' --dedupe --json
    """  # noqa: D301 - \b is typer's mark for lines to keep
    from pinecone_embed_async._jobs._sources import Columns
    from pinecone_embed_async.cli import _estimate

    settings = Settings(
        model=model,
        parameters=parameters_of(parameter or [], input_type=input_type, dimension=dimension, truncate=truncate),
        batch_size=batch_size,
        dedupe=dedupe,
        price=price,
    )
    columns = Columns(text=text_source(text_field, text), no_blank=no_blank)
    check_settings(settings)
    files = find_inputs(inputs, format=input_format, delimiter=delimiter)
    for warning in about_inputs(inputs, files, input_format):
        print_error(warning)
    with writing_result():
        return _estimate.print_estimate(files, columns, settings, as_json=as_json, skip_bad_rows=on_bad_row is BadRows.SKIP)


@app.command()
def models(
    *,
    live: Annotated[bool, typer.Option("--live", help="Ask the service; needs the key.")] = False,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    emulator: WithEmulator = False,
) -> int:
    """Print the models and their limits.

    Without --live, those this version knows, without a key; with --live, those the service has now.
    """
    from pinecone_embed_async.cli import _models

    settings = Settings(model=_DEFAULT_MODEL, base_url=base_url, allow_http=allow_http, emulator=emulator)
    if live:
        check_service(settings)
        with writing_result():
            _models.print_live(settings)
    elif base_url or allow_http or emulator:
        raise ConfigurationError("--base-url, --allow-http and --emulator are only for --live; add --live")
    else:
        with writing_result():
            _models.print_known()
    return 0


@app.command()
def check(
    *,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    emulator: WithEmulator = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send the requests without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Compare a service with what this package assumes about it.

    The client and the emulator are built on assumptions about limits, errors and their messages, fields and numbers. Each
    one is tested against the service and printed with what was expected, what was seen, and whether it holds.

    It first says how many requests this takes and the most tokens they can cost, and asks before sending them. --emulator
    is a dry run that costs nothing. The exit status is 0 only if every assumption holds.

    \b
    Examples:
      pinecone-embed check --emulator
      pinecone-embed check --yes --json
    """  # noqa: D301 - \b is typer's mark for lines to keep
    from pinecone_embed_async.cli import _check

    settings = Settings(model=_DEFAULT_MODEL, base_url=base_url, allow_http=allow_http, emulator=emulator)
    check_service(settings)
    # Checks the address and the key.
    unconnected(settings)
    with writing_result():
        return _check.check(settings, is_agreed=yes, as_json=as_json)


@app.command()
def demo(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.")] = DEFAULT_QUERY,
    *,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many docstrings to print.")] = 5,
    model: Model = _DEFAULT_MODEL,
    concurrency: Concurrency = None,
    quiet: Quiet = False,
) -> int:
    """Embed real text and answer a query.

    The text is the docstrings of Python's standard library; the answer is those nearest to the query.

    It uses a local emulator: no account, no key, no network. Its vectors know words and parts of words, not their meaning.
    """
    from pinecone_embed_async.cli import _demo

    return _demo.run_demo(query, top=top, settings=Settings(model=model, concurrency=concurrency, quiet=quiet))


@app.command("emulator")
def serve_emulator(
    *,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for a free one.")] = 0,
    latency: Annotated[float, typer.Option("--latency", min=0, metavar="SECONDS", help="Delay of every answer.")] = 0.0,
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
            help="Inject a fault into a share of the requests, such as status=503:0.1 for a tenth; may be repeated.",
        ),
    ] = None,
) -> int:
    """Serve a local emulator until Ctrl-C.

    It answers /embed and /models like the real service, and prints two `export` commands that point clients at it.
    """
    from pinecone_embed_async.cli import _serve
    from pinecone_embed_async.emulator import Emulator, ServiceQuota, parse_fault

    check_seconds(window, "--window")
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
    # A server that runs for weeks must not keep every text in memory.
    emulator = Emulator(host=host, port=port, latency=latency, quota=quota, reject=rule, faults=faults, record_texts=False)
    try:
        return _serve.serve(emulator)
    except OSError as error:
        print_error(f"cannot listen on {host} port {port}: {error.strerror or error}")
        return 1
