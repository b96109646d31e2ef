"""Real terminals for tests: what a command shows on one."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from charlm.cli.main import main

ROOT = Path(__file__).parents[1]
SECONDS = 60


@contextlib.contextmanager
def terminal(shown: list[bytes]) -> Iterator[int]:
    """The descriptor of a terminal; all that it showed is in ``shown`` at the end."""
    leader, follower = pty.openpty()

    def drain() -> None:
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while block := os.read(leader, 1 << 16):
                shown.append(block)

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        yield follower
    finally:
        os.close(follower)
        reader.join(SECONDS)
        os.close(leader)


def text_of(shown: Sequence[bytes]) -> str:
    """What a terminal showed, without the carriage returns that it adds."""
    return b"".join(shown).decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def run_on_terminal(*arguments: str | int | Path, encoding: str = "utf-8") -> tuple[int, str]:
    """Run a command in this process with stdout and stderr on a terminal; its exit code, and what is shown."""
    shown: list[bytes] = []
    before = sys.stdout, sys.stderr
    with (
        terminal(shown) as follower,
        open(follower, "w", encoding=encoding, closefd=False) as sys.stdout,
        open(follower, "w", encoding=encoding, errors="backslashreplace", closefd=False) as sys.stderr,
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before
    assert isinstance(code, int)
    return code, text_of(shown)


def process_on_terminal(arguments: Sequence[str]) -> tuple[int, str]:
    """The same for a process of its own."""
    shown: list[bytes] = []
    with terminal(shown) as follower:
        process = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower)
        code = process.wait(timeout=SECONDS)
    return code, text_of(shown)
