"""Tables, in plain text for the terminal and in Markdown for the docs. Plain functions of what they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Table:
    """Rows of cells that are written already.

    Attributes:
        caption: Above it.
        header: Of the columns.
        rows: As many cells each as the header has.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def plain(self) -> str:
        """Return it for a terminal: the first column to the left, the others to the right."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [self.caption]
        for cells in (self.header, *self.rows):
            first, *others = (
                cell.ljust(width) if not place else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            lines.append("  ".join((first, *others)).rstrip())
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return it for the docs."""
        lines = [f"{self.caption}:", ""]
        for place, cells in enumerate((self.header, *self.rows)):
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
            if not place:
                lines.append("|---" * len(cells) + "|")
        return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    """Write a number with thousands separated; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """Write the lowest and the highest of some values."""
    return f"{min(values):,.0f}–{max(values):,.0f}"
