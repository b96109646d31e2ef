"""Arrays that are made once."""

from __future__ import annotations

import numpy as np

from charlm.models import buffers
from charlm.models.buffers import Buffers


def test_the_same_name_and_shape_is_the_same_array() -> None:
    held = Buffers(np.float32)
    first = held.get("a", (2, 3))
    assert held.get("a", (2, 3)) is first
    assert (first.dtype, held.get("losses", (2,), np.float64).dtype) == (np.float32, np.float64)


def test_a_larger_array_takes_all_shapes_of_its_name_along() -> None:
    """Or two shapes of one name would be two arrays, and the old memory would be held for good."""
    held = Buffers(np.float64)
    small, other = held.get("a", (2, 3)), held.get("b", (4,))
    large = held.get("a", (5, 7))
    again = held.get("a", (2, 3))
    assert np.shares_memory(again, large)
    assert not np.shares_memory(again, small)
    assert held.get("b", (4,)) is other


def test_shapes_beyond_number_are_forgotten() -> None:
    held = Buffers(np.float64)
    for size in range(1, buffers.MOST_VIEWS + 10):
        held.get("a", (size,))
    assert len(held._views) <= buffers.MOST_VIEWS
