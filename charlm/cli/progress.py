"""What the commands tell on stderr while a user waits."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import click

from charlm.cli.output import is_terminal, say

LEFT_FREE = 3  # columns at the end of a live line: in the last ones a terminal shows ^C, and would begin a new line


def bar_shape(stream: Any) -> tuple[int, int]:
    """Columns and lines for a bar of tqdm's, as its ``dynamic_ncols``."""
    columns, lines = shutil.get_terminal_size()
    return max(1, columns - LEFT_FREE), lines


def new_bar(*, hidden: bool = False, delay: float = 1, **options: Any) -> Any:
    """A bar of tqdm's on stderr, if that is a terminal; else, or ``hidden``, one that shows nothing."""
    from tqdm import tqdm

    return tqdm(leave=False, delay=delay, disable=hidden or not is_terminal(sys.stderr), **options)


@lru_cache(maxsize=1)  # once a process
def announce_compilation(*, live: bool = True) -> None:
    """From now on, say so on stderr when kernels are compiled, which takes a while and looks like a hang.

    Args:
        live: on a terminal, also show which and how many, in a line that vanishes. Not where a line of results may be
            unfinished on the same terminal.
    """
    from charlm.engine.jit import CACHE_FOLDER, kernel_count, on_compilation
    from charlm.engine.kernel_cache import keeps, remark

    is_live = live and is_terminal(sys.stderr)
    often = "once" if keeps(CACHE_FOLDER) else "each time"
    announcement = Announcement(often, remark(CACHE_FOLDER), kernel_count if is_live else None)
    on_compilation(announcement.begin, announcement.end)


class Announcement:
    """One line when the first kernel is compiled, and a live one below it.

    Args:
        often: whether once or each time.
        remark: why, or where they are kept, if that needs a word.
        kernel_count: how many kernels there may be; None for no live line.
    """

    def __init__(self, often: str, remark: str, kernel_count: Callable[[], int] | None) -> None:
        self._often, self._remark, self._kernel_count = often, remark and f" ({remark})", kernel_count
        self._names: set[str] = set()
        self._begun = 0.0  # of this group of kernels
        self._seconds = 0.0  # of all groups before
        self._is_shown = False

    def begin(self, name: str) -> None:
        """The kernel of this name is about to be compiled."""
        with contextlib.suppress(OSError):  # nobody listens: no reason to stop
            if not self._names:
                say(f"compiling kernels for this processor: {self._often}, about 10 s{self._remark} ...")
            self._names.add(name)
            self._begun = self._begun or time.monotonic()
            if self._kernel_count is not None:
                seconds = self._seconds + time.monotonic() - self._begun
                self._show(f"  {len(self._names)} of at most {self._kernel_count()}, {seconds:.0f} s: {name}")

    def end(self) -> None:
        """Nothing is being compiled now."""
        if self._begun:
            self._seconds += time.monotonic() - self._begun
            self._begun = 0.0
        with contextlib.suppress(OSError):
            self._show("")

    def _show(self, line: str) -> None:
        """Replace what stands in the terminal's line, a bar perhaps; by nothing if ``line`` is empty."""
        if line or self._is_shown:
            width = shutil.get_terminal_size().columns - LEFT_FREE
            click.echo(f"\r{line[:width]:{width}}" + ("" if line else "\r"), err=True, nl=False)
        self._is_shown = bool(line)
