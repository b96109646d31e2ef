"""Gated recurrent unit, written from its equations (gate order in memory: u, r, c).

    (1) G_u = sigma(W_u [c0, x] + b_u)
    (2) G_r = sigma(W_r [c0, x] + b_r)
    (3) c~  = tanh(W_c [G_r * c0, x] + b_c)
    (4) c   = G_u * c~ + (1 - G_u) * c0
    (5) a   = c

Row vectors: W_u [c0, x] is c0 @ w_h[:, u] + x @ w_x[:, u]. The reset gate multiplies the state before the
matrix product, and an update gate near 1 takes the new value.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

GATES = ("u", "r", "c")
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
    r = slice(1 * H, 2 * H)
    c = slice(2 * H, 3 * H)
    w_x, w_h, b = p["w_x"], p["w_h"], p["b"]

    g_u = sigma(c0 @ w_h[:, u] + x @ w_x[:, u] + b[u])  # (1)
    g_r = sigma(c0 @ w_h[:, r] + x @ w_x[:, r] + b[r])  # (2)
    c_tilde = np.tanh((g_r * c0) @ w_h[:, c] + x @ w_x[:, c] + b[c])  # (3)
    c1: Array = g_u * c_tilde + (1 - g_u) * c0  # (4), (5)
    return (c1,)
