"""How well labels were told: the confusion matrix, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from charlm.evaluation.matches import Matches, macro_average, ratio, weighted_average
from charlm.evaluation.table import align

Matrix = NDArray[np.int64]

SHOWN_LABELS = 25  # of a confusion matrix that is shown whole
NONE = "."  # how a confusion matrix shows 0, so that what is there stands out


def confusion_matrix(gold: NDArray[np.integer], predicted: NDArray[np.integer], size: int) -> Matrix:
    """How often label g was taken for label p: (L, L), at [g, p].

    Args:
        gold: (M,), the true label ids, 0 to L - 1.
        predicted: (M,), those that were told.
        size: L.

    Raises:
        ValueError: not as many of one as of the other, or an id out of bounds.
    """
    if gold.shape != predicted.shape or gold.ndim != 1:
        raise ValueError(f"{gold.shape} true labels, {predicted.shape} predicted ones")
    for ids in (gold, predicted):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ValueError(f"a label id is not between 0 and {size - 1}")
    cells = gold.astype(np.int64) * size + predicted
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def accuracy(matrix: Matrix) -> float:
    """The share that was told rightly; 0 of nothing."""
    return ratio(int(np.trace(matrix)), int(matrix.sum()))


def label_matches(matrix: Matrix) -> list[Matches]:
    """For each label: how often it is there, was told, was told rightly."""
    gold, found, correct = matrix.sum(axis=1), matrix.sum(axis=0), np.diagonal(matrix)
    return [Matches(*map(int, of_label)) for of_label in zip(gold, found, correct, strict=True)]


def render_scores(matrix: Matrix, names: Sequence[str]) -> str:
    """Precision, recall and F1 of each label, their means, and accuracy, as lines of aligned columns.

    Args:
        matrix: (L, L); see ``confusion_matrix``.
        names: each label's.
    """
    matches = label_matches(matrix)
    total = int(matrix.sum())
    rows = [["label", "precision", "recall", "F1", "items"]]
    for name, m in zip(names, matches, strict=True):
        rows.append([name, *_percent(m.precision, m.recall, m.f1), f"{m.gold:,}"])
    for name, mean in (("mean of labels", macro_average(matches)), ("mean of items", weighted_average(matches))):
        rows.append([name, *_percent(mean.precision, mean.recall, mean.f1), f"{total:,}"])
    rows.append(["accuracy", "", "", *_percent(accuracy(matrix)), f"{total:,}"])
    return align(rows, left=1)


def confusions(matrix: Matrix) -> list[tuple[int, int, int]]:
    """What was taken for what: true label, label that was told, how often; the most frequent first."""
    gold, told = np.nonzero(matrix - np.diag(np.diagonal(matrix)))
    found = [(int(g), int(p), int(matrix[g, p])) for g, p in zip(gold, told, strict=True)]
    return sorted(found, key=lambda one: (-one[2], one[:2]))


def render_confusion(matrix: Matrix, names: Sequence[str]) -> str:
    """A confusion matrix as lines of aligned columns: a row for each true label, a column for each that was told.

    Columns bear the numbers of the rows, since many names would not fit. A label that neither is there nor was told
    has neither row nor column. Of more than `SHOWN_LABELS`, only what was confused most is listed.

    Args:
        matrix: (L, L); see ``confusion_matrix``.
        names: each label's.
    """
    shown = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1)).tolist()
    if len(shown) > SHOWN_LABELS:
        most = confusions(matrix)[:SHOWN_LABELS]
        return align([["true label", "told", "items"], *([names[g], names[p], f"{n:,}"] for g, p, n in most)], left=2)
    rows = [["", "true label", *(str(number + 1) for number in shown), "items", "right"]]
    for label in shown:
        told = [f"{count:,}" if count else NONE for count in matrix[label, shown].tolist()]
        items = int(matrix[label].sum())
        share = _percent(int(matrix[label, label]) / items)[0] if items else ""
        rows.append([str(label + 1), names[label], *told, f"{items:,}", share])
    return align(rows, left=2, gap=1)


def _percent(*shares: float) -> list[str]:
    return [f"{100 * share:.1f} %" for share in shares]
