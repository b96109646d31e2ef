"""Texts as examples for networks that read whole sequences: rows side by side, and what is to be predicted of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.models.sequences import Sentences, Sequences
from charlm.text.buckets import Rows
from charlm.text.tagged import Tokens

Ids = NDArray[np.int32]
Numbers = NDArray[np.int64]

NO_TARGET = -1

E_co = TypeVar("E_co", covariant=True)


class Collection(Protocol[E_co]):
    """Examples by number."""

    @property
    def lengths(self) -> Numbers:
        """Of each, as it decides how much a batch costs, (M,)."""

    def example(self, numbers: Numbers) -> E_co:
        """Some of them side by side; numbers (N,)."""


@dataclass(frozen=True)
class Labelled:
    """Sequences and the label of each, (N,)."""

    sequences: Sequences
    labels: Ids

    @property
    def predicted(self) -> int:
        """The number of labels."""
        return int(self.labels.size)


@dataclass(frozen=True)
class Tagged:
    """Sentences and the tag of each token, (T, N), aligned as they are; -1 where there is none."""

    sentences: Sentences
    tags: Ids
    numbers: Numbers

    @cached_property
    def predicted(self) -> int:
        """The number of tags."""
        return int(np.count_nonzero(self.tags != NO_TARGET))


@dataclass(frozen=True)
class Paired:
    """Sources and targets; inputs (T, N) of the decoder, and what follows each, -1 where nothing does."""

    sources: Sequences
    inputs: Ids
    targets: Ids
    numbers: Numbers

    @cached_property
    def predicted(self) -> int:
        """The number of target tokens, EOS included."""
        return int(np.count_nonzero(self.targets != NO_TARGET))


def sequences(rows: Rows, numbers: Numbers, size: int) -> Sequences:
    """Some rows as a network of a vocabulary of ``size`` reads them."""
    return Sequences(
        ids=rows.padded(numbers, size, at_end=True),
        reversed_ids=rows.padded(numbers, size, at_end=True, backward=True),
        lengths=rows.lengths[numbers],
    )


@dataclass(frozen=True)
class LabelledCollection:
    """Texts with labels.

    Args:
        rows: of the texts.
        label_ids: (M,).
        size: of the vocabulary.
    """

    rows: Rows
    label_ids: Ids
    size: int

    @property
    def lengths(self) -> Numbers:
        """See `Collection`."""
        return self.rows.lengths

    def example(self, numbers: Numbers) -> Labelled:
        """See `Collection`."""
        return Labelled(sequences(self.rows, numbers, self.size), self.label_ids[numbers])


@dataclass(frozen=True)
class TaggedCollection:
    """Sentences with tags.

    Args:
        tokens: of the sentences.
        tags: of each sentence, as many.
        characters: the size of their vocabulary; 0 if the model does not look at them.
    """

    tokens: Tokens
    tags: Rows
    characters: int

    @property
    def lengths(self) -> Numbers:
        """See `Collection`."""
        return self.tokens.rows.lengths

    def example(self, numbers: Numbers) -> Tagged:
        """See `Collection`."""
        return Tagged(
            sentences(self.tokens, numbers, self.characters),
            self.tags.padded(numbers, NO_TARGET, at_end=True),
            numbers,
        )


def sentences(tokens: Tokens, numbers: Numbers, characters: int) -> Sentences:
    """Some sentences, each of their spellings once."""
    rows, none = tokens.rows, np.int32(tokens.word_ids.size)
    index = rows.padded(numbers, int(none), at_end=True)
    spellings, places = np.unique(index, return_inverse=True)
    here = spellings[spellings < none].astype(np.int64)
    # Padding has the greatest number, so it comes last, as the one after all spellings.
    index = places.reshape(index.shape).astype(np.int32)
    backward = rows.padded(numbers, int(none), at_end=True, backward=True)
    backward = np.searchsorted(spellings, backward).astype(np.int32)
    return Sentences(
        index=index,
        reversed_index=backward,
        lengths=rows.lengths[numbers],
        word_ids=tokens.word_ids[here],
        spellings=sequences(tokens.characters, here, characters) if characters else None,
    )


def best_tags(log_probs: NDArray[np.float64], sentences: Sentences) -> list[list[int]]:
    """The likeliest tag of each token of each sentence, from all tags' log probabilities, (T, N, K)."""
    best = log_probs.argmax(axis=2)
    return [best[best.shape[0] - length :, row].tolist() for row, length in enumerate(sentences.lengths.tolist())]


@dataclass(frozen=True)
class PairCollection:
    """Sources with targets.

    Args:
        sources, targets: of each pair, closed by EOS.
        source_size, target_size: of the vocabularies.
    """

    sources: Rows
    targets: Rows
    source_size: int
    target_size: int

    @cached_property
    def lengths(self) -> Numbers:
        """See `Collection`: of either side, the longer."""
        return np.maximum(self.sources.lengths, self.targets.lengths)

    def example(self, numbers: Numbers) -> Paired:
        """See `Collection`."""
        targets = self.targets.padded(numbers, NO_TARGET)
        inputs = np.full_like(targets, self.target_size)
        inputs[1:] = targets[:-1]
        inputs[inputs == NO_TARGET] = self.target_size
        return Paired(sequences(self.sources, numbers, self.source_size), inputs, targets, numbers)
