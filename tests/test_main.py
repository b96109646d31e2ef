"""The group itself: its help, its errors, exit codes and streams. The commands have tests of their own."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import charlm
from charlm.cli.main import COMMANDS, main, run
from charlm.errors import (
    CharlmError,
    CheckpointError,
    InputError,
    OutputError,
    TrainingError,
    UnwritableError,
    UsageError,
)

ROOT = Path(__file__).parents[1]


def run_process(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run Python in the checkout; stderr is caught, stdout too unless ``options`` name another place."""
    options = {"stdout": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, stderr=subprocess.PIPE, check=False, **options)


@pytest.fixture
def run_raising(runner: CliRunner) -> Iterator[Callable[..., Result]]:
    """Run ``charlm probe``, a command that prints a line and then raises what it is given."""

    def run(error: BaseException, *options: str, env: dict[str, str] | None = None) -> Result:
        @main.command("probe", help="A probe.")
        def probe() -> None:
            click.echo("result")
            raise error

        return runner.invoke(main, [*options, "probe"], env=env)

    yield run
    main.commands.pop("probe", None)


# ---- help ----


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_the_commands_in_the_order_of_use(runner: CliRunner, option: str) -> None:
    result = runner.invoke(main, [option])
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    commands = [line for line in lines if line[0] in COMMANDS]
    assert [line[0] for line in commands] == ["tokenize", "train", "sample", "score", "predict", "gradients", "info"]
    assert all(" ".join(line[1:]) == COMMANDS[line[0]] for line in commands)
    assert "charlm train names.txt -o names.npz" in result.stdout
    assert "Exit status: 0 done, 1 " in result.stdout


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_help_fits_the_terminal(columns: int) -> None:
    stdout = run_process(["-m", "charlm", "--help"], env={**os.environ, "COLUMNS": str(columns)}).stdout
    lines = [line for line in stdout.decode().splitlines() if "names.npz" not in line]  # examples are not wrapped
    assert max(map(len, lines)) <= min(columns, 100)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_fits_a_terminal_of_80_columns(command: str, runner: CliRunner) -> None:
    stdout = runner.invoke(main, [command, "--help"], env={"COLUMNS": "80"}, terminal_width=80).stdout
    assert [line for line in stdout.splitlines() if len(line) > 80] == []


def test_without_a_command_help_is_the_answer(runner: CliRunner) -> None:
    result = runner.invoke(main, [])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == runner.invoke(main, ["--help"]).stdout


