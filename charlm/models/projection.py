"""The projection of the first layer's input, a row for each distinct one: pre[t, n] = (rows @ w_x + b)[index[t, n]]."""

from __future__ import annotations

import numpy as np

from charlm.engine import layers, matmul
from charlm.engine.matmul import ADD, BIAS, ZERO
from charlm.engine.threads import share
from charlm.models.buffers import Buffers
from charlm.models.packed_weight import PackedWeight
from charlm.models.parameters import Array, Ids, Parameters


class Projection:
    """A table of projected rows.

    Args:
        path: of the layer whose input it is, such as ``layer0``.

    Attributes:
        table: (1, U, G*H).
    """

    def __init__(self, path: str, parameters: Parameters, gradients: Parameters | None, buffers: Buffers) -> None:
        self.path, self._parameters, self._gradients, self._buffers = path, parameters, gradients, buffers
        self._weight, self._b = parameters[f"{path}/w_x"], parameters[f"{path}/b"]
        self.width, self.columns = parameters.shapes[f"{path}/w_x"]
        self.w_x = PackedWeight((self.width, self.columns), parameters.flat.dtype)
        self._no_bias = np.zeros(0, parameters.flat.dtype)

    def begin(self, count: int) -> None:
        """Set up the table of a pass, for ``count`` rows."""
        self.table = self._buffers.get(f"{self.path} table", (1, count, self.columns))

    def begin_backward(self) -> None:
        """Set up the table's gradient."""
        self._d_table = self._buffers.get(f"{self.path} d_table", self.table.shape)

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weight."""
        self.w_x.pack(self._weight, part, parts, backward=backward)

    def tabulate(self, rows: Array, part: int, parts: int) -> None:
        """Project rows (1, U, E): this thread's columns, the ones whose weights it has packed itself."""
        first, last = matmul.panel_share(self.columns, part, parts, rows.dtype.itemsize)
        if first < last:
            matmul.multiply(
                rows, 0, 0, self.width, self.w_x.forward[first * self.width :], self.table, 0, first, last - first,
                1, 0, rows.shape[1], BIAS, self._b[first:],
            )  # fmt: skip

    def sum_gradients(self, rows: Array, d_pre: Array, index: Ids, part: int, parts: int) -> None:
        """Sum the gradient by row of the table, and add what flows from there to w_x and b: this thread's columns.

        Args:
            rows: (1, U, E).
            d_pre: (T, N, G*H).
            index: (T, N), the row of each.
        """
        assert self._gradients is not None
        first, last = matmul.panel_share(self.columns, part, parts, d_pre.dtype.itemsize)
        if first < last:
            self._d_table[0, :, first:last] = 0
            layers.add_to_table(d_pre, index, self._d_table, first, last)
            matmul.accumulate_outer(
                rows, 0, rows.size, self.width, self._d_table, first, last - first,
                self._gradients[f"{self.path}/w_x"], first, self._gradients[f"{self.path}/b"], 0, 1,
            )  # fmt: skip

    def finish_gradients(self, d_rows: Array, part: int, parts: int, *, adds: bool = False) -> None:
        """This thread's share of how the table's gradient, when all columns are there, flows to the rows.

        Args:
            d_rows: OUT, (1, U, E); ADDED TO if ``adds``.
        """
        low, high = share(d_rows.shape[1], part, parts)
        matmul.multiply(
            self._d_table, 0, 0, self.columns, self.w_x.backward, d_rows, 0, 0, self.width, 1, low, high,
            ADD if adds else ZERO, self._no_bias,
        )  # fmt: skip
