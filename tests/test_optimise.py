"""The optimisers' passes against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine.optimise import BLOCK, adamw, clip_values, sgd, squares
from charlm.engine.threads import Team
from charlm.models.parameters import Parameters
from charlm.training.optimiser import SMALL, Optimiser, gradient_norm
from charlm.training.state import TrainingState
from tests.engine_harness import same_bits

Array = NDArray[Any]

SIZE = 1003
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 2e-6)])
splits = pytest.mark.parametrize("parts", [1, 2, 3, 7])


def shares(total: int, parts: int) -> list[tuple[int, int]]:
    return [(total * part // parts, total * (part + 1) // parts) for part in range(parts)]


@dtypes
@splits
def test_adamw(dtype: type, tolerance: float, parts: int) -> None:
    rng = np.random.default_rng(0)
    rate, beta1, beta2, epsilon, decay, scale = 0.02, 0.8, 0.95, 1e-3, 0.1, 0.7
    p = rng.normal(size=SIZE).astype(dtype)
    m, s = np.zeros_like(p), np.zeros_like(p)
    exact_p, exact_m, exact_s = p.astype(np.float64), np.zeros(SIZE), np.zeros(SIZE)
    for step in range(1, 6):
        gradient = rng.normal(size=SIZE).astype(dtype)
        before = gradient.copy()
        for first, last in shares(SIZE, parts):
            adamw(p, gradient, m, s, step, rate, beta1, beta2, epsilon, decay, scale, first, last)
        assert same_bits(gradient, before)
        g = scale * gradient.astype(np.float64)
        exact_m = beta1 * exact_m + (1 - beta1) * g
        exact_s = beta2 * exact_s + (1 - beta2) * g**2
        mean, square = exact_m / (1 - beta1**step), exact_s / (1 - beta2**step)
        exact_p = exact_p - rate * decay * exact_p - rate * mean / (np.sqrt(square) + epsilon)
        for found, expected in ((p, exact_p), (m, exact_m), (s, exact_s)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=10 * tolerance)


@dtypes
@splits
def test_sgd_with_momentum(dtype: type, tolerance: float, parts: int) -> None:
    rng = np.random.default_rng(1)
    rate, momentum, decay, scale = 0.1, 0.9, 0.05, 0.6
    p = rng.normal(size=SIZE).astype(dtype)
    v = np.zeros_like(p)
    exact_p, exact_v = p.astype(np.float64), np.zeros(SIZE)
    for _ in range(5):
        gradient = rng.normal(size=SIZE).astype(dtype)
        for first, last in shares(SIZE, parts):
            sgd(p, gradient, v, rate, momentum, decay, scale, first, last)
        exact_v = momentum * exact_v + scale * gradient.astype(np.float64)
        exact_p = exact_p - rate * decay * exact_p - rate * exact_v
        np.testing.assert_allclose(p, exact_p, rtol=0, atol=10 * tolerance)
        np.testing.assert_allclose(v, exact_v, rtol=0, atol=10 * tolerance)


def test_splits_change_no_bit_and_touch_nothing_else() -> None:
    rng = np.random.default_rng(2)
    start, gradient = rng.normal(size=(2, SIZE)).astype(np.float32)

    def run(pieces: list[tuple[int, int]]) -> list[Array]:
        p, m, s, q, v = start.copy(), *(np.zeros_like(start) for _ in range(2)), start.copy(), np.zeros_like(start)
        for first, last in pieces:
            adamw(p, gradient, m, s, 1, 0.1, 0.9, 0.999, 1e-8, 0.01, 1.0, first, last)
            sgd(q, gradient, v, 0.1, 0.9, 0.01, 1.0, first, last)
        return [p, m, s, q, v]

    whole = run([(0, SIZE)])
    for parts in (2, 3, 8):
        assert all(same_bits(a, b) for a, b in zip(run(shares(SIZE, parts)), whole, strict=True))
    zeros = np.zeros_like(start)
    for inside, complete, before in zip(run([(10, 500)]), whole, (start, zeros, zeros, start, zeros), strict=True):
        assert same_bits(inside[10:500], complete[10:500])
        assert same_bits(inside[:10], before[:10])
        assert same_bits(inside[500:], before[500:])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_squares(dtype: type, size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(dtype)
    blocks = -(-size // BLOCK)
    whole = np.full(blocks, np.nan)
    squares(values, whole, 0, blocks)
    expected = [np.square(values[i * BLOCK : (i + 1) * BLOCK].astype(np.float64)).sum() for i in range(blocks)]
    np.testing.assert_allclose(whole, expected, rtol=1e-13)
    for parts in (2, 3):
        shared = np.full(blocks, np.nan)
        for first, last in shares(blocks, parts):
            squares(values, shared, first, last)
        assert same_bits(shared, whole)


@pytest.mark.parametrize("blocks", [1, SMALL - 1, SMALL, SMALL + 3])
def test_the_norm_is_the_same_by_any_number_of_threads(blocks: int, teams: list[Team]) -> None:
    gradients = np.random.default_rng(blocks).standard_normal(blocks * BLOCK - 5).astype(np.float32)
    norms = [gradient_norm(gradients, team) for team in teams]
    assert norms[0] == pytest.approx(np.linalg.norm(gradients.astype(np.float64)), rel=1e-12)
    assert norms == norms[:1] * len(teams)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_squares_of_large_numbers_do_not_overflow(dtype: type) -> None:
    sums = np.zeros(1)
    squares(np.full(9, 1e30, dtype), sums, 0, 1)
    assert sums[0] == pytest.approx(9e60, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_squares_show_what_is_not_finite(bad: float) -> None:
    for place in (0, 8, 18):
        values, sums = np.zeros(19, np.float32), np.zeros(1)
        values[place] = bad
        squares(values, sums, 0, 1)
        assert not np.isfinite(sums[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_clip_values(dtype: type) -> None:
    values = np.array([0.0, 0.5, -0.5, 0.51, -0.51, 9.0, -np.inf, np.inf, np.nan, 7.0], dtype)
    gradient = values.copy()
    assert clip_values(gradient, 0.5, 0, 9) == 5
    np.testing.assert_array_equal(gradient, np.array([0, 0.5, -0.5, 0.5, -0.5, 0.5, -0.5, 0.5, np.nan, 7.0], dtype))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_matrices_decay_and_vectors_do_not(name: str) -> None:
    parameters = Parameters({"w": (3, 4), "b": (4,)}, np.float64)
    parameters.flat[...] = 1
    optimiser = Optimiser(name, parameters, weight_decay=0.5)
    optimiser.step(np.zeros_like(parameters.flat), 0.1, 1.0, Team(1))
    np.testing.assert_allclose(parameters["w"], 0.95, rtol=1e-15)
    assert (parameters["b"] == 1).all()


def test_a_state_is_finite_if_all_of_it_is() -> None:
    parameters = Parameters({"w": (3, 4)}, np.float64)
    optimiser = Optimiser("adamw", parameters)
    state = TrainingState(parameters, optimiser, np.zeros((1, 1, 2, 4)))
    for array in (parameters["w"], optimiser.moments["mean"], optimiser.moments["square"], state.carried):
        assert state.is_finite()
        array.flat[-1] = np.nan
        assert not state.is_finite()
        array.flat[-1] = 0
