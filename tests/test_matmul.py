"""Packed matrix products against NumPy, and bit for bit against themselves however the work is shared out.

The error of a sum of k products is bounded by k roundings of the sum of their absolute values; a bound that a
missing, doubled or misplaced term passes by orders of magnitude.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine.jit import VECTOR_BYTES
from charlm.engine.matmul import (
    ADD,
    BIAS,
    FAR,
    K_BLOCK,
    OUTER_BLOCK,
    ROWS,
    ZERO,
    accumulate_outer,
    multiply,
    pack,
    pack_transposed,
    pack_weight,
    packed_size,
    panel_share,
)
from tests.engine_harness import same_bits

Array = NDArray[Any]

dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
WIDTHS = [1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 129, 200]
DEPTHS = [1, 3, 16, 65, K_BLOCK - 1, K_BLOCK, K_BLOCK + 1, 2 * K_BLOCK + 13]


def draw(rng: np.random.Generator, dtype: type, *shape: int) -> Array:
    return rng.normal(size=shape).astype(dtype)


def packed(b: Array, column: int = 0, n: int | None = None, parts: int = 1) -> Array:
    """Columns column .. column + n, packed over NaNs, so that a number not written shows."""
    n = b.shape[1] - column if n is None else n
    result = np.full(packed_size(b.shape[0], n, VECTOR_BYTES // b.itemsize), np.nan, b.dtype)
    for part in range(parts):
        pack(b, column, n, result, part, parts)
    return result


def packed_transposed(b: Array, column: int = 0, k: int | None = None, parts: int = 1) -> Array:
    k = b.shape[1] - column if k is None else k
    result = np.full(packed_size(k, b.shape[0], VECTOR_BYTES // b.itemsize), np.nan, b.dtype)
    for part in range(parts):
        pack_transposed(b, column, k, result, part, parts)
    return result


def assert_product(found: Array, a: Array, b: Array, start: Array | float = 0.0) -> None:
    """found = start + a @ b to the rounding of the type."""
    k, eps = a.shape[-1], np.finfo(found.dtype).eps
    a, b, start = a.astype(np.float64), b.astype(np.float64), np.asarray(start, np.float64)
    bound = (k + 2) * eps * (np.abs(start) + np.abs(a) @ np.abs(b))
    assert (np.abs(found - (start + a @ b)) <= bound).all()


@dtypes
@pytest.mark.parametrize("widths", [(65,), (40, 25), (1, 2, 130)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_weight_is_packed_with_its_transpose_group_by_group(dtype: type, widths: tuple[int, ...], parts: int) -> None:
    b = draw(np.random.default_rng(1), dtype, 37, sum(widths))
    columns = np.cumsum((0, *widths))
    expected = np.concatenate([packed(b, column, width) for column, width in zip(columns, widths, strict=False)])
    turned = np.concatenate(
        [packed_transposed(b, column, width) for column, width in zip(columns, widths, strict=False)]
    )
    forward, transposed = np.full_like(expected, np.nan), np.full_like(turned, np.nan)
    for part in range(parts):
        pack_weight(b, np.array(widths), forward, transposed, part, parts)
    np.testing.assert_array_equal(forward, expected)
    np.testing.assert_array_equal(transposed, turned)
    forward[:] = np.nan
    pack_weight(b, np.array(widths), forward, transposed[:0], 0, 1)
    np.testing.assert_array_equal(forward, expected)


# multiply


@dtypes
@pytest.mark.parametrize("k", DEPTHS)
def test_products_of_all_widths(dtype: type, k: int) -> None:
    rng = np.random.default_rng(k)
    for n in WIDTHS:
        for rows in (1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 1):
            a, b, old, bias = draw(rng, dtype, 1, rows, k), draw(rng, dtype, k, n), draw(rng, dtype, 1, rows, n), None
            bias = draw(rng, dtype, n)
            for start, first in ((ZERO, 0.0), (ADD, old), (BIAS, bias)):
                c = old.copy()
                multiply(a, 0, 0, k, packed(b), c, 0, 0, n, 1, 0, rows, start, bias)
                assert_product(c, a, b, first)


@dtypes
@pytest.mark.parametrize("start", [ZERO, ADD, BIAS])
def test_offsets_of_steps_rows_and_columns(dtype: type, start: int) -> None:
    """Everything at once: what lies outside the block is not touched, and not read."""
    rng = np.random.default_rng(3)
    a_step, c_step, steps, low, high, column, c_column, k, n = 1, 2, 3, 2, 9, 5, 4, 21, 35
    a = np.full((6, 11, 40), np.nan, dtype)
    a[a_step : a_step + steps, low:high, column : column + k] = draw(rng, dtype, steps, high - low, k)
    b, bias, c = draw(rng, dtype, k, n), draw(rng, dtype, n), draw(rng, dtype, 7, 11, 50)
    before = c.copy()
    multiply(a, a_step, column, k, packed(b), c, c_step, c_column, n, steps, low, high, start, bias)
    block = np.s_[c_step : c_step + steps, low:high, c_column : c_column + n]
    first = {ZERO: 0.0, ADD: before[block], BIAS: bias}[start]
    assert_product(c[block], a[a_step : a_step + steps, low:high, column : column + k], b, first)
    before[block] = c[block]
    assert same_bits(c, before)


@dtypes
def test_many_steps_and_rows_are_taken_in_blocks(dtype: type) -> None:
    rng = np.random.default_rng(4)
    # More than FEW_ROWS rows, in the last case more than MANY_ROWS; blocks end within a step.
    far = K_BLOCK + 9, FAR // K_BLOCK
    for steps, rows, k, n in ((5, 70, K_BLOCK + 9, 70), (150, 33, 67, 33), (1, 500, 300, 33), (4, 150, *far)):
        a, b, bias, old = (draw(rng, dtype, *shape) for shape in ((steps, rows, k), (k, n), (n,), (steps, rows, n)))
        for start, first in ((ZERO, 0.0), (ADD, old), (BIAS, bias)):
            c = old.copy()
            multiply(a, 0, 0, k, packed(b), c, 0, 0, n, steps, 0, rows, start, bias)
            assert_product(c, a, b, first)


@dtypes
@pytest.mark.parametrize(("k", "n"), [(7, 5), (65, 129), (K_BLOCK + 1, 64)])
def test_sharing_out_rows_changes_no_bit(dtype: type, k: int, n: int) -> None:
    rng, steps, rows = np.random.default_rng(5), 2, 23
    a, b, bias = draw(rng, dtype, steps, rows, k), draw(rng, dtype, k, n), draw(rng, dtype, n)
    whole, old = np.empty((steps, rows, n), dtype), draw(rng, dtype, steps, rows, n)
    for start in (ZERO, ADD, BIAS):
        whole[...] = old
        multiply(a, 0, 0, k, packed(b), whole, 0, 0, n, steps, 0, rows, start, bias)
        for parts in (2, 3, 5, rows):
            shared = old.copy()
            for part in range(parts):
                low, high = rows * part // parts, rows * (part + 1) // parts
                multiply(a, 0, 0, k, packed(b), shared, 0, 0, n, steps, low, high, start, bias)
            assert same_bits(shared, whole), (start, parts)
        by_step = old.copy()
        for s in range(steps):
            multiply(a, s, 0, k, packed(b), by_step, s, 0, n, 1, 0, rows, start, bias)
        assert same_bits(by_step, whole)


@dtypes
def test_no_rows_are_no_work(dtype: type) -> None:
    a, b, c = np.ones((1, 3, 2), dtype), np.ones((2, 4), dtype), np.zeros((1, 3, 4), dtype)
    multiply(a, 0, 0, 2, packed(b), c, 0, 0, 4, 1, 2, 2, ZERO, b[0])
    assert not c.any()


@dtypes
def test_a_nan_stays_in_its_row_or_column(dtype: type) -> None:
    rng = np.random.default_rng(6)
    a, b, c = draw(rng, dtype, 1, 13, 20), draw(rng, dtype, 20, 37), np.zeros((1, 13, 37), dtype)
    a[0, 5, 3] = np.nan
    b[11, 30] = np.nan
    multiply(a, 0, 0, 20, packed(b), c, 0, 0, 37, 1, 0, 13, ZERO, b[0])
    expected = np.zeros((13, 37), bool)
    expected[5], expected[:, 30] = True, True
    np.testing.assert_array_equal(np.isnan(c[0]), expected)


# Packing


@dtypes
@pytest.mark.parametrize("k", [1, 17, 40])
def test_parts_pack_what_one_packs(dtype: type, k: int) -> None:
    rng = np.random.default_rng(7)
    for n in WIDTHS:
        b = draw(rng, dtype, k, n)
        for parts in (1, 2, 3, 5, 8):
            assert same_bits(packed(b, parts=parts), packed(b))
            assert same_bits(packed_transposed(np.ascontiguousarray(b.T), parts=parts), packed(b))
        assert np.isfinite(packed(b)).all()


@dtypes
def test_groups_of_columns_are_packed_apart(dtype: type) -> None:
    rng, k, n, column, width = np.random.default_rng(8), 19, 90, 11, 37
    b = draw(rng, dtype, k, n)
    inside = np.ascontiguousarray(b[:, column : column + width])
    assert same_bits(packed(b, column, width), packed(inside))
    assert same_bits(packed_transposed(b, column, width), packed_transposed(inside))


@dtypes
def test_a_thread_can_multiply_with_its_own_panels_alone(dtype: type) -> None:
    """`panel_share` names the columns that `pack` gives to a part; their panels begin at column * K."""
    rng, k, rows = np.random.default_rng(9), 23, 5
    for n in (3, 64, 200, 333):
        a, b, bias = draw(rng, dtype, 1, rows, k), draw(rng, dtype, k, n), draw(rng, dtype, n)
        for parts in (1, 2, 3, 7):
            c, covered = np.full((1, rows, n), np.nan, dtype), []
            for part in range(parts):
                own = np.full(packed_size(k, n, VECTOR_BYTES // b.itemsize), np.nan, dtype)
                pack(b, 0, n, own, part, parts)
                first, last = panel_share(n, part, parts, b.itemsize)
                covered += list(range(first, last))
                if first < last:
                    multiply(a, 0, 0, k, own[first * k :], c, 0, first, last - first, 1, 0, rows, BIAS, bias[first:])
            assert covered == list(range(n))
            assert_product(c, a, b, bias)


# Weight gradients


@dtypes
@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (3, 5), (4, 70), (2, OUTER_BLOCK + 1), (150, 3)])
def test_accumulate_outer(dtype: type, steps: int, rows: int) -> None:
    rng = np.random.default_rng(steps)
    none = np.zeros(0, dtype)
    for m, n in ((1, 1), (ROWS + 1, 17), (2 * ROWS, 64), (40, 129), (5, 300)):
        a, b = draw(rng, dtype, steps, rows, m), draw(rng, dtype, steps, rows, n)
        old, old_sum = draw(rng, dtype, m, n), draw(rng, dtype, n)
        whole, whole_sum = old.copy(), old_sum.copy()
        accumulate_outer(a, 0, rows * m, m, b, 0, n, whole, 0, whole_sum, 0, 1)
        flat_a, flat_b = a.reshape(-1, m), b.reshape(-1, n)
        assert_product(whole, flat_a.T, flat_b, old)
        assert_product(whole_sum[None], np.ones((1, steps * rows)), flat_b, old_sum)
        without = old.copy()
        accumulate_outer(a, 0, rows * m, m, b, 0, n, without, 0, none, 0, 1)
        assert same_bits(without, whole)
        for parts in (2, 3, 4, 7):
            shared, shared_sum = old.copy(), old_sum.copy()
            for part in range(parts):
                accumulate_outer(a, 0, rows * m, m, b, 0, n, shared, 0, shared_sum, part, parts)
            assert same_bits(shared, whole), (m, n, parts)
            assert same_bits(shared_sum, whole_sum), (m, n, parts)


@dtypes
def test_accumulate_outer_with_offsets(dtype: type) -> None:
    """Inputs that lie within a larger array, as states do, and a group of columns; the rest is not touched."""
    rng, steps, rows, m, n, column, c_column = np.random.default_rng(11), 4, 5, 9, 35, 6, 11
    states = np.full((steps + 1, 2, rows, m), np.nan, dtype)  # the second of two states, from the second step
    states[1:, 1] = draw(rng, dtype, steps, rows, m)
    b, c, row_sum = draw(rng, dtype, steps, rows, 50), draw(rng, dtype, m, 60), draw(rng, dtype, 60)
    for parts in (1, 2, 3):
        found, found_sum = c.copy(), row_sum.copy()
        for part in range(parts):
            accumulate_outer(
                states.reshape(-1, rows, m), 3 * rows * m, 2 * rows * m, m, b, column, n, found, c_column,
                found_sum, part, parts,
            )  # fmt: skip
        inside = slice(c_column, c_column + n)
        a_rows, b_rows = states[1:, 1].reshape(-1, m), b[..., column : column + n].reshape(-1, n)
        assert_product(found[:, inside], a_rows.T, b_rows, c[:, inside])
        assert_product(found_sum[None, inside], np.ones((1, steps * rows)), b_rows, row_sum[inside])
        outside = np.r_[0:c_column, c_column + n : 60]
        assert same_bits(found[:, outside], c[:, outside])
        assert same_bits(found_sum[outside], row_sum[outside])
