"""Beam search for several sequences side by side, on tables of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine import beam
from charlm.errors import CheckpointError
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.workflows.beams import Beams, Hypothesis

Nats = NDArray[np.float64]

V = 6


def table(seed: int, sharpness: float = 2.0) -> Nats:
    """Log probabilities (V + 1, V) of the next token after each token, and after none (the last row)."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(V + 1, V))
    found: Nats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found


def search(tables: list[Nats], **options: Any) -> list[list[Hypothesis]]:
    """One search for each table, side by side."""
    beams = Beams(len(tables), **options)
    which, tokens = np.arange(len(tables)), np.full(len(tables), V)
    while tokens.size:
        log_probs = np.stack([tables[number][token] for number, token in zip(which, tokens, strict=True)])
        rows, tokens = beams.advance(log_probs)
        which = which[rows]
    return beams.hypotheses()


# One step


@pytest.mark.parametrize("width", [1, 2, 5, 30])
def test_the_likeliest_continuations(width: int) -> None:
    """Against a stable sort; probabilities are few, so that many are equal."""
    rng, searches = np.random.default_rng(width), 7
    rows = np.full((searches, width), -1)
    slots = rng.random((searches, width)) < 0.6
    rows[slots] = rng.permutation(slots.sum())
    log_probs, scores = -rng.integers(0, 4, (slots.sum(), V)) / 2.0, -rng.integers(0, 3, (searches, width)) / 2.0
    log_probs[rng.random(log_probs.shape) < 0.1] = -np.inf
    allowed = np.ones(V, np.uint8)
    allowed[UNK_ID] = 0
    totals, places = np.full((searches, width), np.nan), np.full((searches, width), -9)
    assert beam.extend(log_probs, scores, rows, allowed, totals, places)
    for b in range(searches):
        every = np.full((width, V), -np.inf)
        for w in np.flatnonzero(slots[b]):
            every[w] = np.where(allowed, scores[b, w] + log_probs[rows[b, w]], -np.inf)
        order = [place for place in np.argsort(-every, axis=None, kind="stable") if every.flat[place] > -np.inf][:width]
        np.testing.assert_array_equal(totals[b, : len(order)], every.flat[order])
        np.testing.assert_array_equal(places[b, : len(order)], order)
        assert (totals[b, len(order) :] == -np.inf).all()


@pytest.mark.parametrize("place", [0, 1, V - 1])
def test_a_nan_is_an_error(place: int) -> None:
    broken = table(0)
    broken[V, place] = np.nan
    with pytest.raises(CheckpointError, match="NaN"):
        search([table(1), broken], width=2, best=1, longest=3)


# Searches


def greedy(log_probs: Nats, longest: int) -> Hypothesis:
    """The likeliest token each time, written down plainly."""
    ids: list[int] = []
    total, token = 0.0, V
    while True:
        following = log_probs[token].copy()
        following[UNK_ID] = -np.inf
        token = int(following.argmax())
        if token == EOS_ID:
            return Hypothesis(ids, total + following[token], True)
        if len(ids) == longest:
            return Hypothesis(ids, total, False)
        total += following[token]
        ids.append(token)


def test_a_width_of_one_takes_the_likeliest_token_each_time() -> None:
    tables, longest = [table(seed, 1.0) for seed in range(40)], np.arange(40) % 7
    found = search(tables, width=1, best=1, longest=longest, end_competes=True)
    expected = [greedy(*each) for each in zip(tables, longest.tolist(), strict=True)]
    assert found == [[one] for one in expected]
    assert {one.is_finished for one in expected} == {False, True}


@pytest.mark.parametrize("end_competes", [False, True])
def test_searches_do_not_see_each_other(end_competes: bool) -> None:
    """Some end early, some are cut short, each at a length of its own."""
    tables, longest = [table(seed) for seed in range(12)], np.array([0, 1, 2, 3, 4, 5] * 2)
    for endless in tables[::4]:
        endless[:, EOS_ID] = -np.inf
    options: dict[str, Any] = {"width": 3, "best": 2, "end_competes": end_competes}
    together = search(tables, longest=longest, **options)
    assert together == [
        search([one], longest=int(most), **options)[0] for one, most in zip(tables, longest, strict=True)
    ]
    assert {one.is_finished for found in together for one in found} == {False, True}
    for found, most in zip(together, longest.tolist(), strict=True):
        assert max(len(one.ids) for one in found) <= most


def every_sequence(log_probs: Nats, longest: int, before: tuple[int, ...] = ()) -> list[tuple[float, list[int]]]:
    """All sequences that end, with their log probabilities."""
    found = [(_total(log_probs, (*before, EOS_ID)), list(before))]
    if len(before) < longest:
        for token in range(EOS_ID + 1, V):
            found += every_sequence(log_probs, longest, (*before, token))
    return found


def _total(log_probs: Nats, ids: tuple[int, ...]) -> float:
    return float(sum(log_probs[last, token] for last, token in zip((V, *ids), ids, strict=False)))


@pytest.mark.parametrize("end_competes", [False, True])
def test_a_wide_search_is_exact(end_competes: bool) -> None:
    tables = [table(seed) for seed in range(5)]
    found = search(tables, width=4**3 + 1 + 4 * 4**3 * end_competes, best=9, longest=3, end_competes=end_competes)
    for log_probs, hypotheses in zip(tables, found, strict=True):
        expected = sorted(every_sequence(log_probs, 3), reverse=True)[:9]
        assert [one.ids for one in hypotheses] == [ids for _, ids in expected]
        assert [one.log_prob_nats for one in hypotheses] == pytest.approx([nats for nats, _ in expected], abs=1e-12)
        assert all(one.is_finished for one in hypotheses)


def test_an_end_that_competes_takes_a_place() -> None:
    """Of two places at the first step the end takes one, so that 'b' is never tried."""
    log_probs = np.full((V + 1, V), -np.inf)
    a, b = EOS_ID + 1, EOS_ID + 2
    log_probs[V, [a, EOS_ID, b]] = np.log([0.5, 0.3, 0.2])
    log_probs[a, a], log_probs[b, EOS_ID] = 0.0, 0.0
    options: dict[str, Any] = {"width": 2, "best": 3, "longest": 2}
    ids = {mode: [one.ids for one in search([log_probs], end_competes=mode, **options)[0]] for mode in (False, True)}
    assert ids[True] == [[], [a, a]]
    assert ids[False] == [[], [b], [a, a]]


def test_no_text_is_found_twice_where_the_length_cuts() -> None:
    for seed in range(20):
        (found,) = search([table(seed)], width=12, best=40, longest=2)
        ids = [one.ids for one in found]
        assert len({tuple(one) for one in ids}) == len(ids)
