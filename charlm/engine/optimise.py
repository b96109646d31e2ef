"""The optimisers' passes over all parameters at once, and the gradient's norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from charlm.engine.jit import kernel

BLOCK = 1 << 14  # numbers a block of `squares`: sums do not depend on how blocks are shared out over threads
LANES = 64  # running sums: of fewer, each waits for the one before it (with 8 this takes twice as long)


@kernel
def squares(values: Any, sums: Any, first: int, last: int) -> None:
    """sums[i] = sum of the squares of the i-th block of ``BLOCK`` numbers, for blocks ``first`` .. ``last``.

    Args:
        values: (P,).
        sums: OUT, (blocks,), float64.
    """
    partial = np.empty(LANES, np.float64)
    for i in range(first, last):
        block = values[i * BLOCK : min((i + 1) * BLOCK, values.size)]
        whole = block.size // LANES * LANES
        partial[:] = 0
        for start in range(0, whole, LANES):
            part = block[start : start + LANES]
            for j in range(LANES):
                value = np.float64(part[j])
                partial[j] += value * value
        total = 0.0
        for j in range(whole, block.size):
            total += np.float64(block[j]) * np.float64(block[j])
        for j in range(LANES):
            total += partial[j]
        sums[i] = total


@kernel
def clip_values(gradient: Any, bound: float, first: int, last: int) -> int:
    """Limit each number of the gradient to -bound .. bound; returns how many were beyond. NaN stays."""
    limit = gradient.dtype.type(bound)
    clipped = 0
    for i in range(first, last):
        g = gradient[i]
        clipped += (g > limit) | (g < -limit)
        g = limit if g > limit else g
        gradient[i] = -limit if g < -limit else g
    return clipped


@kernel
def adamw(
    parameter: Any, gradient: Any, mean: Any, square: Any, step: int, rate: float, beta1: float, beta2: float,
    epsilon: float, decay: float, scale: float, first: int, last: int,
) -> None:  # fmt: skip
    """One step of AdamW (Loshchilov and Hutter, 2019) on the numbers ``first`` .. ``last``.

        g = scale * gradient
        m = beta1 m + (1 - beta1) g              s = beta2 s + (1 - beta2) g^2
        p = p - rate decay p - rate m / (1 - beta1^step) / (sqrt(s / (1 - beta2^step)) + epsilon)

    Args:
        parameter, mean (m), square (s): IN and OUT, (P,).
        gradient: (P,).
        scale: factor of the gradient: what clipping by norm leaves of it.
    """
    kind = parameter.dtype.type
    one = kind(1)
    b1, b2, g_scale, keep = kind(beta1), kind(beta2), kind(scale), kind(1 - rate * decay)
    size = kind(rate / (1 - beta1**step))
    root = kind(1 / math.sqrt(1 - beta2**step))
    small = kind(epsilon)
    p_, g_, m_, s_ = parameter[first:last], gradient[first:last], mean[first:last], square[first:last]
    for i in range(p_.size):
        g = g_[i] * g_scale
        m = b1 * m_[i] + (one - b1) * g
        s = b2 * s_[i] + (one - b2) * (g * g)
        m_[i] = m
        s_[i] = s
        p_[i] = keep * p_[i] - size * m / (np.sqrt(s) * root + small)


@kernel
def sgd(
    parameter: Any, gradient: Any, velocity: Any, rate: float, momentum: float, decay: float, scale: float,
    first: int, last: int,
) -> None:  # fmt: skip
    """One step of gradient descent with momentum on the numbers ``first`` .. ``last``.

    v = momentum v + scale * gradient;   p = p - rate decay p - rate v
    """
    kind = parameter.dtype.type
    mu, g_scale, keep, size = kind(momentum), kind(scale), kind(1 - rate * decay), kind(rate)
    p_, g_, v_ = parameter[first:last], gradient[first:last], velocity[first:last]
    for i in range(p_.size):
        v = mu * v_[i] + g_[i] * g_scale
        v_[i] = v
        p_[i] = keep * p_[i] - size * v
