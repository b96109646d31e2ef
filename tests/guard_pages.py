"""Arrays that end where no memory may be read: a kernel that reads or writes beyond them ends its process.

    python -m tests.guard_pages

takes rows and matrices of many sizes through the kernels that work in whole vectors, and ends with 0 if none strays.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.engine.jit import VECTOR_BYTES, kernel
from charlm.engine.matmul import ADD, BIAS, ROWS, ZERO, accumulate_outer, multiply, pack, packed_size
from charlm.engine.rowwise import Values, rowwise

Array = NDArray[Any]

_kept: list[mmap.mmap] = []  # a map that is removed would take its array's memory with it


def guarded(values: Array) -> Array:
    """A copy that ends at a page which may be neither read nor written."""
    pages = -(-max(values.nbytes, 1) // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    _kept.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages * mmap.PAGESIZE
    library = ctypes.CDLL(None, use_errno=True)
    if library.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    last = pages * mmap.PAGESIZE
    copy = np.frombuffer(memory, values.dtype, values.size, last - values.nbytes).reshape(values.shape)
    copy[...] = values
    return copy


@rowwise
def sum_and_product(x: Values, y: Values) -> tuple[Values, ...]:
    """Of two rows."""
    return x + y, x * y


@kernel
def combine(x: Any, y: Any, total: Any, product: Any) -> None:
    """`sum_and_product` of whole arrays."""
    sum_and_product((x, y), (total, product))


def check(dtype: type, size: int) -> None:
    """Rows of that size, and products with so many columns, K or rows of the weight."""
    rng = np.random.default_rng(size)

    def numbers(*shape: int) -> Array:
        return guarded(rng.integers(-4, 5, shape).astype(dtype))  # small and whole: every sum is exact

    x, y, total, product = (numbers(size) for _ in range(4))
    combine(x, y, total, product)
    assert (total == x + y).all()
    assert (product == x * y).all()
    for k, n, rows in ((3, size, ROWS + 1), (size, 5, 2)):
        a, b, bias, c = numbers(2, rows, k), numbers(k, n), numbers(n), numbers(2, rows, n)
        packed = numbers(packed_size(k, n, VECTOR_BYTES // b.itemsize))
        pack(b, 0, n, packed, 0, 1)
        for start in (ZERO, BIAS, ADD):
            expected = a @ b + {ZERO: 0, BIAS: bias, ADD: c}[start]
            multiply(a, 0, 0, k, packed, c, 0, 0, n, 2, 0, rows, start, bias)
            assert (c == expected).all()
        d_b, d_bias = numbers(k, n), numbers(n)
        expected, expected_bias = d_b + np.einsum("srk,srn->kn", a, c), d_bias + c.sum((0, 1))
        for part in range(2):
            accumulate_outer(a, 0, rows * k, k, c, 0, n, d_b, 0, d_bias, part, 2)
        assert (d_b == expected).all()
        assert (d_bias == expected_bias).all()


if __name__ == "__main__":
    for kind, length in itertools.product((np.float32, np.float64), (*range(1, 41), 63, 64, 65)):
        check(kind, length)
