"""``charlm train``."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import SectionedCommand, cell_names, text_options, threads_option
from charlm.cli.output import Output, quoted
from charlm.cli.progress import announce_compilation
from charlm.cli.training_view import TrainingView

if TYPE_CHECKING:
    from types import FrameType

EPILOG = """\b
Examples:
  charlm train names.txt -o names.npz                    one name a line
  charlm train play.txt -o play.npz --sequence file      prose: one long text
  charlm train bible.txt -o bible.npz --level word --vocab-size 10000
  charlm train play.txt -o play.npz --resume             go on after a stop
  charlm train towns.tsv -o towns.npz --task classify    label<TAB>text lines

The best model on the validation text is MODEL.npz; what --resume needs lies beside it in MODEL.resume.npz. Ctrl-C,
SIGTERM and a closed terminal save and stop; twice Ctrl-C stops at once. A resumed training gives the same bits as one
that was never stopped, or killed: at every moment the files are whole.

Options that are not given follow from the size of the text; what was chosen is told, with the reason.

--json ends with one object on standard output: model, parameters, epochs, steps, tokens, seconds, tokens_per_second,
train_nats and best_valid_nats (nats per token; null if there is no validation). With --task classify a token is a
label, with --task tag a tag.
"""

SECTIONS = {
    "Task": ("task", "condition", "target_level", "token_column", "tag_column"),
    "Text": ("level", "sequence", "min_count", "vocab_size", "lowercase", "normalize", "valid", "valid_frac"),
    "Model": (
        "cell", "activation", "hidden_size", "num_layers", "embedding_size", "bidirectional", "char_features",
        "attention", "tie_weights", "softmax",
    ),
    "Training": (
        "epochs", "time_seconds", "patience", "batch_size", "bptt", "optimizer", "lr", "schedule", "warmup",
        "weight_decay", "clip", "clip_mode", "dropout", "variational", "initial_state", "seed", "threads",
    ),
    "Files and output": ("output", "keep", "resume", "init_from", "log", "as_json", "quiet"),
}  # fmt: skip

DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def duration(value: str) -> float:
    """Seconds, from 90, 90s, 5m or 1h30m."""
    match = DURATION.fullmatch(value)
    parts = [float(part or 0) for part in match.groups()] if match else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds > 0:
        raise click.BadParameter(f"{value!r} is no time; write 90s, 5m or 1h30m.")
    return seconds


def rate(value: str) -> float:
    """A finite number above zero."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise click.BadParameter(f"{value!r} is not a number above 0.")
    return number


