"""Runs the engine's cells and the language model on plain arrays, next to the reference, and compares.

What the tests that must pass use and what the tests with planted faults use are the same functions.

A cell is judged as a layer: x (T, N, E) -> pre = x @ w_x + b -> the cell's kernels, so that every parameter of the
reference has a gradient. The number differentiated is a weighted sum of all outputs and of the last states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlm.engine import cells
from charlm.engine.cells._cell import Cell
from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.packed_weight import PackedWeight
from charlm.models.stack import Batch
from tests.gradient_check import Known, check
from tests.reference import network

Array = NDArray[Any]
Arrays = dict[str, Array]

T, N, E, H, V, L = 4, 3, 5, 7, 6, 2  # all different: a swapped size is an error, not a coincidence
FORWARD_TOLERANCE = 1e-12  # absolute, float64; outputs are of the order of 1
GRADIENT_TOLERANCE = 1e-9  # relative, see gradient_check.check

VARIANTS = [(name, activation) for name in cells.names() for activation in cells.find(name).activations]


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays hold the same numbers to the last bit, NaN included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# A cell


@dataclass(frozen=True)
class CellProblem:
    """A layer to run forward and backward. Arrays are float64."""

    cell: str
    activation: str
    arrays: Arrays  # x (T, N, E), w_x, b, w_h, w_p if there are peepholes, state_0 (S, N, H)
    reset: NDArray[np.bool_]  # (T, N)
    initial: Array  # (S, N, H)
    weights: Array  # (T, N, H): of the outputs in the number differentiated
    state_weights: Array  # (S, N, H): of the last states

    def rows(self, low: int, high: int) -> CellProblem:
        """The problem of these rows alone."""
        return replace(
            self,
            arrays=self.arrays | {"x": self.arrays["x"][:, low:high], "state_0": self.arrays["state_0"][:, low:high]},
            reset=self.reset[:, low:high],
            initial=self.initial[:, low:high],
            weights=self.weights[:, low:high],
            state_weights=self.state_weights[:, low:high],
        )

    def steps(self, first: int, last: int, state_0: Array) -> CellProblem:
        """The problem of these steps alone, entered with ``state_0``."""
        return replace(
            self,
            arrays=self.arrays | {"x": self.arrays["x"][first:last], "state_0": state_0},
            reset=self.reset[first:last],
            weights=self.weights[first:last],
        )

    def reference(self, arrays: Arrays) -> tuple[Array, Array]:
        """Outputs (T, N, H) and last states (S, N, H) of the reference, at ``arrays``."""
        cell = network.find_cell(self.cell)
        return network.run_layer(
            cell, arrays["x"], arrays["state_0"], arrays, self.reset, self.initial, self.activation
        )

    def objective(self, arrays: Arrays) -> complex:
        """The number that is differentiated."""
        hidden, state = self.reference(arrays)
        total: complex = (self.weights * hidden).sum() + (self.state_weights * state).sum()
        return total


def cell_problem(
    name: str, activation: str, steps: int = T, rows: int = N, inputs: int = E, size: int = H, seed: int = 1
) -> CellProblem:
    """A random layer: all states non-zero, sequences that begin at the first step and in the middle."""
    cell, rng = network.find_cell(name), np.random.default_rng(seed)
    columns, states, peepholes = len(cell.GATES) * size, len(cell.STATES), len(cell.PEEPHOLES)
    arrays = {
        "x": rng.normal(size=(steps, rows, inputs)),
        "w_x": rng.normal(size=(inputs, columns)) / inputs**0.5,
        "b": rng.normal(size=columns),
        "w_h": rng.normal(size=(size, columns)) / size**0.5,
        "state_0": rng.normal(size=(states, rows, size)),
    }
    if peepholes:
        arrays["w_p"] = rng.normal(size=(peepholes, size))
    reset = np.zeros((steps, rows), bool)
    if steps > 2:
        reset[steps // 2, rows - 1] = True  # in mid-sequence
    if rows > 2:
        reset[0, 1] = True  # and before the first step
    return CellProblem(
        name,
        activation,
        arrays,
        reset,
        rng.normal(size=(states, rows, size)),
        rng.normal(size=(steps, rows, size)),
        rng.normal(size=(states, rows, size)),
    )


@dataclass
class CellRun:
    """The arrays of one pass of a cell's kernels. What a kernel must not read, or must write, begins as NaN."""

    cell: Cell
    problem: CellProblem
    dtype: DTypeLike = np.float64
    arrays: Arrays = field(init=False)

    def __post_init__(self) -> None:
        problem, cell = self.problem, self.cell
        steps, rows, _ = problem.arrays["x"].shape
        states, _, size = problem.initial.shape

        def typed(array: Array) -> Array:
            return np.ascontiguousarray(array, self.dtype).copy()

        def blank(*shape: int) -> Array:
            return np.full(shape, np.nan, self.dtype)

        p = {name: typed(array) for name, array in problem.arrays.items()}
        self.size, self.row_count, self.activation = size, rows, cell.activations.index(problem.activation)
        self.weight = PackedWeight(p["w_h"].shape, self.dtype, tuple(count * size for count in cell.products))
        self.weight.pack(p["w_h"], 0, 1, backward=True)
        self.arrays = p
        self.w_p = p.get("w_p", np.zeros((0, size), self.dtype))
        self.pre = typed(np.stack([x @ p["w_x"] + p["b"] for x in p["x"]]))  # (T, N, G*H)
        self.state = blank(steps + 1, states, rows, size)
        self.state[0] = p["state_0"]
        self.hidden, self.saved = blank(steps, rows, size), blank(steps, rows, cell.saved * size)
        self.reset, self.initial = problem.reset.astype(np.uint8), typed(problem.initial)
        self.d_hidden, self.d_state = typed(problem.weights), typed(problem.state_weights)
        self.scratch = blank(1, rows, size)
        self.d_w_h, self.d_w_p = np.zeros_like(p["w_h"]), np.zeros_like(self.w_p)

    def forward(self, low: int = 0, high: int | None = None) -> CellRun:
        self.cell.forward(
            self.pre, self.weight.forward, self.w_p, self.state, self.hidden, self.saved, self.reset, self.initial,
            self.activation, low, self.row_count if high is None else high,
        )  # fmt: skip
        return self

    def backward(self, low: int = 0, high: int | None = None) -> CellRun:
        self.cell.backward(
            self.d_hidden, self.d_state, self.pre, self.weight.backward, self.w_p, self.state, self.saved, self.reset,
            self.scratch, self.activation, low, self.row_count if high is None else high,
        )  # fmt: skip
        return self

    def gradients(self, parts: int = 1) -> Arrays:
        """The gradients of all of the problem's arrays; those of x, w_x and b follow from the gradient of pre."""
        for part in range(parts):
            self.cell.gradients(self.pre, self.state, self.saved, self.d_w_h, self.d_w_p, part, parts)
        found = {
            "x": self.pre @ self.arrays["w_x"].T,
            "w_x": np.einsum("tne,tnc->ec", self.arrays["x"], self.pre),
            "b": self.pre.sum(axis=(0, 1)),
            "w_h": self.d_w_h,
            "state_0": self.d_state,
        }
        return found | ({"w_p": self.d_w_p} if "w_p" in self.arrays else {})

    def row_arrays(self) -> Iterator[tuple[str, Array]]:
        """What the kernels write, the axis of the rows first."""
        for name in ("pre", "hidden", "saved", "d_hidden"):
            yield name, getattr(self, name).swapaxes(0, 1)
        yield "state", self.state.transpose(2, 0, 1, 3)
        yield "d_state", self.d_state.swapaxes(0, 1)
        yield "scratch", self.scratch[0]


