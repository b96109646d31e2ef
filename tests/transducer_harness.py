"""Runs the encoder-decoder on small problems, next to the reference, and compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlm.engine.threads import Team
from charlm.models.sequences import Sequences
from charlm.models.transducer import Transducer, TransducerConfig, TransducerDropout
from charlm.text.buckets import Rows
from charlm.training.collections import sequences
from tests.engine_harness import FORWARD_TOLERANCE, GRADIENT_TOLERANCE
from tests.gradient_check import check
from tests.reference import directions
from tests.reference import transducer as reference
from tests.whole_harness import THRESHOLD, factors_of

Array = NDArray[Any]
Arrays = dict[str, Array]
Ids = NDArray[np.int32]

SIZES = V_S, V_T, E_S, E_T, H = 5, 7, 3, 2, 4
SOURCES = (4, 1, 0, 3)  # lengths; one is empty
TARGETS = (2, 3, 1, 2)  # lengths, with EOS


@dataclass(frozen=True)
class Problem:
    """Weights, and pairs. Arrays are float64."""

    config: TransducerConfig
    parameters: Arrays
    sources: list[Ids]
    inputs: list[Ids]
    targets: list[Ids]  # -1 where nothing is predicted
    dropout: str = ""  # "each", "variational"
    scale: float | None = None

    def batch(self) -> tuple[Sequences, Ids, Ids]:
        """The pairs side by side."""
        every = np.arange(len(self.sources))
        inputs, targets = (Rows.of_sequences(rows) for rows in (self.inputs, self.targets))
        sources = sequences(Rows.of_sequences(self.sources), every, self.config.source_size)
        return sources, inputs.padded(every, self.config.target_size), targets.padded(every, -1)

    def rows(self, chosen: Sequence[int]) -> Problem:
        """The problem of these pairs alone."""
        sources, inputs, targets = ([part[i] for i in chosen] for part in (self.sources, self.inputs, self.targets))
        return replace(self, sources=sources, inputs=inputs, targets=targets)

    def model(self, team: Team | None = None, dtype: DTypeLike = np.float64) -> Transducer:
        model = Transducer(self.config, team, dtype)
        model.parameters.assign(self.parameters)
        model.changed()
        return model

    def draw(self, model: Transducer) -> TransducerDropout | None:
        if not self.dropout:
            return None
        sources, inputs, _ = self.batch()
        variational = self.dropout == "variational"
        return model.draw_dropout(np.random.default_rng(3), sources, inputs, THRESHOLD, variational=variational)

    def log_probs(self, parameters: Arrays, row: int, dropout: TransducerDropout | None = None) -> Array:
        """The reference's, (T, V_t), of what follows each input of a row."""
        config, factors = self.config, (None, None)
        kind = directions.Kind(config.cell, config.activation, config.num_layers, config.directions)
        source, inputs = self.sources[row], self.inputs[row]
        if dropout is not None:
            keep = 256 / (256 - THRESHOLD)
            draws = [np.broadcast_to(draw, (max(len(draw), inputs.size), *draw.shape[1:])) if len(draw) == 1 else draw
                     for (draw,) in dropout.decoder.draws]  # fmt: skip
            own = [np.where(draw[: inputs.size, row] >= THRESHOLD, keep, 0.0) for draw in draws]
            return reference.log_probs(
                parameters, source, inputs, kind, factors_of(dropout.encoder, row, source.size), own
            )
        return reference.log_probs(parameters, source, inputs, kind, *factors)

    def loss(self, parameters: Arrays, dropout: TransducerDropout | None = None) -> complex:
        total = 0.0 + 0.0j
        for row, targets in enumerate(self.targets):
            steps = np.flatnonzero(targets >= 0)
            total -= self.log_probs(parameters, row, dropout)[steps, targets[steps]].sum()
        return total

    @property
    def factor(self) -> float:
        """Of the loss in the number whose gradients the model gives."""
        count = sum(np.count_nonzero(targets >= 0) for targets in self.targets)
        return 1 / count if self.scale is None else self.scale


def problem(
    cell: str = "lstm",
    activation: str = "tanh",
    layers: int = 1,
    *,
    bidirectional: bool = True,
    attention: bool = True,
    sizes: tuple[int, int, int, int, int] = SIZES,
    sources: tuple[int, ...] = SOURCES,
    targets: tuple[int, ...] = TARGETS,
    dropout: str = "",
    scale: float | None = None,
) -> Problem:
    """Random weights, of the order of 1, and pairs."""
    v_s, v_t, e_s, e_t, size = sizes
    config = TransducerConfig(v_s, v_t, e_t, size, layers, cell, activation, bidirectional, attention, e_s)
    rng = np.random.default_rng(3)
    parameters = {
        path: rng.normal(size=shape) / (shape[0] ** 0.5 if path[-4:] in ("/w_x", "/w_h", "ut/w", "on/w") else 1.0)
        for path, shape in config.shapes().items()
    }
    source_ids = [rng.integers(0, v_s, length).astype(np.int32) for length in sources]
    target_ids = [rng.integers(0, v_t, length).astype(np.int32) for length in targets]
    inputs = [np.append(v_t, ids[:-1]).astype(np.int32) for ids in target_ids]
    if len(targets) > 1 and targets[1] > 1:
        target_ids[1][1] = -1  # in the midst
    return Problem(config, parameters, source_ids, inputs, target_ids, dropout, scale)


def check_transducer(given: Problem, model: Transducer | None = None, probes: int | None = None) -> None:
    """Compare loss, log probabilities and gradients with the reference."""
    model = model or given.model()
    sources, inputs, targets = given.batch()
    scores = model.log_probs(sources, inputs, targets)
    for row, own in enumerate(given.targets):
        steps = np.flatnonzero(own >= 0)
        expected = given.log_probs(given.parameters, row)[steps, own[steps]]
        np.testing.assert_allclose(scores[steps, row], expected, rtol=0, atol=FORWARD_TOLERANCE)
    assert not scores[targets < 0].any()
    dropout = given.draw(model)
    loss_nats = model.loss_and_gradients(sources, inputs, targets, dropout, given.scale)
    np.testing.assert_allclose(loss_nats, given.loss(given.parameters, dropout).real, rtol=FORWARD_TOLERANCE)
    assert set(model.gradients) == set(given.parameters)
    check(
        dict(model.gradients), lambda arrays: given.factor * given.loss(arrays, dropout), given.parameters,
        GRADIENT_TOLERANCE, probes,
    )  # fmt: skip
