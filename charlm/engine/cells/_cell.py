"""What a cell is: the record that each cell's file ends with, and the one step that all cells begin with.

The three kernels of a cell have the same arguments in every cell (sizes: T steps, N rows, H hidden, G gates, S states,
P peepholes, K saved):

    forward(pre, w_h, w_p, state, hidden, saved, reset, initial, activation, low, high)
    backward(d_hidden, d_state, pre, w_h, w_p, state, saved, reset, scratch, activation, low, high)
    gradients(pre, state, saved, d_w_h, d_w_p, part, parts)

    pre       (T, N, G*H)   forward: IN x W_x + b, OUT the gates' activations; backward: OUT d_pre
    w_h       packed        forward: the recurrent weights (H, G*H); backward: their transpose
    w_p       (P, H)        peephole weights
    state     (T+1, S, N, H)  state[t] is what enters step t (after a reset), state[T] what leaves the last
    hidden    (T, N, H)     OUT: the cell's output
    saved     (T, N, K*H)   what backward needs besides
    reset     (T, N) uint8  1 where a sequence begins: the row's state is replaced before the step
    initial   (S, N, H)     by this
    d_hidden  (T, N, H)     IN: gradient of the output; OUT: unspecified
    d_state   (S, N, H)     IN: gradient of state[T]; OUT: of state[0] (zero in rows with reset[0])
    scratch   (1, N, H)     room for one step
    d_w_h     (H, G*H)      ACCUMULATED
    d_w_p     (P, H)        ACCUMULATED

``forward`` and ``backward`` work on the rows ``low`` .. ``high``, and each row on its own: threads take rows.
``gradients`` runs after all rows are done, on a share (``part`` of ``parts``) of the weights. No kernel draws random
numbers or allocates inside a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from charlm.engine.jit import kernel


@dataclass(frozen=True)
class Cell:
    """Everything that the rest of charlm knows about a cell."""

    gates: tuple[str, ...]  # in the order of their columns in w_x, b, w_h
    states: tuple[str, ...]  # the first is the output
    forward: Callable[..., None]
    backward: Callable[..., None]
    gradients: Callable[..., None]
    products: tuple[int, ...]  # gates of each recurrent product: its columns of w_h are packed together
    output_rms: float  # of a new network's outputs, root of the mean square: what reads them is drawn accordingly
    saved: int = 0  # K
    peepholes: tuple[str, ...] = ()
    activations: tuple[str, ...] = ("tanh",)  # what `activation` counts through
    biases: tuple[tuple[str, float], ...] = ()  # gates whose bias does not begin at zero


@kernel
def enter_step(state: Any, t: int, reset: Any, initial: Any, low: int, high: int) -> None:
    """Give the rows in which a sequence begins at step ``t`` their initial state."""
    for n in range(low, high):
        if reset[t, n]:
            for s in range(state.shape[1]):
                for j in range(state.shape[3]):
                    state[t, s, n, j] = initial[s, n, j]


@kernel
def leave_step(d_state: Any, t: int, reset: Any, low: int, high: int) -> None:
    """Stop the gradient of the rows in which a sequence begins at step ``t``."""
    for n in range(low, high):
        if reset[t, n]:
            for s in range(d_state.shape[0]):
                for j in range(d_state.shape[2]):
                    d_state[s, n, j] = 0
