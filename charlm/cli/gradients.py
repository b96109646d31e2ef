"""``charlm gradients``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import cell_names, text_options, threads_option
from charlm.cli.output import Output, can_show, json_ready, say, terminal_width
from charlm.cli.progress import announce_compilation, new_bar
from charlm.wording import counted

if TYPE_CHECKING:
    from charlm.workflows.gradients import Clipping, Gradients

SHOWN_STEPS = (0, 1, 2, 3, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000)
TEXT_OPTIONS = ("level", "sequence", "min_count", "vocab_size", "lowercase", "normalize")

EPILOG = """\b
Examples:
  charlm gradients model.npz text.txt                    of a trained model
  charlm gradients rnn.npz lstm.npz text.txt -o a.svg    two in one picture
  charlm gradients --cell rnn --cell lstm text.txt       before any training

For tokens of the text, drawn at random, the gradient of the token's loss is followed back: its norm in the states s of
k steps before, |d loss<t> / d s<t-k>|, averaged over the tokens. The states are all that a step hands to the next one:
those of all layers, of an lstm both a and c. With k = 0 it is the gradient in the top layer's output. Where the norm
falls fast, what takes so many steps is hard to learn. "factor a step" is the geometric mean of the norm's change
from one step to the next, from k = 1 on.

Only tokens that have --steps tokens of their own sequence before them are drawn, so that each k is the mean of the
same tokens. Up to 128 steps before those warm the state.

Of a model, the last line tells how often clipping changed the gradient in training.

--json prints one object: corpus, steps, and for each curve its name, model (its file, or null), cell and sizes,
parameters, positions (how many tokens), norms (k = 0, 1 ...), layers (the same of each layer's states alone),
factor_per_step, and clipping: limit, mode, steps, share (0 to 1; null if the model does not tell).
"""


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="[MODEL]... CORPUS")
@click.option(
    "--cell",
    "cells",
    type=click.Choice(cell_names()),
    multiple=True,
    help="Instead of a model: this cell with fresh weights; may be given several times.",
)
@click.option("--steps", type=click.IntRange(1, 10_000), metavar="K",
              help="How far to go back.  [default: 50, or as far as enough tokens go]")  # fmt: skip
@click.option("--positions", type=click.IntRange(min=1), metavar="N", help="Tokens to draw.  [default: 512]")
@click.option("--hidden-size", type=click.IntRange(1, 1 << 20), metavar="N",
              help="Of --cell: units in each layer.  [default: as train]")  # fmt: skip
@click.option("--num-layers", type=click.IntRange(1, 64), metavar="N", help="Of --cell.  [default: as train]")
@click.option("--activation", type=click.Choice(["tanh", "relu"]), help="Of --cell rnn.  [default: tanh]")
@text_options
@click.option(
    "--on-unknown",
    type=click.Choice(["unk", "error", "skip"]),
    help="Take a token that the model does not know for <unk>, stop there, or leave it out.  [default: unk]",
)
@click.option("--label", metavar="NAME", help="For a model that was trained with labels: which one the text has.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, metavar="N",
              help="Of the tokens drawn, and of fresh weights.")  # fmt: skip
@click.option("-o", "--output", "picture", metavar="FILE.svg", help="Also write a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@threads_option()
def gradients(positions: int | None, as_json: bool, **given: Any) -> None:
    """Show how far back the gradient of a step's loss reaches.

    MODEL is a file that train wrote; without one, --cell names fresh networks. CORPUS is a text, a token file, or - for
    standard input.
    """
    # Here, not above: with them --help would take ten times as long.
    from charlm.workflows.tokenize import TextOptions

    text = TextOptions(**{name: given.pop(name) for name in TEXT_OPTIONS})
    output = Output(as_json=as_json)
    announce_compilation()

    from charlm.workflows.gradients import POSITIONS, GradientsRequest, run

    request = GradientsRequest(text=text, positions=positions or POSITIONS, **given)
    with new_bar(unit=" tokens") as bar:
        result = run(request, bar.update)
    output.write((json.dumps(json_ready(result.to_json())) if as_json else _report(result)) + "\n")
    if request.picture is not None and not as_json:
        say(f"{request.picture} is written")


def _report(result: Gradients) -> str:
    """The drawing, the table, and a line on clipping for each model."""
    from charlm.evaluation.chart import BLOCKS, panels
    from charlm.text.readers import display_name
    from charlm.workflows.gradients import points

    curves, across, up = points(result)
    count = max(curve.positions for curve in result.curves)
    head = f"|d loss<t> / d s<t-k>|, mean over {counted(count, 'token')} of {display_name(result.corpus)}\n\n"
    told = [f"{curve.name}: {_clipping(curve.clipping)}" for curve in result.curves if curve.model is not None]
    drawing = panels(curves, across, up, width=terminal_width(), ascii_only=not can_show(BLOCKS))
    return "\n".join([head + drawing, _table(result), *told]).rstrip()


def _table(result: Gradients) -> str:
    """A line for each k, a column for each curve."""
    from charlm.evaluation.table import align

    shown = [k for k in SHOWN_STEPS if k < result.steps] + [result.steps]
    rows = [["k", *(curve.name for curve in result.curves)]]
    rows += [[str(k), *(f"{curve.norms[k]:.2e}" for curve in result.curves)] for k in shown]
    factors = (curve.factor_per_step for curve in result.curves)
    rows.append(["factor a step", *("-" if factor is None else f"{factor:.3f}" for factor in factors)])
    return align(rows, left=1)


def _clipping(clipping: Clipping | None) -> str:
    """How often clipping bit, in words."""
    if clipping is None:
        return "the model does not tell how its gradients were clipped in training"
    if not clipping.limit:
        return "gradients were not clipped in training"
    limit = f"--clip {clipping.limit:g} by {clipping.mode}"
    if clipping.share is None:
        return f"{limit}; how often that changed the gradient was not recorded when it was trained"
    return f"{limit} changed the gradient in {clipping.share:.1%} of {clipping.steps:,} training steps"