def check_cell_forward(cell: Cell, problem: CellProblem) -> float:
    """Compare a cell's forward kernel with the reference; returns the largest absolute error."""
    run = CellRun(cell, problem).forward()
    hidden, state = problem.reference(problem.arrays)
    np.testing.assert_allclose(run.hidden, hidden, rtol=0, atol=FORWARD_TOLERANCE)
    np.testing.assert_allclose(run.state[-1], state, rtol=0, atol=FORWARD_TOLERANCE)
    return float(max(np.abs(run.hidden - hidden).max(), np.abs(run.state[-1] - state).max()))


def check_cell_gradients(
    cell: Cell,
    problem: CellProblem,
    probes: int | None = None,
    tensors: tuple[str, ...] = (),
    known: Known | None = None,
) -> dict[str, float]:
    """Compare a cell's gradients with the reference's, by complex step; returns each array's worst relative error.

    ``known`` as in `gradient_check.check`.
    """
    found = CellRun(cell, problem).forward().backward().gradients()
    assert set(found) == set(problem.arrays)
    return {
        name: check(
            {name: found[name]},
            lambda moved: problem.objective(problem.arrays | moved),
            {name: problem.arrays[name]},
            GRADIENT_TOLERANCE,
            probes,
            known=known,
        )
        for name in tensors or problem.arrays
    }


# The language model


