"""``charlm score``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from charlm.cli.options import raw_option, threads_option
from charlm.cli.output import Output, json_ready, say, tell_who_types
from charlm.cli.progress import announce_compilation, new_bar
from charlm.units import LOG_BASES, from_nats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from charlm.workflows.label_scoring import PriorName
    from charlm.workflows.score_results import LabelScores, Nats, Sentences, Summary, Tokens

TINY = 5e-7  # up to here a number is shown as 0.000000, which needs no sign
NULL = "null"
LINES_AT_ONCE = 4096  # of output
PRIORS_SHOWN = 8  # labels whose prior the summary for people names
# A line is put together from a template: json.dumps of an object would take five times as long.
_json_text = json.JSONEncoder(ensure_ascii=False).encode

EPILOG = """\b
Examples:
  charlm score model.npz test.txt                scores, then a summary
  charlm score model.npz test.txt --per corpus   perplexity, bits ...
  echo "the apple and pear" | charlm score model.npz --per token --log-base 2
  charlm score model.npz hyps.txt | sort -t$'\\t' -k1,1gr | head -1   the best
  charlm score towns.npz names.txt --label all | cut -f4-6   label, how sure

--per sentence prints four columns with tabs between: log_prob, tokens, unknowns, text. A line of output answers each
line of input, empty ones too, in order (a lone carriage return ends a line, too). tokens counts the end of the line,
which is scored as well: log_prob / tokens compares lines of different length. text is the line as it was given,
without its line end.

--per token prints five: line, position in the line (both from 1), token, log_prob, unknown (1 or 0). The end of a line
is the token <eos>. A space is shown as ␣, a tab as ⇥, other invisible characters as U+XXXX.

--per corpus prints only the summary, which the other two print on stderr. It cuts the text into sequences as the
model's training text was cut: a model of paragraphs scores whole paragraphs, and blank lines lie between them; a model
of files scores the whole text as one sequence. With --per sentence and --per token each line is a sequence of its own
for every model. A model of lines gives the same summary in all three ways; blank lines count, though train skips them.

A model that was trained with --condition label needs --label NAME, under which it scores every line, or --label all.
The latter finds the most probable label of each line by Bayes' rule: P(label | text) = P(label) P(text | label) /
P(text). --per sentence then prints six columns: log_prob, tokens, unknowns, label, posterior, text; posterior is
P(label | text). log_prob, there and in --per token, and the summary are those of the text whatever its label: P(text)
= the sum over all labels of P(label) P(text | label). P(label), the prior, is the label's share of the training text,
or with --prior uniform the same for each; the summary states it.

Nothing of one line reaches the next: a line's score depends neither on the other lines nor on their order.

In the summary, tokens are what was scored, ends of sequences included; perplexity excluding unknowns leaves them out
of both the sum and the count. Characters and words are those of the text as it was given: characters are code points
(bytes for a model of bytes) and one for each line's end, words what whitespace separates. So models of characters and
words compare, if they know all tokens and none was trained with --lowercase: how an unknown word is spelt, and which
letters are capitals, is in no sum.

--exclude-unk leaves unknown tokens out of the columns log_prob and tokens; --per token then shows NA (in JSON null)
for their log_prob. The summary and the posteriors do not change. --on-unknown skip changes the sequence itself: the
model does not see the token. Either way the column unknowns, and the summary, count them. The word <unk> in a text is
the model's own symbol: it counts as unknown, but is no error and is not skipped.

