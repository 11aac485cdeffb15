"""Tables, as plain text for the terminal and as Markdown for the docs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Table:
    """Rows of formatted cells.

    Attributes:
        caption: Caption above the table.
        header: Names of the columns.
        rows: Rows with as many cells as the header.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def plain(self) -> str:
        """Format it for a terminal: the first column left-aligned, the others right-aligned."""
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
        """Format it for the docs."""
        lines = [f"{self.caption}:", ""]
        for place, cells in enumerate((self.header, *self.rows)):
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
            if not place:
                lines.append("|---" * len(cells) + "|")
        return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    """Format a number with thousands separators; `None` as a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """Format the lowest and the highest of some values."""
    return f"{min(values):,.0f}–{max(values):,.0f}"
