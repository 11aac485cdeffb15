"""A job's row states: which rows are done, which failed, which this run embeds. Plain decisions, no files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt
from msgspec.structs import replace

from pinecone_embed_async._errors import DeadlineExceededError, EmbedError
from pinecone_embed_async._jobs._duplicates import Copies, TextDigests
from pinecone_embed_async._jobs._errors import JobChangedError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, differences, input_differences
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
    """

    done: int
    failed: int
    total: int | None

    @property
    def missing(self) -> int | None:
        """Rows neither done nor failed; `None` while the total is not known."""
        return None if self.total is None else self.total - self.done - self.failed


def choose_portion(portions: Sequence[Portion], now: Fingerprint, *, append: bool) -> tuple[tuple[Portion, ...], int]:
    """Decide which portion of an output a run resumes, or that it begins another.

    Args:
        portions: The output's portions.
        now: The run's fingerprint.
        append: Whether another input may be added after the existing ones.

    Returns:
        The portions, including a new one, and the position of the run's own.

    Raises:
        JobChangedError: The output belongs to a job of another fingerprint, or its earlier input is not read to the end.
    """
    if not portions:
        return (Portion(now, 0),), 0
    changes = differences(portions[-1].fingerprint, now)
    same = [place for place, each in enumerate(portions) if not input_differences(each.fingerprint, now)]
    if not changes and same:
        place = same[-1]
        # The files may have been moved or touched; the newer stamps save reading them next time.
        return (*portions[:place], replace(portions[place], fingerprint=now), *portions[place + 1 :]), place
    if not append:
        changes += [] if same else input_differences(portions[-1].fingerprint, now)
        raise JobChangedError(
            f"it belongs to another job; what changed: {'; '.join(changes)}. --overwrite begins anew"
            + ("" if same else ", --append adds the rows of the new input")
        )
    if changes:
        raise JobChangedError(f"--append adds rows of another input, but more than that changed: {'; '.join(changes)}")
    last = portions[-1]
    if last.rows is None:
        raise JobChangedError("its earlier input is not read to the end yet; finish that job before adding to it")
    return (*portions, Portion(now, last.first_row + last.rows)), len(portions)


class JobLedger:
    """Which rows of one portion are done and which failed, and which of them a run sends.

    One thread writes; others may read `is_wanted`, for what a run sends is decided when it begins.

    Args:
        portion: The portion.
        done: The rows of the whole output that are embedded.
        failed: The rows of the whole output that failed and are not done.
        retry_failures: Whether this run embeds the failed rows and only those.
    """

    def __init__(self, portion: Portion, done: RowSet, failed: RowSet, *, retry_failures: bool = False) -> None:
        self.portion = portion
        self.done = done
        self._failed = failed
        self._retried = failed.copy() if retry_failures else None
        self._left_out = done.copy()
        self._left_out.update(failed)
        self._stop_of_retried = failed.stop()
        self._done_count = self._count(done)
        self._failed_count = self._count(failed)

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

    def note_end(self, stop: int) -> None:
        """Note that the input ends before the row `stop`."""
        self.portion = replace(self.portion, rows=stop - self.portion.first_row)

    def counts(self) -> Counts:
        """How far the portion has come."""
        return Counts(self._done_count, self._failed_count, self.portion.rows)

    @property
    def is_settled(self) -> bool:
        """Whether this run has nothing to embed."""
        counts = self.counts()
        return not counts.failed if self._retried is not None else counts.missing == 0
