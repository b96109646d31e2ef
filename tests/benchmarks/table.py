"""Tables in Markdown whose columns also line up on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Columns as (head, width); the first holds names and begins at the left, as does one of width 0."""

    def __init__(self, *columns: tuple[str, int]) -> None:
        self._columns = columns

    def _is_left(self, i: int) -> bool:
        return i == 0 or self._columns[i][1] == 0

    def line(self, texts: Sequence[str]) -> str:
        cells = [
            f"{text:<{width}}" if self._is_left(i) else f"{text:>{width}}"
            for i, (text, (_, width)) in enumerate(zip(texts, self._columns, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    def head(self) -> str:
        rules = ["---" if self._is_left(i) else "--:" for i in range(len(self._columns))]
        return f"{self.line([name for name, _ in self._columns])}\n|{'|'.join(rules)}|"
