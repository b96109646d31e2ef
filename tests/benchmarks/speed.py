"""Speed of training, sampling and scoring, next to PyTorch doing the same work.

    python tests/benchmarks/speed.py --peer-python PATH [--rows REGEX] [--repeats 7] [--quick] [--patience SECONDS]

charlm works in this process, the peer in its own, in turns and never at once; each row is the median of ``--repeats``
turns of each, and the ratio the median of the ratios within a turn, so that a slow minute slows both. The share is
of the float32 peak that charlm's own product reaches here at its best size, on all threads, and counts the
multiplications that each side really does: charlm looks the first layer's input projection up in a table.

Other processes distort ratios, not only seconds: threads that meet at every product, as the peer's do, lose more to
them than threads that meet three times a step. The column "others" says how much of the machine they took; a figure
to quote has it below 5 %. ``--patience`` waits for quiet, and repeats disturbed turns. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from machine import Others, describe, wait_for_quiet
from peer_process import HOW_TO, Peer
from work import BETAS, CLIP_NORM, RATE, ROWS, SAMPLE, SCORE, TRAIN, Row, measure, tokens

from charlm.engine import cells, matmul
from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Batch, PackedWeight
from charlm.training import optimiser
from charlm.training.optimiser import Clipper, Optimiser, gradient_norm
from charlm.workflows.decoding import Start, Truncation, draw_sequences

THREADS = 2
EOS_ID = 1
QUIET = 0.05  # share of the machine that others may take in a turn
PEAK_SIZES = [(48, 128, 512), (48, 256, 256), (96, 256, 512), (48, 512, 256)]  # rows, k, n of a product


def new_model(row: Row, team: Team) -> LanguageModel:
    model = LanguageModel(LanguageModelConfig(row.symbols, row.size, row.size, row.layers, row.cell), team)
    model.initialise(np.random.default_rng(1))
    return model


def training(row: Row, team: Team) -> Callable[[], object]:
    """A training step: forward, backward, clip by norm, Adam; the state is carried on."""
    model = new_model(row, team)
    assert (optimiser.BETA1, optimiser.BETA2) == BETAS  # or the peer does not do the same work
    adam, clip = Optimiser("adamw", model.parameters, weight_decay=0.01), Clipper("norm", CLIP_NORM)
    chunks = tokens(row).astype(np.int32)
    carried, zero = model.zero_state(row.rows), model.zero_state(row.rows)
    number = itertools.count()

    def step() -> float:
        ids = chunks[next(number) % len(chunks)]
        loss_nats = model.loss_and_gradients(Batch(ids[:-1], carried, zero), ids[1:])
        gradients = model.gradients.flat
        scale, _ = clip(gradients, gradient_norm(gradients, team), team)
        adam.step(gradients, RATE, scale, team)
        model.changed()
        return loss_nats

    return step


def scoring(row: Row, team: Team) -> Callable[[], object]:
    """The log probability of each token of a chunk; the state is carried on."""
    model = new_model(row, team)
    chunks = tokens(row).astype(np.int32)
    state = model.zero_state(row.rows)
    number = itertools.count()

    def step() -> Any:
        ids = chunks[next(number) % len(chunks)]
        return model.log_probs(ids[:-1], ids[1:], state)

    return step


def sampling(row: Row, team: Team) -> Callable[[], object]:
    """Draw T tokens for each stream, as ``charlm sample`` does; EOS is made too unlikely to end one."""
    model = new_model(row, team)
    model.parameters["output/b"][EOS_ID] = -50
    start = Start(*model.step(model.zero_state(1), np.full(1, row.symbols, np.int32)))

    def step() -> list[Any]:
        drawn = list(
            draw_sequences(
                model, start, Truncation(), count=row.rows, max_length=row.steps, seed=1,
                refuse=lambda ids: False, attempts=1,
            )
        )  # fmt: skip
        assert len(drawn) == row.rows + (row.steps if row.rows == 1 else 0)  # a single one also comes token by token
        return drawn

    return step


WORK = {TRAIN: training, SCORE: scoring, SAMPLE: sampling}


def operations(row: Row) -> tuple[float, float]:
    """Multiplications and additions in the matrix products of one step: charlm's and the peer's."""
    gates = len(cells.find(row.cell).gates)
    square = 2.0 * gates * row.size * row.size
    passes = 3 if row.kind == TRAIN else 1  # backward: one product for the input, one for the weight
    common = row.tokens * passes * ((2 * row.layers - 1) * square + 2.0 * row.size * row.symbols)
    table_rows = 0.0  # inference with unchanged weights keeps the table
    if row.kind == TRAIN:
        distinct = float(np.mean([np.unique(ids[:-1]).size for ids in tokens(row)]))
        table_rows = row.symbols + 1 if row.symbols < row.tokens else distinct
    return common + passes * table_rows * square, common + passes * row.tokens * square


def peak(team: Team, seconds: float) -> float:
    """Operations a second of charlm's product at its best size, on all threads."""
    best, rng = 0.0, np.random.default_rng(1)
    for rows, k, n in PEAK_SIZES:
        weight = PackedWeight((k, n), np.float32)
        weight.pack(rng.standard_normal((k, n), np.float32), 0, 1, backward=False)
        steps = 16
        a = [rng.standard_normal((steps, rows, k), np.float32) for _ in range(team.threads)]
        c = [np.zeros((steps, rows, n), np.float32) for _ in range(team.threads)]
        packed = [weight.forward.copy() for _ in range(team.threads)]
        none = np.zeros(0, np.float32)

        # The loop variables are arguments, so that each round's products keep their own.
        def product(
            part: int,
            parts: int,
            a: Any = a,
            c: Any = c,
            packed: Any = packed,
            none: Any = none,
            size: Any = (rows, k, n),
        ) -> None:
            rows, k, n = size
            for _ in range(20):  # long enough not to see the start of a thread
                matmul.multiply(
                    a[part], 0, 0, k, packed[part], c[part], 0, 0, n, a[part].shape[0], 0, rows, matmul.ZERO, none
                )

        task: Callable[[], None] = lambda product=product: team.run(product)  # noqa: E731
        task()
        spent = min(measure(task, seconds / 4) for _ in range(4))
        best = max(best, 20 * steps * 2.0 * rows * k * n * team.threads / spent)
    return best


