"""`pinecone-embed embed` into a folder: a resumable job with its progress and closing summary."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pinecone_embed_async import DeadlineExceededError, EmbedClient, EmbeddedBatch, EmbedError, Statistics, Usage
from pinecone_embed_async._jobs._errors import JobError, OutputError, TokensSpentError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, InputPrint, take_fingerprint
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._job import Job, JobProgress, embedded_rows
from pinecone_embed_async._jobs._opening import Options, open_job
from pinecone_embed_async._jobs._sources import Columns, Row
from pinecone_embed_async._jobs._table import Embeddings
from pinecone_embed_async.cli._connection import Settings, check_apart, connected, service_named
from pinecone_embed_async.cli._figures import Advance, counted, pace, priced, waited, with_quota
from pinecone_embed_async.cli._output import print_error, print_event, print_line, without_key
from pinecone_embed_async.cli._progress import Display, QuietDisplay, showing, standard_display
from pinecone_embed_async.cli._signals import Stopped, run_until_stopped, status_of_stop
from pinecone_embed_async.cli._statuses import ExitStatus, status_of
from pinecone_embed_async.cli._warnings import LibraryWarnings, library_warnings

_EVENT_INTERVAL = 1.0
_SIGNALS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Settings of a job.

    Attributes:
        columns: The fields taken from each record.
        options: What to do with the folder's job.
        events: Whether progress goes to standard output as JSON lines.
        warnings: Warnings to give before the job begins, one sentence each.
    """

    columns: Columns
    options: Options
    events: bool = False
    warnings: Sequence[str] = ()


def embed_to_folder(files: Sequence[InputFile], *, out: Path, job: JobSettings, settings: Settings) -> int:
    """Embed the rows of `files` into the folder `out`, continuing where an earlier run ended.

    Returns:
        The exit status; docs/command-line.md lists them.

    Raises:
        EmbedError: The job could not start; no row was sent.
    """
    check_apart(settings, files, [out])
    output = _Events() if job.events else _Lines(quiet=settings.quiet, price=settings.price)

    def fingerprint(given: Sequence[InputFile], known: Iterable[InputPrint]) -> Fingerprint:
        service, api_version = service_named(settings)
        return take_fingerprint(
            given,
            job.columns,
            service=service,
            api_version=api_version,
            model=settings.model,
            parameters=settings.parameters,
            known=known,
            layout=job.options.layout,
        )

    def check_service() -> Usage:
        return run_until_stopped(_embed_a_word(settings))

    for message in job.warnings:
        output.warn(message)
    again = "without --overwrite" if job.options.overwrite else "again"
    with (
        library_warnings(output.warn) as warnings,
        open_job(out, files, job.columns, fingerprint, job.options, check_service) as opened,
    ):
        return _Run(opened, out, settings, output, warnings, again).carry_out()


async def _embed_a_word(settings: Settings) -> Usage:
    async with _limited(settings.timeout), connected(settings) as client:
        usage: Usage = (await client.embed(["word"])).usage
        return usage


