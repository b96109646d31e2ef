"""Named arrays that lie one after another in a single flat one.

The optimiser, the gradient's norm and its clipping then are one pass each, and the checkpoint is the named arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlm.engine.memory import aligned_zeros

Array = NDArray[np.floating]
Ids = NDArray[np.int32]
ALIGNMENT = 16  # numbers; each array begins on a multiple


class Parameters(Mapping[str, "Array"]):
    """A mapping from paths such as ``layer0/w_h`` to views of ``flat``.

    Args:
        shapes: the arrays in the order in which they lie; matrices first (see `matrices`).
        dtype: float32 or float64.

    Raises:
        MemoryError: they are too many.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32) -> None:
        self.shapes = dict(shapes)
        sizes = {path: math.prod(shape) for path, shape in self.shapes.items()}
        starts, total, self.matrices = {}, 0, 0
        for path, shape in self.shapes.items():
            starts[path] = total
            total += -(-sizes[path] // ALIGNMENT) * ALIGNMENT
            if len(shape) > 1 and not path.endswith("/w_p"):
                self.matrices = total
        try:
            self.flat: Array = aligned_zeros(total, dtype)
        except MemoryError:
            raise MemoryError(f"a network of {sum(sizes.values()):,} parameters") from None
        self._views = {
            path: self.flat[starts[path] : starts[path] + sizes[path]].reshape(shape)
            for path, shape in self.shapes.items()
        }

    def __getitem__(self, path: str) -> Array:
        return self._views[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @property
    def count(self) -> int:
        """How many numbers are learnt."""
        return sum(view.size for view in self._views.values())

    def like(self) -> Parameters:
        """Another set of the same shapes, of zeros."""
        return Parameters(self.shapes, self.flat.dtype)

    def assign(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Copy arrays of the same names and shapes into this set."""
        for path, view in self._views.items():
            view[...] = arrays[path]
