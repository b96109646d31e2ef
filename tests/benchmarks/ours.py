"""charlm's side: a step of each kind of work, the multiplications in it, and the machine's peak.

The one place where the benchmarks call charlm's insides, besides twin.py and shares.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import machine  # noqa: F401  (first: it makes `charlm` the one of this tree)
import numpy as np
from work import BETAS, CLIP_NORM, DECAY, RATE, SAMPLE, SCORE, TRAIN, Row, measure, tokens

from charlm.engine import cells, matmul
from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.packed_weight import PackedWeight
from charlm.models.softmax import AdaptiveSoftmax
from charlm.models.stack import Batch
from charlm.training import optimiser
from charlm.training.optimiser import Clipper, Optimiser, gradient_norm
from charlm.workflows.decoding import Start, Truncation, draw_sequences

EOS_ID = 1
PEAK_SIZES = [(48, 128, 512), (48, 256, 256), (96, 256, 512), (48, 512, 256)]  # rows, k, n of a product


def new_model(row: Row, team: Team) -> LanguageModel:
    softmax = "adaptive" if row.adaptive else "full"
    config = LanguageModelConfig(row.symbols, row.size, row.size, row.layers, row.cell, softmax=softmax)
    model = LanguageModel(config, team)
    model.initialise(np.random.default_rng(1))
    return model


class TrainingStep:
    """Forward, backward, clip by norm, AdamW, as `Trainer` does it; the state is carried from chunk to chunk."""

    def __init__(self, model: LanguageModel, rows: int, decay: float = DECAY) -> None:
        assert (optimiser.BETA1, optimiser.BETA2) == BETAS  # or the peer does not do the same work
        self.model = model
        self._adam, self._clip = Optimiser("adamw", model.parameters, weight_decay=decay), Clipper("norm", CLIP_NORM)
        self._carried, self._zero = model.zero_state(rows), model.zero_state(rows)

    def __call__(self, ids: Any, rate: float = RATE) -> float:
        """Learn ids[1:] from ids[:-1], (T + 1, N) int32; the sum of the losses before the step, nats."""
        model, team = self.model, self.model.team
        loss_nats = model.loss_and_gradients(Batch(ids[:-1], self._carried, self._zero), ids[1:])
        gradients = model.gradients.flat
        scale, _ = self._clip(gradients, gradient_norm(gradients, team), team)
        self._adam.step(gradients, rate, scale, team)
        model.changed()
        return loss_nats


def training(row: Row, team: Team) -> Callable[[], object]:
    step, number = TrainingStep(new_model(row, team), row.rows), itertools.count()
    chunks = tokens(row).astype(np.int32)
    return lambda: step(chunks[next(number) % len(chunks)])


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


def work(row: Row, team: Team) -> Callable[[], object]:
    """A step of the row's work."""
    return {TRAIN: training, SCORE: scoring, SAMPLE: sampling}[row.kind](row, team)


def output_size(row: Row) -> float:
    """Multiplications of the output layer for one token; of an adaptive softmax, for a token of the row's mean."""
    if not row.adaptive:
        return row.size * row.symbols
    shapes, (head, middle, end) = AdaptiveSoftmax.shapes(row.symbols, row.size), AdaptiveSoftmax.parts(row.symbols)
    total, ids = float(math.prod(shapes["output/w"])), tokens(row)
    for i, (first, last) in enumerate(((head, middle), (middle, end))):
        share = float(((ids >= first) & (ids < last)).mean())
        total += share * sum(math.prod(shapes[f"output/tail{i}/{path}"]) for path in ("w_z", "w"))
    return total


def operations(row: Row) -> tuple[float, float]:
    """Multiplications and additions in the matrix products of one step: charlm's and the peer's."""
    gates = len(cells.find(row.cell).gates)
    square = 2.0 * gates * row.size * row.size
    passes = 3 if row.kind == TRAIN else 1  # backward: one product for the input, one for the weight
    common = row.tokens * passes * ((2 * row.layers - 1) * square + 2.0 * output_size(row))
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
