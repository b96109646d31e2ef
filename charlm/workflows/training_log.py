"""`--log`: a line of JSON for each event of a training.

A disk that refuses lines does not end the training: they wait in memory. A training that was killed has written lines
that the state knows nothing of; when it is resumed they are cut off, for they will be written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from charlm.errors import UnwritableError

BEGINNING = b'{"event": '  # of every line


class TrainingLog:
    """A log, or one that goes nowhere; opened for each line, so that it may be moved away or removed meanwhile.

    Args:
        path: the file; None for no log.
        tell: takes a line for the user.
        resumed: append to what is there, rather than begin anew.
        last: the last line that the resumed state knows of, if any.

    Attributes:
        last: the last line that was written, or waits to be; None if there is no log, or nothing in it.

    Raises:
        UnwritableError: the file cannot be opened.
    """

    def __init__(self, path: str | None, tell: Callable[[str], None], *, resumed: bool, last: Any = None) -> None:
        self.path, self.last = path, last if path else None
        self._tell = tell
        self._waiting = bytearray()
        self._problem = ""
        if path is None:
            return
        try:
            if resumed:
                _cut_back(path, last)
            else:
                open(path, "wb").close()
        except OSError as error:
            raise UnwritableError(path, f"cannot be written ({error.strerror})", "choose another --log") from None

    def write(self, line: dict[str, Any]) -> None:
        """Write a line, or let it wait for the next if the disk refuses."""
        if self.path is None:
            return
        self.last = line
        self._waiting += json.dumps(line).encode() + b"\n"
        problem = self._flush()
        if problem != self._problem:
            self._tell(f"{self.path}: " + (f"{problem}; the training goes on" if problem else "is written again"))
        self._problem = problem

    def close(self) -> None:
        """The end; what could not be written is lost, and told."""
        if self.path is None:
            return
        problem = self._flush()
        if problem:
            lines = self._waiting.count(b"\n")
            self._tell(f"{self.path}: {problem}; lost {'is its last line' if lines == 1 else f'are {lines:,} lines'}")

    def _flush(self) -> str:
        """Write all that waits; what is wrong if it cannot be."""
        if not self._waiting:
            return ""
        assert self.path is not None
        try:
            with open(self.path, "ab", buffering=0) as file:  # not buffered: what a failed write has left is known
                while self._waiting:
                    del self._waiting[: file.write(self._waiting)]
        except OSError as error:
            return f"cannot be written ({error.strerror})"
        return ""


def may_be_log(path: str, *, resumed: bool) -> bool:
    """Whether nothing but a log is lost if a log is written to a file: it is new, empty, or begins like one.

    Args:
        resumed: lines are only appended, and somebody may have put others before them; but no binary file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError:
        return True  # what is wrong is told where it is opened to be written
    return b"\0" not in start and (resumed or not start or start.startswith(BEGINNING))


def _cut_back(path: str, last: Any) -> None:
    """Cut off what a killed training wrote after the line that its state knows of, and a line cut short."""
    if not os.path.exists(path):
        return
    with open(path, "r+b") as file:
        data = file.read()
        known = f"{json.dumps(last)}\n".encode()
        place = data.rfind(known) if last is not None else -1
        end = len(data) if place < 0 else place + len(known)
        # Only lines of a log are cut off: whatever else someone has appended stays.
        if not all(line.startswith(BEGINNING) for line in data[end:].splitlines()):
            end = len(data)
        whole = data.rfind(b"\n", 0, end) + 1
        if whole < end and data.startswith(BEGINNING[: end - whole], whole):
            end = whole
        file.truncate(end)
        if end and not data.endswith(b"\n", 0, end):
            file.seek(end)
            file.write(b"\n")
