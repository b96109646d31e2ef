"""Arrays that a model makes once and uses in every pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.engine.memory import aligned_zeros

MOST_VIEWS = 1000  # shapes that are remembered: looking one up costs a tenth of making it


class Buffers:
    """Arrays by name, made once and used again: no step allocates."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._flat: dict[str, NDArray[Any]] = {}
        self._views: dict[tuple[str, tuple[int, ...]], NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> NDArray[Any]:
        """An array of that shape; what it holds is whatever was there before."""
        found = self._views.get((name, shape))
        if found is not None:
            return found
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.size < size:
            flat = self._flat[name] = aligned_zeros(size, dtype or self.dtype)
            held = tuple(self._views.items())  # threads may be asking for others
            self._views = {key: view for key, view in held if key[0] != name}  # without those of the old memory
        if len(self._views) >= MOST_VIEWS:
            self._views.clear()
        view = self._views[name, shape] = flat[:size].reshape(shape)
        return view
