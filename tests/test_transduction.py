"""Decoding with an encoder-decoder: beam search and greedy against all targets, and what must not change them."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest

from charlm.engine import optimise
from charlm.engine.threads import Team
from charlm.errors import CheckpointError
from charlm.models.sequences import Sequences
from charlm.models.transducer import Transducer, TransducerConfig
from charlm.text.buckets import Rows
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.training.collections import PairCollection, sequences
from charlm.workflows import transduction
from charlm.workflows.beams import Hypothesis
from charlm.workflows.transduction import beam, greedy
from tests.transducer_harness import Problem, problem

V_T = 5  # three tokens that can be produced
LONGEST = 3
STEPS = 600  # of training
SOURCES = (4, 1, 0, 3, 6, 2, 5)

attentions = pytest.mark.parametrize("attention", [False, True])


def given(attention: bool, sources: tuple[int, ...] = SOURCES, sharpness: float = 1.5) -> Problem:
    found = problem(
        "gru", layers=2, attention=attention, sizes=(6, V_T, 3, 2, 4), sources=sources, targets=(1,) * len(sources)
    )
    found.parameters["output/w"][...] *= sharpness
    return found


def every_target(model: Transducer, sources: Sequences, row: int) -> list[tuple[float, list[int]]]:
    """All targets of up to LONGEST tokens of a source, with their log probabilities, the likeliest first."""
    targets = [
        [*ids, EOS_ID]
        for length in range(LONGEST + 1)
        for ids in itertools.product(range(EOS_ID + 1, V_T), repeat=length)
    ]
    rows = Rows.of_sequences([np.array(ids, np.int32) for ids in targets])
    wanted = rows.padded(np.arange(len(targets)), -1)
    inputs = np.concatenate([np.full((1, len(targets)), V_T, np.int32), np.maximum(wanted[:-1], 0)])
    copies = np.full(len(targets), row)
    same = Sequences(sources.ids[:, copies], sources.reversed_ids[:, copies], sources.lengths[copies])
    nats = model.log_probs(same, inputs, wanted).sum(axis=0).tolist()
    return sorted(zip(nats, (ids[:-1] for ids in targets), strict=True), reverse=True)


@attentions
def test_a_wide_beam_finds_the_likeliest_of_all_targets(attention: bool) -> None:
    it = given(attention)
    model, (sources, _, _) = it.model(), it.batch()
    found = beam(model, sources, width=3**LONGEST * 4, best=8, longest=LONGEST)
    assert len(found) == len(SOURCES)
    for row, hypotheses in enumerate(found):
        expected = every_target(model, sources, row)[:8]
        assert [one.ids for one in hypotheses] == [ids for _, ids in expected]
        assert [one.log_prob_nats for one in hypotheses] == pytest.approx([nats for nats, _ in expected], abs=1e-11)
        assert all(one.is_finished for one in hypotheses)
    assert len({str([one.ids for one in hypotheses]) for hypotheses in found}) > 2, "the sources make no difference"


def plainly_greedy(model: Transducer, sources: Sequences, row: int, longest: int) -> tuple[list[int], float]:
    """A token at a time, a source at a time, from the probabilities of whole targets."""
    only = Sequences(sources.ids[:, [row]], sources.reversed_ids[:, [row]], sources.lengths[[row]])
    ids: list[int] = []
    total = 0.0
    while True:
        inputs = np.array([[V_T], *([token] for token in ids)], np.int32)
        following = [
            model.log_probs(only, inputs, np.array([*([-1] for _ in ids), [token]], np.int32))[-1, 0]
            for token in range(V_T)
        ]
        following[UNK_ID] = -np.inf
        token = int(np.argmax(following))
        if token != EOS_ID and len(ids) == longest:
            return ids, total
        total += following[token]
        if token == EOS_ID:
            return ids, total
        ids.append(token)


@attentions
def test_greedy_takes_the_likeliest_token_each_time(attention: bool) -> None:
    it = given(attention)
    model, (sources, _, _) = it.model(), it.batch()
    found = greedy(model, sources, longest=5)
    for row, (ids, nats) in enumerate(found):
        expected = plainly_greedy(model, sources, row, 5)
        assert ids == expected[0]
        assert nats == pytest.approx(expected[1], abs=1e-11)
    assert found == [(one.ids, one.log_prob_nats) for (one,) in beam(model, sources, width=1, longest=5)]


@attentions
def test_a_target_does_not_depend_on_what_shares_its_batch(attention: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    it = given(attention)
    model = it.model(dtype=np.float32)
    together = beam(model, it.batch()[0], width=3, best=2)
    alone = [beam(model, it.rows([row]).batch()[0], width=3, best=2)[0] for row in range(len(SOURCES))]
    assert together == alone
    monkeypatch.setattr(transduction, "MOST_NUMBERS", 2 * 3 * V_T)  # blocks of two sources
    assert beam(model, it.batch()[0], width=3, best=2) == together


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.models.inference.SMALL_WORK", 0)
    it = given(True)
    results: list[list[list[Hypothesis]]] = []
    for threads in (1, 2, 3):
        team = Team(threads)
        results.append(beam(it.model(team, np.float32), it.batch()[0], width=4, best=3))
        team.close()
    assert results[0] == results[1] == results[2]


def test_the_unknown_token_is_never_produced() -> None:
    it = given(False)
    it.parameters["output/b"][UNK_ID] = 50.0
    found = beam(it.model(), it.batch()[0], width=3, best=3, longest=4)
    assert all(UNK_ID not in one.ids for hypotheses in found for one in hypotheses)


def test_the_length_is_bounded_by_the_source_unless_told() -> None:
    it = given(False)
    it.parameters["output/b"][EOS_ID] = -200.0
    model, sources = it.model(), it.batch()[0]
    lengths = [len(ids) for ids, _ in greedy(model, sources)]
    assert lengths == [2 * length + 20 for length in SOURCES]
    for (one,) in beam(model, sources, width=2, longest=3):
        assert len(one.ids) == 3
        assert not one.is_finished
    assert [ids for ids, _ in greedy(model, sources, longest=0)] == [[]] * len(SOURCES)


def test_probabilities_that_are_no_numbers_are_an_error() -> None:
    it = given(True)
    it.parameters["attention/b"][1] = np.nan
    with pytest.raises(CheckpointError, match="NaN"):
        greedy(it.model(), it.batch()[0])


# Learnt


@cache
def reversal(attention: bool, bidirectional: bool, cell: str) -> tuple[Transducer, PairCollection, Any, list[float]]:
    """A model that was taught to turn strings round: 3 to 5 of 8 letters, all but every eighth of 3000."""
    rng, letters = np.random.default_rng(0), 8
    texts = sorted({tuple(rng.integers(2, 2 + letters, rng.integers(3, 6)).tolist()) for _ in range(3000)})
    pairs = [(np.array([*text, EOS_ID], np.int32), np.array([*text[::-1], EOS_ID], np.int32)) for text in texts]
    rows = [Rows.of_sequences([pair[side] for pair in pairs]) for side in (0, 1)]
    collection = PairCollection(*rows, 2 + letters, 2 + letters)
    held_out = np.arange(0, len(pairs), 8)
    trained = np.setdiff1d(np.arange(len(pairs)), held_out)
    config = TransducerConfig(
        2 + letters, 2 + letters, 16, 32, cell=cell, bidirectional=bidirectional, attention=attention
    )
    model = Transducer(config)
    model.initialise(rng)
    flat, gradient = model.parameters.flat, model.gradients.flat
    mean, square = np.zeros_like(flat), np.zeros_like(flat)
    losses_nats = []
    for step in range(1, STEPS + 1):
        rate = 0.01 * (1 - step / (STEPS + 1))
        batch = collection.example(rng.choice(trained, 32, replace=False))
        losses_nats.append(model.loss_and_gradients(batch.sources, batch.inputs, batch.targets) / batch.predicted)
        optimise.adamw(flat, gradient, mean, square, step, rate, 0.9, 0.999, 1e-8, 0.0, 1.0, 0, flat.size)
    return model, collection, held_out, losses_nats


@pytest.mark.parametrize(("cell", "bidirectional"), [("lstm", True), ("gru", False)])
def test_reversal_is_learnt_with_attention(cell: str, bidirectional: bool) -> None:
    """Strings that were not among the taught ones are turned round too."""
    model, collection, held_out, losses_nats = reversal(True, bidirectional, cell)
    assert np.mean(losses_nats[-20:]) < 0.05
    found = greedy(model, sequences(collection.sources, held_out, 10))
    cuts = np.split(collection.targets.ids, collection.targets.ends[:-1])
    right = [ids == cuts[number][:-1].tolist() for number, (ids, _) in zip(held_out, found, strict=True)]
    assert np.mean(right) > 0.97


def test_attention_learns_reversal_faster() -> None:
    with_it, without = (np.mean(reversal(attention, True, "lstm")[3][-20:]) for attention in (True, False))
    assert with_it < without
