"""What is told while kernels are compiled, and of threads that are too many."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from charlm.cli.options import threads_within_reach
from charlm.cli.progress import Announcement, announce_compilation

LINE = "compiling kernels for this processor: once, about 10 s ...\n"


def test_compilation_is_announced_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listeners: list[Any] = []
    monkeypatch.setattr("charlm.engine.jit.on_compilation", lambda *both: listeners.append(both))
    monkeypatch.setattr("charlm.engine.jit.CACHE_FOLDER", Path.cwd())
    announce_compilation.cache_clear()
    announce_compilation()
    announce_compilation()
    assert capsys.readouterr() == ("", "")
    ((begin, end),) = listeners
    for name in ("one kernel", "another"):
        begin(name)
        end()
    assert capsys.readouterr() == ("", LINE)


def test_that_it_will_happen_again_is_told_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    announcement = Announcement("each time", "no folder", None)
    announcement.begin("one kernel")
    expected = "compiling kernels for this processor: each time, about 10 s (no folder) ...\n"
    assert capsys.readouterr() == ("", expected)


def test_the_live_line_tells_which_and_how_many_and_vanishes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 20)))
    announcement = Announcement("once", "", lambda: 30)
    for name in ("multiply", "multiply", "accumulate_outer_with_a_name_that_is_long"):
        announcement.begin(name)
    announcement.end()
    announcement.end()
    first, *shown = capsys.readouterr().err.split("\r")
    assert first == LINE
    assert [line.rstrip() for line in shown] == [
        "  1 of at most 30, 0 s: multiply", "  1 of at most 30, 0 s: multiply",
        "  2 of at most 30, 0 s: accumulate_ou", "", "",
    ]  # fmt: skip
    assert {len(line) for line in shown[:4]} == {37}, "what stood there must be covered"


def test_nobody_who_listens_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    announcement = Announcement("once", "", lambda: 30)
    announcement.begin("multiply")
    announcement.end()


@pytest.mark.parametrize(
    ("asked", "cores", "used", "message"),
    [
        ([], 2, None, ""),
        (["--threads", "2"], 2, 2, ""),
        (["--threads", "1"], 4, 1, ""),
        (["--threads", "3"], 2, 2, "charlm: --threads 3: this process may use 2 cores; using 2\n"),
        (["--threads", "3"], 1, 1, "charlm: --threads 3: this process may use 1 core; using 1\n"),
    ],
)
def test_no_more_threads_than_cores(
    asked: list[str], cores: int, used: int | None, message: str, runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    @click.command()
    @click.option("--threads", type=int, callback=threads_within_reach)
    def command(threads: int | None) -> None:
        found.append(threads)

    monkeypatch.setattr("charlm.engine.threads.available_cores", lambda: cores)
    result = runner.invoke(command, asked)
    assert (result.exit_code, found, result.stdout, result.stderr) == (0, [used], "", message)
