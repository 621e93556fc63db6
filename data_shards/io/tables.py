"""A table of text, and how it is written: for a terminal, in Markdown, and as comma-separated values."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text in rows and columns."""

    head: tuple[str, ...]
    """Column titles; all empty where the columns have none."""
    rows: Sequence[tuple[str, ...]]
    """Cells, as many in each row as there are titles."""
    caption: str = ""
    """What the table shows; empty where the text beside it says so."""

    def to_text(self) -> str:
        """Aligned columns for a terminal, without a trailing newline. A head without titles is left out."""
        lines = [self.head, *self.rows] if any(self.head) else list(self.rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*([self.caption] if self.caption else []), *(row.rstrip() for row in rows)])

    def to_markdown(self) -> str:
        """A Markdown table, without a trailing newline; the caption stands above it."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([*([f"*{self.caption}*", ""] if self.caption else []), *rows])

    def to_csv(self) -> str:
        """Comma-separated values, the head first; each line ends with a newline."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.head, *self.rows])
        return text.getvalue()


def plus_minus(value: str, error: str) -> str:
    """A value and its error; on a narrow screen the line may break before the sign, never after it."""
    return f"{value} ±\N{NO-BREAK SPACE}{error}"
