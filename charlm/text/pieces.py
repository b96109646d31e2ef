"""Cuts a long text, such as a line of 100 MB, into pieces: what is made of it all at once takes many times as much."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 18  # characters, about

_SPACE = re.compile(r"\s")


def pieces(text: str, *, whole_words: bool, size: int | None = None) -> Iterator[str]:
    """The text in pieces of ``size`` characters (by default ``PIECE``), longer ones where a word would be cut."""
    size = size or PIECE
    begin = 0
    while begin < len(text):
        end = min(begin + size, len(text))
        if whole_words and end < len(text):
            found = _SPACE.search(text, end)
            end = found.start() if found else len(text)
        yield text[begin:end] if end - begin < len(text) else text
        begin = end


def take(table: NDArray[Any], places: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """``table[places]`` for 1-D arrays, without a copy of all places in eight bytes each, as NumPy makes one."""
    result = np.empty(places.size, dtype=table.dtype)
    for first in range(0, places.size, PIECE):
        result[first : first + PIECE] = table[places[first : first + PIECE]]
    return result
