"""What a process holds in memory, while it runs and at its most. Linux: it is read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Memory:
    """Megabytes that a process holds: in all; of its own and nowhere else; of mapped files; its peak so far."""

    rss: float = 0.0
    anonymous: float = 0.0
    file: float = 0.0
    peak: float = 0.0


@dataclass(frozen=True)
class Shares:
    """Megabytes: what a process alone holds, and its fair part of what it shares with others as well."""

    private: float = 0.0
    proportional: float = 0.0


def _megabytes(path: str) -> dict[str, float]:
    """The sizes of a file of /proc by their names; none if the process is gone."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1024 for name, _, value in pairs}


def memory_of(pid: int) -> Memory:
    """What a process holds now; zeros if it is gone."""
    found = _megabytes(f"/proc/{pid}/status")
    return Memory(*(found.get(name, 0.0) for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM")))


def shares_of(pid: int) -> Shares:
    """What is shared with other processes, and what not."""
    found = _megabytes(f"/proc/{pid}/smaps_rollup")
    private = found.get("Private_Clean", 0.0) + found.get("Private_Dirty", 0.0)
    return Shares(private, found.get("Pss", 0.0))


def charlm(*arguments: str) -> list[str]:
    """A command line of this tree's charlm."""
    return [sys.executable, "-m", "charlm", *arguments]


def environment(**own: str) -> dict[str, str]:
    """That of a charlm process: this tree's package, whatever is installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **own}


class Watched:
    """A charlm command, looked at while it runs.

    Args:
        arguments: of charlm.
        folder: where it runs; what it says on stderr is the file ``messages`` there.
        options: of ``subprocess.Popen``.

    Attributes:
        process: it.
        most: the peak of each number of `Memory`.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, **options: Any) -> None:
        self._messages = folder / "messages"
        self.most = Memory()
        with open(self._messages, "wb") as messages:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                charlm(*arguments), cwd=folder, env=environment(), stderr=messages, **options
            )
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            now, most = self.memory(), self.most
            pairs = zip(vars(most).values(), vars(now).values(), strict=True)
            self.most = Memory(*(max(pair) for pair in pairs))

    def memory(self) -> Memory:
        """What it holds now."""
        return memory_of(self.process.pid)

    @property
    def stdin(self) -> IO[bytes]:
        """Its input, if it is a pipe."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Its output, if it is a pipe."""
        assert self.process.stdout is not None
        return self.process.stdout

    def finish(self) -> str:
        """Wait for its end; its messages.

        Raises:
            SystemExit: it failed.
        """
        code = self.process.wait()
        self._ended.set()
        self._watcher.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        messages = self._messages.read_text()
        if code:
            raise SystemExit(f"exit code {code}\n{messages}")
        return messages