@dataclass(frozen=True)
class ModelProblem:
    """A model's weights and a batch. Arrays are float64."""

    config: LanguageModelConfig
    parameters: Arrays
    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    state_0: Array  # (L, S, N, H)
    initial: Array
    draws: list[NDArray[np.uint8]] | None = None
    threshold: int = 0
    scale: float | None = None

    @property
    def reference_config(self) -> network.Config:
        config = self.config
        return network.Config(config.cell, config.num_layers, config.activation, config.tie_weights)

    @property
    def keep(self) -> list[Array] | None:
        """The draws as the reference takes them: factors of each layer's output, (T, N, H)."""
        if self.draws is None:
            return None
        shape = (*self.inputs.shape, self.config.hidden_size)
        factor = 256 / (256 - self.threshold)
        return [np.broadcast_to(np.where(draw >= self.threshold, factor, 0.0), shape) for draw in self.draws]

    def loss(self, parameters: Arrays) -> complex:
        """The reference's loss in nats, summed."""
        return network.loss(
            parameters, self.inputs, self.targets, self.state_0, self.initial, self.reference_config, self.keep
        )

    def objective(self, parameters: Arrays) -> complex:
        """The number whose gradients the model gives: the mean loss, or ``scale`` times the sum."""
        scale = 1 / np.count_nonzero(self.targets >= 0) if self.scale is None else self.scale
        return scale * self.loss(parameters)

    def model(self, team: Team | None = None, dtype: DTypeLike = np.float64) -> LanguageModel:
        """A model with these weights."""
        model = LanguageModel(self.config, team, dtype)
        model.parameters.assign(self.parameters)
        model.changed()
        return model

    def batch(self, dtype: DTypeLike = np.float64) -> Batch:
        """A fresh copy of the batch: a pass replaces its state."""
        return Batch(self.inputs, self.state_0.astype(dtype), self.initial.astype(dtype), self.draws, self.threshold)


def model_problem(
    cell: str,
    activation: str = "tanh",
    *,
    sizes: tuple[int, int, int, int, int, int] = (T, N, E, H, V, L),
    tied: bool = False,
    softmax: str = "full",
    dropout: str | None = None,
    scale: float | None = None,
    labels: int = 0,
    seed: int = 2,
) -> ModelProblem:
    """A random model and batch.

    Args:
        sizes: T, N, E, H, V, L; E is put to H where weights are tied.
        dropout: None, "each" (a draw for each step) or "variational" (one for all steps).
        labels: how many; if any, three sequences begin with one, two of them with the last and one with the first.
    """
    steps, rows, inputs_size, size, symbols, layers = sizes
    width = size if tied else inputs_size
    config = LanguageModelConfig(symbols, width, size, layers, cell, activation, tied, softmax, labels)
    rng = np.random.default_rng(seed)
    parameters = {
        path: rng.normal(size=shape)
        / (shape[0] ** 0.5 if path[-4:] in ("/w_x", "/w_h", "ut/w", "/w_z", "l0/w", "l1/w") else 1.0)
        for path, shape in config.shapes().items()
    }
    inputs = rng.integers(0, symbols, (steps, rows)).astype(np.int32)
    targets = rng.integers(0, symbols, (steps, rows)).astype(np.int32)
    if steps > 2:
        inputs[steps // 2, rows - 1] = symbols  # a sequence begins in the middle
        targets[steps // 2 - 1, 0] = -1
    if rows > 2:
        inputs[0, 1] = symbols  # and one at the first step
        targets[0, :2] = -1
    if labels:
        inputs[0, 0] = inputs[-1, rows - 1] = symbols + labels
        inputs[steps // 2, rows // 2] = symbols + 1
    shape = (layers, len(cells.find(cell).states), rows, size)
    draws = None
    if dropout is not None:
        steps_drawn = 1 if dropout == "variational" else steps
        draws = [rng.integers(0, 256, (steps_drawn, rows, size)).astype(np.uint8) for _ in range(layers)]
    return ModelProblem(
        config, parameters, inputs, targets, rng.normal(size=shape), rng.normal(size=shape), draws,
        90 if dropout else 0, scale,
    )  # fmt: skip


def check_model(
    problem: ModelProblem, model: LanguageModel | None = None, probes: int | None = None, known: Known | None = None
) -> dict[str, float]:
    """Compare loss, last state and gradients with the reference; returns each array's worst relative error.

    ``known`` as in `gradient_check.check`.
    """
    model = model or problem.model()
    batch = problem.batch()
    loss_nats = model.loss_and_gradients(batch, problem.targets, problem.scale)
    np.testing.assert_allclose(loss_nats, problem.loss(problem.parameters).real, rtol=FORWARD_TOLERANCE)
    _, state = network.forward(
        problem.parameters, problem.inputs, problem.state_0, problem.initial, problem.reference_config, problem.keep
    )
    np.testing.assert_allclose(batch.state, state, rtol=0, atol=FORWARD_TOLERANCE)
    assert set(model.gradients) == set(problem.parameters)
    return {
        path: check(
            {path: model.gradients[path]},
            lambda moved: problem.objective(problem.parameters | moved),
            {path: problem.parameters[path]},
            GRADIENT_TOLERANCE,
            probes,
            known=known,
        )
        for path in problem.parameters
    }
