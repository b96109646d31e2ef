"""Embedding look-up, dropout, softmax with cross-entropy: what stands around the cells."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from charlm.engine.exp_row import exp_row
from charlm.engine.jit import kernel
from charlm.engine.matmul import BIAS, ZERO, multiply


@kernel
def embed_rows(embedding: Any, label_embedding: Any, ids: Any, rows: Any, low: int, high: int) -> None:
    """Copy the embedding of each id ``low`` .. ``high``: a token's; from V + 1 on, a label's; any other is zero.

    Args:
        embedding: (V, E).
        label_embedding: (K, E), the rows of the ids V + 1 .. V + K; V itself is the zero vector.
        ids: (U,), int32.
        rows: OUT, (1, U, E).
    """
    symbols, labels = embedding.shape[0], label_embedding.shape[0]
    for i in range(low, high):
        row, label = rows[0, i], ids[i] - (symbols + 1)
        if label < -1 or 0 <= label < labels:
            source = embedding[ids[i]] if label < 0 else label_embedding[label]
            for j in range(row.size):
                row[j] = source[j]
        else:
            for j in range(row.size):
                row[j] = 0


@kernel
def add_to_embedding(d_rows: Any, ids: Any, d_embedding: Any, d_label_embedding: Any, low: int, high: int) -> None:
    """The reverse of `embed_rows`: ids are distinct, so threads may share them; the zero vector learns nothing.

    Args:
        d_rows: (1, U, E).
        ids: (U,), int32.
        d_embedding: ACCUMULATED, (V, E).
        d_label_embedding: ACCUMULATED, (K, E).
    """
    symbols, labels = d_embedding.shape[0], d_label_embedding.shape[0]
    for i in range(low, high):
        source, label = d_rows[0, i], ids[i] - (symbols + 1)
        if label < -1 or 0 <= label < labels:
            target = d_embedding[ids[i]] if label < 0 else d_label_embedding[label]
            for j in range(target.size):
                target[j] += source[j]


@kernel
def look_up(table: Any, index: Any, pre: Any, low: int, high: int) -> None:
    """pre[t, n] = table[index[t, n]], for the rows ``low`` .. ``high``.

    Args:
        table: (1, U, C): the first layer's input projection of each distinct id.
        index: (T, N), int32.
        pre: OUT, (T, N, C).
    """
    for t in range(pre.shape[0]):
        for n in range(low, high):
            target, source = pre[t, n], table[0, index[t, n]]
            for j in range(target.size):
                target[j] = source[j]


@kernel
def add_to_table(d_pre: Any, index: Any, d_table: Any, first: int, last: int) -> None:
    """The reverse of `look_up`, for the columns ``first`` .. ``last``; rows are added in their order.

    Args:
        d_pre: (T, N, C).
        index: (T, N), int32.
        d_table: ACCUMULATED, (1, U, C).
    """
    for t in range(d_pre.shape[0]):
        for n in range(d_pre.shape[1]):
            target, source = d_table[0, index[t, n], first:last], d_pre[t, n, first:last]
            for j in range(target.size):
                target[j] += source[j]


@kernel
def sum_rows(values: Any, sums: Any, first: int, last: int) -> None:
    """sums[j] += sum over t and n of values[t, n, j], for the columns ``first`` .. ``last``."""
    for t in range(values.shape[0]):
        for n in range(values.shape[1]):
            target, source = sums[first:last], values[t, n, first:last]
            for j in range(target.size):
                target[j] += source[j]


@kernel
def dropout(values: Any, draws: Any, threshold: int, low: int, high: int) -> None:
    """Zero each value whose draw is below ``threshold``; scale the others by 256 / (256 - threshold). In place.

    Its own reverse: the same draws applied to the gradient.

    Args:
        values: IN and OUT, (T, N, H).
        draws: (T, N, H), uint8, or (1, N, H) for one mask over all steps.
        threshold: 0..255; the probability to drop is threshold / 256.
    """
    keep = values.dtype.type(256.0 / (256 - threshold))
    zero = values.dtype.type(0)
    for t in range(values.shape[0]):
        for n in range(low, high):
            row, draw = values[t, n], draws[t % draws.shape[0], n]
            for j in range(row.size):
                row[j] = row[j] * keep if draw[j] >= threshold else zero


@kernel
def cross_entropy(logits: Any, targets: Any, losses_nats: Any, scale: float, low: int, high: int) -> None:
    """Softmax and cross-entropy of each position, and the gradient, in place.

    loss[t, n] = -log softmax(logits[t, n])[target],   d_logits = (softmax - one_hot(target)) * scale

    Args:
        logits: (T, N, V); IN the logits, OUT the gradient of scale * (sum of the losses).
        targets: (T, N), int32; -1 where nothing is predicted: no loss, zero gradient.
        losses_nats: OUT, (T, N), float64.
        scale: factor of the gradient.
    """
    for t in range(logits.shape[0]):
        for n in range(low, high):
            row, target = logits[t, n], targets[t, n]
            losses_nats[t, n] = 0
            if target < 0:
                for j in range(row.size):
                    row[j] = 0
                continue
            logit = row[target]
            largest, total = exp_row(row)
            losses_nats[t, n] = math.log(total) + (np.float64(largest) - np.float64(logit))
            factor = logits.dtype.type(scale / total)
            for j in range(row.size):
                row[j] *= factor
            row[target] -= logits.dtype.type(scale)


@kernel
def target_log_probs(logits: Any, targets: Any, log_probs: Any, low: int, high: int) -> None:
    """The log probability of each target; the logits are destroyed.

    Args:
        logits: (T, N, V).
        targets: (T, N), int32; -1 where nothing is predicted: 0.
        log_probs: OUT, (T, N), float64, nats.
    """
    for t in range(logits.shape[0]):
        for n in range(low, high):
            log_probs[t, n] = 0
            if targets[t, n] >= 0:
                logit = logits[t, n, targets[t, n]]
                largest, total = exp_row(logits[t, n])
                log_probs[t, n] = (np.float64(logit) - np.float64(largest)) - math.log(total)


@kernel
def _normalise(row: Any, base: float, log_probs: Any) -> None:
    """log_probs = base + row - log(sum(exp(row))), in nats; the row, which may be shorter, is destroyed."""
    for j in range(row.size):
        log_probs[j] = row[j]
    largest, total = exp_row(row)
    log_total = math.log(total)
    for j in range(row.size):
        log_probs[j] = base + ((log_probs[j] - largest) - log_total)


@kernel
def log_softmax(logits: Any, log_probs: Any, low: int, high: int) -> None:
    """log_probs = logits - log(sum(exp(logits))), a row at a time; the logits are destroyed.

    Args:
        logits: (1, N, V).
        log_probs: OUT, (N, V), float64, nats.
    """
    for n in range(low, high):
        _normalise(logits[0, n], 0.0, log_probs[n])


class SoftmaxWeights(NamedTuple):
    """W_y (H, V), packed, and b_y (V,)."""

    w: Any
    b: Any


@kernel
def softmax_log_probs(hidden: Any, weights: SoftmaxWeights, logits: Any, log_probs: Any, low: int, high: int) -> None:
    """log_probs = log softmax(hidden W_y + b_y).

    Args:
        hidden: (1, N, H).
        logits: scratch, (1, N, V).
        log_probs: OUT, (N, V), float64, nats.
    """
    multiply(
        hidden, 0, 0, hidden.shape[2], weights.w, logits, 0, 0, weights.b.size, 1, low, high, BIAS, weights.b
    )  # fmt: skip
    log_softmax(logits, log_probs, low, high)


class AdaptiveWeights(NamedTuple):
    """An adaptive softmax of K tails, and its scratch arrays; weights are packed.

    Attributes:
        w, b: the head's, over its own tokens and the K tails: (H, V_head + K), (V_head + K,).
        w_z, w_tail, b_tail: of each tail: (H, width), (width, V_tail), (V_tail,).
        sizes: (K, 2): each tail's width and V_tail.
        tail_nats: scratch, (N, K), float64: the log probability of each tail.
        z: scratch, (1, N, widest).
    """

    w: Any
    b: Any
    w_z: Any
    w_tail: Any
    b_tail: Any
    sizes: Any
    tail_nats: Any
    z: Any


@kernel
def adaptive_log_probs(hidden: Any, weights: AdaptiveWeights, logits: Any, log_probs: Any, low: int, high: int) -> None:
    """The log probability of every token, of the head and of the tails; as `softmax_log_probs`.

    Args:
        logits: scratch, (1, N, the size of the largest part).
    """
    size, tails = hidden.shape[2], weights.sizes.shape[0]
    column = weights.b.size - tails
    multiply(hidden, 0, 0, size, weights.w, logits, 0, 0, weights.b.size, 1, low, high, BIAS, weights.b)
    for n in range(low, high):
        # What stands behind the head's own tokens is written over below.
        _normalise(logits[0, n, : weights.b.size], 0.0, log_probs[n])
        for k in range(tails):
            weights.tail_nats[n, k] = log_probs[n, column + k]
    for k in range(tails):
        width, count = weights.sizes[k, 0], weights.sizes[k, 1]
        w_z, w_tail, b_tail = weights.w_z[k], weights.w_tail[k], weights.b_tail[k]
        multiply(hidden, 0, 0, size, w_z, weights.z, 0, 0, width, 1, low, high, ZERO, b_tail)
        multiply(weights.z, 0, 0, width, w_tail, logits, 0, 0, count, 1, low, high, BIAS, b_tail)
        for n in range(low, high):
            _normalise(logits[0, n, :count], weights.tail_nats[n, k], log_probs[n, column:])
        column += count


@kernel
def gather(hidden: Any, t: Any, n: Any, rows: Any, first: int, last: int) -> None:
    """rows[0, i] = hidden[t[i], n[i]], for i from ``first`` to ``last``."""
    for i in range(first, last):
        target, source = rows[0, i], hidden[t[i], n[i]]
        for j in range(target.size):
            target[j] = source[j]


@kernel
def scatter_add(d_rows: Any, t: Any, n: Any, d_hidden: Any, first: int, last: int) -> None:
    """The reverse of `gather`: d_hidden[t[i], n[i]] += d_rows[0, i]."""
    for i in range(first, last):
        target, source = d_hidden[t[i], n[i]], d_rows[0, i]
        for j in range(target.size):
            target[j] += source[j]


@kernel
def turn(source: Any, lengths: Any, target: Any, low: int, high: int) -> None:
    """Each row's last ``lengths[n]`` steps in reverse order; what is before them is zero. Its own reverse.

    Args:
        source: (T, N, H).
        lengths: (N,), int64, at most T.
        target: OUT, (T, N, H).
    """
    steps = source.shape[0]
    for n in range(low, high):
        first = steps - lengths[n]
        for t in range(steps):
            to = target[t, n]
            if t < first:
                for j in range(to.size):
                    to[j] = 0
            else:
                values = source[steps - 1 - (t - first), n]
                for j in range(to.size):
                    to[j] = values[j]


@kernel
def turn_add(source: Any, lengths: Any, target: Any, low: int, high: int) -> None:
    """As `turn`, but ``target`` is ADDED TO."""
    steps = source.shape[0]
    for n in range(low, high):
        first = steps - lengths[n]
        for t in range(first, steps):
            to, values = target[t, n], source[steps - 1 - (t - first), n]
            for j in range(to.size):
                to[j] += values[j]
