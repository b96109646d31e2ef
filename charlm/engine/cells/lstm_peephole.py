"""LSTM with peepholes (gate order u, f, o, c; peepholes u, f, o).

    (1) u  = sigmoid(a_u + p_u * c0)    a = pre[t] + a0 @ w_h,  a0 = a[t-1], c0 = c[t-1], a1 = a[t], c1 = c[t]
    (2) f  = sigmoid(a_f + p_f * c0)
    (3) o  = sigmoid(a_o + p_o * c0)
    (4) g  = tanh(a_c)          the candidate c~
    (5) c1 = u * g + f * c0
    (6) a1 = o * tanh(c1)

States: a (the output), c. Saved: tanh(c1). The forget gate's bias begins at 1 (Jozefowicz et al., 2015).

Source: Gers and Schmidhuber (2000), but for the output gate: theirs sees the new cell c1, here all three gates see c0.
ONNX has the authors' form, in the order u, o, f, c; PyTorch has no peepholes.
"""

from __future__ import annotations

from typing import Any

from charlm.engine.cells._cell import Cell, enter_step, leave_step
from charlm.engine.cells.lstm import d_arguments, output
from charlm.engine.jit import kernel
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, multiply
from charlm.engine.rowwise import Values, rowwise, sigmoid, tanh


@rowwise
def gates(
    u: Values, f: Values, o: Values, g: Values, p_u: Values, p_f: Values, p_o: Values, c0: Values
) -> tuple[Values, ...]:
    """Equations (1)-(5): the gates, and c1."""
    u = sigmoid(u + p_u * c0)  # (1)
    f = sigmoid(f + p_f * c0)  # (2)
    o = sigmoid(o + p_o * c0)  # (3)
    g = tanh(g)  # (4)
    return u, f, o, g, u * g + f * c0  # (5)


@rowwise
def d_gates(
    d_out: Values, d_a: Values, d_c: Values, u: Values, f: Values, o: Values, g: Values,
    p_u: Values, p_f: Values, p_o: Values, c0: Values, tanh_c1: Values,
) -> tuple[Values, ...]:  # fmt: skip
    """The gradients of the gates' arguments and of c0; each line undoes the line whose number it bears."""
    d_u, d_f, d_o, d_g, d_c0 = d_arguments(d_out, d_a, d_c, u, f, o, g, c0, tanh_c1)  # (6) to (1), as in `lstm`
    d_c0 = d_c0 + d_o * p_o + d_f * p_f + d_u * p_u  # (3), (2), (1)
    return d_u, d_f, d_o, d_g, d_c0


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
            p_u, p_f, p_o = w_p[0], w_p[1], w_p[2]
            row = pre[t, n]
            u, f, o, g = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
            c0, a1, c1, out, tanh_c1 = (
                state[t, 1, n],
                state[t + 1, 0, n],
                state[t + 1, 1, n],
                hidden[t, n],
                saved[t, n],
            )
            gates((u, f, o, g, p_u, p_f, p_o, c0), (u, f, o, g, c1))
            output((o, c1), (tanh_c1, a1, out))


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
            p_u, p_f, p_o = w_p[0], w_p[1], w_p[2]
            row = pre[t, n]
            u, f, o, g = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
            c0, tanh_c1, d_out, d_a, d_c = (
                state[t, 1, n],
                saved[t, n],
                d_hidden[t, n],
                d_state[0, n],
                d_state[1, n],
            )
            d_gates((d_out, d_a, d_c, u, f, o, g, p_u, p_f, p_o, c0, tanh_c1), (u, f, o, g, d_c))
        multiply(pre, t, 0, 4 * size, w_h, d_state, 0, 0, size, 1, low, high, ZERO, no_bias)  # d_a0
        leave_step(d_state, t, reset, low, high)


@kernel
def gradients(pre: Any, state: Any, saved: Any, d_w_h: Any, d_w_p: Any, part: int, parts: int) -> None:
    """d_w_h = sum over steps and rows of a0^T d_pre; d_w_p = the same sum of c0 * d_pre."""
    steps, rows, columns = pre.shape
    size = d_w_h.shape[0]
    none = d_w_p.reshape(d_w_p.size)[:0]
    all_states = state.reshape(state.shape[0] * state.shape[1], rows, size)
    accumulate_outer(all_states, 0, 2 * rows * size, size, pre, 0, columns, d_w_h, 0, none, part, parts)
    first, last = size * part // parts, size * (part + 1) // parts
    for t in range(steps):
        for n in range(rows):
            c0 = state[t, 1, n, first:last]
            for i in range(d_w_p.shape[0]):
                d_p, d_gate = d_w_p[i, first:last], pre[t, n, i * size + first : i * size + last]
                for j in range(last - first):
                    d_p[j] += d_gate[j] * c0[j]


CELL = Cell(
    gates=("u", "f", "o", "c"),
    states=("a", "c"),
    forward=forward,
    backward=backward,
    gradients=gradients,
    products=(4,),
    output_rms=0.18,
    saved=1,
    peepholes=("u", "f", "o"),
    biases=(("f", 1.0),),
)
