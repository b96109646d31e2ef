"""The plain recurrent network (one gate, a).

    (1) z  = pre[t] + a0 @ w_h      a0 = a[t-1], a1 = a[t]
    (2) a1 = g(z)                   g = tanh or relu

States: a (the output). Nothing is saved besides.

Source: Elman (1990). As PyTorch's nn.RNN, which has two biases whose sum is b.
"""

from __future__ import annotations

from typing import Any

from charlm.engine.cells._cell import Cell, enter_step, leave_step
from charlm.engine.jit import kernel
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, multiply
from charlm.engine.rowwise import Values, relu, rowwise, tanh, where_positive

TANH, RELU = 0, 1


@rowwise
def tanh_output(z: Values) -> tuple[Values, ...]:
    """Equation (2), for three places."""
    a1 = tanh(z)  # (2)
    return a1, a1, a1


@rowwise
def relu_output(z: Values) -> tuple[Values, ...]:
    """Equation (2), for three places."""
    a1 = relu(z)  # (2)
    return a1, a1, a1


@rowwise
def d_tanh(d_out: Values, d_a: Values, a1: Values) -> tuple[Values, ...]:
    """The gradient of z."""
    return ((d_out + d_a) * (1 - a1 * a1),)  # (2)


@rowwise
def d_relu(d_out: Values, d_a: Values, a1: Values) -> tuple[Values, ...]:
    """The gradient of z."""
    return (where_positive(a1, d_out + d_a),)  # (2)


@kernel
def forward(
    pre: Any, w_h: Any, w_p: Any, state: Any, hidden: Any, saved: Any, reset: Any, initial: Any,
    activation: int, low: int, high: int,
) -> None:  # fmt: skip
    """Equations (1)-(2) over all steps; the arguments are described in `_cell`."""
    steps, rows, size = hidden.shape
    no_bias = w_p.reshape(w_p.size)  # one dimension, as everywhere: each kind of argument is a compilation
    a_input = state.reshape(steps + 1, rows, size)
    for t in range(steps):
        enter_step(state, t, reset, initial, low, high)
        multiply(a_input, t, 0, size, w_h, pre, t, 0, size, 1, low, high, ADD, no_bias)  # (1)
        for n in range(low, high):
            a, a1, out = pre[t, n], state[t + 1, 0, n], hidden[t, n]
            if activation == TANH:
                tanh_output((a,), (a, a1, out))
            else:
                relu_output((a,), (a, a1, out))


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
            a, d_out, d_a = pre[t, n], d_hidden[t, n], d_state[0, n]
            if activation == TANH:
                d_tanh((d_out, d_a, a), (a,))
            else:
                d_relu((d_out, d_a, a), (a,))
        multiply(pre, t, 0, size, w_h, d_state, 0, 0, size, 1, low, high, ZERO, no_bias)  # (1): d_a0
        leave_step(d_state, t, reset, low, high)


@kernel
def gradients(pre: Any, state: Any, saved: Any, d_w_h: Any, d_w_p: Any, part: int, parts: int) -> None:
    """d_w_h = sum over steps and rows of a0^T d_pre."""
    _, rows, columns = pre.shape
    size = d_w_h.shape[0]
    none = d_w_p.reshape(d_w_p.size)[:0]
    all_states = state.reshape(state.shape[0] * state.shape[1], rows, size)
    accumulate_outer(all_states, 0, rows * size, size, pre, 0, columns, d_w_h, 0, none, part, parts)


CELL = Cell(
    gates=("a",),
    states=("a",),
    forward=forward,
    backward=backward,
    gradients=gradients,
    products=(1,),
    output_rms=0.56,
    activations=("tanh", "relu"),
)
