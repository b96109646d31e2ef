from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.evaluation.classes import accuracy, confusion_matrix, label_matches, render_confusion, render_scores
from charlm.evaluation.matches import Average, Matches, macro_average, weighted_average
from charlm.evaluation.table import align, display_width

L = 4
answers = st.lists(st.tuples(st.integers(0, L - 1), st.integers(0, L - 1)), max_size=60)


def matrix_of(pairs: list[tuple[int, int]], size: int = L) -> np.ndarray:  # type: ignore[type-arg]
    gold, predicted = (np.array(ids, dtype=np.int32) for ids in (zip(*pairs, strict=True) if pairs else ((), ())))
    return confusion_matrix(gold, predicted, size)


# By hand: a is there 3 times and told twice, once rightly; b twice and 3 times, twice rightly; c and d never.
#   a: P 1/2, R 1/3, F1 2/(2+3) = 2/5     b: P 2/3, R 2/2, F1 4/(3+2) = 4/5     c: told once, there never: all 0
PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 1)]


def test_a_matrix_by_hand() -> None:
    matrix = matrix_of(PAIRS)
    assert matrix.tolist() == [[1, 1, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert accuracy(matrix) == 3 / 5
    a, b, c, d = label_matches(matrix)
    assert (a, b, c, d) == (Matches(3, 1, 1), Matches(2, 3, 2), Matches(0, 1, 0), Matches(0, 0, 0))
    assert (a.precision, a.recall, a.f1) == (1.0, 1 / 3, 0.5)
    assert (b.precision, b.recall, b.f1) == (2 / 3, 1.0, 0.8)
    assert (c.precision, c.recall, c.f1) == (0.0, 0.0, 0.0)
    assert (d.precision, d.recall, d.f1) == (0.0, 0.0, 0.0)


def test_averages_by_hand() -> None:
    """Over a, b, c (d neither is there nor was told); weighted by 3 of a and 2 of b."""
    matches = label_matches(matrix_of(PAIRS))
    macro, weighted = macro_average(matches), weighted_average(matches)
    assert macro.precision == pytest.approx((1 + 2 / 3 + 0) / 3, rel=1e-15)
    assert macro.recall == pytest.approx((1 / 3 + 1 + 0) / 3, rel=1e-15)
    assert macro.f1 == pytest.approx((0.5 + 0.8 + 0) / 3, rel=1e-15)
    assert weighted.precision == pytest.approx((3 * 1 + 2 * 2 / 3) / 5, rel=1e-15)
    assert weighted.recall == pytest.approx((3 * 1 / 3 + 2 * 1) / 5, rel=1e-15)
    assert weighted.f1 == pytest.approx((3 * 0.5 + 2 * 0.8) / 5, rel=1e-15)


def test_figures_of_nothing() -> None:
    matrix = matrix_of([])
    assert accuracy(matrix) == 0.0
    assert macro_average(label_matches(matrix)) == weighted_average([]) == Average(0.0, 0.0, 0.0)


@given(pairs=answers)
def test_every_figure_against_its_definition(pairs: list[tuple[int, int]]) -> None:
    matrix = matrix_of(pairs)
    for g in range(L):
        for p in range(L):
            assert matrix[g, p] == sum(pair == (g, p) for pair in pairs)
    right = [g for g, p in pairs if g == p]
    assert accuracy(matrix) == (len(right) / len(pairs) if pairs else 0.0)
    f1s, weighted_recall = [], Fraction(0)
    for label, m in enumerate(label_matches(matrix)):
        gold, found = sum(g == label for g, _ in pairs), sum(p == label for _, p in pairs)
        precision = Fraction(right.count(label), found) if found else Fraction(0)
        recall = Fraction(right.count(label), gold) if gold else Fraction(0)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else Fraction(0)
        assert (m.precision, m.recall) == (float(precision), float(recall))
        assert m.f1 == pytest.approx(float(f1), rel=1e-14)
        if gold or found:
            f1s.append(float(f1))
        weighted_recall += gold * recall
    assert macro_average(label_matches(matrix)).f1 == pytest.approx(sum(f1s) / len(f1s) if f1s else 0.0, rel=1e-14)
    # The recalls, weighted by the labels' numbers, are the accuracy.
    assert weighted_average(label_matches(matrix)).recall == pytest.approx(accuracy(matrix), rel=1e-14)
    assert float(weighted_recall) == len(right)


@pytest.mark.parametrize(
    ("gold", "predicted"), [([0, 1], [0]), ([0], [L]), ([-1], [0]), ([L], [0]), ([0], [-1]), ([[0]], [[0]])]
)
def test_impossible_labels(gold: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match="label"):
        confusion_matrix(np.array(gold), np.array(predicted), L)


def test_a_rendered_matrix() -> None:
    text = render_confusion(matrix_of([*PAIRS * 1000, (3, 0)]), ["Irish", "日本", "Gree\u0301k", "x"])
    assert text == (
        "  true label     1     2     3 4 items   right\n"
        "1 Irish      1,000 1,000 1,000 . 3,000  33.3 %\n"
        "2 日本           . 2,000     . . 2,000 100.0 %\n"
        "3 Gree\u0301k          .     .     . .     0\n"
        "4 x              1     .     . .     1   0.0 %\n"
    )


def test_a_rendered_matrix_leaves_out_labels_without_a_count() -> None:
    text = render_confusion(matrix_of([(1, 3)]), ["a", "b", "c", "d"])
    assert text == (
        "  true label 2 4 items right\n"
        "2 b          . 1     1 0.0 %\n"
        "4 d          . .     0\n"
    )  # fmt: skip


def test_eighteen_labels_fit_a_terminal() -> None:
    pairs = [(number % 18, number * 7 % 18) for number in range(2000)]
    names = [f"nationality{number}" for number in range(18)]
    text = render_confusion(matrix_of(pairs, 18), names)
    lines = text.splitlines()
    assert len(lines) == 19
    assert max(map(len, lines)) <= 120
    # Every number ends below its heading, the seventh column as an example.
    end = lines[0].index(" 7 ") + 2
    assert all(line[end - 1] != " " and line[end] == " " for line in lines)


def test_rendered_scores() -> None:
    assert render_scores(matrix_of(PAIRS), ["a", "b", "c", "d"]) == (
        "label           precision   recall      F1  items\n"
        "a                 100.0 %   33.3 %  50.0 %      3\n"
        "b                  66.7 %  100.0 %  80.0 %      2\n"
        "c                   0.0 %    0.0 %   0.0 %      0\n"
        "d                   0.0 %    0.0 %   0.0 %      0\n"
        "mean of labels     55.6 %   44.4 %  43.3 %      5\n"
        "mean of items      86.7 %   60.0 %  62.0 %      5\n"
        "accuracy                            60.0 %      5\n"
    )


@given(rows=st.lists(st.tuples(st.text("ab日é\u0301", max_size=5), st.text("12,", max_size=5)), min_size=1))
def test_columns_are_aligned(rows: list[tuple[str, str]]) -> None:
    lines = align(rows, left=1).removesuffix("\n").split("\n")
    assert len(lines) == len(rows)
    first = max(display_width(name) for name, _ in rows)
    last = max(len(number) for _, number in rows)
    for line, (name, number) in zip(lines, rows, strict=True):
        assert line.split() == (name + " " + number).split()
        if number:
            assert display_width(line) == first + 2 + last
