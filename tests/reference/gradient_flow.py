"""The gradient of one step's loss in the states before it, by complex step on the reference network.

    (1) loss<t>(s) = loss of step t when step t-k+1 begins with the states s, all of all layers
    (2) g<t, k>    = d loss<t> / d s  at the states s<t-k> that the network has there
    (3) g<t, 0>    = d loss<t> / d a<t>, a the top layer's output

For f analytic and real on real arguments, d f / d x = Im f(x + i h) / h, exact to rounding for a small h.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tests.reference import network

Array = NDArray[np.inexact]
Ids = NDArray[np.integer]

STEP = 1e-30


def output_loss(parameters: Mapping[str, Array], a: Array, target: int, tied: bool) -> complex:
    """The loss of the output a (H,), equation (3)'s function."""
    if "output/tail0/w" in parameters:
        log_probs = network.adaptive_log_probs(a, parameters)
    else:
        w_y = parameters["embedding"].T if tied else parameters["output/w"]
        log_probs = network.log_softmax(a @ w_y + parameters["output/b"])
    value: complex = -log_probs[target]
    return value


def norms(
    parameters: Mapping[str, Array], inputs: Ids, targets: Ids, state_0: Array, config: network.Config, back: int
) -> NDArray[np.float64]:
    """|g<t, k>| of each layer for the last step of each row, k = 0 .. back: (back + 1, N, L).

    Args:
        parameters: by path, as `network` lists them.
        inputs: (T, N); id V begins a sequence, from the zero state.
        targets: (N,), of the last step.
        state_0: (L, S, N, H) before the first step.
        config: the cell and so on.
        back: at most T.
    """
    steps, rows = inputs.shape
    zero = np.zeros_like(state_0)
    result = np.zeros((back + 1, rows, config.num_layers))
    for n in range(rows):
        row = slice(n, n + 1)
        state = state_0[:, :, row]
        for k in range(back, 0, -1):
            if steps - k > 0:
                _, state = network.forward(
                    parameters, inputs[: steps - k, row], state_0[:, :, row], zero[:, :, row], config
                )
            result[k, n] = _norms_before(parameters, inputs[steps - k :, row], int(targets[n]), state, config)
        _, last = network.forward(parameters, inputs[:, row], state_0[:, :, row], zero[:, :, row], config)
        a = last[-1, 0, 0]
        moved = (a + 1j * STEP * unit for unit in np.eye(a.size))
        gradient = [output_loss(parameters, x, int(targets[n]), config.tied).imag / STEP for x in moved]
        result[0, n, -1] = np.sqrt(np.square(gradient).sum())
    return result


def _norms_before(
    parameters: Mapping[str, Array], inputs: Ids, target: int, state: Array, config: network.Config
) -> NDArray[np.float64]:
    """Equation (2) for one row: inputs (k, 1), state (L, S, 1, H) -> the norm of each layer's part, (L,)."""
    targets = np.full(inputs.shape, -1)
    targets[-1] = target
    gradient = np.zeros(state.shape)
    for index in np.ndindex(state.shape):
        moved = state.astype(np.complex128)
        moved[index] += 1j * STEP
        value = network.loss(parameters, inputs, targets, moved, np.zeros_like(state), config)
        gradient[index] = np.imag(value) / STEP
    total: NDArray[np.float64] = np.sqrt(np.square(gradient).sum(axis=(1, 2, 3)))
    return total
