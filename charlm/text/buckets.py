"""Batches of whole sequences of like length: little padding, and a row's padding is none of its business.

A language model's streams run one sequence into the next (see ``batches``); a classifier, a tagger or an encoder wants
each sequence in a row of its own, and rows of one batch are as long as the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from charlm.errors import InputError
from charlm.text.spool import Ids
from charlm.text.vocabulary import EOS_ID

Numbers = NDArray[np.int64]

MOST_CELLS = 1 << 14  # steps times rows of a batch, which bounds its memory; a longer sequence is alone
LONGEST_SEQUENCE = 1 << 18  # of its tokens all states are kept: of so many about 1 GB, with 128 hidden units
SPREAD = 8  # the sequences of a bucket lack at most an eighth of the longest's length ...
SPREAD_UNFILLED = 2  # ... or half, if they would not fill a batch


@dataclass(frozen=True, eq=False)
class Rows:
    """Sequences of ids, laid end to end.

    Attributes:
        ids: 1-D, of all sequences.
        ends: (M,) int64, where each ends in ``ids``, exclusive; rising, the last is ``ids.size``.
    """

    ids: Ids
    ends: Numbers

    @classmethod
    def of_stream(cls, tokens: Ids) -> Rows:
        """The sequences of a corpus, each with its EOS. A last one that lacks it is one too."""
        ends = np.flatnonzero(tokens == EOS_ID) + 1
        if tokens.size and (not ends.size or ends[-1] != tokens.size):
            ends = np.append(ends, tokens.size)
        return cls(tokens, ends)

    @classmethod
    def of_sequences(cls, sequences: Sequence[Ids]) -> Rows:
        """Sequences that are arrays of their own; empty ones too."""
        ends = np.cumsum([sequence.size for sequence in sequences], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *sequences]), ends)

    @cached_property
    def lengths(self) -> Numbers:
        """(M,)."""
        return np.diff(self.ends, prepend=0)

    def padded(self, numbers: Numbers, fill: int, *, backward: bool = False, at_end: bool = False) -> NDArray[np.int32]:
        """Some of the sequences side by side.

        Args:
            numbers: (N,), which.
            fill: the id where a row holds none.
            backward: each from its last id to its first, as a network that reads from right to left takes it.
            at_end: all end at the last step instead of beginning at the first. So the state after the last step is
                that after each row's last id, provided that the state is reset where a row begins.

        Returns:
            (T, N), T as the longest of them.
        """
        ends = self.ends[numbers]
        lengths = self.lengths[numbers]
        steps = int(lengths.max(initial=0))
        step = np.arange(steps)[:, np.newaxis] - (steps - lengths if at_end else 0)  # (T, N) or (T, 1), in its row
        is_id = (step >= 0) & (step < lengths)
        places = ends - 1 - step if backward else ends - lengths + step
        padded = np.full(is_id.shape, fill, dtype=np.int32)
        padded[is_id] = self.ids[places[is_id]]
        return padded


class Buckets:
    """Batches for training or evaluation; everything follows from the lengths, the seed and the number of the epoch.

    Sequences of like length share a bucket. In each epoch a bucket's sequences are dealt anew to its batches, and the
    batches of all buckets follow in random order; their number is the same in every epoch.

    Args:
        lengths: (M,), of the sequences, at least one; 0 is a length too.
        batch_size: sequences in a batch, at the most.
        seed: not negative.
        most_cells: steps times rows of a batch, unless a single sequence is longer.

    Attributes:
        steps_per_epoch: the number of batches.

    Raises:
        InputError: a sequence is too long to be read in one piece.
    """

    def __init__(self, lengths: Numbers, *, batch_size: int, seed: int = 0, most_cells: int = MOST_CELLS) -> None:
        if lengths.size == 0 or batch_size < 1 or most_cells < 1:
            raise ValueError("no sequences, or batches of none")
        if (longest := int(lengths.max())) > LONGEST_SEQUENCE:
            raise InputError(
                f"a text of {longest:,} tokens: at most {LONGEST_SEQUENCE:,} can be read as a whole; cut it into pieces"
            )
        longest_first = np.argsort(-lengths, kind="stable")
        self._seed = seed
        self._buckets = [
            (longest_first[first:stop], batches)
            for first, stop, batches in _cut(lengths[longest_first], batch_size, most_cells)
        ]
        self.steps_per_epoch = sum(batches for _, batches in self._buckets)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Numbers]:
        """The batches of an epoch from number ``first`` on, the same whichever is the first; each (N,), which ones."""
        generator = np.random.default_rng([self._seed, epoch])
        dealt = [
            batch
            for numbers, batches in self._buckets
            for batch in np.array_split(generator.permutation(numbers), batches)
        ]
        for place in generator.permutation(len(dealt))[first:].tolist():
            yield dealt[place]

    def once(self) -> Iterator[Numbers]:
        """Every sequence once, the longest first, nothing at random: for evaluation and prediction."""
        for numbers, batches in self._buckets:
            yield from np.array_split(numbers, batches)


def _cut(lengths: Numbers, batch_size: int, most_cells: int) -> Iterator[tuple[int, int, int]]:
    """Buckets of sequences that are sorted, the longest first: where each begins and ends, and how many batches it is.

    A bucket is wider if it would not fill a batch: so few lengths, however far apart, make batches of few rows.
    """
    rising = -lengths
    first = 0
    while first < lengths.size:
        longest = int(lengths[first])
        capacity = max(1, min(batch_size, most_cells // max(1, longest)))

        def place(spread: int, longest: int = longest) -> int:
            """Where sequences begin that lack more than a ``spread``-th of the longest's length."""
            return int(np.searchsorted(rising, longest // spread - longest, side="right"))

        stop = max(place(SPREAD), min(first + capacity, place(SPREAD_UNFILLED)))
        yield first, stop, -(-(stop - first) // capacity)
        first = stop
