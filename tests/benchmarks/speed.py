"""Speed of training, sampling and scoring, next to PyTorch doing the same work.

    python tests/benchmarks/speed.py --peer-python PATH [--rows REGEX] [--repeats 7] [--quick]

charlm works in this process, the peer in its own, in turns and never at once; each row is the median of ``--repeats``
turns of each, and the ratio the median of the ratios within a turn, so that a slow minute slows both. The share is
of the float32 peak that charlm's own product reaches here at its best size, on all threads, and counts the
multiplications that each side really does: charlm looks the first layer's input projection up in a table.
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from peer_process import HOW_TO, Peer, describe
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


def run_row(
    row: Row, team: Team, peer: Peer | None, repeats: int, seconds: float
) -> tuple[list[float], list[float], str]:
    """Seconds of a step in each turn, charlm's and the peer's, and what the peer chose."""
    step = WORK[row.kind](row, team)
    measure(step, 0.3)  # compiles, fills buffers and caches
    note = str(peer.ask("prepare", row=asdict(row))["note"]) if peer else ""
    ours, theirs = [], []
    for turn in range(repeats):
        # Who begins changes with each turn.
        for ours_now in (True, False) if turn % 2 == 0 else (False, True):
            if ours_now:
                ours.append(measure(step, seconds))
            elif peer:
                theirs.append(float(peer.ask("measure", seconds=seconds)["seconds"]))
    return ours, theirs, note


def print_line(cells_: Sequence[str]) -> None:
    widths = (44, 12, 12, 7, 11, 8, 8)
    padded = [
        f"{text:<{width}}" if i == 0 else f"{text:>{width}}" for i, (text, width) in enumerate(zip(cells_, widths))
    ]
    print(f"| {' | '.join(padded)} | {cells_[-1]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", metavar="PATH", help="the Python of an environment with PyTorch and numpy")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the rows whose name matches")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="turns of each side (default: 7)")
    parser.add_argument("--quick", action="store_true", help="3 short turns: a first look, not a figure to quote")
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
        report(chosen, team, peer, repeats, seconds)
    finally:
        if peer:
            peer.close()
        team.close()


def report(chosen: Sequence[Row], team: Team, peer: Peer | None, repeats: int, seconds: float) -> None:
    top = peak(team, seconds)
    print(f"peak      {top / 1e9:.0f} GFLOP/s, float32, {team.threads} threads")
    print(f"turns     {repeats} of at least {seconds:g} s, alternating\n")
    print_line(["work", "charlm tok/s", "peer tok/s", "ratio", "lo-hi", "of peak", "peer's", "the peer's way"])
    print("|---|--:|--:|--:|--:|--:|--:|---|")
    for row in chosen:
        ours, theirs, note = run_row(row, team, peer, repeats, seconds)
        our_operations, their_operations = operations(row)
        median = statistics.median(ours)
        line = [row.name, f"{row.tokens / median:,.0f}"]
        if peer:
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            their_median = statistics.median(theirs)
            line += [f"{row.tokens / their_median:,.0f}", f"{statistics.median(ratios):.2f} x"]
            line += [f"{min(ratios):.2f}-{max(ratios):.2f}", f"{our_operations / median / top:.0%}"]
            line += [f"{their_operations / their_median / top:.0%}"]
        else:
            line += ["", "", "", f"{our_operations / median / top:.0%}", ""]
        print_line([*line, note])
    after = peak(team, seconds)
    print(f"\npeak after the last row: {after / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
