"""The exponentials of a row and their sum, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine.exp_row import LANES, exp_row
from charlm.engine.jit import kernel
from tests.engine_harness import same_bits

Array = NDArray[Any]

sizes = pytest.mark.parametrize("size", [1, 2, LANES - 1, LANES, LANES + 1, 2 * LANES, 3 * LANES + 5, 1000])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@kernel
def exp_part(values: Any, first: int, last: int) -> tuple[float, float]:
    """`exp_row` of a part of an array."""
    largest, total = exp_row(values[first:last])
    return largest, total


def numbers(size: int, dtype: type) -> Array:
    return (3 * np.random.default_rng(size).standard_normal(size)).astype(dtype)


@sizes
@dtypes
def test_maximum_exponentials_and_sum(size: int, dtype: type) -> None:
    values = numbers(size, dtype)
    row = values.copy()
    largest, total = exp_part(row, 0, size)
    exact = np.exp((values - values.max()).astype(np.float64))
    assert largest == values.max()
    tolerance = 1e-14 if dtype is np.float64 else 3e-7
    np.testing.assert_allclose(row, exact, rtol=tolerance)
    np.testing.assert_allclose(total, exact.sum(), rtol=tolerance)


@sizes
@dtypes
def test_nothing_beside_the_row_is_read_or_written(size: int, dtype: type) -> None:
    values, around = numbers(size, dtype), np.full(size + 2 * LANES, np.nan, dtype)
    alone = values.copy()
    found = exp_part(alone, 0, size)
    for first in (1, 3, LANES):  # wherever it begins, the bits are the same
        around[:] = np.nan
        around[first : first + size] = values
        assert exp_part(around, first, first + size) == found
        assert same_bits(around[first : first + size], alone)
        assert np.isnan(around[:first]).all()
        assert np.isnan(around[first + size :]).all()


@sizes
@dtypes
def test_the_largest_is_found_at_every_place(size: int, dtype: type) -> None:
    for place in range(0, size, 1 + size // 50):
        row = numbers(size, dtype)
        row[place] = 50
        largest, _ = exp_part(row, 0, size)
        assert largest == 50
        assert row[place] == 1


@sizes
@dtypes
def test_a_nan_at_any_place_makes_the_sum_nan(size: int, dtype: type) -> None:
    for place in range(0, size, 1 + size // 50):
        row = numbers(size, dtype)
        row[place] = np.nan
        assert np.isnan(exp_part(row, 0, size)[1])


@dtypes
def test_each_number_is_summed_once(dtype: type) -> None:
    """A row of equal numbers: the sum is its length, exactly."""
    for size in range(1, 5 * LANES):
        row = np.full(size, -7.0, dtype)
        assert exp_part(row, 0, size) == (-7.0, size)