def test_version(runner: CliRunner) -> None:
    result = runner.invoke(main, ["--version"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"charlm {charlm.__version__}\n", "")


@pytest.mark.parametrize("path", sorted((ROOT / "charlm/cli").glob("*.py")), ids=lambda path: path.stem)
def test_every_command_that_is_there_is_listed(runner: CliRunner, path: Path) -> None:
    if f"\ndef {path.stem}(" not in path.read_text("utf-8") or path.stem == "main":
        pytest.skip("not a command")
    result = runner.invoke(main, [path.stem, "--help"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: charlm {path.stem} ")


# ---- errors ----


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CharlmError("a; do b"), 1, "a; do b"),
        (InputError("names.txt:3: a; do b"), 1, "names.txt:3: a; do b"),
        (CheckpointError("m.npz: a"), 1, "m.npz: a"),
        (OutputError("a; do b"), 1, "a; do b"),
        (UnwritableError("m.npz", "a", "do b"), 1, "m.npz: a; do b"),
        (TrainingError("a"), 1, "a"),
        (UsageError("--a contradicts --b"), 2, "--a contradicts --b"),
        (click.UsageError("--a contradicts --b"), 2, "--a contradicts --b"),
        (click.ClickException("a"), 1, "a"),
        (click.Abort(), 1, "aborted"),
        (MemoryError(), 1, "out of memory; try a smaller --batch-size or --hidden-size"),
        (
            MemoryError("Unable to allocate 1 TiB"),
            1,
            "out of memory (Unable to allocate 1 TiB); try a smaller --batch-size or --hidden-size",
        ),
        (
            OSError(28, "No space left on device", "out.txt"),
            1,
            "out.txt: No space left on device; free some space, or write somewhere else",
        ),
        (PermissionError(13, "Permission denied", b"out"), 1, "out: Permission denied; check its permissions"),
        (FileNotFoundError(2, "No such file or directory", "x"), 1, "x: No such file or directory; check the path"),
        (OSError(5, "Input/output error"), 1, "Input/output error"),
        (OSError("odd"), 1, "odd"),
        (OSError(), 1, "OSError"),
        (
            ValueError("odd"),
            1,
            "internal error, ValueError: odd; to see where, run with --debug: charlm --debug COMMAND ...",
        ),
        (
            KeyError(),
            1,
            "internal error, KeyError; to see where, run with --debug: charlm --debug COMMAND ...",
        ),
        (
            UnicodeEncodeError("ascii", "né", 1, 2, "ordinal not in range"),
            1,
            r"the output's encoding, ascii, has no '\xe9'; set PYTHONIOENCODING=utf-8",
        ),
        (InputError("two\nlines\r\n  and \x1b[31mred\udc80"), 1, r"two lines and \x1b[31mred\udc80"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_failure_is_one_line_on_stderr(
    run_raising: Callable[..., Result], error: Exception, code: int, line: str
) -> None:
    result = run_raising(error)
    assert result.stdout == "result\n"
    assert result.stderr.splitlines()[0].startswith(f"charlm: error: {line}")
    assert result.stderr.count("\n") == 1
    assert result.exit_code == code


@pytest.mark.parametrize("debug", [(("--debug",), {}), ((), {"CHARLM_DEBUG": "1"})])
@pytest.mark.parametrize("error", [UsageError("a"), ValueError("a")])
def test_debug_shows_the_traceback_and_keeps_line_and_code(
    run_raising: Callable[..., Result], error: Exception, debug: tuple[tuple[str, ...], dict[str, str]]
) -> None:
    options, env = debug
    result = run_raising(error, *options, env=env)
    assert result.stdout == "result\n"
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert ", in probe\n" in result.stderr
    assert result.stderr.splitlines()[-1] == run_raising(error).stderr.rstrip()
    assert result.exit_code == getattr(error, "exit_code", 1)


def test_an_interrupt_is_quiet(run_raising: Callable[..., Result]) -> None:
    result = run_raising(KeyboardInterrupt())
    assert (result.exit_code, result.stdout, result.stderr) == (130, "result\n", "")


def test_a_closed_pipe_is_quiet(run_raising: Callable[..., Result]) -> None:
    result = run_raising(BrokenPipeError(32, "Broken pipe"), "--debug")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "result\n", "")


def test_an_exit_code_of_a_command_is_kept(run_raising: Callable[..., Result]) -> None:
    assert run_raising(click.exceptions.Exit(3)).exit_code == 3
    assert run_raising(SystemExit(4)).exit_code == 4


def test_a_command_that_ends_well(runner: CliRunner, run_raising: Callable[..., Result]) -> None:
    run_raising(KeyboardInterrupt())  # only to have the command registered

    @main.command("probe")
    def probe() -> int:
        return 5  # what a command returns is no exit code

    assert runner.invoke(main, ["probe"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tran"], "No such command 'tran'. Did you mean 'train'? See: charlm --help"),
        (["xyzzy"], "No such command 'xyzzy'. See: charlm --help"),
        (["--nope"], "No such option '--nope'. See: charlm --help"),
        (["probe", "x"], "Got unexpected extra argument (x). See: charlm probe --help"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(
    runner: CliRunner, run_raising: Callable[..., Result], arguments: list[str], line: str
) -> None:
    run_raising(KeyboardInterrupt())
    result = runner.invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    # Click's versions differ in quotes and full stops.
    assert letters(result.stderr) == letters(f"charlm: error: {line}")


def letters(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def test_outside_standalone_mode_errors_reach_the_caller() -> None:
    with pytest.raises(click.UsageError):
        main.main(["--nope"], standalone_mode=False)


@pytest.mark.parametrize(("asked", "code"), [(0, 0), (3, 3), (None, 0), ("text", 1)])
def test_a_process_of_its_own(asked: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's library gets one thread unless the user says otherwise, and the process ends at once, after its tasks."""
    done: list[Any] = []
    environment = {"MKL_NUM_THREADS": "4"}
    with monkeypatch.context() as context:
        context.setattr(os, "environ", environment)
        context.setattr(sys.modules["charlm.cli.main"], "main", lambda: sys.exit(asked))
        context.setattr(atexit, "_run_exitfuncs", lambda: done.append("tasks"))
        context.setattr(os, "_exit", done.append)
        run()
    assert done == ["tasks", code]
    assert (environment["OPENBLAS_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("1", "4")


# ---- a real process ----

PROBE = [
    "-c",
    """
import time
import click
from charlm.cli.main import main
@main.command()
@click.argument("lines", type=int)
def probe(lines):
    for i in range(lines):
        click.echo("x" * 99)
@main.command()
def wait():
    click.echo("waiting")
    time.sleep(60)
main()
""",
]


@pytest.mark.parametrize("option", ["--help", "--nope"])
def test_python_m_charlm_is_charlm(option: str) -> None:
    module = run_process(["-m", "charlm", option])
    function = run_process(["-c", "from charlm.cli.main import main; main()", option])
    assert (module.returncode, module.stdout, module.stderr) == (
        function.returncode,
        function.stdout,
        function.stderr,
    )
    if option == "--help":
        assert module.stdout.startswith(b"Usage: charlm [OPTIONS] COMMAND [ARGS]...\n")
    else:
        assert module.stderr.startswith(b"charlm: error: No such option")


@pytest.mark.parametrize("command", [["-m", "charlm", "--help"], [*PROBE, "probe", "1"], [*PROBE, "probe", "100000"]])
def test_a_reader_that_closes_the_pipe(command: list[str]) -> None:
    """Few lines fail only when stdout is flushed at the end, many while the command runs."""
    read, write = os.pipe()
    os.close(read)
    try:
        result = run_process(command, stdout=write)
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("lines", ["1", "100000"])
def test_a_full_disk(lines: str) -> None:
    with open("/dev/full", "wb") as full:
        result = run_process([*PROBE, "probe", lines], stdout=full)
    assert result.returncode == 1
    told = result.stderr.decode()
    assert told == "charlm: error: standard output: No space left on device; free some space, or write somewhere else\n"


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_control_c() -> None:
    with subprocess.Popen(
        [sys.executable, *PROBE, "wait"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        time.sleep(0.1)  # for the line after it to begin
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_an_error_that_nobody_can_read_keeps_its_code(
    run_raising: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal was closed."""
    echo = click.echo

    def refuse(*arguments: Any, err: bool = False, **options: Any) -> None:
        if err:
            raise OSError(5, "Input/output error")
        echo(*arguments, **options)

    monkeypatch.setattr(click, "echo", refuse)
    result = run_raising(UsageError("--a contradicts --b"))
    assert (result.exit_code, result.stderr) == (2, "")


@pytest.mark.skipif(os.name != "posix", reason="descriptors as POSIX has them")
def test_stdin_and_stdout_closed() -> None:
    """As some daemons run it."""
    start = (
        "import os, sys; os.close(0); os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'charlm', '--help'])"
    )
    result = run_process(["-c", start])
    assert (result.returncode, result.stderr) == (0, b"")
