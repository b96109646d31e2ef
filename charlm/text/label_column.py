"""The first column of ``label<TAB>text`` lines: taken off, so that a text remains, and kept by number."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from charlm.text.examples import split_label
from charlm.text.labels import Labels
from charlm.text.tokenizer import NEWLINE


class LabelColumn:
    """The labels of the lines of texts that come in blocks.

    Attributes:
        names: the labels, in order of first sight.
        places: where each was seen first, such as ``names.tsv: line 7``.
        blank_lines: how many lines were dropped.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.places: list[str] = []
        self.blank_lines = 0
        self._numbers: dict[str, int] = {}
        self._ids = array("i")
        self._file = ""
        self._line = self._first = 0

    def begin(self, name: str) -> None:
        """Another input, by the name that messages call it."""
        self._file, self._line, self._first = name, 0, len(self._ids)

    def take(self, text: str) -> str:
        """The texts of whole lines without their labels; lines that are blank are left out.

        Raises:
            InputError: a line has no tab or no label.
        """
        texts = []
        for line in text.removesuffix(NEWLINE).split(NEWLINE):
            self._line += 1
            if not line.strip():
                self.blank_lines += 1
                continue
            label, rest = split_label(line, self._file, self._line)
            number = self._numbers.get(label)
            if number is None:
                number = self._numbers[label] = len(self.names)
                self.names.append(label)
                self.places.append(f"{self._file}: line {self._line}")
            self._ids.append(number)
            texts.append(rest + NEWLINE)
        return "".join(texts)

    @property
    def lines(self) -> int:
        """How many lines of the last input had a label."""
        return len(self._ids) - self._first

    @property
    def numbers(self) -> NDArray[np.int32]:
        """Each sequence's label by its place in ``names``, (sequences,)."""
        return np.array(self._ids, dtype=np.int32)

    def counts(self, numbers: NDArray[np.int32]) -> dict[str, int]:
        """How often each label occurs among ``numbers``."""
        counts = np.bincount(numbers, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counts, strict=True))

    def final_ids(self, numbers: NDArray[np.int32], labels: Labels) -> NDArray[np.int32]:
        """The ids that ``labels`` gives to those among ``numbers``, (len(numbers),).

        Raises:
            InputError: it lacks one; the message says where that stands.
        """
        table = np.zeros(len(self.names), dtype=np.int32)
        for number in np.unique(numbers).tolist():
            table[number] = labels.require(self.names[number], self.places[number])
        return table[numbers]
