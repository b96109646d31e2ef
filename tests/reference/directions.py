"""Networks that see all of a sequence, one sequence at a time: nothing is padded, nothing side by side.

Parameters, by path after a prefix: those of `network`, and for the other direction layer<i>/backward/w_x and so on; the
w_x of a layer above the first takes [->, <-].

All functions take complex parameters, so that the complex step differentiates them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.reference.network import Array, Ids, find_cell, log_softmax

Factors = Sequence[Sequence[Array]]  # of each direction of each layer, (S, H): what dropout multiplies its outputs by


@dataclass(frozen=True)
class Kind:
    """What the shapes of the parameters do not tell."""

    cell: str
    activation: str
    num_layers: int
    directions: int


def read(
    parameters: Mapping[str, Array], prefix: str, x: Array, kind: Kind, factors: Factors | None = None
) -> tuple[Array, Array]:
    """A sequence x (S, E) through all layers.

    Args:
        factors: each direction's in the order in which it reads.
    Returns:
        outputs: (S, D, H), of the top layer, in the order of the text.
        last: (L, D, states, H): the states after the last step that each direction reads; zero if S = 0.
    """
    cell = find_cell(kind.cell)
    if len(x) == 0:
        size = parameters[f"{prefix}layer0/w_h"].shape[0]
        states = np.zeros((kind.num_layers, kind.directions, len(cell.STATES), size))
        return np.zeros((0, kind.directions, size)), states
    lasts = []
    for layer in range(kind.num_layers):
        outputs, last = [], []
        for direction in range(kind.directions):
            path = f"{prefix}layer{layer}/" + ("backward/" if direction else "")
            p = {name: parameters[path + name] for name in ("w_x", "w_h", "b", "w_p") if path + name in parameters}
            state = tuple(np.zeros((1, p["w_h"].shape[0])) for _ in cell.STATES)
            steps = []
            for x_t in x[::-1] if direction else x:
                state = cell.step(x_t[None], state, p, kind.activation)
                steps.append(state[0][0])
            given = np.stack(steps)
            if factors is not None:
                given = given * factors[layer][direction]
            outputs.append(given[::-1] if direction else given)
            last.append(np.stack([part[0] for part in state]))
        x = np.concatenate(outputs, axis=1)
        lasts.append(np.stack(last))
    return np.stack(outputs, axis=1), np.stack(lasts)


def ends(outputs: Array) -> Array:
    """Of outputs (S, D, H), those after the last step that each direction reads, (D H,); zero if S = 0."""
    steps, directions, size = outputs.shape
    if steps == 0:
        return np.zeros(directions * size)
    return np.concatenate([outputs[-1 if direction == 0 else 0, direction] for direction in range(directions)])


def classify(parameters: Mapping[str, Array], ids: Ids, kind: Kind, factors: Factors | None = None) -> Array:
    """The log probability of each label, (K,), of a sequence of ids (S,)."""
    outputs, _ = read(parameters, "", parameters["embedding"][ids], kind, factors)
    return log_softmax(ends(outputs) @ parameters["output/w"] + parameters["output/b"])


def tag(
    parameters: Mapping[str, Array],
    word_ids: Ids,
    characters: Sequence[Ids],
    kind: Kind,
    factors: Factors | None = None,
    character_factors: Sequence[Factors] | None = None,
) -> Array:
    """The log probability of each tag of each token, (S, K), of a sentence of words (S,) and their characters."""
    x = parameters["embedding"][word_ids]
    if "characters/embedding" in parameters:
        states = []
        for number, ids in enumerate(characters):
            own = None if character_factors is None else character_factors[number]
            small = Kind(kind.cell, kind.activation, 1, 2)
            outputs, _ = read(parameters, "characters/", parameters["characters/embedding"][ids], small, own)
            states.append(ends(outputs))
        if states:
            x = np.concatenate([x, np.stack(states)], axis=1)
    outputs, _ = read(parameters, "", x, kind, factors)
    return log_softmax(
        outputs.reshape(len(outputs), outputs.shape[1] * outputs.shape[2]) @ parameters["output/w"]
        + parameters["output/b"]
    )
