"""One layer of a cell in one direction: its input, projected, becomes its output, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.engine.cells._cell import Cell
from charlm.models.buffers import Buffers
from charlm.models.packed_weight import PackedWeight
from charlm.models.parameters import Array, Parameters

Flags = NDArray[np.uint8]


class Layer:
    """The recurrent part of a layer, and its arrays of a pass.

    Args:
        path: of its parameters, such as ``layer0``.
        activation: counts through the cell's.
        w_h: its recurrent weights, packed by the owner.

    Attributes:
        pre: (T, N, G*H): forward takes the projected input, x W_x + b, and backward leaves its gradient.
        state: (T+1, S, N, H); the owner sets ``state[0]``.
        hidden: (T, N, H): the output.
    """

    def __init__(
        self, cell: Cell, activation: int, path: str, w_h: PackedWeight, parameters: Parameters,
        gradients: Parameters | None, buffers: Buffers,
    ) -> None:  # fmt: skip
        self.cell, self.activation, self.path, self.w_h, self._buffers = cell, activation, path, w_h, buffers
        self.size, self.columns = parameters.shapes[f"{path}/w_h"]
        self._weight, self._gradients = parameters[f"{path}/w_h"], gradients
        self._no_peepholes = np.zeros((0, self.size), parameters.flat.dtype)
        self.w_p = self.peepholes(parameters)

    def peepholes(self, values: Parameters) -> Array:
        """The peephole weights, or their gradients; of no rows if the cell has none."""
        return values[f"{self.path}/w_p"] if self.cell.peepholes else self._no_peepholes

    def begin(self, steps: int, rows: int) -> None:
        """Set up the arrays of a pass."""
        get, path, states = self._buffers.get, self.path, len(self.cell.states)
        self.pre = get(f"{path} pre", (steps, rows, self.columns))
        self.state = get(f"{path} state", (steps + 1, states, rows, self.size))
        self.hidden = get(f"{path} hidden", (steps, rows, self.size))
        self._saved = get(f"{path} saved", (steps, rows, self.cell.saved * self.size))

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the recurrent weights."""
        self.w_h.pack(self._weight, part, parts, backward=backward)

    def forward(self, reset: Flags, initial: Array, low: int, high: int) -> None:
        """Take these rows through all steps; ``reset`` (T, N) uint8, ``initial`` (S, N, H): see `engine.cells`."""
        self.cell.forward(
            self.pre, self.w_h.forward, self.w_p, self.state, self.hidden, self._saved, reset, initial,
            self.activation, low, high,
        )  # fmt: skip

    def backward(self, d_hidden: Array, d_state: Array, reset: Flags, scratch: Array, low: int, high: int) -> None:
        """Take these rows back through all steps."""
        self.cell.backward(
            d_hidden, d_state, self.pre, self.w_h.backward, self.w_p, self.state, self._saved, reset, scratch,
            self.activation, low, high,
        )  # fmt: skip

    def sum_gradients(self, part: int, parts: int) -> None:
        """Add this thread's share of the gradients of the recurrent weights."""
        assert self._gradients is not None
        self.cell.gradients(
            self.pre, self.state, self._saved, self._gradients[f"{self.path}/w_h"], self.peepholes(self._gradients),
            part, parts,
        )  # fmt: skip
