"""The simplified GRU: an update gate and no reset gate (gate order u, c).

    (1) u  = sigmoid(a_u)       a = pre[t] + c0 @ w_h,  c0 = c[t-1], c1 = c[t]
    (2) g  = tanh(a_c)          the candidate c~
    (3) c1 = u * g + (1 - u) * c0

States: c (the output). Nothing is saved besides.

Source: the GRU of Cho et al. (2014) with its reset gate held at 1. An update gate near 1 takes the new value: in
PyTorch and ONNX, and in Cho et al., it keeps the old one.
"""

from __future__ import annotations

from typing import Any

from charlm.engine.cells._cell import Cell, enter_step, leave_step
from charlm.engine.cells.gru import d_output  # whose (1), (4) and (5) are (1), (2) and (3) here
from charlm.engine.jit import kernel
from charlm.engine.matmul import ADD, accumulate_outer, multiply
from charlm.engine.rowwise import Values, rowwise, sigmoid, tanh


@rowwise
def gates(u: Values, g: Values, c0: Values) -> tuple[Values, ...]:
    """Equations (1)-(3): the gate, the candidate, and c1 for two places."""
    u = sigmoid(u)  # (1)
    g = tanh(g)  # (2)
    c1 = u * g + (1 - u) * c0  # (3)
    return u, g, c1, c1


@kernel
def forward(
    pre: Any, w_h: Any, w_p: Any, state: Any, hidden: Any, saved: Any, reset: Any, initial: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """Equations (1)-(3) over all steps; the arguments are described in `_cell`."""
    steps, rows, size = hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    c_input = state.reshape(steps + 1, rows, size)
    for t in range(steps):
        enter_step(state, t, reset, initial, low, high)
        multiply(c_input, t, 0, size, w_h, pre, t, 0, 2 * size, 1, low, high, ADD, no_bias)
        for n in range(low, high):
            u, g = pre[t, n, :size], pre[t, n, size:]
            c0, c1, out = state[t, 0, n], state[t + 1, 0, n], hidden[t, n]
            gates((u, g, c0), (u, g, c1, out))


@kernel
def backward(
    d_hidden: Any, d_state: Any, pre: Any, w_h: Any, w_p: Any, state: Any, saved: Any, reset: Any, scratch: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """The steps in reverse."""
    steps, _, size = d_hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    for t in range(steps - 1, -1, -1):
        for n in range(low, high):
            u, g = pre[t, n, :size], pre[t, n, size:]
            c0, d_out, d_c = state[t, 0, n], d_hidden[t, n], d_state[0, n]
            d_output((d_out, d_c, u, g, c0), (u, g, d_c))
        multiply(pre, t, 0, 2 * size, w_h, d_state, 0, 0, size, 1, low, high, ADD, no_bias)  # the rest of d_c0
        leave_step(d_state, t, reset, low, high)


@kernel
def gradients(pre: Any, state: Any, saved: Any, d_w_h: Any, d_w_p: Any, part: int, parts: int) -> None:
    """d_w_h = sum over steps and rows of c0^T d_pre."""
    _, rows, columns = pre.shape
    size = d_w_h.shape[0]
    none = d_w_p.reshape(d_w_p.size)[:0]
    all_states = state.reshape(state.shape[0] * state.shape[1], rows, size)
    accumulate_outer(all_states, 0, rows * size, size, pre, 0, columns, d_w_h, 0, none, part, parts)


CELL = Cell(
    gates=("u", "c"),
    states=("c",),
    forward=forward,
    backward=backward,
    gradients=gradients,
    products=(2,),
    output_rms=0.35,
)
