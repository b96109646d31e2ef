import math
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.evaluation.edits import EditScores, edit_distance, score_edits

words = st.text("abc", max_size=8)


@pytest.mark.parametrize(
    ("made", "wanted", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("abc", "abc", 0),
        ("kitten", "sitting", 3),  # k > s, e > i, + g
        ("flaw", "lawn", 2),  # - f, + n
        ("ab", "ba", 2),  # no exchange of neighbours
        ("abcdef", "xabcdef", 1),
        (["t͡ʃ", "uː"], ["t", "uː"], 1),  # tokens, not characters
        ([1, 2, 3], (3, 2, 1), 2),
    ],
)
def test_distances_by_hand(made: Sequence[str], wanted: Sequence[str], distance: int) -> None:
    assert edit_distance(made, wanted) == distance


@given(made=words, wanted=words)
def test_distance_against_its_definition(made: str, wanted: str) -> None:
    @cache
    def d(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (made[i - 1] != wanted[j - 1]))

    assert edit_distance(made, wanted) == d(len(made), len(wanted))


@given(a=words, b=words, c=words)
def test_it_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_long_sequences() -> None:
    wanted = list(range(5000))
    assert edit_distance(wanted[1:], wanted) == 1
    assert edit_distance([], wanted) == 5000
    assert edit_distance(wanted[::-1], wanted[:5]) == 4999  # 4 of 5 lie the wrong way: 4995 go, 4 change


def test_scores_by_hand() -> None:
    """Four pairs, two exact; 1 + 2 edits for 3 + 2 + 0 + 4 tokens wanted."""
    scores = score_edits([("abc", "abc"), ("a", "ab"), ("", ""), ("abxy", "abcd")])
    assert scores == EditScores(sequences=4, exact=2, edits=3, tokens=9)
    assert scores.sequence_accuracy == 0.5
    assert scores.sequence_error_rate == 0.5
    assert scores.token_error_rate == 1 / 3


def test_words() -> None:
    scores = score_edits([(["the", "cat", "sat"], ["the", "cats", "sat", "down"])])
    assert (scores.edits, scores.tokens) == (2, 4)
    assert scores.token_error_rate == 0.5


def test_rates_of_nothing() -> None:
    assert score_edits([]) == EditScores(0, 0, 0, 0)
    assert (score_edits([]).sequence_accuracy, score_edits([]).sequence_error_rate) == (0.0, 0.0)
    assert score_edits([]).token_error_rate == 0.0
    assert score_edits([("", "")]).token_error_rate == 0.0
    assert score_edits([("ab", "")]).token_error_rate == math.inf
    assert score_edits([("abcd", "x")]).token_error_rate == 4.0
