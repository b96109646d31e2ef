"""Weights in the forms that products take."""

from __future__ import annotations

from typing import Any

import numpy as np

from charlm.engine import matmul
from charlm.engine.jit import VECTOR_BYTES
from charlm.engine.memory import aligned_zeros
from charlm.models.parameters import Array


class PackedWeight:
    """A weight (K, N) in the two forms that products take: itself and its transpose, a share of each a thread.

    Args:
        groups: the widths of the column groups that are multiplied apart; their sum is N.
        forward: where to pack the weight itself; room of its own if not given.
    """

    def __init__(
        self, shape: tuple[int, int], dtype: Any, groups: tuple[int, ...] = (), forward: Array | None = None
    ) -> None:
        k, n = shape
        lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
        self._widths = np.array(groups or (n,))
        size, transposed_size = 0, 0
        for width in self._widths:
            size += matmul.packed_size(k, width, lanes)
            transposed_size += matmul.packed_size(width, k, lanes)
        self.forward = aligned_zeros(size, dtype) if forward is None else forward
        self.backward = aligned_zeros(transposed_size, dtype)

    @classmethod
    def pile(
        cls, count: int, shape: tuple[int, int], dtype: Any, groups: tuple[int, ...] = ()
    ) -> tuple[list[PackedWeight], Array]:
        """Several of the same shape, and the array (count, ...) of their packed forms."""
        size = cls(shape, dtype, groups).forward.size
        packed = aligned_zeros(count * size, dtype).reshape(count, size)
        return [cls(shape, dtype, groups, forward) for forward in packed], packed

    def pack(self, weight: Array, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weight, and of its transpose if ``backward``."""
        transposed = self.backward if backward else self.backward[:0]
        matmul.pack_weight(weight, self._widths, self.forward, transposed, part, parts)
