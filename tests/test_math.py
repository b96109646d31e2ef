"""exp, sigmoid and tanh against NumPy: the errors that are promised, and the ends of the range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine import math
from charlm.engine.jit import kernel
from charlm.engine.rowwise import Values, rowwise, sigmoid, tanh

Array = NDArray[Any]

dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@kernel
def map_exp(x: Any, y: Any) -> None:
    for i in range(x.size):
        y[i] = math.exp(x[i])


@rowwise
def sigmoid_of(x: Values) -> tuple[Values, ...]:
    return (sigmoid(x),)


@rowwise
def tanh_of(x: Values) -> tuple[Values, ...]:
    return (tanh(x),)


@kernel
def map_sigmoid(x: Any, y: Any) -> None:
    sigmoid_of((x,), (y,))


@kernel
def map_tanh(x: Any, y: Any) -> None:
    tanh_of((x,), (y,))


def apply(kernel: Callable[[Any, Any], None], x: Any, dtype: type) -> Array:
    x = np.atleast_1d(np.asarray(x, dtype))
    y = np.empty_like(x)
    kernel(x, y)
    return y


def logistic(x: Array) -> Array:
    """Without loss of digits at either end."""
    small = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1, small) / (1 + small)
    return result


functions = pytest.mark.parametrize(
    ("function", "exact", "limit"),
    [(map_exp, np.exp, {4: 87.0, 8: 708.0}), (map_sigmoid, logistic, {4: 87.0, 8: 708.0}), (map_tanh, np.tanh, None)],
)


def arguments(dtype: type, limit: float) -> Array:
    """Over the whole range, near the ends of the reduced argument's, and close to zero."""
    rng = np.random.default_rng(0)
    half = (np.arange(-60, 61) + 0.5) * np.log(2)
    tiny = 10.0 ** np.arange(-30, 0, 0.1)
    x = np.concatenate([rng.uniform(-limit, limit, 40_000), rng.normal(size=40_000), half, half / 2, tiny, -tiny, [0]])
    return x[np.abs(x) <= limit].astype(dtype)


@dtypes
@functions
def test_relative_error(function: Any, exact: Any, limit: dict[int, float] | None, dtype: type) -> None:
    """At most 4 units in the last place of the type (5e-7 in float32, 9e-16 in float64)."""
    x = arguments(dtype, limit[np.dtype(dtype).itemsize] if limit else 30.0)
    expected = exact(x.astype(np.longdouble))
    error = np.abs(apply(function, x, dtype) - expected) / np.abs(np.where(expected == 0, 1, expected))
    assert error.max() <= 4 * np.finfo(dtype).eps


@dtypes
def test_exact_values(dtype: type) -> None:
    assert apply(map_exp, 0.0, dtype) == 1
    assert apply(map_sigmoid, 0.0, dtype) == 0.5
    assert apply(map_tanh, 0.0, dtype) == 0


@dtypes
@functions
def test_nan_comes_out_as_nan(function: Any, exact: Any, limit: Any, dtype: type) -> None:
    for size in (1, 3, 16, 40):  # alone, and in a vector
        for place in {0, size // 2, size - 1}:
            x = np.linspace(-2, 2, size)
            x[place] = np.nan
            np.testing.assert_array_equal(np.isnan(apply(function, x, dtype)), np.isnan(x))


@dtypes
@pytest.mark.parametrize("x", [100.0, 1e3, 1e4, 1e30, np.inf])
def test_large_arguments_saturate(dtype: type, x: float) -> None:
    if dtype == np.float32 or x > 709:
        assert np.isfinite(apply(map_exp, x, dtype))
        assert apply(map_exp, x, dtype) > np.finfo(dtype).max / 10
        assert 0 < apply(map_exp, -x, dtype) < 10 * np.finfo(dtype).tiny
    assert apply(map_sigmoid, x, dtype) == 1
    assert 0 <= apply(map_sigmoid, -x, dtype) < 1e-37
    assert apply(map_tanh, x, dtype) == 1
    assert apply(map_tanh, -x, dtype) == -1


@dtypes
def test_monotonic_and_within_bounds(dtype: type) -> None:
    x = np.linspace(-20, 20, 100_001)
    for function, low, high in ((map_sigmoid, 0, 1), (map_tanh, -1, 1)):
        y = apply(function, x, dtype)
        assert (y >= low).all()
        assert (y <= high).all()
        assert (np.diff(y) >= -2 * np.finfo(dtype).eps).all()


@dtypes
def test_a_value_does_not_depend_on_its_place(dtype: type) -> None:
    """Vectors and the remainder of a loop give the same bits: a batch scores as its rows do."""
    x = np.random.default_rng(1).normal(size=67) * 5
    for function in (map_exp, map_sigmoid, map_tanh):
        together = apply(function, x, dtype)
        assert together.tolist() == [apply(function, value, dtype)[0] for value in x]
