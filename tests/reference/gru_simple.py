"""Simplified gated recurrent unit, written from its equations (gate order in memory: u, c).

    (1) G_u = sigma(W_u [c0, x] + b_u)
    (2) c~  = tanh(W_c [c0, x] + b_c)
    (3) c   = G_u * c~ + (1 - G_u) * c0
    (4) a   = c

Row vectors: W_u [c0, x] is c0 @ w_h[:, u] + x @ w_x[:, u]. An update gate near 1 takes the new value.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

GATES = ("u", "c")
STATES = ("c",)
PEEPHOLES = ()


def sigma(z: Array) -> Array:
    """The logistic function, 1 / (1 + exp(-z)), in the form that cannot overflow."""
    s: Array = 0.5 * (1.0 + np.tanh(0.5 * z))
    return s


def step(x: Array, state: tuple[Array, ...], p: dict[str, Array], activation: str = "tanh") -> tuple[Array, ...]:
    """One step, from the states before it to the states after it.

    Args:
        x: inputs, (N, E).
        state: one array (N, H) for each of STATES.
        p: "w_x" (E, G*H), "b" (G*H,), "w_h" (H, G*H).
        activation: has no part in this cell.
    Returns:
        The new states, hidden output first.
    """
    (c0,) = state
    H = c0.shape[1]
    u = slice(0 * H, 1 * H)
    c = slice(1 * H, 2 * H)
    w_x, w_h, b = p["w_x"], p["w_h"], p["b"]

    g_u = sigma(c0 @ w_h[:, u] + x @ w_x[:, u] + b[u])  # (1)
    c_tilde = np.tanh(c0 @ w_h[:, c] + x @ w_x[:, c] + b[c])  # (2)
    c1: Array = g_u * c_tilde + (1 - g_u) * c0  # (3), (4)
    return (c1,)
