"""The labels that a language model may be given: in a checkpoint, as the first input, and how likely each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm import checkpoint
from charlm.errors import CheckpointError, UsageError
from charlm.text.labels import Labels
from charlm.text.normal_form import normalize
from charlm.text.unknown import quoted
from charlm.text.vocabulary import Vocabulary

LARGEST_COUNT = 2**53  # up to here a float holds every integer


@dataclass(frozen=True)
class LabelSide:
    """Labels, and how many sequences of the training part had each.

    Raises:
        ValueError: not a count for each label, or none above zero; half a line.
    """

    labels: Labels
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != self.labels.size:
            raise ValueError(f"there are {self.labels.size} labels and {len(self.counts)} counts of them")
        if not all(type(count) is int and 0 <= count <= LARGEST_COUNT for count in self.counts) or not any(self.counts):
            raise ValueError("the counts of the labels are not numbers of sequences")

    @classmethod
    def from_header(cls, header: Mapping[str, Any], path: str | Path) -> LabelSide | None:
        """What a checkpoint's header says; None for a model that is not given a label.

        Raises:
            CheckpointError: it is malformed.
        """
        if header.get("labels") is None and header.get("label_counts") is None:
            return None
        names, counts = (checkpoint.require(header, key, list, path) for key in ("labels", "label_counts"))
        try:
            side = cls(Labels.from_names(names), tuple(counts))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}; {checkpoint.REPLACE}") from None
        return side

    def to_header(self) -> dict[str, Any]:
        """The inverse of ``from_header``."""
        return {"labels": list(self.labels.names), "label_counts": list(self.counts)}

    @property
    def prior(self) -> NDArray[np.float64]:
        """The probability of each label before its text is known, its share of the training part: (K,)."""
        counts = np.array(self.counts, dtype=np.float64)
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares


def first_input(label: str | None, labels: Labels | None, vocabulary: Vocabulary) -> int:
    """The id with which a sequence begins: that of its label, or the zero vector's for a model without labels.

    Args:
        label: what the user gave as ``--label``.
        labels: those that the model knows; None if it is not given any.

    Raises:
        UsageError: a label is missing, or given to a model that knows none.
        InputError: the model does not know this one.
    """
    if labels is None:
        if label is not None:
            raise UsageError(f"--label {quoted(label)}: this model was trained without labels; leave it out")
        return vocabulary.start_id
    if label is None:
        raise UsageError(f"this model writes what a label asks for: give --label; {labels.listing}")
    name = normalize("NFC", label.strip())  # as in the training text
    return vocabulary.start_id + 1 + labels.require(name, "--label")
