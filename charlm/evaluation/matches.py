"""What was there, what was found, what of it was right; and the three figures made of that.

(1) precision P = correct / found
(2) recall    R = correct / gold
(3) F1 = 2 P R / (P + R) = 2 correct / (found + gold)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Matches:
    """How a system did on one kind of thing; figures of nothing, 0 / 0, are 0.

    Attributes:
        gold: how many there are.
        found: how many the system found.
        correct: how many of those are right.
    """

    gold: int = 0
    found: int = 0
    correct: int = 0

    @property
    def precision(self) -> float:
        """Equation (1)."""
        return ratio(self.correct, self.found)

    @property
    def recall(self) -> float:
        """Equation (2)."""
        return ratio(self.correct, self.gold)

    @property
    def f1(self) -> float:
        """Equation (3)."""
        return ratio(2 * self.correct, self.found + self.gold)

    def __add__(self, other: Matches) -> Matches:
        return Matches(self.gold + other.gold, self.found + other.found, self.correct + other.correct)


@dataclass(frozen=True)
class Average:
    """Means over kinds of things. The mean F1 is the mean of the F1, not that of the mean precision and recall."""

    precision: float
    recall: float
    f1: float


def macro_average(matches: Iterable[Matches]) -> Average:
    """Every kind weighs the same; one that neither is there nor was found has no say."""
    return _average([(m, 1) for m in matches if m.gold or m.found])


def weighted_average(matches: Iterable[Matches]) -> Average:
    """Each kind weighs as many as there are of it."""
    return _average([(m, m.gold) for m in matches])


def ratio(part: int, whole: int) -> float:
    """Their quotient; 0 if both are."""
    return part / whole if whole else 0.0


def _average(weighted: list[tuple[Matches, int]]) -> Average:
    total = sum(weight for _, weight in weighted)
    if not total:
        return Average(0.0, 0.0, 0.0)
    return Average(
        precision=sum(weight * m.precision for m, weight in weighted) / total,
        recall=sum(weight * m.recall for m, weight in weighted) / total,
        f1=sum(weight * m.f1 for m, weight in weighted) / total,
    )
