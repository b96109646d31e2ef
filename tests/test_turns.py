"""Processes take turns in compiling a kernel, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from charlm.engine import turns
from charlm.engine.turns import Turns

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no locks")

KEY, OTHER = "ab" * 16, "cd" * 16
ROOT = Path(turns.__file__).parents[2]

HOLDER = f"""
import sys
from pathlib import Path
from charlm.engine.turns import Turns
turns = Turns(Path(sys.argv[1]))
turns.begin("{KEY}")
print("held", flush=True)
sys.stdin.readline()
turns.end("{KEY}")
print("ended", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the turn of `KEY`; after a line of input it lets go."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def waited(folder: Path, key: str, longest: float) -> bool:
    """Whether this process had to wait for a turn, which it then ends."""
    told: list[bool] = []
    own = Turns(folder)
    own.begin(key, lambda: told.append(True), longest)
    own.end(key)
    return bool(told)


def test_a_turn_is_waited_for_until_it_ends(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert not waited(tmp_path, OTHER, 60)
    own, told = Turns(tmp_path), []

    def let_go() -> None:
        told.append(True)
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()

    own.begin(KEY, let_go)
    assert told == [True]
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ended\n"
    assert holder.poll() is None  # it let go, it did not end
    assert not waited(tmp_path, KEY, 60)


def test_a_killed_process_is_in_nobodys_way(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    Turns(tmp_path).begin(KEY, lambda: holder.send_signal(signal.SIGKILL))
    assert holder.wait(10) == -signal.SIGKILL


def test_a_halted_process_is_waited_for_no_longer_than_said(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert waited(tmp_path, KEY, 0.2)
    assert 0.2 <= time.monotonic() - begin < 30
    assert not waited(tmp_path, OTHER, 0.2)


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert not waited(file / "folder", KEY, 60)
    with monkeypatch.context() as context:
        context.setattr(turns, "fcntl", None)
        assert not waited(tmp_path, KEY, 60)

    def refuse(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(turns.fcntl, "lockf", refuse)
    assert not waited(tmp_path, KEY, 60)


def test_a_folder_that_cannot_be_written_is_no_reason_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert not waited(tmp_path, KEY, 60)
