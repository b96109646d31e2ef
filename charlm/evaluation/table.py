"""Columns of text that stand one below another in a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def display_width(text: str) -> int:
    """How many places a text takes up: two for a wide character (East Asian), none for a mark above or below one."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def align(rows: Sequence[Sequence[str]], left: int, gap: int = 2) -> str:
    """Rows as lines, the cells padded to their column's width, no blanks at a line's end.

    Args:
        rows: of as many cells each.
        left: how many columns, from the first, begin below one another; the others end so, as numbers do.
        gap: how many blanks lie between columns.
    """
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            blanks = " " * (width - display_width(cell))
            cells.append(cell + blanks if number < left else blanks + cell)
        lines.append((" " * gap).join(cells).rstrip())
    return "".join(f"{line}\n" for line in lines)
