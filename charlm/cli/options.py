"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from charlm.cli.output import say
from charlm.wording import counted

F = TypeVar("F", bound=Callable[..., Any])


def text_options(command: F) -> F:
    """Add the options that say how a text is cut and which tokens get an id of their own.

    The command receives ``level``, ``sequence``, ``min_count``, ``vocab_size``, ``lowercase`` and ``normalize``,
    each None if it was not given.
    """
    options = [
        click.option(
            "--level",
            type=click.Choice(["char", "word", "byte"]),
            help="A token is a character (code point), what whitespace separates, or a byte.  [default: char]",
        ),
        click.option(
            "--sequence",
            type=click.Choice(["line", "paragraph", "file"]),
            help="A sequence is a line, lines up to a blank one, or the whole text, in which the newline is a "
            "token.  [default: line; file for bytes]",
        ),
        click.option(
            "--min-count",
            type=click.IntRange(min=1),
            metavar="N",
            help="Tokens seen fewer than N times are <unk>.  [default: 2 for words, else 1]",
        ),
        click.option(
            "--vocab-size",
            type=click.IntRange(min=3),
            metavar="N",
            help="Keep the N most frequent tokens, <unk> and <eos> included.  [default: all]",
        ),
        click.option("--lowercase", is_flag=True, default=None, help="Make all letters small."),
        click.option(
            "--normalize",
            type=click.Choice(["nfc", "nfkc", "none"]),
            help="Unicode normal form of the text.  [default: nfc; none for bytes]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def cell_names() -> list[str]:
    """The names of the cells, as the files in the engine's folder give them; imports nothing of the engine."""
    folder = Path(__file__).parent.parent / "engine" / "cells"
    return sorted(file.stem.replace("_", "-") for file in folder.glob("[!_]*.py"))


class SectionedCommand(click.Command):
    """A command whose help groups its many options under headings.

    Args:
        sections: heading -> names of parameters, in their order; those named nowhere close the last section.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a heading at a time."""
        parameters = {parameter.name: parameter for parameter in self.get_params(ctx)}
        last = list(self.sections)[-1]
        for heading, names in self.sections.items():
            chosen = [parameters.pop(name) for name in names]
            chosen += parameters.values() if heading == last else []
            records = [option.get_help_record(ctx) for option in chosen if isinstance(option, click.Option)]
            with formatter.section(heading):
                formatter.write_dl([record for record in records if record is not None])


def threads_within_reach(ctx: click.Context, parameter: click.Parameter, threads: int | None) -> int | None:
    """What ``--threads`` asks for, but no more than the process may use: beyond that it would only be slower."""
    from charlm.engine.threads import available_cores

    cores = available_cores() if threads is not None else 0
    if threads is None or threads <= cores:
        return threads
    say(f"charlm: --threads {threads}: this process may use {counted(cores, 'core')}; using {cores}")
    return cores


def raw_option(command: F) -> F:
    """The option ``--raw``, for commands that print texts; they hand it to ``output.Output``."""
    help_text = "Print control characters to a terminal as they are, not as \\x1b."
    return click.option("--raw", is_flag=True, help=help_text)(command)


def threads_option(help_text: str = "How many to use.  [default: all cores]") -> Callable[[F], F]:
    """The option ``--threads``, which no more than the cores can be got by."""
    return click.option(
        "--threads", type=click.IntRange(1, 1024), metavar="N", callback=threads_within_reach, help=help_text
    )
