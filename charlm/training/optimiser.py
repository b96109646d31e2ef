"""Clipping, AdamW and SGD over all parameters at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from charlm.engine import optimise
from charlm.engine.threads import Team, share
from charlm.models.parameters import Array, Parameters

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8
MOMENTUM = 0.9
SMALL = 20  # blocks of squares below which one thread is faster: of 20 it takes 48 us, two with the waking 77


def gradient_norm(gradients: Array, team: Team) -> float:
    """The Euclidean norm of all gradients, summed in float64 in an order that does not depend on the threads."""
    blocks = -(-gradients.size // optimise.BLOCK)
    sums = np.empty(blocks)
    if blocks < SMALL:
        optimise.squares(gradients, sums, 0, blocks)
    else:
        team.run(lambda part, parts: optimise.squares(gradients, sums, *share(blocks, part, parts)))
    return math.sqrt(float(sums.sum()))


class Clipper:
    """Limits the gradient: its norm as a whole, or each number of it.

    Args:
        mode: "norm" or "value".
        bound: the greatest norm, or the greatest absolute value; 0 to leave the gradient as it is.
    """

    def __init__(self, mode: str, bound: float) -> None:
        self.mode, self.bound = mode, bound

    def __call__(self, gradients: Array, norm: float, team: Team) -> tuple[float, bool]:
        """The factor that the optimiser should apply, and whether clipping bit. By value, it clips in place."""
        if not self.bound:
            return 1.0, False
        if self.mode == "norm":
            return (self.bound / norm, True) if norm > self.bound else (1.0, False)
        counts = [0] * team.threads

        def clip(part: int, parts: int) -> None:
            counts[part] = optimise.clip_values(gradients, self.bound, *share(gradients.size, part, parts))

        team.run(clip)
        return 1.0, any(counts)


class Optimiser:
    """AdamW (Loshchilov and Hutter, 2019; decay on matrices alone), or SGD with momentum.

    Args:
        name: "adamw" or "sgd".
        parameters: what it changes.
        weight_decay: per unit of rate.

    Attributes:
        moments: name -> array as long as the parameters; with ``steps``, all that it remembers.
        steps: how many were made.
    """

    def __init__(self, name: str, parameters: Parameters, weight_decay: float = 0.0) -> None:
        self.name, self.weight_decay, self._parameters = name, weight_decay, parameters
        names = ("mean", "square") if name == "adamw" else ("velocity",)
        self.moments: dict[str, Array] = {moment: np.zeros_like(parameters.flat) for moment in names}
        self.steps = 0

    def step(self, gradients: Array, rate: float, scale: float, team: Team) -> None:
        """Change the parameters.

        Args:
            gradients: (P,), as the parameters' flat array.
            rate: the learning rate.
            scale: factor of the gradient.
        """
        self.steps += 1
        total, matrices = self._parameters.flat.size, self._parameters.matrices

        def update(part: int, parts: int) -> None:
            for low, high, decay in ((0, matrices, self.weight_decay), (matrices, total, 0.0)):
                first, last = share(high - low, part, parts)
                self._update(gradients, rate, scale, decay, low + first, low + last)

        team.run(update)

    def _update(self, gradients: Array, rate: float, scale: float, decay: float, first: int, last: int) -> None:
        flat, moments = self._parameters.flat, self.moments
        if self.name == "adamw":
            optimise.adamw(
                flat, gradients, moments["mean"], moments["square"], self.steps, rate, BETA1, BETA2, EPSILON,
                decay, scale, first, last,
            )  # fmt: skip
        else:
            optimise.sgd(flat, gradients, moments["velocity"], rate, MOMENTUM, decay, scale, first, last)

    def restore(self, moments: Mapping[str, NDArray[np.generic]], steps: int) -> None:
        """Take up what another run's optimiser remembered."""
        for name, array in self.moments.items():
            array[...] = moments[name]
        self.steps = steps
