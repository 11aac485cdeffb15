"""A job's row states: which rows are done, which failed, which this run embeds. Plain decisions, no files."""

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


def is_about_rows(error: EmbedError) -> bool:
    """Whether rows with this error count as failed; otherwise the next run embeds them like any missing row."""
    # An error of the whole job says nothing about the rows: they count as not tried.
    return not ends_job(error) and not isinstance(error, DeadlineExceededError)


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a portion of a job has come.

    Attributes:
        done: Rows embedded, for good, by earlier runs too.
        failed: Rows that failed.
        total: Rows of the input; `None` while that is not known.
        skipped: Rows that cannot be embedded and were left out.
    """

    done: int
    failed: int
    total: int | None
    skipped: int = 0

    @property
    def missing(self) -> int | None:
        """Rows that are none of these; `None` while the total is not known."""
        return None if self.total is None else self.total - self.done - self.failed - self.skipped


def occupied(portions: Sequence[Portion], rows: RowSet) -> tuple[Portion, ...]:
    """The portions up to the last one with a row: what nothing was done of is nobody's.

    Args:
        portions: The output's portions.
        rows: The rows that are embedded or failed.
    """
    stop = rows.stop()
    return tuple(portion for portion in portions if portion.first_row < stop)


def choose_portion(
    portions: Sequence[Portion], now: Fingerprint, *, append: bool, grown: bool = False
) -> tuple[tuple[Portion, ...], int]:
    """Decide which portion of an output a run resumes, or that it begins another.

    Args:
        portions: The output's portions.
        now: The run's fingerprint.
        append: Whether another input may be added after the existing ones.
        grown: Whether the input is that of the last portion and more behind it.

    Returns:
        The portions, including a new one, and the position of the run's own.

    Raises:
        JobChangedError: The output belongs to a job of another fingerprint, or its earlier input is not read to the end.
    """
    if not portions:
        return (Portion(now, 0),), 0
    changes = differences(portions[-1].fingerprint, now)
    # What is to be added must be known to be what was added before.
    same = [place for place, each in enumerate(portions) if not input_differences(each.fingerprint, now, exactly=append)]
    if not changes and same:
        place = next((place for place in same if portions[place].rows is None), same[-1])
        # The files may have been moved or touched; the newer stamps save reading them next time.
        resumed = replace(portions[place], fingerprint=_with_known_digests(now, portions[place].fingerprint))
        return (*portions[:place], resumed, *portions[place + 1 :]), place
    last = portions[-1]
    if not append:
        raise JobChangedError(_refusal(last, now, changes, has_same=bool(same), grown=grown and not changes))
    if changes:
        raise JobChangedError(f"--append adds rows of another input, but more than that changed: {'; '.join(changes)}")
    if grown:
        return (*portions[:-1], replace(last, fingerprint=now, rows=None)), len(portions) - 1
    if last.rows is None:
        raise JobChangedError(
            "its earlier input is not read to the end yet; finish that job before adding to it, by the same command "
            "without --append"
        )
    if any(each.digest is None for each in last.fingerprint.inputs) and any(is_piped(each) for each in now.inputs):
        raise JobChangedError(
            "what of standard input it was made from is not known, so not either whether this is the same again; save this "
            "input to a file and --append that"
        )
    return (*portions, Portion(now, last.first_row + last.rows)), len(portions)


def _with_known_digests(now: Fingerprint, before: Fingerprint) -> Fingerprint:
    pairs = zip(now.inputs, before.inputs, strict=True)
    # Standard input that was read to its end before.
    return replace(now, inputs=tuple(earlier if each.digest is None else each for each, earlier in pairs))


def _refusal(last: Portion, now: Fingerprint, changes: list[str], *, has_same: bool, grown: bool) -> str:
    if grown:
        done = "" if last.rows is None else f"its first {last.rows:,} rows are this job's; "
        return f"the input {now.inputs[-1].name} has grown: {done}--append adds the rows behind them alone"
    changes += [] if has_same else input_differences(last.fingerprint, now)
    return f"it belongs to another job; what changed: {'; '.join(changes)}. --overwrite begins anew" + (
        "" if has_same else ", --append adds the rows of the new input"
    )


class JobLedger:
    """Which rows of one portion are done and which failed, and which of them a run sends.

    One thread writes; others may read `is_wanted`, for what a run sends is decided when it begins.

    Args:
        portion: The portion.
        done: The rows of the whole output that are embedded.
        failed: The rows of the whole output that failed and are not done.
        skipped: The rows of the whole output that cannot be embedded and were left out.
        retry_failures: Whether this run embeds the failed rows and only those.
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
        """Find the rows that need not be sent because another has the same text; they are no longer wanted.

        Args:
            digests: Of all rows of the portion.
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
        """Whether this run embeds no row from this one on."""
        return self._retried is not None and row >= self._stop_of_retried

    def note_embedded(self, rows: npt.ArrayLike) -> None:
        """Note rows that are embedded, for good."""
        self._done_count += self.done.add(rows)
        self._failed_count -= self._failed.discard(rows)

    def note_failed(self, rows: npt.ArrayLike) -> None:
        """Note rows that failed."""
        self._failed_count += self._failed.add(rows)

    def note_skipped(self, rows: npt.ArrayLike) -> None:
        """Note rows that cannot be embedded and are left out."""
        self._skipped_count += self._skipped.add(rows)

    def is_skipped(self, row: int) -> bool:
        """Whether the row is left out already."""
        return row in self._skipped

    def note_end(self, stop: int, digest: str | None = None) -> None:
        """Note that the input ends before the row `stop`.

        Args:
            stop: The number after its last row.
            digest: The digest of standard input, if it was that.
        """
        print_ = self.portion.fingerprint
        if digest is not None:
            inputs = tuple(replace(each, digest=digest) if each.digest is None else each for each in print_.inputs)
            print_ = replace(print_, inputs=inputs)
        self.portion = replace(self.portion, rows=stop - self.portion.first_row, fingerprint=print_)

    def counts(self) -> Counts:
        """How far the portion has come."""
        return Counts(self._done_count, self._failed_count, self.portion.rows, self._skipped_count)

    @property
    def is_settled(self) -> bool:
        """Whether this run has nothing to embed."""
        counts = self.counts()
        return not counts.failed if self._retried is not None else counts.missing == 0
