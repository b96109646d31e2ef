"""One process compiles a kernel while the others that want the same one wait for it.

Processes that start together with an empty cache want the same kernels at the same moment. Whoever has a kernel's turn
compiles it; the others wait, and then find its file. So eight processes take the processor time of one, and a little.

A turn is a saving, and nothing depends on it: where there are no locks (on Windows, in a folder that cannot be written,
on a file system that has none), and where one is held for too long (by a process that was halted), each compiles for
itself, and what is written is the same.

A kernel's turn is the lock of one byte of a file in the cache's folder, at a place that follows from the kernel's key;
the file itself stays empty. The system lets go of a process's locks when it ends, however it ends, so a killed process
is in nobody's way. A kernel never calls one that calls it, so two processes never wait for each other.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = "turns"
LONGEST_SECONDS = 60.0  # a kernel compiles in 2 s, on a busy machine in some more
SHORTEST_NAP, LONGEST_NAP = 0.005, 0.05  # seconds between two looks at whether a turn is free
PLACES = 1 << 62  # of a lock; two keys of one place would wait for each other, no more


class Turns:
    """The turns of the kernels of one folder, as this process takes them.

    Args:
        folder: of the kernels' files.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._descriptor: int | None = None  # stays open: to close it would end all turns of this process

    def begin(self, key: str, on_wait: Callable[[], object] = lambda: None, longest: float = LONGEST_SECONDS) -> None:
        """Take the turn of a kernel, as soon as no other process has it; or go on without.

        Args:
            key: of the kernel, hexadecimal.
            on_wait: called once if another process has it.
            longest: how long to wait, seconds.
        """
        end, nap = time.monotonic() + longest, SHORTEST_NAP
        if self._take(key):
            return
        on_wait()
        while time.monotonic() < end and not self._take(key):
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)

    def end(self, key: str) -> None:
        """Let another process have the turn; nothing if this one has not."""
        if fcntl is not None and self._descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, int(key, 16) % PLACES)

    def _take(self, key: str) -> bool:
        """False if another process has the turn; True if this one has it now, or nobody can."""
        if fcntl is None:
            return True
        try:
            if self._descriptor is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(key, 16) % PLACES)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as systems differ
            return self._descriptor is None
        except OSError:
            return True
        return True


@cache  # one a folder: see `Turns`
def turns_of(folder: Path) -> Turns:
    """The turns of the kernels of a folder."""
    return Turns(folder)
