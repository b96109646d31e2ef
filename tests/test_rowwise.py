"""Equations between rows: the same numbers as NumPy's, at every length, and nothing beside the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.core.errors import TypingError
from numpy.typing import NDArray

from charlm.engine.jit import VECTOR_BYTES, kernel
from charlm.engine.rowwise import VECTORS, Values, relu, rowwise, where_positive
from tests.engine_harness import same_bits

Array = NDArray[Any]

LANES = VECTORS * VECTOR_BYTES // 4  # taken at once, of float32; of float64 half as many
sizes = pytest.mark.parametrize("size", [1, 2, LANES // 2, LANES - 1, LANES, LANES + 1, 2 * LANES, 3 * LANES + 5])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@rowwise
def mixed(x: Values, y: Values) -> tuple[Values, ...]:
    return 2 * x + y, 1 - x, 1 + y * 2 - 4, relu(x), where_positive(x, y)


@rowwise
def exchanged(x: Values, y: Values) -> tuple[Values, ...]:
    return y, x


@kernel
def mix(x: Any, y: Any, found: Any) -> None:
    mixed((x, y), (found[0], found[1], found[2], found[3], found[4]))


@kernel
def exchange(x: Any, y: Any, low: int, high: int) -> None:
    exchanged((x[low:high], y[low:high]), (x[low:high], y[low:high]))


def numbers(seed: int, size: int, dtype: type) -> Array:
    """Multiples of 1/8: sums and products of a few are exact."""
    return (np.random.default_rng(seed).integers(-40, 40, size) / 8).astype(dtype)


@sizes
@dtypes
def test_operators_and_functions(size: int, dtype: type) -> None:
    x, y, found = numbers(1, size, dtype), numbers(2, size, dtype), np.full((5, size), np.nan, dtype)
    mix(x, y, found)
    expected = [2 * x + y, 1 - x, 1 + y * 2 - 4, np.maximum(x, 0), np.where(x > 0, y, 0)]
    np.testing.assert_array_equal(found, expected)


@sizes
@dtypes
def test_rows_may_be_written_over_and_nothing_else_is(size: int, dtype: type) -> None:
    x, y = numbers(3, size + 2 * LANES, dtype), numbers(4, size + 2 * LANES, dtype)
    expected = x.copy(), y.copy()
    for first in (0, 1, 5, LANES):
        part = np.s_[first : first + size]
        expected[0][part], expected[1][part] = expected[1][part].copy(), expected[0][part].copy()
        exchange(x, y, first, first + size)
        assert same_bits(x, expected[0])
        assert same_bits(y, expected[1])


def test_an_empty_row_is_left_alone() -> None:
    x, y = numbers(5, 3, np.float32), numbers(6, 3, np.float32)
    before = x.copy()
    exchange(x, y, 1, 1)
    assert same_bits(x, before)


@dtypes
def test_what_is_no_number_stays_so(dtype: type) -> None:
    x, y = np.array([np.nan, -1, 1, np.nan], dtype), np.array([1, np.nan, np.nan, 2], dtype)
    found = np.zeros((5, 4), dtype)
    mix(x, y, found)
    np.testing.assert_array_equal(found[3], np.array([np.nan, 0, 1, np.nan], dtype))
    np.testing.assert_array_equal(found[4], np.array([0, 0, np.nan, 0], dtype))  # where NaN > 0, which it is not
    assert np.isnan(found[[0, 2]]).tolist() == [[True] * 4, [False, True, True, False]]


@pytest.mark.parametrize("of", ["another type", "two dimensions", "integers", "every second number"])
def test_rows_of_another_kind_are_refused(of: str) -> None:
    x = np.zeros(8, np.float32)
    y = {
        "another type": np.zeros(8),
        "two dimensions": np.zeros((8, 8), np.float32),
        "integers": np.zeros(8, np.int32),
        "every second number": np.zeros(16, np.float32)[::2],
    }[of]
    with pytest.raises(TypingError):
        exchange(x, y, 0, 8)


def test_a_row_that_may_not_be_written_is_refused() -> None:
    x, y = np.zeros(8, np.float32), np.zeros(8, np.float32)
    y.setflags(write=False)
    with pytest.raises(TypingError):
        exchange(x, y, 0, 8)
