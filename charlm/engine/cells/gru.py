"""The full GRU (gate order u, r, c).

    (1) u  = sigmoid(a_u)       a_u, a_r = pre[t] + c0 @ w_h[:, u and r],  c0 = c[t-1], c1 = c[t]
    (2) r  = sigmoid(a_r)
    (3) q  = r * c0
    (4) g  = tanh(a_c)          a_c = pre[t] + q @ w_h[:, c];  the candidate c~
    (5) c1 = u * g + (1 - u) * c0

States: c (the output). Saved: q.

Source: Cho et al. (2014), whose reset gate likewise acts before the product (4) but whose update gate keeps the old
value. Differs from PyTorch, where the reset gate acts after the product, and from ONNX with linear_before_reset (by
default it acts before, as here); in both an update gate near 1 keeps the old value, and the gates' order is r, u, c
(PyTorch) or u, r, c (ONNX).
"""

from __future__ import annotations

from typing import Any

from charlm.engine.cells._cell import Cell, enter_step, leave_step
from charlm.engine.jit import kernel
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, lanes_of, multiply, packed_size, parted
from charlm.engine.rowwise import Values, rowwise, sigmoid, tanh


@rowwise
def gates(u: Values, r: Values, c0: Values) -> tuple[Values, ...]:
    """Equations (1)-(3): both gates, and q."""
    u, r = sigmoid(u), sigmoid(r)  # (1), (2)
    return u, r, r * c0  # (3)


@rowwise
def output(u: Values, g: Values, c0: Values) -> tuple[Values, ...]:
    """Equations (4)-(5): the candidate, and c1 for two places."""
    g = tanh(g)  # (4)
    c1 = u * g + (1 - u) * c0  # (5)
    return g, c1, c1


@rowwise
def d_output(d_out: Values, d_c: Values, u: Values, g: Values, c0: Values) -> tuple[Values, ...]:
    """The gradients of the update gate's and the candidate's argument, and of c0 by (5)."""
    d_c1 = d_out + d_c
    d_u, d_g, d_c0 = d_c1 * (g - c0), d_c1 * u, d_c1 * (1 - u)  # (5)
    return d_u * u * (1 - u), d_g * (1 - g * g), d_c0  # (1), (4)


@rowwise
def d_reset(d_q: Values, d_c0: Values, r: Values, c0: Values) -> tuple[Values, ...]:
    """The gradients of the reset gate's argument, and of c0 by (3), added to what it is."""
    return d_q * c0 * r * (1 - r), d_c0 + d_q * r  # (3), (2)


@kernel
def forward(
    pre: Any, w_h: Any, w_p: Any, state: Any, hidden: Any, saved: Any, reset: Any, initial: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """Equations (1)-(5) over all steps; the arguments are described in `_cell`."""
    steps, rows, size = hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    c_input = state.reshape(steps + 1, rows, size)
    w_gates, w_candidate = parted(w_h, packed_size(size, 2 * size, lanes_of(pre)))
    for t in range(steps):
        enter_step(state, t, reset, initial, low, high)
        multiply(c_input, t, 0, size, w_gates, pre, t, 0, 2 * size, 1, low, high, ADD, no_bias)
        for n in range(low, high):
            u, r = pre[t, n, :size], pre[t, n, size : 2 * size]
            c0, q = state[t, 0, n], saved[t, n]
            gates((u, r, c0), (u, r, q))
        multiply(saved, t, 0, size, w_candidate, pre, t, 2 * size, size, 1, low, high, ADD, no_bias)
        for n in range(low, high):
            u, g = pre[t, n, :size], pre[t, n, 2 * size :]
            c0, c1, out = state[t, 0, n], state[t + 1, 0, n], hidden[t, n]
            output((u, g, c0), (g, c1, out))


@kernel
def backward(
    d_hidden: Any, d_state: Any, pre: Any, w_h: Any, w_p: Any, state: Any, saved: Any, reset: Any, scratch: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """The steps in reverse."""
    steps, _, size = d_hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    w_gates, w_candidate = parted(w_h, packed_size(2 * size, size, lanes_of(pre)))
    for t in range(steps - 1, -1, -1):
        for n in range(low, high):
            u, g = pre[t, n, :size], pre[t, n, 2 * size :]
            c0, d_out, d_c = state[t, 0, n], d_hidden[t, n], d_state[0, n]
            d_output((d_out, d_c, u, g, c0), (u, g, d_c))
        multiply(pre, t, 2 * size, size, w_candidate, scratch, 0, 0, size, 1, low, high, ZERO, no_bias)  # (4): d_q
        for n in range(low, high):
            r, c0, d_q, d_c = pre[t, n, size : 2 * size], state[t, 0, n], scratch[0, n], d_state[0, n]
            d_reset((d_q, d_c, r, c0), (r, d_c))
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
