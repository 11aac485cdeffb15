"""Checks the rows of a source before anything is sent: finds rows that cannot be embedded, and repeated ids. Does no I/O."""

from collections.abc import Iterable, Iterator

from pinecone_embed_async._jobs._duplicates import TextDigests
from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._sources import BadRow, Row

_NAMED = 10


class RowCheck:
    """Checks the rows of an input as they are read; each id takes 16 bytes of memory.

    Args:
        has_ids: Whether the rows have ids of their own, which may repeat.
        earlier_ids: Ids of the rows already in the output.

    Attributes:
        rows: How many rows were read.
        bad: How many of them cannot be embedded.
    """

    def __init__(self, *, has_ids: bool = False, earlier_ids: Iterable[str] = ()) -> None:
        self.rows = self.bad = 0
        self._named: list[BadRow] = []
        self._has_ids = has_ids
        self._ids = TextDigests()
        for row_id in earlier_ids:
            self._ids.add(row_id)
        self._repeated_before = self._ids.repeated()

    def embeddable(self, rows: Iterable[Row | BadRow]) -> Iterator[Row]:
        """Yield the rows that can be embedded."""
        for row in rows:
            self.rows += 1
            if isinstance(row, BadRow):
                self.bad += 1
                if len(self._named) < _NAMED:
                    self._named.append(row)
                continue
            if self._has_ids:
                self._ids.add(row.id)
            yield row

    def warnings(self, *, skip_bad_rows: bool, unique_ids: bool) -> list[str]:
        """Return the warnings for the input, one sentence each; call it once all rows are read.

        Args:
            skip_bad_rows: Whether rows that cannot be embedded are left out instead of being an error.
            unique_ids: Whether repeated ids are an error.

        Raises:
            SourceError: There are rows that cannot be embedded and are not left out, or repeated ids although they must be
                unique.
        """
        if self.bad and not skip_bad_rows:
            raise SourceError(self._refusal())
        repeated = self._ids.repeated() - self._repeated_before
        if not repeated:
            return []
        told = f"{repeated:,} {'row has' if repeated == 1 else 'rows have'} the id of an earlier row"
        if unique_ids:
            raise SourceError(f"{told}, and --unique-ids was given")
        return [f"{told}; --unique-ids makes this an error"]

    def _refusal(self) -> str:
        cure = "--on-bad-row skip leaves such rows out"
        if self.bad == 1:
            return f"{self._named[0]}; {cure}"
        more = f"; and {self.bad - len(self._named):,} more" if self.bad > len(self._named) else ""
        return f"{self.bad:,} rows cannot be embedded: {'; '.join(map(str, self._named))}{more}; {cure}"