@dataclass
class Reading:
    """What the turns of one row gave."""

    row: Row
    note: str  # the peer's way, where it had a choice
    ours: list[float] = field(default_factory=list)  # seconds of a step, each turn
    theirs: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)  # share of the machine that others took

    def cells(self, top: float) -> list[str]:
        """The row of the table; ``top`` is the peak."""
        our_operations, their_operations = operations(self.row)
        ours = statistics.median(self.ours)
        line = [
            self.row.name,
            f"{self.row.tokens / ours:,.0f}",
            "",
            "",
            "",
            "",
            f"{our_operations / ours / top:.0%}",
            "",
        ]
        if self.theirs:
            theirs = statistics.median(self.theirs)
            ratios = [b / a for a, b in zip(self.ours, self.theirs, strict=True)]
            line[2:6] = [
                f"{self.row.tokens / theirs:,.0f}",
                f"{statistics.median(ratios):.2f} x",
                f"{min(ratios):.2f}-{max(ratios):.2f}",
                f"{min(self.theirs) / min(self.ours):.2f} x",
            ]
            line[7] = f"{their_operations / theirs / top:.0%}"
        return [*line, f"{statistics.mean(self.others):.0%}", self.note]


def read(
    row: Row, team: Team, peer: Peer | None, repeats: int, seconds: float, limit: float, patience: float
) -> Reading:
    """Measure one row; a turn in which others took more than ``limit`` is repeated while ``patience`` (s) lasts."""
    step = WORK[row.kind](row, team)
    deadline = time.perf_counter() + patience
    wait_for_quiet(limit, deadline)  # the peer chooses its way now
    measure(step, 0.3)  # compiles, fills buffers and caches
    reading = Reading(row, str(peer.ask("prepare", row=asdict(row))["note"]) if peer else "")
    while len(reading.ours) < repeats:
        wait_for_quiet(limit, deadline)
        others, processor_seconds, ours, theirs = Others(), 0.0, 0.0, 0.0
        # Who begins changes with each turn.
        for ours_now in (True, False) if len(reading.ours) % 2 == 0 else (False, True):
            if ours_now:
                ours = measure(step, seconds)
            elif peer:
                answer = peer.ask("measure", seconds=seconds)
                theirs, processor_seconds = float(answer["seconds"]), float(answer["processor_seconds"])
        share = others.share(processor_seconds)
        if share > limit and time.perf_counter() < deadline:
            continue
        reading.ours.append(ours)
        reading.others.append(share)
        if peer:
            reading.theirs.append(theirs)
    return reading


HEADS = (
    ("work", 46), ("charlm tok/s", 12), ("peer tok/s", 10), ("ratio", 7), ("lo-hi", 11), ("best/best", 9),
    ("of peak", 7), ("peer's", 6), ("others", 6), ("the peer's way", 0),
)  # fmt: skip


def line_of(texts: Sequence[str]) -> str:
    padded = [f"{texts[0]:<{HEADS[0][1]}}"]
    padded += [f"{text:>{width}}" for text, (_, width) in zip(texts[1:], HEADS[1:], strict=True)]
    return f"| {' | '.join(padded)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", metavar="PATH", help="the Python of an environment with PyTorch and numpy")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the rows whose name matches")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="turns of each side (default: 7)")
    parser.add_argument("--quick", action="store_true", help="3 short turns: a first look, not a figure to quote")
    parser.add_argument(
        "--patience", type=float, default=0, metavar="S", help="seconds a row may wait for a quiet machine (default: 0)"
    )
    options = parser.parse_args()
    repeats, seconds = (3, 0.3) if options.quick else (options.repeats, 1.0)
    chosen = [row for row in ROWS if re.search(options.rows, row.name)]
    if not chosen:
        parser.error("no row matches; rows: " + "; ".join(row.name for row in ROWS))
    team = Team(THREADS)
    peer = Peer(options.peer_python) if options.peer_python else None
    try:
        print(describe(peer))
        if peer is None:
            print(f"charlm alone. {HOW_TO}")
        print(f"turns     {repeats} of each side, of at least {seconds:g} s", flush=True)
        top, readings = peak(team, seconds), []
        for row in chosen:
            readings.append(read(row, team, peer, repeats, seconds, QUIET, options.patience))
            top = max(top, peak(team, seconds))  # of a machine that others use, the best moment
            print(line_of(readings[-1].cells(top)), file=sys.stderr, flush=True)
    finally:
        if peer:
            peer.close()
        team.close()
    print(
        f"peak      {top / 1e9:.0f} GFLOP/s, float32, {THREADS} threads: the best of {len(chosen) + 1} measurements\n"
    )
    print(line_of([head for head, _ in HEADS]))
    print("|---|" + "--:|" * (len(HEADS) - 2) + "---|")
    for reading in readings:
        print(line_of(reading.cells(top)))


if __name__ == "__main__":
    main()
