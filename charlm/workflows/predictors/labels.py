"""The labels of texts, by a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import InputError
from charlm.evaluation.classes import (
    accuracy,
    confusion_matrix,
    confusions,
    label_matches,
    render_confusion,
    render_scores,
)
from charlm.text.buckets import Buckets
from charlm.text.examples import read_labelled
from charlm.text.labels import some_of
from charlm.text.readers import display_name
from charlm.training.collections import sequences as sequence_batch
from charlm.training.sequence_task import EVALUATION_ROWS
from charlm.workflows.finite import naming, require_finite
from charlm.workflows.predictors.predictor import Evaluation, Predictor, nothing_to_evaluate, windows
from charlm.workflows.text_side import saved_labels
from charlm.workflows.trained import Trained

MOST_UNSEEN = 1000  # labels that a model lacks, in a text that it is compared with: more are no labels


@dataclass(frozen=True)
class Labelling:
    """Labels of a text, the likeliest first, and their probabilities."""

    text: str
    labels: list[str]
    probabilities: list[float]


class LabelPredictor(Predictor):
    """Of a classifier.

    Args:
        top: how many labels to tell.
    """

    def __init__(self, trained: Trained, top: int = 1) -> None:
        super().__init__(trained)
        self._text = self.side()
        self._labels = saved_labels(self.header, self.path)
        self._top = min(top, self._labels.size)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Of each label for each text, (M, L)."""
        rows = self._text.rows(texts)
        self.count(rows, len(texts))
        result = np.empty((len(texts), self._labels.size))
        for numbers in Buckets(rows.lengths, batch_size=EVALUATION_ROWS).once():
            result[numbers] = np.exp(self.model.log_probs(sequence_batch(rows, numbers, self._text.vocabulary.size)))
        with naming(self.path):
            require_finite(result)
        return result

    def predict(self, path: str) -> Iterator[list[Labelling]]:
        """The labels of each line of a text, a window at a time.

        Raises:
            InputError: the text is at fault; the lines before it have been given.
        """
        for texts in self.texts(path, self._text):
            found = self.probabilities(texts)
            order = np.argsort(-found, axis=1, kind="stable")[:, : self._top]
            yield [
                Labelling(text, [self._labels.names[i] for i in best], found[row, best].tolist())
                for row, (text, best) in enumerate(zip(texts, order.tolist(), strict=True))
            ]

    def evaluate(self, path: str) -> Evaluation:
        """Compare with the labels of a text of ``label<TAB>text`` lines; one that the model lacks is never told.

        Raises:
            InputError: the text is at fault, or holds nothing.
        """
        numbers = {name: number for number, name in enumerate(self._labels.names)}
        gold: list[int] = []
        found: list[int] = []
        for window in windows(read_labelled(path)):
            gold += [numbers.setdefault(example.label, len(numbers)) for example in window]
            if len(numbers) > self._labels.size + MOST_UNSEEN:
                raise InputError(
                    f"{display_name(path)}: has more than {MOST_UNSEEN:,} labels that are unknown to the model; "
                    "is each line label<TAB>text, the label first?"
                )
            found += self.probabilities([example.text for example in window]).argmax(axis=1).tolist()
        if not gold:
            raise nothing_to_evaluate(path)
        names = list(numbers)
        matrix = confusion_matrix(np.array(gold), np.array(found), len(names))
        unseen = names[self._labels.size :]
        strange = f"unknown to the model, so always wrong: {some_of(unseen)}\n\n" if unseen else ""
        matches = label_matches(matrix)
        return Evaluation(
            f"{strange}{render_scores(matrix, names)}\n{render_confusion(matrix, names)}",
            {
                "items": len(gold),
                "accuracy": accuracy(matrix),
                "labels": {
                    label: {"precision": m.precision, "recall": m.recall, "f1": m.f1, "items": m.gold}
                    for label, m in zip(names, matches, strict=True)
                },
                "confusions": [
                    {"true": names[g], "told": names[p], "items": count} for g, p, count in confusions(matrix)
                ],
            },
        )
