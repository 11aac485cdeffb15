"""The states of a job's rows: which are done, which failed, and which this run embeds. Pure: no files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt
from msgspec.structs import replace

from pinecone_embed_async._errors import DeadlineExceededError, EmbedError
from pinecone_embed_async._jobs._duplicates import Copies, TextDigests
from pinecone_embed_async._jobs._errors import JobChangedError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, differences, input_differences, is_piped
from pinecone_embed_async._jobs._folder import Portion
from pinecone_embed_async._jobs._rowset import RowSet
from pinecone_embed_async._planning import ends_job

_NAMED = 3


def is_about_rows(error: EmbedError) -> bool:
    """Whether rows with this error count as failed; otherwise the next run tries them again like any missing row."""
    # An error of the whole job says nothing about the rows, so they count as not tried.
    return not ends_job(error) and not isinstance(error, DeadlineExceededError)


@dataclass(frozen=True, slots=True)
class Counts:
    """Row counts of a portion of a job.

    Attributes:
        done: Rows embedded and on the disk, including those of earlier runs.
        failed: Rows that failed.
        total: Rows of the input; `None` until that is known.
        skipped: Rows that cannot be embedded and were left out.
    """

    done: int
    failed: int
    total: int | None
    skipped: int = 0

    @property
    def missing(self) -> int | None:
        """Rows in none of these states; `None` until the total is known."""
        return None if self.total is None else self.total - self.done - self.failed - self.skipped


def may_grow(portion: Portion, skipped: RowSet) -> bool:
    """Whether rows added at the end of a portion's input leave its last row as it is.

    Args:
        portion: The portion.
        skipped: The rows that are left out.
    """
    # In a CSV file, a row that cannot be read may go on after a line end.
    is_csv = portion.fingerprint.inputs[-1].format.startswith(("csv", "tsv"))
    return not is_csv or portion.rows is None or portion.first_row + portion.rows - 1 not in skipped


def occupied(portions: Sequence[Portion], rows: RowSet) -> tuple[Portion, ...]:
    """Return the portions up to the last one with a row; the job drops later ones, of which nothing was done.

    Args:
        portions: The output's portions.
        rows: The rows that are embedded, failed or skipped.
    """
    stop = rows.stop()
    return tuple(portion for portion in portions if portion.first_row < stop)


def choose_portion(
    portions: Sequence[Portion], now: Fingerprint, *, append: bool, grown: bool = False, held: Sequence[str] = ()
) -> tuple[tuple[Portion, ...], int]:
    """Decide which portion of an output this run resumes, or that it starts a new one.

    Args:
        portions: The output's portions.
        now: The run's fingerprint.
        append: Whether another input may be added to the existing ones.
        grown: Whether the input is that of the last portion with rows added at its end.
        held: The files of the input that the output holds already, or the beginnings of which it holds; a phrase each.

    Returns:
        All portions, including a new one, and the position of this run's portion.

    Raises:
        JobChangedError: The output belongs to another job, or its earlier input has not been read to the end.
    """
    if not portions:
        return (Portion(now, 0),), 0
    changes = differences(portions[-1].fingerprint, now)
    same = _same_as(portions, now, append=append)
    if not changes and same:
        place = next((place for place in same if portions[place].rows is None), same[-1])
        # The files may have been moved or touched; saving the new stamps avoids reading them next time.
        resumed = replace(portions[place], fingerprint=now)
        return (*portions[:place], resumed, *portions[place + 1 :]), place
    last = portions[-1]
    if not append:
        raise JobChangedError(_refusal(last, now, changes, has_same=bool(same), grown=grown and not changes, held=held))
    if changes:
        raise JobChangedError(f"--append adds rows of another input, but other settings changed too: {'; '.join(changes)}")
    if grown:
        return (*portions[:-1], replace(last, fingerprint=now, rows=None)), len(portions) - 1
    if held:
        raise JobChangedError(f"--append would add rows again: {_shown(held)}")
    if last.rows is None:
        raise JobChangedError(
            "its earlier input has not been read to the end; finish that first, with the same command without --append"
        )
    if any(each.digest is None for each in last.fingerprint.inputs) and any(is_piped(each) for each in now.inputs):
        raise JobChangedError(
            "the content of its earlier standard input is not known, so this may be the same input again; "
            "save this input to a file and --append that"
        )
    return (*portions, Portion(now, last.first_row + last.rows)), len(portions)


def _same_as(portions: Sequence[Portion], now: Fingerprint, *, append: bool) -> list[int]:
    same = [place for place, each in enumerate(portions) if not input_differences(each.fingerprint, now, exactly=True)]
    piped = [portion for portion in portions if any(is_piped(each) for each in portion.fingerprint.inputs)]
    if same or append or len(piped) != 1:
        return same
    # Standard input of unknown content can only be that of this portion.
    return [place for place, each in enumerate(portions) if not input_differences(each.fingerprint, now)]


def _shown(held: Sequence[str]) -> str:
    more = f"; and {len(held) - _NAMED:,} more" if len(held) > _NAMED else ""
    return f"{'; '.join(held[:_NAMED])}{more}. --append takes new files only, and new rows in a file of their own"


def _refusal(
    last: Portion, now: Fingerprint, changes: list[str], *, has_same: bool, grown: bool, held: Sequence[str]
) -> str:
    if grown:
        done = "" if last.rows is None else f"its first {last.rows:,} rows are this job's; "
        return f"the input {now.inputs[-1].name} has grown: {done}--append adds only the new rows"
    changes += [] if has_same else input_differences(last.fingerprint, now, exactly=True)
    told = f"it belongs to another job; what changed: {'; '.join(changes)}. --overwrite starts over"
    if has_same:
        return told
    return f"{told}; {_shown(held)}" if held else f"{told}, --append adds the rows of the new input"


class JobLedger:
    """The done and failed rows of one portion, and which rows this run sends.

    One thread writes; others may call `is_wanted` meanwhile, since the rows to send are fixed when the run begins.

    Args:
        portion: The portion.
        done: The rows of the whole output that are embedded.
        failed: The rows of the whole output that failed and are not done.
        skipped: The rows of the whole output that cannot be embedded and were left out.
        retry_failures: Whether this run embeds only the failed rows.
    """

    def __init__(
        self, portion: Portion, done: RowSet, failed: RowSet, skipped: RowSet | None = None, *, retry_failures: bool = False
    ) -> None:
        self.portion = portion
        self.done = done
        self._failed = failed
        self._skipped = skipped or RowSet()
        self._retried = failed.copy() if retry_failures else None
        self._left_out = done.copy()
        self._left_out.update(failed)
        self._stop_of_retried = failed.stop()
        self._done_count = self._count(done)
        self._failed_count = self._count(failed)
        self._skipped_count = self._count(self._skipped)

    def _count(self, rows: RowSet) -> int:
        first = self.portion.first_row
        return rows.count_between(first, rows.stop() if self.portion.rows is None else first + self.portion.rows)

    def is_wanted(self, row: int) -> bool:
        """Whether this run sends the row."""
        return row not in self._left_out if self._retried is None else row in self._retried

    def choose_copies(self, digests: TextDigests) -> Copies:
        """Find the rows that need not be sent because another has the same text, and mark them as not wanted.

        Args:
            digests: Digests of all rows of the portion.
        """
        first = self.portion.first_row
        done, failed = (rows.mask(first, first + len(digests)) for rows in (self.done, self._failed))
        wanted = failed if self._retried is not None else ~(done | failed)
        copies = digests.copies(first, done=done, failed=failed & ~wanted, wanted=wanted)
        if self._retried is None:
            self._left_out.add(copies.rows)
        else:
            self._retried.discard(copies.rows)
        return copies

    def is_behind_all_wanted(self, row: int) -> bool:
        """Whether no row from this one on is wanted."""
        return self._retried is not None and row >= self._stop_of_retried

    def note_embedded(self, rows: npt.ArrayLike) -> None:
        """Record rows that are embedded and on the disk."""
        self._done_count += self.done.add(rows)
        self._failed_count -= self._failed.discard(rows)
        self._skipped_count -= self._skipped.discard(rows)

    def note_failed(self, rows: npt.ArrayLike) -> None:
        """Record rows that failed."""
        self._failed_count += self._failed.add(rows)
        self._skipped_count -= self._skipped.discard(rows)

    def note_skipped(self, rows: npt.ArrayLike) -> None:
        """Record rows that cannot be embedded and are left out."""
        self._skipped_count += self._skipped.add(rows)
        self._failed_count -= self._failed.discard(rows)

    def must_be_skipped(self, row: int) -> bool:
        """Whether a row that cannot be embedded is neither embedded nor left out before."""
        return row not in self.done and row not in self._skipped

    def note_end(self, stop: int, digest: str | None = None, size: int | None = None) -> None:
        """Record that the input ends before the row `stop`.

        Args:
            stop: The number after the last row.
            digest: The digest of standard input, if that was the input.
            size: Its bytes.
        """
        print_ = self.portion.fingerprint
        if digest is not None:
            inputs = tuple(
                replace(each, digest=digest, size=size) if each.digest is None else each for each in print_.inputs
            )
            print_ = replace(print_, inputs=inputs)
        self.portion = replace(self.portion, rows=stop - self.portion.first_row, fingerprint=print_)

    def counts(self) -> Counts:
        """The row counts of the portion."""
        return Counts(self._done_count, self._failed_count, self.portion.rows, self._skipped_count)

    @property
    def is_settled(self) -> bool:
        """Whether this run has nothing to embed."""
        counts = self.counts()
        return not counts.failed if self._retried is not None else counts.missing == 0