--json prints an object a line, with the columns' names as keys, and one for the summary with the keys sentences,
tokens, unknowns, characters, words, log_prob_nats, nats_per_token, bits_per_token, bits_per_character, bits_per_word,
perplexity, perplexity_excluding_unknowns; with --label also label. With --label all, a line has log_probs and
posteriors too, log P(text | label) and P(label | text) of every label, and the summary has the prior. A number that
does not exist or is infinite is null. The bytes of a model of bytes are U+0000 to U+00FF there; in columns the text is
written as the bytes it was.
"""


@click.command(epilog=EPILOG)
@click.argument("model", metavar="MODEL")
@click.argument("text", metavar="[TEXT]", default="-")
@click.option(
    "--per",
    type=click.Choice(["sentence", "token", "corpus"]),
    default="sentence",
    help="Print a line for each line of the text, a line for each token, or only the summary.",
)
@click.option(
    "--log-base",
    "base",
    type=click.Choice(list(LOG_BASES)),
    default="e",
    help="Of log_prob: nats, bits, or as n-gram tools have it. The summary names its units.",
)
@click.option("--label", metavar="NAME|all", help="For a model that was trained with labels: which one the text has.")
@click.option(
    "--prior",
    type=click.Choice(["training", "uniform"]),
    help="How probable --label all takes each label to be before it sees the text.  [default: training]",
)
@click.option("--exclude-unk", "exclude", is_flag=True, help="Leave what unknown tokens cost out of log_prob.")
@click.option(
    "--on-unknown",
    type=click.Choice(["unk", "error", "skip"]),
    default="unk",
    help="Score a token that the model does not know as <unk>, stop there, or leave it out of the text.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line.")
@raw_option
@threads_option()
def score(
    model: str,
    text: str,
    per: str,
    base: str,
    label: str | None,
    prior: PriorName | None,
    exclude: bool,
    on_unknown: str,
    as_json: bool,
    raw: bool,
    threads: int | None,
) -> None:
    """Say how probable a model finds each line of a text.

    MODEL is a file that train wrote. TEXT is a UTF-8 text (for a model of bytes any file), one that is packed with
    gzip (.gz), or - for standard input, which is the default.
    """
    # Here, not above: with them --help would take ten times as long.
    from charlm.workflows.model_files import load_model
    from charlm.workflows.score import Scorer

    announce_compilation()
    loaded = load_model(model, threads)
    as_bytes = loaded.tokenizer.level == "byte" and per == "sentence" and not as_json
    output = Output(raw=raw, as_bytes=as_bytes, as_json=as_json)
    tell_who_types(text)
    # A bar would cut through lines that go to the same terminal.
    bar = new_bar(unit=" lines", unit_scale=True, hidden=per != "corpus" and output.is_terminal)

    def warn(message: str) -> None:
        bar.clear()
        say(f"charlm: warning: {message}")

    scorer = Scorer(
        loaded,
        on_unknown=on_unknown,
        exclude_unknowns=exclude,
        warn=warn,
        label=label,
        prior=prior,
    )
    with bar:
        if per == "sentence":
            names = () if loaded.labels is None else loaded.labels.names
            rows = _sentence_objects if as_json else _sentence_rows
            for sentences in scorer.sentences(text):
                _write(output, rows(sentences, base, names))
                bar.update(len(sentences.texts))
        elif per == "token":
            for tokens in scorer.tokens(text):
                _write(output, _token_objects(tokens, base) if as_json else _token_rows(tokens, base))
                bar.update(tokens.lines[-1] - bar.n if tokens.lines else 0)
        else:
            for lines in scorer.corpus(text):
                bar.update(lines)
    summary = json.dumps(json_ready(scorer.summary.to_json())) if as_json else _table(scorer.summary)
    if per == "corpus":
        output.write(f"{summary}\n")
    else:
        say(summary)


def _write(output: Output, lines: Iterable[str]) -> None:
    """Write a window's lines, all of them, so that whoever reads a pipe has them; not all are in memory at once."""
    rest = iter(lines)
    while text := "".join(islice(rest, LINES_AT_ONCE)):
        output.write(text)
    output.flush()


def _sentence_rows(sentences: Sentences, base: str, names: Sequence[str]) -> Iterable[str]:
    """A row of columns for each line; ``names`` are those of the labels."""
    numbers = _numbers(sentences.log_probs_nats, base)
    counts = zip(numbers, sentences.tokens, sentences.unknowns, strict=True)
    first = map("%s\t%d\t%d\t".__mod__, counts)
    if sentences.labels is None:
        return map("%s%s\n".__mod__, zip(first, sentences.texts, strict=True))
    chosen, posteriors = _likeliest(sentences.labels)
    labels = map(names.__getitem__, chosen.tolist())
    return map("%s%s\t%.6f\t%s\n".__mod__, zip(first, labels, posteriors.tolist(), sentences.texts, strict=True))


def _sentence_objects(sentences: Sentences, base: str, names: Sequence[str]) -> Iterable[str]:
    """A JSON object for each line; ``names`` are those of the labels."""
    numbers = _json_numbers(sentences.log_probs_nats, base)
    counts = zip(numbers, sentences.tokens, sentences.unknowns, strict=True)
    first = map('{"log_prob": %s, "tokens": %d, "unknowns": %d, '.__mod__, counts)
    texts = map(_json_text, sentences.texts)
    if sentences.labels is None:
        return map('%s"text": %s}\n'.__mod__, zip(first, texts, strict=True))
    keys = [_json_text(name) for name in names]
    chosen, posteriors = _likeliest(sentences.labels)
    columns = zip(
        first, map(keys.__getitem__, chosen.tolist()), _json_values(posteriors),
        _json_label_objects(keys, from_nats(sentences.labels.log_probs_nats, base)),
        _json_label_objects(keys, sentences.labels.posteriors), texts, strict=True,
    )  # fmt: skip
    template = '%s"label": %s, "posterior": %s, "log_probs": %s, "posteriors": %s, "text": %s}\n'
    return map(template.__mod__, columns)


def _likeliest(scores: LabelScores) -> tuple[NDArray[np.intp], Nats]:
    """The most probable label of each line, and its probability; (lines,)."""
    chosen = scores.likeliest
    return chosen, scores.posteriors.max(axis=1)


