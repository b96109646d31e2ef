"""Tokens of a corpus drawn at random, each with the tokens of its sequence that come before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.text.spool import Ids, array_blocks, release_pages
from charlm.text.vocabulary import EOS_ID


@dataclass(frozen=True)
class Window:
    """N tokens, each at the end of its row.

    Attributes:
        inputs: (T, N) int32, the token before each step; the start id at the first step of a sequence and before it,
            so that rows of short histories begin late.
        targets: (N,) int32, what follows the last step.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]


class Histories:
    """The sequences of a corpus, as far as they matter here: where they lie.

    Args:
        tokens: the corpus's stream, 1-D, not empty; each sequence closed by EOS, but perhaps the last.
        start_id: what each sequence begins with: V, or V + 1 + k for a model that is given label k.
    """

    def __init__(self, tokens: Ids, start_id: int) -> None:
        self._tokens, self._start_id = tokens, start_id
        ends, first = [], 0
        for block in array_blocks(tokens):
            ends.append(np.flatnonzero(block == EOS_ID) + first + 1)
            first += block.size
        stops = np.concatenate(ends)
        if not stops.size or stops[-1] != tokens.size:
            stops = np.append(stops, tokens.size)
        self._starts = np.concatenate([[0], stops[:-1]])
        self._lengths = np.diff(stops, prepend=0)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, its end included."""
        return int(self._lengths.max())

    def count(self, back: int) -> int:
        """How many tokens have at least ``back`` tokens of their sequence before them."""
        return int(np.maximum(self._lengths - back, 0).sum())

    def reach(self, count: int, most: int) -> int:
        """How far back, ``most`` at the most, at least ``count`` tokens go."""
        low, high = 0, min(most, self.longest - 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count(middle) >= count else (low, middle - 1)
        return low

    def draw(self, back: int, count: int, seed: int) -> NDArray[np.int64]:
        """The places in the stream of ``count`` tokens, none twice, rising; all there are if they are fewer.

        Each has at least ``back`` tokens of its sequence before it.
        """
        ends = np.cumsum(np.maximum(self._lengths - back, 0))
        total = int(ends[-1])
        chosen = np.arange(total)
        if total > count:
            chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
        sequences = np.searchsorted(ends, chosen, side="right")
        # The last tokens of a sequence are those that count: from its end on, backwards.
        return self._starts[sequences] + self._lengths[sequences] - (ends[sequences] - chosen)

    def window(self, places: NDArray[np.int64], steps: int) -> Window:
        """The last ``steps`` steps up to each of these tokens; fewer if none of them has so many.

        Args:
            places: (N,), as ``draw`` gives them.
            steps: the most that are wanted.
        """
        starts = self._starts[np.searchsorted(self._starts, places, side="right") - 1]
        steps = min(steps, int((places - starts).max()) + 1)
        step_places = places + np.arange(1 - steps, 1)[:, np.newaxis]  # (T, N), of each step's target
        read = self._tokens[np.maximum(step_places - 1, 0)].astype(np.int32)
        inputs = np.where(step_places > starts, read, np.int32(self._start_id))
        targets = self._tokens[places].astype(np.int32)
        release_pages(self._tokens)
        return Window(inputs, targets)
