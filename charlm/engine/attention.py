"""Global attention, scored by the dot product: what each step of a sequence takes from all steps of another.

Source: Luong, Pham and Manning (2015).

    (1) score(t, s) = d<t> . h<s>                                       for the source's own steps s
    (2) alpha(t, s) = exp(score(t, s)) / sum over s' of exp(score(t, s'))
    (3) context<t>  = sum over s of alpha(t, s) h<s>

T steps of N rows ask, d (T, N, H); S steps of M sources answer, h (S, M, H), a source of length l with its last l
steps: sources are aligned at their ends, and what stands before one has no part in it. Of a source without any step
the context is zero.

A row is three small products (five on the way back) of matrices that lie in steps N * H or M * H numbers apart: the
arrays are handed to `multiply` as if their rows were columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charlm.engine.jit import kernel
from charlm.engine.layers import LANES, exp_row
from charlm.engine.math import tanh
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, lanes_of, multiply, pack, pack_transposed, packed_size


@kernel
def _room(h: Any, steps: int) -> Any:
    """Room for ``steps`` steps of a source, (steps, H), packed as they are or transposed."""
    lanes, size = lanes_of(h), h.shape[2]
    return np.empty(max(packed_size(steps, size, lanes), packed_size(size, steps, lanes)), h.dtype)


@kernel
def attend(d: Any, h: Any, lengths: Any, sources: Any, alpha: Any, context: Any, low: int, high: int) -> None:
    """Equations (1)-(3) for the rows ``low`` .. ``high``.

    Args:
        d: (T, N, H).
        h: (S, M, H).
        lengths: (M,), int64, each from 0 to S.
        sources: (N,), int64: the source that each row asks; several may ask one.
        alpha: OUT, (N, T, S); the first l columns of a row are those of its source's l steps, the others unspecified.
        context: OUT, (T, N, H).
    """
    steps, rows, size = d.shape
    d_rows, c_rows = d.reshape(1, steps, rows * size), context.reshape(1, steps, rows * size)
    h_rows = h.reshape(h.shape[0], h.shape[1] * size)
    packed, partial = _room(h, h.shape[0]), np.empty(LANES, d.dtype)
    for n in range(low, high):
        own, column = lengths[sources[n]], sources[n] * size
        if own == 0:
            for t in range(steps):
                for j in range(size):
                    context[t, n, j] = 0
            continue
        h_own = h_rows[h.shape[0] - own :]
        pack_transposed(h_own, column, size, packed, 0, 1)
        multiply(d_rows, 0, n * size, size, packed, alpha, n, 0, own, 1, 0, steps, ZERO, packed)  # (1)
        for t in range(steps):
            weights = alpha[n, t, :own]
            _, total = exp_row(weights, partial)
            factor = d.dtype.type(1 / total)
            for s in range(own):
                weights[s] *= factor  # (2)
        pack(h_own, column, size, packed, 0, 1)
        multiply(alpha, n, 0, own, packed, c_rows, 0, n * size, size, 1, 0, steps, ZERO, packed)  # (3)


@kernel
def attend_backward(
    d_context: Any, d: Any, h: Any, lengths: Any, alpha: Any, d_scores: Any, d_d: Any, d_h: Any, low: int, high: int
) -> None:
    """The reverse of `attend` where row n asks source n (so M = N): no two rows meet in ``d_h``.

    Args:
        d_context: (T, N, H).
        d, h, lengths, alpha: as `attend` had and left them.
        d_scores: scratch, (N, T, S).
        d_d: ACCUMULATED, (T, N, H).
        d_h: OUT, (S, N, H); zero before a source.
    """
    steps, rows, size = d.shape
    as_rows, as_steps = (1, steps, rows * size), (steps, 1, rows * size)
    h_rows, d_h_rows = h.reshape(h.shape[0], rows * size), d_h.reshape(h.shape[0], rows * size)
    packed = _room(h, h.shape[0])
    for n in range(low, high):
        own, column = lengths[n], n * size
        first = h.shape[0] - own
        for s in range(h.shape[0]):
            for j in range(size):
                d_h[s, n, j] = 0
        if own == 0:
            continue
        pack_transposed(h_rows[first:], column, size, packed, 0, 1)
        multiply(
            d_context.reshape(as_rows), 0, column, size, packed, d_scores, n, 0, own, 1, 0, steps, ZERO, packed
        )  # (3): the gradient of alpha, to begin with
        for t in range(steps):
            weights, d_row = alpha[n, t, :own], d_scores[n, t, :own]
            mean = d.dtype.type(0)
            for s in range(own):
                mean += weights[s] * d_row[s]
            for s in range(own):
                d_row[s] = weights[s] * (d_row[s] - mean)  # (2)
        pack(h_rows[first:], column, size, packed, 0, 1)
        multiply(d_scores, n, 0, own, packed, d_d.reshape(as_rows), 0, column, size, 1, 0, steps, ADD, packed)  # (1)
        start, step, none = n * steps * h.shape[0], h.shape[0], packed[:0]
        for left, right in ((alpha, d_context), (d_scores, d)):  # (3), (1)
            accumulate_outer(
                left, start, step, own, right.reshape(as_steps), column, size, d_h_rows[first:], column, none, 0, 1
            )  # fmt: skip


@kernel
def squash(values: Any, low: int, high: int) -> None:
    """Take tanh of each number of the rows ``low`` .. ``high``, in place: values (T, N, H)."""
    for t in range(values.shape[0]):
        for n in range(low, high):
            row = values[t, n]
            for j in range(row.size):
                row[j] = tanh(row[j])


@kernel
def squash_backward(values: Any, d_values: Any, low: int, high: int) -> None:
    """From the gradient of what `squash` left in ``values`` to that of what it found, in place; both (T, N, H)."""
    one = values.dtype.type(1)
    for t in range(values.shape[0]):
        for n in range(low, high):
            row, d_row = values[t, n], d_values[t, n]
            for j in range(row.size):
                d_row[j] *= one - row[j] * row[j]
