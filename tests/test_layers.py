"""Embedding look-up, dropout, softmax and cross-entropy against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine import layers
from tests.engine_harness import E, N, T, same_bits
from tests.gradient_check import check
from tests.reference import network

Array = NDArray[Any]
V = 37  # two blocks of lanes and a remainder

widths = pytest.mark.parametrize("symbols", [1, 2, 15, 16, 17, 32, V])


def logits_and_targets(symbols: int = V, seed: int = 0) -> tuple[Array, NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, symbols, (T, N)).astype(np.int32)
    targets[1, 2] = targets[3, 0] = -1
    return 3 * rng.normal(size=(T, N, symbols)), targets


def reference_losses(logits: Array, targets: NDArray[np.int32]) -> Array:
    log_probs = network.log_softmax(logits)
    chosen = np.take_along_axis(log_probs, np.maximum(targets, 0)[..., None], axis=2)[..., 0]
    losses: Array = np.where(targets >= 0, -chosen, 0.0)
    return losses


def cross_entropy(logits: Array, targets: NDArray[np.int32], scale: float = 1.0) -> tuple[Array, Array]:
    """Losses and the gradient of the logits."""
    d_logits, losses_nats = logits.copy(), np.full((T, N), np.nan)
    layers.cross_entropy(d_logits, targets, losses_nats, scale, 0, N)
    return losses_nats, d_logits


# Softmax and cross-entropy


@widths
def test_cross_entropy(symbols: int) -> None:
    logits, targets = logits_and_targets(symbols)
    losses_nats, d_logits = cross_entropy(logits, targets, 0.37)
    np.testing.assert_allclose(losses_nats, reference_losses(logits, targets), rtol=1e-13, atol=1e-14)
    assert not d_logits[targets < 0].any()

    def objective(arrays: dict[str, Array]) -> complex:
        total: complex = 0.37 * reference_losses(arrays["logits"], targets).sum()
        return total

    if symbols > 1:
        check({"logits": d_logits}, objective, {"logits": logits}, rtol=1e-10)
    np.testing.assert_allclose(d_logits.sum(axis=2), 0, atol=1e-15)


def test_cross_entropy_in_float32() -> None:
    logits, targets = logits_and_targets()
    exact, rough = cross_entropy(logits, targets), cross_entropy(logits.astype(np.float32), targets)
    assert rough[0].dtype == np.float64
    assert rough[1].dtype == np.float32
    np.testing.assert_allclose(rough[0], exact[0], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(rough[1], exact[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extreme_logits(dtype: type) -> None:
    logits, targets = np.zeros((T, N, V), dtype), np.zeros((T, N), np.int32)
    logits[..., 0] = 1e4  # certain, and right
    logits[0, 1, 0], logits[0, 1, 5] = -1e4, 1e4  # certain, and wrong
    logits[0, 2] = 1e4  # all equal
    logits[1, 0] = -1e4
    losses_nats, d_logits = cross_entropy(logits, targets)
    assert losses_nats[0, 0] == 0
    assert losses_nats[0, 1] == 2e4
    np.testing.assert_allclose([losses_nats[0, 2], losses_nats[1, 0]], np.log(V), rtol=1e-6)
    assert np.isfinite(d_logits).all()
    assert d_logits[0, 1, 5] == 1
    assert d_logits[0, 1, 0] == -1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 5, 31, V - 1])
def test_what_is_not_finite_stays_visible(bad: float, place: int) -> None:
    logits, targets = logits_and_targets()
    targets[2, 1] = 3
    logits[2, 1, place] = bad
    losses_nats, d_logits = cross_entropy(logits, targets)
    assert np.isnan(losses_nats[2, 1])
    assert np.isnan(d_logits[2, 1]).any()
    losses_nats[2, 1], d_logits[2, 1] = 0, 0
    assert np.isfinite(losses_nats).all()
    assert np.isfinite(d_logits).all()


def test_only_the_rows_asked_for_are_touched() -> None:
    logits, targets = logits_and_targets()
    draws = np.random.default_rng(1).integers(0, 256, (T, N, V)).astype(np.uint8)
    whole_losses, whole = cross_entropy(logits, targets)
    parted, losses_nats = logits.copy(), np.full((T, N), np.nan)
    layers.cross_entropy(parted, targets, losses_nats, 1.0, 1, 2)
    assert same_bits(parted[:, 1], whole[:, 1])
    assert same_bits(losses_nats[:, 1].copy(), whole_losses[:, 1].copy())
    layers.dropout(parted, draws, 255, 1, 2)
    assert same_bits(parted[:, ::2], logits[:, ::2])
    assert np.isnan(losses_nats[:, ::2]).all()


@widths
def test_target_log_probs(symbols: int) -> None:
    logits, targets = logits_and_targets(symbols)
    expected, log_probs = -reference_losses(logits, targets), np.full((T, N), np.nan)
    layers.target_log_probs(logits, targets, log_probs, 0, N)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-13, atol=1e-14)
    assert not log_probs[targets < 0].any()


@widths
def test_log_softmax(symbols: int) -> None:
    logits, _ = logits_and_targets(symbols)
    expected, log_probs = network.log_softmax(logits[0]), np.full((N, symbols), np.nan)
    layers.log_softmax(logits[:1].copy(), log_probs, 0, N)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-14)


def test_log_softmax_of_extreme_logits() -> None:
    logits, log_probs = np.zeros((1, 2, V)), np.zeros((2, V))
    logits[0, 0, 3], logits[0, 1] = 1e4, -1e4
    layers.log_softmax(logits, log_probs, 0, 2)
    np.testing.assert_allclose(log_probs[0], np.where(np.arange(V) == 3, 0.0, -1e4))
    np.testing.assert_allclose(log_probs[1], -np.log(V), rtol=1e-11)


# Dropout


@pytest.mark.parametrize("steps", [T, 1])
@pytest.mark.parametrize("threshold", [0, 1, 128, 255])
def test_dropout(steps: int, threshold: int) -> None:
    """A draw for each step, or one for all of them."""
    rng = np.random.default_rng(2)
    draws = rng.integers(0, 256, (steps, N, V)).astype(np.uint8)
    draws[0, 0, :3] = 0, 255, threshold
    values = rng.normal(size=(T, N, V))
    factors = np.broadcast_to(np.where(draws >= threshold, 256 / (256 - threshold), 0.0), values.shape)
    found = values.copy()
    layers.dropout(found, draws, threshold, 0, N)
    np.testing.assert_allclose(found, values * factors, rtol=1e-15)
    # Its own reverse: <dropout(x), y> = <x, dropout(y)>
    other = rng.normal(size=values.shape)
    back = other.copy()
    layers.dropout(back, draws, threshold, 0, N)
    assert (found * other).sum() == pytest.approx((values * back).sum(), rel=1e-12)


def test_dropout_keeps_the_mean() -> None:
    """Over all 256 draws the factors average to one, exactly the probability asked for is dropped."""
    for threshold in (0, 26, 128, 200):
        values = np.ones((1, 1, 256))
        layers.dropout(values, np.arange(256, dtype=np.uint8).reshape(1, 1, 256), threshold, 0, 1)
        assert values.mean() == pytest.approx(1.0, rel=1e-14)
        assert np.count_nonzero(values == 0) == threshold


def test_dropout_leaves_nothing_of_what_it_drops() -> None:
    values = np.full((1, 1, 2), np.nan)
    values[0, 0, 1] = 1.0
    layers.dropout(values, np.array([[[0, 255]]], np.uint8), 10, 0, 1)
    assert values[0, 0, 0] == 0


# Look-up


@pytest.mark.parametrize("labels", [0, 3])
def test_embedding_and_its_reverse(labels: int) -> None:
    """The ids of the table: tokens, the zero vector, labels; what lies beyond is zero too."""
    rng = np.random.default_rng(3)
    embedding, label_embedding = rng.normal(size=(V, E)), rng.normal(size=(labels, E))
    table = np.concatenate([embedding, np.zeros((1, E)), label_embedding, np.zeros((9, E))])
    ids = np.array([4, 0, V - 1, V, V + 5, 9, V + 1, V + 3], np.int32)
    rows = np.full((1, ids.size, E), np.nan)
    layers.embed_rows(embedding, label_embedding, ids, rows, 1, ids.size)
    assert np.isnan(rows[0, 0]).all()
    layers.embed_rows(embedding, label_embedding, ids, rows, 0, 1)
    assert same_bits(rows[0], table[ids])
    d_rows = rng.normal(size=rows.shape)
    d_embedding, d_label_embedding = rng.normal(size=(V, E)), rng.normal(size=(labels, E))
    expected = np.concatenate([d_embedding, np.zeros((1, E)), d_label_embedding, np.zeros((9, E))])
    expected[ids] += d_rows[0]
    for low, high in ((3, ids.size), (0, 3)):
        layers.add_to_embedding(d_rows, ids, d_embedding, d_label_embedding, low, high)
    assert same_bits(d_embedding, expected[:V])
    assert same_bits(d_label_embedding, expected[V + 1 : V + 1 + labels])


def test_table_and_its_reverse() -> None:
    rng, columns = np.random.default_rng(4), 23
    table, index = rng.normal(size=(1, 5, columns)), rng.integers(0, 5, (T, N)).astype(np.int32)
    pre = np.full((T, N, columns), np.nan)
    layers.look_up(table, index, pre, 1, 2)
    assert np.isnan(pre[:, ::2]).all()
    layers.look_up(table, index, pre, 0, N)
    assert same_bits(pre, table[0][index])

    d_pre, start = rng.normal(size=pre.shape), rng.normal(size=table.shape)
    whole, expected = start.copy(), start.copy()
    layers.add_to_table(d_pre, index, whole, 0, columns)
    np.add.at(expected[0], index.ravel(), d_pre.reshape(-1, columns))
    assert same_bits(whole, expected)
    parted = start.copy()
    layers.add_to_table(d_pre, index, parted, 4, 11)
    assert same_bits(parted[..., 4:11], whole[..., 4:11])
    assert same_bits(parted[..., 11:], start[..., 11:])
    for first, last in ((0, 4), (11, columns)):
        layers.add_to_table(d_pre, index, parted, first, last)
    assert same_bits(parted, whole)


def test_sum_rows() -> None:
    rng = np.random.default_rng(5)
    values, start = rng.normal(size=(T, N, V)), rng.normal(size=V)
    whole, parted = start.copy(), start.copy()
    layers.sum_rows(values, whole, 0, V)
    np.testing.assert_allclose(whole, start + values.sum(axis=(0, 1)), rtol=0, atol=1e-14)
    for first, last in ((0, 5), (5, 30), (30, V)):
        layers.sum_rows(values, parted, first, last)
    assert same_bits(parted, whole)
