"""A pipe into which somebody writes line after line, for tests of what must not be held back."""

from __future__ import annotations

import io


class Pipe(io.RawIOBase):
    """Gives the same bytes each time it is asked.

    Attributes:
        asked: how often it was.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.asked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.asked += 1
        buffer[: len(self._data)] = self._data
        return len(self._data)
