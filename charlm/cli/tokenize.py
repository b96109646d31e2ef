"""``charlm tokenize``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import text_options
from charlm.cli.output import Output
from charlm.cli.progress import new_bar

if TYPE_CHECKING:
    from charlm.text.corpus import Corpus

EPILOG = """\b
Examples:
  charlm tokenize names.txt                     what is in the text
  charlm tokenize book.txt --level word --min-count 3 -o book.tokens
  charlm tokenize new.txt --vocab book.tokens   what that vocabulary lacks
  head -3 names.txt | charlm tokenize - --show  the tokens themselves

With --show, each sequence is one line of tokens with a space between them. A space within a token is shown as ␣, a
newline as ⏎, a tab as ⇥, other invisible characters as U+XXXX, and an unknown token as <unk>.

Tokens do not count the ends of sequences, nor do characters. A run of blanks counts as one character at word level.

A list of symbols for --vocab has one symbol a line, \\n standing for the newline; <unk> and <eos> are added.
"""


@click.command(epilog=EPILOG)
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("-o", "--output", metavar="FILE", help="Write the ids to a token file, which train takes for a text.")
@text_options
@click.option(
    "--vocab",
    metavar="FILE",
    help="Use this vocabulary: a token file's, a model's, or a list of symbols, one a line. The first two also "
    "say how to tokenize, unless options do.",
)
@click.option("--show", is_flag=True, help="Print the tokens, a line for each sequence, instead of the counts.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def tokenize(
    texts: tuple[str, ...],
    output: str | None,
    vocab: str | None,
    show: bool,
    as_json: bool,
    **text: Any,
) -> None:
    """Count a text's tokens, show them, or write them to a file.

    TEXT is a UTF-8 text, one that is packed with gzip (.gz), a token file, or - for standard input. Several are
    taken as one corpus, in order.
    """
    if show and as_json:
        raise click.UsageError("--show and --json exclude each other; leave out one.")
    result = Output(as_json=as_json)
    # Here, not above: with them --help would take ten times as long.
    from charlm.workflows.tokenize import TextOptions, describe, shown_lines
    from charlm.workflows.tokenize import tokenize as run

    with new_bar(unit="B", unit_scale=True, desc="reading") as bar:
        corpus = run(texts, TextOptions(**text), vocab=vocab, output=output, on_bytes=bar.update)
    if show:
        for piece in shown_lines(corpus):
            result.write(piece)
    else:
        result.write((json.dumps(describe(corpus), ensure_ascii=False) if as_json else _table(corpus)) + "\n")


def _table(corpus: Corpus) -> str:
    """The counts in aligned columns: name, number, remark."""
    counts = corpus.counts
    rows = [
        ("sequences", counts.sequences, f"--sequence {corpus.tokenizer.sequence}"),
        ("tokens", counts.tokens, f"--level {corpus.tokenizer.level}; {corpus.tokens.size:,} with <eos>"),
        ("types", counts.types, "distinct tokens"),
        ("vocabulary", corpus.vocabulary.size, "with <unk> and <eos>"),
        ("unknown", counts.unknowns, f"{counts.unknown_rate:.2%} of the tokens"),
        ("characters", counts.characters, ""),
        ("words", counts.words, ""),
    ]
    if counts.blank_lines:
        rows.append(("blank lines", counts.blank_lines, "skipped"))
    width = max(len(f"{number:,}") for _, number, _ in rows)
    return "\n".join(f"{name:<12}{number:>{width},}  {remark}".rstrip() for name, number, remark in rows)
