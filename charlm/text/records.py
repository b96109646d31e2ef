"""What a loaded corpus is: a flat stream of ids, and what was counted in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.text.inputs import Inputs, OfInputs
from charlm.text.labels import Labels
from charlm.text.spool import Ids
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, UNK_ID, Vocabulary


@dataclass(frozen=True)
class Counts:
    """What a corpus holds.

    Attributes:
        sequences: how many, a part of one at a cut included.
        tokens: without the ends of sequences.
        types: distinct tokens in the text, before rare ones became unknown.
        unknowns: tokens that are unknown.
        characters: code points of the text that the tokens spell (bytes at byte level); a run of blanks between
            words is one at word level, and the line ends that separate sequences do not count.
        words: what whitespace separates.
        blank_lines: lines of nothing or only whitespace that were skipped; of a corpus that was split, those of
            both parts stand in the training part.
    """

    sequences: int
    tokens: int
    types: int
    unknowns: int
    characters: int
    words: int
    blank_lines: int = 0

    @property
    def unknown_rate(self) -> float:
        """Unknown tokens to all tokens, 0 to 1."""
        return self.unknowns / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, eq=False)
class Corpus(OfInputs):
    """A text as ids, and how it became so.

    Attributes:
        tokens: the ids, 1-D, uint8, uint16 or int32, each sequence closed by ``EOS_ID``; a ``np.memmap`` when
            large. Not writable. Only the training part of a single sequence that was split lacks the last EOS.
        vocabulary: what the ids mean.
        tokenizer: what the tokens are.
        counts: what was counted.
        inputs: what was read, whether or not it was split.
        labels: what the label ids mean, if the sequences have labels.
        label_ids: (sequences,), the label of each, in the order of ``tokens``.
    """

    tokens: Ids
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    counts: Counts
    inputs: Inputs
    labels: Labels | None = None
    label_ids: NDArray[np.int32] | None = None

    @property
    def size(self) -> int:
        """The number of ids."""
        return int(self.tokens.size)

    @property
    def first_inputs(self) -> NDArray[np.int32] | None:
        """What each sequence of a language model given a label begins with, (sequences,): the id V + 1 + label.

        None if there are no labels: then it is V, the zero vector, everywhere.
        """
        return None if self.label_ids is None else self.label_ids + np.int32(self.vocabulary.start_id + 1)

    @property
    def label_counts(self) -> tuple[int, ...]:
        """How many sequences have each label, in the order of ``labels``; none if there are no labels."""
        if self.labels is None or self.label_ids is None:
            return ()
        return tuple(np.bincount(self.label_ids, minlength=self.labels.size).tolist())


class Tally:
    """Counts a stream of ids that comes in blocks.

    Args:
        symbols: each id's token; 1 is the end of a sequence.
        tokenizer: what the tokens are.
    """

    def __init__(self, symbols: list[str], tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lengths = np.array([len(symbol) for symbol in symbols], dtype=np.int64)
        self._visible = np.array([not tokenizer.is_space(symbol) for symbol in symbols])
        self._visible[EOS_ID] = False
        self._touching = 0  # visible tokens right after a visible one
        self._last_id = EOS_ID
        self.counts: NDArray[np.int64] = np.zeros(len(symbols), dtype=np.int64)

    def add(self, ids: Ids) -> None:
        """Count the next block of the stream."""
        if not ids.size:
            return
        self.counts += np.bincount(ids, minlength=self.counts.size)
        visible = self._visible[ids]
        self._touching += int(np.count_nonzero(visible[1:] & visible[:-1]))
        self._touching += int(visible[0] and self._visible[self._last_id])
        self._last_id = int(ids[-1])

    def result(self, final_ids: Ids, blank_lines: int) -> Counts:
        """The counts of what was added.

        Args:
            final_ids: the vocabulary's id for each of the ids counted here.
            blank_lines: the number that was skipped.
        """
        tokens = self.counts.copy()
        tokens[EOS_ID] = 0
        letters = int(tokens @ self._lengths)
        visible = int(tokens @ self._visible)
        is_word = self._tokenizer.level == "word"
        return Counts(
            sequences=int(self.counts[EOS_ID]) + (self._last_id != EOS_ID),
            tokens=int(tokens.sum()),
            types=int(np.count_nonzero(tokens)),
            unknowns=int(tokens[final_ids == UNK_ID].sum()),
            characters=letters + (self._touching if is_word else 0),
            words=visible if is_word else visible - self._touching,
            blank_lines=blank_lines,
        )
