"""LSTM (gate order u, f, o, c).

    (1) u  = sigmoid(a_u)       a = pre[t] + a0 @ w_h,  a0 = a[t-1], c0 = c[t-1], a1 = a[t], c1 = c[t]
    (2) f  = sigmoid(a_f)
    (3) o  = sigmoid(a_o)
    (4) g  = tanh(a_c)          the candidate c~
    (5) c1 = u * g + f * c0
    (6) a1 = o * tanh(c1)

States: a (the output), c. Saved: tanh(c1). The forget gate's bias begins at 1 (Jozefowicz et al., 2015).

Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000). Differs from PyTorch: the order
of the gates there is u, f, c, o, and there are two biases whose sum is b. ONNX: order u, o, f, c.
"""

from __future__ import annotations

from typing import Any

from charlm.engine.cells._cell import Cell, enter_step, leave_step
from charlm.engine.jit import kernel
from charlm.engine.math import sigmoid, tanh
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, multiply


@kernel
def forward(
    pre: Any, w_h: Any, w_p: Any, state: Any, hidden: Any, saved: Any, reset: Any, initial: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """Equations (1)-(6) over all steps; the arguments are described in `_cell`."""
    steps, rows, size = hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    a_input = state.reshape((steps + 1) * 2, rows, size)  # a[t-1] at 2 t, c[t-1] at 2 t + 1
    for t in range(steps):
        enter_step(state, t, reset, initial, low, high)
        multiply(a_input, 2 * t, 0, size, w_h, pre, t, 0, 4 * size, 1, low, high, ADD, no_bias)
        for n in range(low, high):
            gates = pre[t, n]
            u, f, o, g = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
            c0, a1, c1, out, tanh_c1 = (
                state[t, 1, n],
                state[t + 1, 0, n],
                state[t + 1, 1, n],
                hidden[t, n],
                saved[t, n],
            )
            for j in range(size):
                u_j = sigmoid(u[j])  # (1)
                f_j = sigmoid(f[j])  # (2)
                o_j = sigmoid(o[j])  # (3)
                g_j = tanh(g[j])  # (4)
                c1[j] = u_j * g_j + f_j * c0[j]  # (5)
                u[j], f[j], o[j], g[j] = u_j, f_j, o_j, g_j
            for j in range(size):  # apart: the first loop's chain of sums is long enough (24 % of the gates' time)
                tanh_j = tanh(c1[j])
                a1_j = o[j] * tanh_j  # (6)
                tanh_c1[j], a1[j], out[j] = tanh_j, a1_j, a1_j


@kernel
def backward(
    d_hidden: Any, d_state: Any, pre: Any, w_h: Any, w_p: Any, state: Any, saved: Any, reset: Any, scratch: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """The steps in reverse; each line undoes the forward line whose number it bears."""
    steps, _, size = d_hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    one = pre.dtype.type(1)
    for t in range(steps - 1, -1, -1):
        for n in range(low, high):
            gates = pre[t, n]
            u, f, o, g = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
            c0, tanh_c1, d_out, d_a, d_c = (
                state[t, 1, n],
                saved[t, n],
                d_hidden[t, n],
                d_state[0, n],
                d_state[1, n],
            )
            for j in range(size):
                u_j, f_j, o_j, g_j, tanh_j = u[j], f[j], o[j], g[j], tanh_c1[j]
                d_a1 = d_out[j] + d_a[j]
                d_o = d_a1 * tanh_j  # (6)
                d_c1 = d_c[j] + d_a1 * o_j * (one - tanh_j * tanh_j)  # (6)
                d_u, d_g, d_f = d_c1 * g_j, d_c1 * u_j, d_c1 * c0[j]  # (5)
                d_c[j] = d_c1 * f_j  # (5)
                g[j] = d_g * (one - g_j * g_j)  # (4)
                o[j] = d_o * o_j * (one - o_j)  # (3)
                f[j] = d_f * f_j * (one - f_j)  # (2)
                u[j] = d_u * u_j * (one - u_j)  # (1)
        multiply(pre, t, 0, 4 * size, w_h, d_state, 0, 0, size, 1, low, high, ZERO, no_bias)  # d_a0
        leave_step(d_state, t, reset, low, high)


@kernel
def gradients(pre: Any, state: Any, saved: Any, d_w_h: Any, d_w_p: Any, part: int, parts: int) -> None:
    """d_w_h = sum over steps and rows of a0^T d_pre."""
    _, rows, columns = pre.shape
    size = d_w_h.shape[0]
    none = d_w_p.reshape(d_w_p.size)[:0]
    all_states = state.reshape(state.shape[0] * state.shape[1], rows, size)
    accumulate_outer(all_states, 0, 2 * rows * size, size, pre, 0, columns, d_w_h, 0, none, part, parts)


CELL = Cell(
    gates=("u", "f", "o", "c"),
    states=("a", "c"),
    forward=forward,
    backward=backward,
    gradients=gradients,
    products=(4,),
    output_rms=0.18,
    saved=1,
    biases=(("f", 1.0),),
)
