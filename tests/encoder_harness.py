"""Runs an encoder on a small problem, next to the reference, and compares its outputs, last states and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import DTypeLike

from charlm.engine.threads import Team
from charlm.models.encoder import Directions, Encoder, EncoderConfig
from charlm.models.parameters import Parameters
from charlm.models.sequences import Dropout
from charlm.text.buckets import Rows
from charlm.training.collections import sequences
from tests.gradient_check import Known, check
from tests.reference import directions
from tests.whole_harness import THRESHOLD, Array, cut, factors_of, rows_of

PREFIX = "encoder/"
Fault = Callable[[Directions], None]


@dataclass(frozen=True)
class EncoderProblem:
    """Sequences, weights, and by what each output and each last state counts in the number differentiated."""

    config: EncoderConfig
    rows: Rows
    parameters: dict[str, Array]
    weights: list[Array]  # of each row (length, D, H), in the order of the text
    state_weights: Array  # (L, D, S, N, H)
    dropout: str = ""  # "each", "variational"

    @property
    def kind(self) -> directions.Kind:
        config = self.config
        return directions.Kind(config.cell, config.activation, config.num_layers, config.directions)

    def row(self, number: int) -> EncoderProblem:
        """The problem of one row alone."""
        return replace(
            self,
            rows=Rows.of_sequences([cut(self.rows)[number]]),
            weights=[self.weights[number]],
            state_weights=self.state_weights[:, :, :, number : number + 1],
        )

    def reference(self, parameters: Mapping[str, Array], dropout: Dropout | None) -> tuple[list[Array], list[Array]]:
        """Of each row the outputs (length, D, H) and the last states (L, D, S, H)."""
        embedding = parameters[f"{PREFIX}embedding"]
        pairs = [
            directions.read(parameters, PREFIX, embedding[ids], self.kind, factors_of(dropout, row, len(ids)))
            for row, ids in enumerate(cut(self.rows))
        ]
        return [outputs for outputs, _ in pairs], [last for _, last in pairs]

    def objective(self, parameters: Mapping[str, Array], dropout: Dropout | None) -> complex:
        """The number that is differentiated."""
        outputs, lasts = self.reference(parameters, dropout)
        total = 0.0 + 0.0j
        for row, (given, last) in enumerate(zip(outputs, lasts, strict=True)):
            total += (self.weights[row] * given).sum() + (self.state_weights[:, :, :, row] * last).sum()
        return total


def encoder_problem(
    cell: str = "lstm",
    activation: str = "tanh",
    layers: int = 2,
    *,
    bidirectional: bool = True,
    dropout: str = "",
    lengths: Sequence[int] = (3, 1, 6, 0, 4),
    sizes: tuple[int, int, int] = (9, 5, 4),
) -> EncoderProblem:
    """A random problem; ``sizes`` are V, E, H."""
    config = EncoderConfig(*sizes, layers, cell, activation, bidirectional)
    rng, rows = np.random.default_rng(8), rows_of(lengths, sizes[0], 7)
    parameters = {
        PREFIX + path: rng.normal(size=shape) / (shape[0] ** 0.5 if path.endswith(("w_x", "w_h")) else 1.0)
        for path, shape in config.shapes().items()
    }
    states = len(directions.find_cell(cell).STATES)
    weights = [rng.normal(size=(length, config.directions, config.hidden_size)) for length in lengths]
    state_weights = rng.normal(size=(layers, config.directions, states, len(lengths), config.hidden_size))
    return EncoderProblem(config, rows, parameters, weights, state_weights, dropout)


@dataclass
class EncoderRun:
    """One pass forward and backward. A fault, if there is one, is run before the phase of its name.

    Attributes:
        outputs: of each row (length, D, H).
        last: (L, D, S, N, H).
    """

    problem: EncoderProblem
    team: Team = field(default_factory=lambda: Team(1))
    dtype: DTypeLike = np.float64
    faults: Mapping[str, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problem = self.problem
        self.parameters = Parameters({path: array.shape for path, array in problem.parameters.items()}, self.dtype)
        self.parameters.assign(problem.parameters)
        self.gradients = self.parameters.like()
        self.encoder = Encoder(problem.config, self.parameters, self.gradients, PREFIX)
        self.run()

    def run(self) -> None:
        """The pass; may be repeated."""
        problem, encoder, network, run = self.problem, self.encoder, self.encoder.network, self.team.run
        numbers = np.arange(problem.rows.lengths.size)
        batch = sequences(problem.rows, numbers, problem.config.vocabulary_size)
        self.dropout = None
        if problem.dropout:
            self.dropout = encoder.draw_dropout(
                np.random.default_rng(3), batch, THRESHOLD, variational=problem.dropout == "variational"
            )
        self.gradients.flat[...] = 0
        encoder.begin(batch, self.dropout)
        run(lambda part, parts: network.pack(part, parts, backward=True))
        encoder.embed()
        self._phase("tabulate", network.tabulate)
        self._phase("forward", network.forward)
        outputs = np.stack([network.output(d) for d in range(problem.config.directions)], axis=2)  # (T, N, D, H)
        starts = network.steps - network.lengths
        self.outputs = [outputs[start:, row].copy() for row, start in enumerate(starts.tolist())]
        self.last = network.last
        network.begin_backward()
        for row, start in enumerate(starts.tolist()):
            for d in range(problem.config.directions):
                network.d_outputs[d][start:, row] = problem.weights[row][:, d]
        network.d_state[...] = problem.state_weights
        self._phase("backward", network.backward)
        self._phase("sum_gradients", network.sum_gradients)
        self._phase("finish_gradients", encoder.finish_gradients)

    def _phase(self, name: str, task: Callable[[int, int], None]) -> None:
        self.faults.get(name, lambda network: None)(self.encoder.network)
        self.team.run(task)


def check_encoder(
    problem: EncoderProblem,
    probes: int | None = 8,
    faults: Mapping[str, Fault] | None = None,
    known: Known | None = None,
) -> EncoderRun:
    """Compare outputs, last states and all gradients with the reference; ``known`` as in `gradient_check.check`."""
    run = EncoderRun(problem, faults=faults or {})
    outputs, lasts = problem.reference(problem.parameters, run.dropout)
    for found, wanted in zip(run.outputs, outputs, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.last, np.stack(lasts, axis=3), rtol=0, atol=1e-12)
    check(
        dict(run.gradients), lambda moved: problem.objective(moved, run.dropout), problem.parameters, 1e-9, probes,
        known=known,
    )  # fmt: skip
    return run
