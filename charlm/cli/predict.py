"""``charlm predict``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import raw_option, threads_option
from charlm.cli.output import Output, json_ready, say, tell_who_types
from charlm.cli.progress import announce_compilation
from charlm.wording import counted

if TYPE_CHECKING:
    from charlm.workflows.predictors.labels import Labelling
    from charlm.workflows.predictors.tags import Tagging
    from charlm.workflows.predictors.targets import Transduction

TAB = "\t"

Shown = Callable[[Iterable[Any]], Iterator[str]]  # a window's predictions as lines

EPILOG = """\b
Examples:
  charlm predict towns.npz names.txt                     the label of each
  echo "Sanmaranto" | charlm predict towns.npz --top 3   and the next two
  charlm predict visits.npz tokens.conll                 a tag for each token
  charlm predict sounds.npz words.txt --beam 5           the target of each
  charlm predict towns.npz test.tsv --evaluate           how good it is

What is read and printed depends on the --task that the model was trained for.

classify: a text a line. Printed for each: label, probability, with --top N the next ones too, the text; tabs between.

tag: CoNLL columns, a blank line after each sentence. Printed: the columns, and the tag after them; of -DOCSTART- rows
an empty line.

transduce: a source a line. Printed: its target. With --n-best N, N lines for each: the number of the source, the log
probability of the whole target with its end (nats), the target; tabs between.

A line of output answers each line of input, empty ones too, in order (a lone carriage return ends a line, too); with
--n-best N, N lines.

--evaluate reads what train reads (label<TAB>text, tokens with tags, source<TAB>target) and prints, for labels:
accuracy, and by label precision, recall, F1 and what was taken for what (of more than 25 labels only what was most
often); for tags: how many are right, and if they
name entities (B-person, I-person, O) precision, recall and F1 of whole entities, counted as conlleval counts them; for
targets: how many are wholly right, and edits (insertions, deletions, substitutions) for each token wanted.

--json prints an object a line: text and labels, each with label and probability; tokens and tags; or source and
targets, each with target and log_prob_nats. With --evaluate, one object with the figures; of labels, confusions lists
what was taken for what.
"""


@click.command(epilog=EPILOG)
@click.argument("model", metavar="MODEL")
@click.argument("text", metavar="[TEXT]", default="-")
@click.option("--evaluate", is_flag=True, help="TEXT has the answers: say how good the model is.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="classify: the N likeliest labels.  [default: 1]")
@click.option("--beam", type=click.IntRange(1, 1000), metavar="N", help="transduce: search with a beam of N.")
@click.option(
    "--n-best",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="transduce: the N likeliest targets; the beam is N, if not given.",
)
@click.option(
    "--token-column",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="tag: the column of the token, from 1, 0 for the last.  [default: as in training]",
)
@click.option(
    "--tag-column",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="tag, with --evaluate: the column of the tag.  [default: as in training]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line.")
@raw_option
@threads_option()
def predict(
    model: str, text: str, evaluate: bool, as_json: bool, raw: bool, threads: int | None, **given: int | None
) -> None:  # fmt: skip
    """Label texts, tag tokens, or make one text of another.

    MODEL is a file that train wrote with --task classify, tag or transduce. TEXT is a UTF-8 text, one that is packed
    with gzip (.gz), or - for standard input, which is the default.
    """
    from charlm.workflows.predict import new_predictor
    from charlm.workflows.trained import load_trained

    output = Output(raw=raw, as_json=as_json)
    announce_compilation(live=False)
    trained = load_trained(model, threads)
    predictor = new_predictor(trained, given, evaluates=evaluate)
    predictor.warn = lambda message: say(f"charlm: {message}")
    tell_who_types(text)
    if evaluate:
        evaluation = predictor.evaluate(text)
        output.write(f"{json.dumps(json_ready(evaluation.figures))}\n" if as_json else evaluation.text)
        return
    shown: Shown
    if as_json:
        shown = OBJECTS[trained.task]
    elif trained.task == "transduce":
        shown = _Targets(numbered=given["n_best"] is not None)
    else:
        shown = ROWS[trained.task]
    for window in predictor.predict(text):
        output.write("".join(shown(window)))
        output.flush()
    if predictor.unknowns:
        predictor.warn(f"{predictor.unknowns:,} of {counted(predictor.tokens, 'token')} unknown to the model")


def _label_rows(window: Iterable[Labelling]) -> Iterator[str]:
    for one in window:
        pairs = (f"{label}{TAB}{share:.6f}" for label, share in zip(one.labels, one.probabilities, strict=True))
        yield f"{TAB.join(pairs)}{TAB}{one.text}\n"


def _label_objects(window: Iterable[Labelling]) -> Iterator[str]:
    for one in window:
        labels = [
            {"label": label, "probability": share}
            for label, share in zip(one.labels, one.probabilities, strict=True)
        ]  # fmt: skip
        yield _object({"text": one.text, "labels": labels})


def _tag_rows(window: Iterable[Tagging]) -> Iterator[str]:
    for one in window:
        yield "\n" * one.blank_before
        for row, tag in zip(one.sentence.rows, one.tags, strict=True):
            columns = row.rstrip(" ")
            yield f"{columns}{' ' if ' ' in columns and TAB not in columns else TAB}{tag}\n"


def _tag_objects(window: Iterable[Tagging]) -> Iterator[str]:
    return (_object({"tokens": one.sentence.tokens, "tags": one.tags}) for one in window if one.tags)


class _Targets:
    """Targets a line, each with the number of its source and its log probability if ``numbered``."""

    def __init__(self, *, numbered: bool) -> None:
        self._numbered, self._number = numbered, 0

    def __call__(self, window: Iterable[Transduction]) -> Iterator[str]:
        for one in window:
            self._number += 1
            for target, nats in zip(one.targets, one.log_probs_nats, strict=True):
                yield f"{self._number}{TAB}{nats:.6f}{TAB}{target}\n" if self._numbered else f"{target}\n"


def _target_objects(window: Iterable[Transduction]) -> Iterator[str]:
    for one in window:
        targets = [
            {"target": target, "log_prob_nats": nats}
            for target, nats in zip(one.targets, one.log_probs_nats, strict=True)
        ]  # fmt: skip
        yield _object({"source": one.source, "targets": targets})


def _object(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


ROWS: dict[str, Shown] = {"classify": _label_rows, "tag": _tag_rows}
OBJECTS: dict[str, Shown] = {"classify": _label_objects, "tag": _tag_objects, "transduce": _target_objects}
