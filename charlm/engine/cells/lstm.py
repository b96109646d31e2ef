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
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, multiply
from charlm.engine.rowwise import Values, rowwise, sigmoid, tanh


@rowwise
def gates(u: Values, f: Values, o: Values, g: Values, c0: Values) -> tuple[Values, ...]:
    """Equations (1)-(5): the gates, and c1."""
    u, f, o = sigmoid(u), sigmoid(f), sigmoid(o)  # (1), (2), (3)
    g = tanh(g)  # (4)
    return u, f, o, g, u * g + f * c0  # (5)


@rowwise
def output(o: Values, c1: Values) -> tuple[Values, ...]:
    """Equation (6): tanh(c1), and a1 for two places.

    Apart: in `gates` it would lengthen a chain of sums that is long enough (together they take 1.3 times as long).
    """
    tanh_c1 = tanh(c1)
    a1 = o * tanh_c1  # (6)
    return tanh_c1, a1, a1


def d_arguments(
    d_out: Values, d_a: Values, d_c: Values, u: Values, f: Values, o: Values, g: Values, c0: Values, tanh_c1: Values
) -> tuple[Values, ...]:
    """The gradients of the gates' arguments and of c0; each line undoes the line whose number it bears."""
    d_a1 = d_out + d_a
    d_o = d_a1 * tanh_c1  # (6)
    d_c1 = d_c + d_a1 * o * (1 - tanh_c1 * tanh_c1)  # (6)
    d_u, d_g, d_f, d_c0 = d_c1 * g, d_c1 * u, d_c1 * c0, d_c1 * f  # (5)
    d_g = d_g * (1 - g * g)  # (4)
    d_u, d_f, d_o = d_u * u * (1 - u), d_f * f * (1 - f), d_o * o * (1 - o)  # (1), (2), (3)
    return d_u, d_f, d_o, d_g, d_c0


d_gates = rowwise(d_arguments)


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
            row = pre[t, n]
            u, f, o, g = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
            c0, a1, c1, out, tanh_c1 = (
                state[t, 1, n],
                state[t + 1, 0, n],
                state[t + 1, 1, n],
                hidden[t, n],
                saved[t, n],
            )
            gates((u, f, o, g, c0), (u, f, o, g, c1))
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
            row = pre[t, n]
            u, f, o, g = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
            c0, tanh_c1, d_out, d_a, d_c = (
                state[t, 1, n],
                saved[t, n],
                d_hidden[t, n],
                d_state[0, n],
                d_state[1, n],
            )
            d_gates((d_out, d_a, d_c, u, f, o, g, c0, tanh_c1), (u, f, o, g, d_c))
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
