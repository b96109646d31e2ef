"""Plain recurrent cell, written from its equation.

    (1) a = g(W_a [a0, x] + b_a)        g is tanh, or relu: max(z, 0)

Row vectors: W_a [a0, x] is a0 @ w_h + x @ w_x. The relu looks at the real part, so that a complex step passes
through.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

GATES = ("a",)
STATES = ("a",)
PEEPHOLES = ()


def relu(z: Array) -> Array:
    """The positive part of z."""
    return np.where(z.real > 0, z, np.zeros_like(z))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": np.tanh, "relu": relu}


def step(x: Array, state: tuple[Array, ...], p: dict[str, Array], activation: str = "tanh") -> tuple[Array, ...]:
    """One step, from the state before it to the state after it.

    Args:
        x: inputs, (N, E).
        state: one array (N, H), the hidden output.
        p: "w_x" (E, H), "b" (H,), "w_h" (H, H).
        activation: "tanh" or "relu".
    Returns:
        The new state.
    """
    (a0,) = state
    g = ACTIVATIONS[activation]
    a: Array = g(a0 @ p["w_h"] + x @ p["w_x"] + p["b"])  # (1)
    return (a,)
