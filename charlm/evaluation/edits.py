"""How far a sequence that was made is from the one that was wanted."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EditScores:
    """What was counted in pairs of a wanted and a made sequence.

    Attributes:
        sequences: how many pairs.
        exact: those that are equal.
        edits: insertions, deletions and substitutions that turn what was made into what was wanted, in all.
        tokens: of what was wanted, in all.
    """

    sequences: int
    exact: int
    edits: int
    tokens: int

    @property
    def sequence_accuracy(self) -> float:
        """The share of sequences that are wholly right; 0 of nothing."""
        return self.exact / self.sequences if self.sequences else 0.0

    @property
    def sequence_error_rate(self) -> float:
        """The share that is not; where a sequence is a word's pronunciation, that is known as word error rate."""
        return 1.0 - self.sequence_accuracy if self.sequences else 0.0

    @property
    def token_error_rate(self) -> float:
        """Edits for each token of what was wanted; may exceed 1, and is infinite if nothing was.

        Where tokens are the words of a sentence, that is known as word error rate (in speech recognition), where they
        are phones as phone error rate.
        """
        if not self.tokens:
            return math.inf if self.edits else 0.0
        return self.edits / self.tokens


def edit_distance(made: Sequence[Hashable], wanted: Sequence[Hashable]) -> int:
    """The least number of tokens to insert, delete or substitute to turn one sequence into the other.

    With d(i, j) the distance of the first i tokens from the first j (Levenshtein, 1965; Wagner and Fischer, 1974):

        (1) d(i, 0) = i;  d(0, j) = j
        (2) d(i, j) = min(d(i-1, j) + 1,  d(i, j-1) + 1,  d(i-1, j-1) + [made i differs from wanted j])

    A row i is computed at once: e(j), the least of the two choices that come from the row before, costs no look at a
    neighbour, and what is left of (2) is d(i, j) = j + the least of e(k) - k over k = 0 ... j.
    """
    numbers: dict[Hashable, int] = {}
    a, b = (
        np.array([numbers.setdefault(token, len(numbers)) for token in tokens], dtype=np.int64)
        for tokens in (made, wanted)
    )
    columns = np.arange(b.size + 1)
    row = columns
    for i, token in enumerate(a.tolist(), start=1):
        from_above = row + 1
        from_above[0] = i
        np.minimum(from_above[1:], row[:-1] + (b != token), out=from_above[1:])
        row = np.minimum.accumulate(from_above - columns) + columns
    return int(row[-1])


def score_edits(pairs: Iterable[tuple[Sequence[Hashable], Sequence[Hashable]]]) -> EditScores:
    """Compare sequences.

    Args:
        pairs: what was made and what was wanted, of each.
    """
    sequences = exact = edits = tokens = 0
    for made, wanted in pairs:
        distance = edit_distance(made, wanted)
        sequences += 1
        exact += distance == 0
        edits += distance
        tokens += len(wanted)
    return EditScores(sequences, exact, edits, tokens)
