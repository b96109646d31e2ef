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

from charlm.engine.exp_row import exp_row
from charlm.engine.jit import kernel
from charlm.engine.matmul import ADD, ZERO, accumulate_outer, multiply, pack, pack_transposed
from charlm.engine.rowwise import Values, rowwise, tanh


@kernel
def pack_sources(h: Any, lengths: Any, keys: Any, values: Any, low: int, high: int) -> None:
    """Pack the sources ``low`` .. ``high`` for the products: once, however many rows and steps ask them.

    Args:
        h: (S, M, H).
        lengths: (M,), int64, each from 0 to S.
        keys: OUT, (M, packed_size(H, S)): of each source its own l steps transposed, (H, l), packed; for (1).
        values: OUT, (M, packed_size(S, H)): the same as they are, (l, H), packed; for (3).
    """
    size = h.shape[2]
    h_rows = h.reshape(h.shape[0], h.shape[1] * size)
    for m in range(low, high):
        if lengths[m] > 0:
            h_own = h_rows[h.shape[0] - lengths[m] :]
            pack_transposed(h_own, m * size, size, keys[m], 0, 1)
            pack(h_own, m * size, size, values[m], 0, 1)


@kernel
def attend(
    d: Any, keys: Any, values: Any, lengths: Any, sources: Any, alpha: Any, context: Any, low: int, high: int
) -> None:  # fmt: skip
    """Equations (1)-(3) for the rows ``low`` .. ``high``.

    Args:
        d: (T, N, H).
        keys, values, lengths: see `pack_sources`.
        sources: (N,), int64: the source that each row asks; several may ask one.
        alpha: OUT, (N, T, S); the first l columns of a row are those of its source's l steps, the others unspecified.
        context: OUT, (T, N, H).
    """
    steps, rows, size = d.shape
    d_rows, c_rows = d.reshape(1, steps, rows * size), context.reshape(1, steps, rows * size)
    for n in range(low, high):
        m, column = sources[n], n * size
        own = lengths[m]
        if own == 0:
            for t in range(steps):
                for j in range(size):
                    context[t, n, j] = 0
            continue
        multiply(d_rows, 0, column, size, keys[m], alpha, n, 0, own, 1, 0, steps, ZERO, keys[m])  # (1)
        for t in range(steps):
            weights = alpha[n, t, :own]
            _, total = exp_row(weights)
            factor = d.dtype.type(1 / total)
            for s in range(own):
                weights[s] *= factor  # (2)
        multiply(alpha, n, 0, own, values[m], c_rows, 0, column, size, 1, 0, steps, ZERO, values[m])  # (3)


@kernel
def attend_backward(
    d_context: Any, d: Any, keys: Any, values: Any, lengths: Any, alpha: Any, d_scores: Any, d_d: Any, d_h: Any,
    low: int, high: int,
) -> None:  # fmt: skip
    """The reverse of `attend` where row n asks source n (so M = N): no two rows meet in ``d_h``.

    Args:
        d_context: (T, N, H).
        d, keys, values, lengths, alpha: as `attend` had and left them.
        d_scores: scratch, (N, T, S).
        d_d: ACCUMULATED, (T, N, H).
        d_h: OUT, (S, N, H); zero before a source.
    """
    steps, rows, size = d.shape
    longest = d_h.shape[0]
    as_rows, as_steps = (1, steps, rows * size), (steps, 1, rows * size)
    d_h_rows, none = d_h.reshape(longest, rows * size), keys[0, :0]
    for n in range(low, high):
        own, column = lengths[n], n * size
        for s in range(longest):
            for j in range(size):
                d_h[s, n, j] = 0
        if own == 0:
            continue
        multiply(
            d_context.reshape(as_rows), 0, column, size, keys[n], d_scores, n, 0, own, 1, 0, steps, ZERO, none
        )  # (3): the gradient of alpha, to begin with
        for t in range(steps):
            weights, d_row = alpha[n, t, :own], d_scores[n, t, :own]
            mean = d.dtype.type(0)
            for s in range(own):
                mean += weights[s] * d_row[s]
            for s in range(own):
                d_row[s] = weights[s] * (d_row[s] - mean)  # (2)
        multiply(d_scores, n, 0, own, values[n], d_d.reshape(as_rows), 0, column, size, 1, 0, steps, ADD, none)  # (1)
        d_h_own = d_h_rows[longest - own :]
        for left, right in ((alpha, d_context), (d_scores, d)):  # (3), (1)
            accumulate_outer(
                left, n * steps * longest, longest, own, right.reshape(as_steps), column, size, d_h_own, column, none,
                0, 1,
            )  # fmt: skip


@rowwise
def squashed(x: Values) -> tuple[Values, ...]:
    """The squashed numbers, y = tanh(x)."""
    return (tanh(x),)


@rowwise
def d_squashed(y: Values, d_y: Values) -> tuple[Values, ...]:
    """The gradient of x."""
    return (d_y * (1 - y * y),)


@kernel
def squash(values: Any, low: int, high: int) -> None:
    """Take tanh of each number of the rows ``low`` .. ``high``, in place: values (T, N, H)."""
    for t in range(values.shape[0]):
        for n in range(low, high):
            squashed((values[t, n],), (values[t, n],))


@kernel
def squash_backward(values: Any, d_values: Any, low: int, high: int) -> None:
    """From the gradient of what `squash` left in ``values`` to that of what it found, in place; both (T, N, H)."""
    for t in range(values.shape[0]):
        for n in range(low, high):
            d_squashed((values[t, n], d_values[t, n]), (d_values[t, n],))
