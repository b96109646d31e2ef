"""A layer and a whole language model over the reference cells: one step at a time, nothing fused.

A cell is a module of this folder, found by its name (`lstm-peephole` is lstm_peephole.py), so that a new
cell is a new file and nothing else.

T steps, N sequences side by side, V vocabulary, K labels, E embedding, H hidden, L layers, S states of a cell, G gates.

Parameters, by path:

    embedding (V, E)   label_embedding (K, E), absent where sequences have no labels
    layer0/w_x (E, G*H)   layer0/b (G*H,)   layer0/w_h (H, G*H)   layer0/w_p (P, H), absent without peepholes
    layer1/w_x (H, G*H)   ...
    output/w (H, V), absent when tied   output/b (V,)

All functions take complex parameters and states, so that the complex step differentiates them.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]
Ids = NDArray[np.integer]
Flags = NDArray[np.bool_]


class Cell(Protocol):
    """What a cell's module holds."""

    GATES: tuple[str, ...]  # in the order of their column blocks
    STATES: tuple[str, ...]  # the hidden output first
    PEEPHOLES: tuple[str, ...]  # in the order of the rows of w_p

    def step(
        self, x: Array, state: tuple[Array, ...], p: dict[str, Array], activation: str = "tanh"
    ) -> tuple[Array, ...]:
        """x (N, E) and the states before, each (N, H), to the states after."""


@dataclass(frozen=True)
class Config:
    """What the shapes of the parameters do not tell."""

    cell: str
    num_layers: int
    activation: str = "tanh"
    tied: bool = False


def find_cell(name: str) -> Cell:
    """The cell of that name, such as `gru-simple`."""
    return cast(Cell, importlib.import_module("." + name.replace("-", "_"), __package__))


def cell_names() -> list[str]:
    """The names of all reference cells, sorted: of the modules that hold a `step`."""
    names = {path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[!_]*.py")}
    return sorted(name for name in names if hasattr(find_cell(name), "step"))


def layer_parameters(parameters: Mapping[str, Array], layer: int) -> dict[str, Array]:
    """The parameters under `layer<i>/`, without the prefix."""
    prefix = f"layer{layer}/"
    return {path.removeprefix(prefix): array for path, array in parameters.items() if path.startswith(prefix)}


def run_layer(
    cell: Cell,
    x: Array,
    state_0: Array,
    p: dict[str, Array],
    reset: Flags,
    initial: Array,
    activation: str = "tanh",
) -> tuple[Array, Array]:
    """One layer over T steps.

    Args:
        cell: from `find_cell`.
        x: inputs, (T, N, E).
        state_0: states before the first step, (S, N, H). Not modified.
        p: the layer's parameters, without prefix.
        reset: where a new sequence starts, (T, N): before step t such a row n takes initial[:, n].
        initial: the states a sequence starts from, (S, N, H).
        activation: of the plain cell, "tanh" or "relu".
    Returns:
        hidden: the outputs, (T, N, H).
        state_T: states after the last step, (S, N, H).
    """
    state = state_0
    outputs = []
    for x_t, reset_t in zip(x, reset, strict=True):
        state = np.where(reset_t[None, :, None], initial, state)  # (S, N, H)
        state = np.stack(cell.step(x_t, tuple(state), p, activation))
        outputs.append(state[0])
    return np.stack(outputs), state


def embed(embedding: Array, inputs: Ids, label_embedding: Array | None = None) -> Array:
    """The rows of the embedding for inputs (T, N); id V is the zero vector, V + 1 + k the row of label k. (T, N, E)."""
    V, E = embedding.shape
    if label_embedding is None:
        label_embedding = np.zeros((0, E))
    rows: Array = np.concatenate([embedding, np.zeros((1, E)), label_embedding])
    if inputs.min() < 0 or inputs.max() >= len(rows):
        raise ValueError(f"inputs are ids from 0 to {V - 1}, {V} for the zero vector, then those of the labels")
    embedded: Array = rows[inputs]
    return embedded


def log_softmax(logits: Array) -> Array:
    """The logarithm of the softmax over the last axis."""
    highest = logits.real.max(axis=-1, keepdims=True)
    shifted = logits - highest
    log_probs: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs


def adaptive_log_probs(a: Array, parameters: Mapping[str, Array]) -> Array:
    """Grave et al. (2017): log p(token) = log p_head(token), or log p_head(tail) + log p_tail(token).

    The head's last columns are the tails, in order; a tail's softmax is over (a W_z) W + b.
    """
    tails = sorted({path.split("/")[1] for path in parameters if path.startswith("output/tail")})
    head = log_softmax(a @ parameters["output/w"] + parameters["output/b"])
    own = head.shape[-1] - len(tails)
    parts = [head[..., :own]]
    for i, name in enumerate(tails):
        p = {path: parameters[f"output/{name}/{path}"] for path in ("w_z", "w", "b")}
        parts.append(head[..., own + i, None] + log_softmax(a @ p["w_z"] @ p["w"] + p["b"]))
    return np.concatenate(parts, axis=-1)


def forward(
    parameters: Mapping[str, Array],
    inputs: Ids,
    state_0: Array,
    initial: Array,
    config: Config,
    keep: Sequence[Array] | None = None,
) -> tuple[Array, Array]:
    """Logits of the language model.

    Args:
        parameters: by path, as the module's docstring lists them.
        inputs: ids, (T, N); id V is the zero vector, V + 1 + k label k, and both start a sequence: the state is reset
            before it.
        state_0: states before the first step, (L, S, N, H).
        initial: the states a sequence starts from, (L, S, N, H).
        config: the cell, the number of layers, the activation, whether embedding and output share a matrix.
        keep: dropout, or None: for each layer the factors of its output, (T, N, H), each 0 or 1 / (1 - rate).
            They act on what the layer hands on, not on its own state.
    Returns:
        logits: (T, N, V); of an adaptive softmax the log probabilities, which are their own log-softmax.
        state_T: states after the last step, (L, S, N, H).
    """
    cell = find_cell(config.cell)
    embedding = parameters["embedding"]
    reset = inputs >= len(embedding)
    below = embed(embedding, inputs, parameters.get("label_embedding"))  # (T, N, E)
    states = []
    for layer in range(config.num_layers):
        p = layer_parameters(parameters, layer)
        hidden, state_T = run_layer(cell, below, state_0[layer], p, reset, initial[layer], config.activation)
        below = hidden if keep is None else hidden * keep[layer]
        states.append(state_T)
    if "output/tail0/w" in parameters:
        return adaptive_log_probs(below, parameters), np.stack(states)
    w_y = embedding.T if config.tied else parameters["output/w"]  # (H, V)
    logits: Array = below @ w_y + parameters["output/b"]  # (T, N, V)
    return logits, np.stack(states)


def loss(
    parameters: Mapping[str, Array],
    inputs: Ids,
    targets: Ids,
    state_0: Array,
    initial: Array,
    config: Config,
    keep: Sequence[Array] | None = None,
) -> complex:
    """Cross entropy in nats, summed over the targets (T, N) that are not -1. The rest as in `forward`."""
    logits, _ = forward(parameters, inputs, state_0, initial, config, keep)
    t, n = np.nonzero(targets >= 0)
    total: complex = -log_softmax(logits)[t, n, targets[t, n]].sum()
    return total