@contextlib.asynccontextmanager
async def _limited(seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        # A `TimeoutError` of the operating system does not reach this point: the client wraps it.
        if not limit.expired():
            raise
        raise DeadlineExceededError("the time limit of --timeout has passed") from None


class _Run:
    """One run of an open job."""

    def __init__(
        self, job: Job, out: Path, settings: Settings, output: "_Lines | _Events", warnings: LibraryWarnings, again: str
    ) -> None:
        self._job = job
        self._out = out
        self._settings = settings
        self._output = output
        self._warnings = warnings
        self._again = again
        self._client: EmbedClient[Any] | None = None
        self._before = self._advance(job.progress())
        self._started = time.perf_counter()

    def _advance(self, progress: JobProgress) -> Advance:
        counts, statistics = progress.counts, self._statistics()
        return Advance(
            counts.done,
            counts.failed,
            counts.total,
            duplicates=progress.duplicates,
            requests=progress.requests,
            tokens=progress.tokens,
            retries=0 if statistics is None else statistics.retries,
            skipped=counts.skipped,
        )

    def _with_quota(self, advance: Advance) -> Advance:
        return with_quota(advance, self._statistics())

    def _statistics(self) -> Statistics | None:
        return None if self._client is None else self._client.statistics()

    def carry_out(self) -> int:
        """Run the job, report how it ended, and return the exit status."""
        self._warn()
        self._output.start(self._out, self._before)
        try:
            run_until_stopped(self._embed())
        except (Stopped, KeyboardInterrupt) as stop:
            return self._end(status_of_stop(stop), self._kept("stopped"))
        except TokensSpentError as error:
            return self._end(status_of(error), self._kept(error))
        except JobError as error:
            return self._end(status_of(error), self._kept(error, fix=True))
        except EmbedError as error:
            status = status_of(error)
            return self._end(status, self._kept(error, fix=status is ExitStatus.NOTHING_POSSIBLE))
        except Exception as error:  # noqa: BLE001 - a person gets one line, and a program its end event
            return self._end(status_of(error), self._kept(f"unexpected {type(error).__name__}: {error}", fix=True))
        return self._end(*self._outcome())

    def _kept(self, cause: object, *, fix: bool = False) -> str:
        first = "fix this and " if fix else ""
        return f"{cause}; finished rows are kept; {first}run the same command {self._again} to continue"

    def _outcome(self) -> tuple[int, str | None]:
        counts = self._job.progress().counts
        if counts.failed:
            where = self._out / "_failures.jsonl"
            told = f"{counted(counts.failed, 'row')} failed, see {where}; --retry-failures retries only those"
            return ExitStatus.FAILED, told
        if counts.missing:
            told = f"{counted(counts.missing, 'row')} of the input are not embedded yet"
            return ExitStatus.FAILED, f"{told}; the same command without --retry-failures embeds them"
        return ExitStatus.DONE, None

    def _warn(self) -> None:
        for warning in (*self._job.take_warnings(), *self._warnings.take()):
            self._output.warn(warning)

    def _end(self, status: int, message: str | None) -> int:
        self._warn()
        now = self._with_quota(self._advance(self._job.progress()))
        self._output.end(status, message, (self._before, now), time.perf_counter() - self._started)
        if message is not None and not (status > _SIGNALS and self._settings.quiet):
            print_error(message)
        return int(status)

    async def _embed(self) -> None:
        display = self._output.display(self._before)
        with showing(display, self._before, self._with_quota, self._warnings.take) as reporter:
            self._started = time.perf_counter()
            async with _limited(self._settings.timeout):
                await self._job.run(self._stream, lambda progress: reporter(self._advance(progress)))

    @contextlib.asynccontextmanager
    async def _stream(self, rows: Iterable[Row]) -> AsyncIterator[AsyncIterator[EmbeddedBatch[Row, Embeddings]]]:
        async with connected(self._settings) as self._client, embedded_rows(self._client, rows) as batches:
            yield batches


class _Lines:
    """Output for a person: a bar or lines on standard error, and a closing line."""

    def __init__(self, *, quiet: bool, price: float | None) -> None:
        self._quiet = quiet
        self._price = price

    def start(self, _out: Path, before: Advance) -> None:
        if before.done and not self._quiet:
            total = "" if before.total is None else f" of {before.total:,}"
            print_line(f"{before.done:,}{total} rows are already done")
        if before.duplicates and not self._quiet:
            print_line(f"{before.duplicates:,} rows will not be sent, because others have the same texts")

    def warn(self, message: str) -> None:
        print_error(message)

    def display(self, before: Advance) -> Display:
        return QuietDisplay() if self._quiet else standard_display(before)

    def end(self, _status: int, _message: str | None, advances: tuple[Advance, Advance], seconds: float) -> None:
        if self._quiet:
            return
        before, now = advances
        total = "" if now.total is None else f" of {now.total:,}"
        skipped = f", {now.skipped:,} skipped" if now.skipped else ""
        copied = before.duplicates - now.duplicates
        copies = f", {copied:,} as copies" if before.duplicates else ""
        print_line(
            f"{now.done:,}{total} rows embedded, {now.done - before.done:,} of them in this run{copies}; "
            f"{now.failed:,} failed{skipped}; {counted(now.requests, 'request')}, {counted(now.tokens, 'token')}, "
            f"{counted(now.retries, 'retry', 'retries')}, {seconds:.1f} s{waited(now.waited)}, "
            f"{pace(before, now, seconds).inputs:,.0f} inputs/s{priced(now.tokens, self._price)}"
        )


class _Events:
    """Output for a program: JSON objects on standard output, one per line, each with an `event`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def start(self, out: Path, before: Advance) -> None:
        self._print(
            "start",
            output=str(out),
            done=before.done,
            failed=before.failed,
            total=before.total,
            duplicates=before.duplicates,
        )

    def warn(self, message: str) -> None:
        self._print("warning", message=without_key(message))

    def display(self, before: Advance) -> Display:
        return _EventDisplay(self, before)

    def advance(self, event: str, before: Advance, now: Advance, elapsed: float, **more: Any) -> None:
        """Report the job's progress."""
        speed = pace(before, now, elapsed)
        self._print(
            event,
            **asdict(now),
            inputs_per_second=round(speed.inputs, 1),
            tokens_per_minute=round(speed.tokens),
            seconds_left=None if speed.left is None else round(speed.left, 1),
            **more,
        )

    def end(self, status: int, message: str | None, advances: tuple[Advance, Advance], seconds: float) -> None:
        before, now = advances
        told = None if message is None else without_key(message)
        self.advance("end", before, now, seconds, seconds=round(seconds, 3), status=int(status), message=told)

    def _print(self, event: str, **fields: Any) -> None:
        # Progress events come from a thread of their own.
        with self._lock:
            try:
                print_event(event, **fields)
            except BrokenPipeError:
                # No error: the reader has what it wanted.
                pass
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                number = getattr(error, "errno", None)
                raise OutputError(f"standard output cannot be written: {reason}", errno=number) from None


class _EventDisplay:
    interval = _EVENT_INTERVAL

    def __init__(self, events: _Events, before: Advance) -> None:
        self._events = events
        self._before = before
        self._started = time.monotonic()

    def show(self, progress: Advance) -> None:
        self._events.advance("progress", self._before, progress, time.monotonic() - self._started)

    def warn(self, message: str) -> None:
        self._events.warn(message)

    def close(self) -> None: ...