def _json_label_objects(keys: Sequence[str], values: Nats) -> Iterator[str]:
    """An object of the labels' values (lines, K) for each line."""
    for row in values:
        yield "{" + ", ".join(map("%s: %s".__mod__, zip(keys, _json_values(row), strict=True))) + "}"


def _token_rows(tokens: Tokens, base: str) -> Iterable[str]:
    from charlm.text.visible import visible

    numbers = _where_counted(tokens, _numbers(tokens.log_probs_nats, base), "NA")
    shown = {symbol: visible(symbol) for symbol in set(tokens.symbols)}
    symbols = map(shown.__getitem__, tokens.symbols)
    columns = zip(tokens.lines, tokens.positions, symbols, numbers, tokens.unknown, strict=True)
    return map("%d\t%d\t%s\t%s\t%d\n".__mod__, columns)


def _token_objects(tokens: Tokens, base: str) -> Iterable[str]:
    numbers = _where_counted(tokens, _json_numbers(tokens.log_probs_nats, base), NULL)
    shown = {symbol: _json_text(symbol) for symbol in set(tokens.symbols)}
    symbols = map(shown.__getitem__, tokens.symbols)
    unknown = map(("false", "true").__getitem__, tokens.unknown)
    columns = zip(tokens.lines, tokens.positions, symbols, numbers, unknown, strict=True)
    return map('{"line": %d, "position": %d, "token": %s, "log_prob": %s, "unknown": %s}\n'.__mod__, columns)


def _where_counted(tokens: Tokens, numbers: Iterator[str], otherwise: str) -> Iterator[str]:
    """The numbers of tokens whose score counts; of the others ``otherwise``."""
    if tokens.counted.all():
        return numbers
    return (shown if counted else otherwise for shown, counted in zip(numbers, tokens.counted.tolist(), strict=True))


def _numbers(nats: Nats, base: str) -> Iterator[str]:
    """Log probabilities as a column shows them."""
    shown = from_nats(nats, base)
    shown[abs(shown) <= TINY] = 0.0
    return map("%.6f".__mod__, shown.tolist())


def _json_numbers(nats: Nats, base: str) -> Iterator[str]:
    """Log probabilities in JSON, which cannot hold all of them."""
    return _json_values(from_nats(nats, base))


def _json_values(values: Nats) -> Iterator[str]:
    return (repr(number) if math.isfinite(number) else NULL for number in values.tolist())


def _table(summary: Summary) -> str:
    """The summary in aligned columns: name, number, unit or remark."""
    empty = f"{summary.empty:,} of them empty" if summary.empty else ""
    skipped = summary.unknowns - summary.unknown_tokens
    share = f"{summary.unknowns / (summary.tokens + skipped):.2%} of the tokens" if summary.unknowns else ""
    too_low = "; too low, as unknowns are not spelt out" if summary.unknowns else ""
    if skipped:
        share += f", {skipped:,} of them skipped"
    rows = [
        ("sentences", f"{summary.sentences:,}", empty),
        ("tokens", f"{summary.tokens:,}", f"{summary.tokens - summary.sentences:,} without the ends of sentences"),
        ("unknowns", f"{summary.unknowns:,}", share),
        ("characters", f"{summary.characters:,}", "one for each line's end included"),
        ("words", f"{summary.words:,}", ""),
        ("log probability", _figure(summary.log_prob_nats), "nats"),
        ("cross entropy", _figure(summary.nats_per(summary.tokens)), "nats per token"),
        ("", _figure(summary.bits_per(summary.tokens)), "bits per token"),
        ("", _figure(summary.bits_per(summary.characters)), f"bits per character{too_low}"),
        ("", _figure(summary.bits_per(summary.words)), f"bits per word{too_low}"),
        ("perplexity", _figure(summary.perplexity), "per token, including unknowns"),
        ("", _figure(summary.perplexity_excluding_unknowns), "per token, excluding unknowns"),
    ]
    rows = [*_label_rows(summary), *rows]
    width = max(len(number) for _, number, _ in rows)
    return "\n".join(f"{name:<17}{number:>{width}}  {remark}".rstrip() for name, number, remark in rows)


def _label_rows(summary: Summary) -> list[tuple[str, str, str]]:
    """What the summary says of labels, if it does."""
    if summary.prior is None:
        return [] if summary.label is None else [("label", "", summary.label)]
    count = len(summary.prior)
    shares = [f"{name} {share:.2%}" for name, share in islice(summary.prior.items(), PRIORS_SHOWN)]
    shown = ", ".join(shares) + (f" and {count - PRIORS_SHOWN} more" if count > PRIORS_SHOWN else "")
    return [("label", "", f"every one of {count}"), ("prior", "", f"{summary.prior_name}: {shown}")]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:,.4f}"
