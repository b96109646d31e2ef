"""How far back the loss of one step reaches: the norms of its gradient in the states of the steps before.

    (1) loss<t> = -log softmax(a<t> W_y + b_y)[target<t>]       a<t>: the top layer's output
    (2) s<t>    = all states of all layers after step t: what step t hands to step t + 1
    (3) g<t, 0> = d loss<t> / d s<t>        that of a<t>; zero in all other states, which the softmax does not see
    (4) g<t, k> = d loss<t> / d s<t-k> = g<t, k-1> d s<t-k+1> / d s<t-k>
    (5) |g<t, k>|_l                         the Euclidean norm of layer l's part: all its states, (S, H) numbers

So s is what truncated back-propagation cuts: g<t, k> is the gradient that a chunk which begins at step t-k+1 would hand
back. Through (4) it reaches lower layers from upper ones as well, within a step.

Each factor of (4) is one step's backward pass. The states are kept, and each step's activations computed a second time
when it is undone. Gradients that vanish or explode leave what float32 can hold; so each row's is kept near 1 by powers
of two, which change no digit of it, and these are counted apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.engine.threads import share
from charlm.models.language_model import LanguageModel
from charlm.models.parameters import Array, Ids
from charlm.models.stack import Batch

Norms = NDArray[np.float64]


def gradient_norms(model: LanguageModel, inputs: Ids, targets: Ids, state: Array, back: int) -> Norms:
    """Equation (5) for the last step of each of N sequences, t = T - 1, and k = 0 .. K.

    No row's result depends on the other rows, nor on the number of threads. The model's gradients are not touched.

    Args:
        model: its weights are not changed.
        inputs: (T, N); the id V begins a sequence, whose first state is zero: no gradient passes it.
        targets: (N,), of the last step.
        state: (L, S, N, H) before the first step. Not modified.
        back: K, at most T.

    Returns:
        (K + 1, N, L).
    """
    steps, rows = inputs.shape
    if not 0 <= back <= steps:
        raise ValueError(f"{back} steps back of {steps}")
    flow = _Flow(model, inputs)
    states = [state]  # the last K of those that enter a step
    for step in range(steps - 1):
        flow.forward(step, states[-1])
        states = [*states, flow.batch.state][-max(back, 1) :]
    norms = np.empty((back + 1, rows, model.config.num_layers))
    flow.forward(steps - 1, states[-1])
    norms[0] = 0.0
    norms[0, :, -1] = flow.loss(targets)
    for k in range(1, back + 1):
        if k > 1:
            flow.forward(steps - k, states[-k])
        norms[k] = flow.backward()
    model.changed()  # the tables of its other passes were written over
    return norms


class _Flow:
    """One step at a time of a model, forward, and then back.

    Attributes:
        batch: of the last step that was taken forward.
    """

    def __init__(self, model: LanguageModel, inputs: Ids) -> None:
        self._model, self._stack, self._inputs = model, model.stack, inputs
        rows = inputs.shape[1]
        self._initial = model.zero_state(rows)
        self._is_tabulated = False
        self._d_output: Array = np.zeros((1, rows, model.config.hidden_size), self._initial.dtype)
        self._d_state = np.zeros_like(self._initial)  # g<t, k> * 2^-exponent
        self._exponents = np.zeros(rows, np.int64)
        model.team.run(self._pack)

    def _pack(self, part: int, parts: int) -> None:
        self._stack.pack(part, parts, backward=True)
        self._model.output.pack(part, parts, backward=True)

    def forward(self, step: int, state: Array) -> None:
        """Take one step from a state, which is not modified."""
        stack, team = self._stack, self._model.team
        self.batch = Batch(self._inputs[step : step + 1], state.copy(), self._initial)
        stack.begin(self.batch, reuse_table=True)
        if not (self._is_tabulated and stack.whole_table):
            team.run(stack.tabulate)
            self._is_tabulated = True
        team.run(stack.forward)
        stack.end()

    def loss(self, targets: Ids) -> Norms:
        """Begin with equation (3) of the step that was taken; returns the norm of each row, (N,)."""
        stack, output = self._stack, self._model.output
        output.begin(stack.hidden[-1], np.ascontiguousarray(targets[np.newaxis]))
        losses_nats = np.empty((1, targets.size))
        self._model.team.run(
            lambda part, parts: output.loss(losses_nats, 1.0, self._d_output, *share(stack.rows, part, parts))
        )
        return _norms(self._d_output[np.newaxis])[:, 0]

    def backward(self) -> Norms:
        """Undo the step that was taken: equation (4); returns the norms of each row and layer, (N, L)."""
        stack = self._stack
        d_output, d_state = stack.begin_backward()
        d_output[...], d_state[...] = self._d_output, self._d_state
        self._model.team.run(stack.backward)
        self._d_output[...] = 0  # only the last step has a loss
        self._d_state[...] = d_state
        norms = np.ldexp(_norms(d_state), self._exponents[:, np.newaxis])
        self._rescale()
        return norms

    def _rescale(self) -> None:
        """Bring the largest number of each row to between 1/2 and 1; leave what is zero or no number."""
        exponents = np.frexp(np.abs(self._d_state).max(axis=(0, 1, 3)))[1]  # (N,)
        self._d_state[...] = np.ldexp(self._d_state, -exponents[:, np.newaxis])
        self._exponents += exponents


def _norms(values: Array) -> Norms:
    """Of (L, S, N, H), over S and H, in float64: (N, L). Each row is summed on its own, in one order."""
    layers, states, rows, size = values.shape
    by_row = values.transpose(2, 0, 1, 3).reshape(rows, layers, states * size).astype(np.float64)
    result: Norms = np.sqrt(np.square(by_row).sum(axis=-1))
    return result
