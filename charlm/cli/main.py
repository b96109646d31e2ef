"""The ``charlm`` command: finds the subcommand, and turns every failure into one line and an exit code.

``charlm --help`` imports click and the standard library, nothing else: a subcommand's module is imported when
the subcommand is asked for, and the heavy modules when it runs.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from charlm import __version__
from charlm.cli.output import on_one_line, say
from charlm.errors import CharlmError

# In the order in which they are used. The command itself is charlm.cli.<name>.<name>.
COMMANDS = {
    "tokenize": "Turn a text into a vocabulary and token ids.",
    "train": "Train a model on a text.",
    "sample": "Draw new text from a model.",
    "score": "Say how probable a model finds each line of a text.",
    "predict": "Label texts, tag tokens, or make one text of another.",
    "gradients": "Show how far back the gradient of a step's loss reaches.",
    "info": "Say what a model is, and how it was made.",
}

EPILOG = """\b
Examples:
  charlm train names.txt -o names.npz             learn names, one a line
  charlm sample names.npz -n 10                   ten new names
  charlm score names.npz candidates.txt           how probable each line is
  echo "ada lovelace" | charlm score names.npz -  the same in a pipeline

Results go to stdout, progress and messages to stderr; "-" is stdin. Texts are UTF-8
whatever the locale; what a terminal would obey in them, it shows as \\x1b instead.
Exit status: 0 done, 1 the data or the model is at fault, 2 wrong usage, 128 + n ended by signal n (130: Ctrl-C).
"""

LONGEST_MESSAGE = 2000  # characters: what it quotes from a file may be a megabyte

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

FULL = (errno.ENOSPC, errno.EDQUOT)
OS_REMEDIES = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENOENT: "check the path",
    **dict.fromkeys(FULL, "free some space, or write somewhere else"),
    errno.EROFS: "write somewhere else",
    errno.EISDIR: "name a file, not a folder",
    errno.EMFILE: "raise the limit with: ulimit -n",
}


class LazyGroup(click.Group):
    """A group that imports a subcommand only when it is asked for, and explains failures in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of ``COMMANDS``, then any that were added to the group."""
        return [*COMMANDS, *(name for name in super().list_commands(ctx) if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand; None if there is none of that name."""
        added = super().get_command(ctx, cmd_name)
        if added is not None or cmd_name not in COMMANDS:
            return added
        command = getattr(importlib.import_module(f"charlm.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand that ``args`` begins with; a misspelt one is answered with the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # a tenth of the time that --help takes: only when needed

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", error.ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing the lazy ones."""
        lines = dict(COMMANDS)
        lines.update((name, command.get_short_help_str(limit=90)) for name, command in self.commands.items())
        with formatter.section("Commands"):
            formatter.write_dl(list(lines.items()))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the options of the group, and print the help if that is what they ask for."""
        with quiet_ends():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> None:
        """Run the subcommand; with ``--debug``, show where a failure came from."""
        with quiet_ends():
            try:
                super().invoke(ctx)
            except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
                raise
            except Exception:
                if ctx.params["debug"]:
                    import traceback

                    say(traceback.format_exc().rstrip())
                raise

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line ``args`` (default: the process's) and exit with its code."""
        # The name is fixed so that `python -m charlm` speaks like `charlm`.
        prog_name = prog_name or "charlm"
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or 0
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk or a closed pipe can still be handled
        except Exception as error:
            code = report(error)
            _drop_unwritten()
        sys.exit(code)


@contextlib.contextmanager
def quiet_ends() -> Iterator[None]:
    """Turn a closed pipe and Ctrl-C into exit codes, before click makes of both an exit with 1."""
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def report(error: Exception) -> int:
    """Print one line about ``error`` on stderr, or nothing for a closed pipe; return the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()  # `charlm` alone: the help is the message
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return 0  # whoever read our output has read enough
    line, code = describe(error)
    # A file name may hold line breaks, and what a terminal obeys.
    line = " ".join(part.strip() for part in line.split("\n"))
    if len(line) > LONGEST_MESSAGE:
        line = f"{line[: LONGEST_MESSAGE // 2]} ... {line[-LONGEST_MESSAGE // 2 :]}"
    with contextlib.suppress(OSError):  # a terminal that was closed
        say(f"charlm: error: {on_one_line(line)}")
    return code


def describe(error: Exception) -> tuple[str, int]:
    """What to tell the user about ``error``, and the exit code."""
    if isinstance(error, CharlmError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        message = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx is not None:
            message += f"{'' if message.endswith(('.', '?', ')')) else '.'} See: {error.ctx.command_path} --help"
        return message, error.exit_code
    if isinstance(error, click.Abort):
        return "aborted", EXIT_FAILURE
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return f"out of memory{detail}; try a smaller --batch-size or --hidden-size", EXIT_FAILURE
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        if not where and error.errno in FULL:  # files are named by who writes them
            where = "standard output: "
        remedy = OS_REMEDIES.get(error.errno or 0)
        return f"{where}{what}" + (f"; {remedy}" if remedy else ""), EXIT_FAILURE
    if isinstance(error, UnicodeEncodeError):
        letters = error.object[error.start : error.start + 1]
        encoding = f"the output's encoding, {error.encoding},"
        return f"{encoding} has no {letters!a}; set PYTHONIOENCODING=utf-8", EXIT_FAILURE
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"internal error, {what}; to see where, run with --debug: charlm --debug COMMAND ...", EXIT_FAILURE


def _drop_unwritten() -> None:
    """Point stdout at nothing, or the interpreter tries to flush it once more at exit and complains."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        except (OSError, ValueError, AttributeError):
            pass  # not a file (a test's buffer), or no stdout at all: nothing to flush at exit


@click.group(
    "charlm",
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="charlm", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="CHARLM_DEBUG", help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Train small recurrent language models on a text, sample from them, score with them."""


def _occupy_closed_streams() -> None:
    """Let nothing be where a standard stream is closed, or the next file to be opened would take its place.

    What is written to the descriptor of stderr, by a library say, would then go into a model.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest descriptor that is free: this one


def run() -> None:
    """The process that is called ``charlm``: `main`, and what only a process of its own may do."""
    _occupy_closed_streams()
    # charlm's threads are its own. NumPy's library draws the first weights; their bits would depend on its threads.
    for name in BLAS_THREADS:
        os.environ.setdefault(name, "1")
    code: str | int | None = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none at all: `main` has told it
        sys.stdout.flush()
        sys.stderr.flush()
    # Python would now take a thousand modules apart, Numba's: a fifth of the time of a short `charlm sample`.
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