class Number(click.FloatRange):
    """A range that does not let NaN pass, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number that ``value`` spells."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


COUNT = click.IntRange(min=1)
COLUMN = click.IntRange(min=0, max=1000)
SIZE = click.IntRange(1, 1 << 20)  # as much as a reader of models takes
NOT_NEGATIVE = Number(min=0, max=1e9)


@click.command(cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.argument("corpus", nargs=-1, required=True, metavar="CORPUS...")
@click.option("-o", "--output", required=True, metavar="MODEL.npz", help="Where to write the model.")
@click.option(
    "--task",
    type=click.Choice(["lm", "classify", "tag", "transduce"]),
    help="lm: the next token of any text. classify: the label of a text, from lines of label<TAB>text. tag: a tag "
    "for each token, from CoNLL columns. transduce: a text from another, from lines of source<TAB>target.  "
    "[default: lm]",
)
@click.option(
    "--condition",
    type=click.Choice(["label"]),
    help="lm: the lines are label<TAB>text, and the model learns texts of each label.",
)
@click.option(
    "--target-level",
    type=click.Choice(["char", "word"]),
    help="transduce: what a token of the target is.  [default: as --level]",
)
@click.option("--token-column", type=COLUMN, metavar="N", help="tag: the column of the token, from 1.  [default: 1]")
@click.option("--tag-column", type=COLUMN, metavar="N", help="tag: that of the tag; 0 for the last.  [default: 0]")
@text_options
@click.option("--valid", multiple=True, metavar="FILE", help="Validate on this text; may be given several times.")
@click.option(
    "--valid-frac",
    type=Number(min=0, max=1, max_open=True),
    metavar="F",
    help="Hold this part of the text out: every tenth line for 0.1, of a file the tail, of labelled lines a tenth of "
    "each label.  [default: 0.1]",
)
@click.option("--cell", type=click.Choice(cell_names()), help="The recurrent cell.  [default: lstm]")
@click.option("--activation", type=click.Choice(["tanh", "relu"]), help="Of --cell rnn.  [default: tanh]")
@click.option("--hidden-size", type=SIZE, metavar="N", help="Units in each layer.")
@click.option("--num-layers", type=click.IntRange(1, 64), metavar="N", help="Layers, one upon another.")
@click.option("--embedding-size", type=SIZE, metavar="N", help="Size of a token's vector.")
@click.option(
    "--bidirectional/--no-bidirectional",
    default=None,
    help="classify, tag, transduce: read texts in both directions.",
)
@click.option(
    "--char-features/--no-char-features",
    default=None,
    help="tag: a token's characters tell as much as its word.  [default: yes]",
)
@click.option(
    "--attention/--no-attention",
    default=None,
    help="transduce: look at all of the source at each step of the target.  [default: no]",
)
@click.option("--tie-weights", is_flag=True, default=None, help="The output's weights are the embedding's.")
@click.option(
    "--softmax",
    type=click.Choice(["full", "adaptive"]),
    help="Over all tokens at once, or rare ones in classes of their own: faster for 10,000 words and more.",
)
@click.option("--epochs", type=COUNT, metavar="N", help="Passes over the text.")
@click.option("--time", "time_seconds", type=duration, metavar="TIME", help="Train so long: 90s, 5m, 1h30m.")
@click.option(
    "--patience",
    type=COUNT,
    metavar="N",
    help="Stop after N validations without a better model.  [default: 6, if neither --epochs nor --time is given]",
)
@click.option("--batch-size", type=COUNT, metavar="N", help="Rows of text side by side.")
@click.option("--bptt", type=COUNT, metavar="N", help="Steps through which the gradient flows back.")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), help="[default: adamw]")
@click.option("--lr", type=rate, metavar="RATE", help="Learning rate.")
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "plateau", "constant"]),
    help="How the rate falls: to nothing along a cosine, by half when validation does not improve, or not.  "
    "[default: cosine]",
)
@click.option("--warmup", type=click.IntRange(min=0), metavar="N", help="Steps in which the rate rises.")
@click.option(
    "--weight-decay", type=NOT_NEGATIVE, metavar="X", help="Decay of matrices, per unit of rate.  [default: 0]"
)
@click.option("--clip", type=NOT_NEGATIVE, metavar="X", help="Clip gradients at this size; 0 for never.  [default: 1]")
@click.option(
    "--clip-mode",
    type=click.Choice(["norm", "value"]),
    help="Clip the norm of all gradients together, or each number.  [default: norm]",
)
@click.option(
    "--dropout",
    type=Number(min=0, max=0.95),
    metavar="P",
    help="Drop outputs of layers with this probability, rounded to 1/256.",
)
@click.option("--variational", is_flag=True, default=None, help="Drop the same units at all steps of a chunk.")
@click.option("--initial-state", type=click.Choice(["zeros", "random"]), help="Of each sequence.  [default: zeros]")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), metavar="N", help="[default: 0]")
@threads_option("[default: all cores]  Changes no result.")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    metavar="N",
    help="Also keep the models of the last N validations, as MODEL.step-000000200.npz.  [default: 0]",
)
@click.option("--resume", is_flag=True, help="Go on with a training that was stopped; options are remembered.")
@click.option("--init-from", metavar="MODEL", help="Begin with the weights of this model, and its vocabulary.")
@click.option("--log", metavar="FILE.jsonl", help="Write a line of JSON now and then.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(as_json: bool, quiet: bool, **given: Any) -> None:
    """Train a language model, a classifier, a tagger or a transducer.

    CORPUS is a text in UTF-8 (also .gz), - for standard input, or what `charlm tokenize -o` wrote.
    """
    from charlm.workflows.tokenize import TextOptions
    from charlm.workflows.train_request import TrainRequest

    # The model is the result: where stdout is closed, it is made all the same.
    output = Output(as_json=True) if as_json and sys.stdout is not None else None
    names = SECTIONS["Text"][:6]  # those of `text_options`
    request = TrainRequest(
        text=TextOptions(**{name: given.pop(name) for name in names}),
        command=" ".join(map(quoted, ["charlm", *sys.argv[1:]])),
        **given,
    )
    if not quiet:
        announce_compilation()

    from charlm.workflows.train import run

    view = TrainingView(quiet=quiet)
    with view, _Signals(view):
        result = run(request, view)
    if output is not None:
        fields = asdict(result)
        output.write(json.dumps({name: fields[name] for name in list(fields)[:9]}) + "\n")
    view.finished(result, request)
    if result.interrupted:
        sys.exit(128 + view.signal)


class _Signals:
    """What signals do while training.

    SIGINT, SIGTERM and SIGHUP ask for a stop; SIGINT or SIGTERM after one of these two, or any before there is
    something to save, stops at once. A closing terminal may send SIGHUP twice, a system that goes down SIGHUP and
    SIGTERM: that saves.
    """

    def __init__(self, view: TrainingView) -> None:
        self.view = view
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # or it is under nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self.before[number] = signal.signal(number, self.handle)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        hangup = getattr(signal, "SIGHUP", None)
        if not self.view.begun or (number != hangup and self.view.signal not in (0, hangup)):
            if not self.view.begun:
                self._write("stopped before the first step: there is nothing to save")
            raise SystemExit(128 + number)
        if self.view.signal and number == hangup:
            return
        self.view.signal = number
        self._write("stopping after this step; again to stop at once, without saving")

    @staticmethod
    def _write(message: str) -> None:
        """Say it, but not through the stream, in whose middle the signal may have come."""
        with contextlib.suppress(OSError):
            os.write(2, f"\ncharlm: {message}\n".encode())
