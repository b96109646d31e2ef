"""The full GRU (gate order u, r, c).

    (1) u  = sigmoid(a_u)       a_u, a_r = pre[t] + c0 @ w_h[:, u and r],  c0 = c[t-1], c1 = c[t]
    (2) r  = sigmoid(a_r)
    (3) q  = r * c0
    (4) g  = tanh(a_c)          a_c = pre[t] + q @ w_h[:, c];  the candidate c~
    (5) c1 = u * g + (1 - u) * c0

States: c (the output). Saved: q.

Source: Cho et al. (2014), whose reset gate likewise acts before the product (4) but whose update gate keeps the old
value. Differs from PyTorch and from ONNX's default: there the reset gate acts after the product, an update gate near 1
keeps the old value, and the gates' order is r, u, c (PyTorch) or u, r, c (ONNX).
"""

from __future__ import annotations

from typing import Any

from charlm.engine.cells._cell import Cell, enter_step, leave_step
from charlm.engine.jit import kernel
from charlm.engine.math import sigmoid, tanh
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, lanes_of, multiply, packed_size, parted


@kernel
def forward(
    pre: Any, w_h: Any, w_p: Any, state: Any, hidden: Any, saved: Any, reset: Any, initial: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """Equations (1)-(5) over all steps; the arguments are described in `_cell`."""
    steps, rows, size = hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    one = pre.dtype.type(1)
    c_input = state.reshape(steps + 1, rows, size)
    w_gates, w_candidate = parted(w_h, packed_size(size, 2 * size, lanes_of(pre)))
    for t in range(steps):
        enter_step(state, t, reset, initial, low, high)
        multiply(c_input, t, 0, size, w_gates, pre, t, 0, 2 * size, 1, low, high, ADD, no_bias)
        for n in range(low, high):
            u, r = pre[t, n, :size], pre[t, n, size : 2 * size]
            c0, q = state[t, 0, n], saved[t, n]
            for j in range(size):
                u[j] = sigmoid(u[j])  # (1)
                r_j = sigmoid(r[j])  # (2)
                r[j], q[j] = r_j, r_j * c0[j]  # (3)
        multiply(saved, t, 0, size, w_candidate, pre, t, 2 * size, size, 1, low, high, ADD, no_bias)
        for n in range(low, high):
            u, g = pre[t, n, :size], pre[t, n, 2 * size :]
            c0, c1, out = state[t, 0, n], state[t + 1, 0, n], hidden[t, n]
            for j in range(size):
                g_j = tanh(g[j])  # (4)
                c1_j = u[j] * g_j + (one - u[j]) * c0[j]  # (5)
                g[j], c1[j], out[j] = g_j, c1_j, c1_j


@kernel
def backward(
    d_hidden: Any, d_state: Any, pre: Any, w_h: Any, w_p: Any, state: Any, saved: Any, reset: Any, scratch: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """The steps in reverse; each line undoes the forward line whose number it bears."""
    steps, _, size = d_hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    one = pre.dtype.type(1)
    w_gates, w_candidate = parted(w_h, packed_size(2 * size, size, lanes_of(pre)))
    for t in range(steps - 1, -1, -1):
        for n in range(low, high):
            u, g = pre[t, n, :size], pre[t, n, 2 * size :]
            c0, d_out, d_c = state[t, 0, n], d_hidden[t, n], d_state[0, n]
            for j in range(size):
                u_j, g_j = u[j], g[j]
                d_c1 = d_out[j] + d_c[j]
                d_u, d_g = d_c1 * (g_j - c0[j]), d_c1 * u_j  # (5)
                d_c[j] = d_c1 * (one - u_j)  # (5)
                g[j] = d_g * (one - g_j * g_j)  # (4)
                u[j] = d_u * u_j * (one - u_j)  # (1)
        multiply(pre, t, 2 * size, size, w_candidate, scratch, 0, 0, size, 1, low, high, ZERO, no_bias)  # (4): d_q
        for n in range(low, high):
            r, c0, d_q, d_c = pre[t, n, size : 2 * size], state[t, 0, n], scratch[0, n], d_state[0, n]
            for j in range(size):
                r_j = r[j]
                d_c[j] += d_q[j] * r_j  # (3)
                r[j] = d_q[j] * c0[j] * r_j * (one - r_j)  # (3), (2)
        multiply(pre, t, 0, 2 * size, w_gates, d_state, 0, 0, size, 1, low, high, ADD, no_bias)  # the rest of d_c0
        leave_step(d_state, t, reset, low, high)


@kernel
def gradients(pre: Any, state: Any, saved: Any, d_w_h: Any, d_w_p: Any, part: int, parts: int) -> None:
    """d_w_h = sum over steps and rows of c0^T d_pre for u and r, of q^T d_pre for c."""
    _, rows, _ = pre.shape
    size = d_w_h.shape[0]
    step = rows * size
    none = d_w_p.reshape(d_w_p.size)[:0]
    all_states = state.reshape(state.shape[0] * state.shape[1], rows, size)
    accumulate_outer(all_states, 0, step, size, pre, 0, 2 * size, d_w_h, 0, none, part, parts)
    accumulate_outer(saved, 0, step, size, pre, 2 * size, size, d_w_h, 2 * size, none, part, parts)


CELL = Cell(
    gates=("u", "r", "c"),
    states=("c",),
    forward=forward,
    backward=backward,
    gradients=gradients,
    products=(2, 1),
    output_rms=0.27,
    saved=1,
)
