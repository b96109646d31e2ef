"""Long short-term memory with peepholes, written from its equations (gate order in memory: u, f, o, c).

    (1) G_u = sigma(W_u [a0, x] + p_u * c0 + b_u)
    (2) G_f = sigma(W_f [a0, x] + p_f * c0 + b_f)
    (3) G_o = sigma(W_o [a0, x] + p_o * c0 + b_o)
    (4) c~  = tanh(W_c [a0, x] + b_c)
    (5) c   = G_u * c~ + G_f * c0
    (6) a   = G_o * tanh(c)

Row vectors: W_u [a0, x] is a0 @ w_h[:, u] + x @ w_x[:, u]. The rows of w_p are p_u, p_f, p_o. All three
gates, the output gate among them, see the memory cell of the step before, c0.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

GATES = ("u", "f", "o", "c")
STATES = ("a", "c")
PEEPHOLES = ("u", "f", "o")


def sigma(z: Array) -> Array:
    """The logistic function, 1 / (1 + exp(-z)), in the form that cannot overflow."""
    s: Array = 0.5 * (1.0 + np.tanh(0.5 * z))
    return s


def step(x: Array, state: tuple[Array, ...], p: dict[str, Array], activation: str = "tanh") -> tuple[Array, ...]:
    """One step, from the states before it to the states after it.

    Args:
        x: inputs, (N, E).
        state: one array (N, H) for each of STATES.
        p: "w_x" (E, G*H), "b" (G*H,), "w_h" (H, G*H), "w_p" (P, H).
        activation: has no part in this cell.
    Returns:
        The new states, hidden output first.
    """
    a0, c0 = state
    H = a0.shape[1]
    u = slice(0 * H, 1 * H)
    f = slice(1 * H, 2 * H)
    o = slice(2 * H, 3 * H)
    c = slice(3 * H, 4 * H)
    w_x, w_h, b = p["w_x"], p["w_h"], p["b"]
    p_u, p_f, p_o = p["w_p"]

    g_u = sigma(a0 @ w_h[:, u] + x @ w_x[:, u] + p_u * c0 + b[u])  # (1)
    g_f = sigma(a0 @ w_h[:, f] + x @ w_x[:, f] + p_f * c0 + b[f])  # (2)
    g_o = sigma(a0 @ w_h[:, o] + x @ w_x[:, o] + p_o * c0 + b[o])  # (3)
    c_tilde = np.tanh(a0 @ w_h[:, c] + x @ w_x[:, c] + b[c])  # (4)
    c1: Array = g_u * c_tilde + g_f * c0  # (5)
    a1: Array = g_o * np.tanh(c1)  # (6)
    return a1, c1
