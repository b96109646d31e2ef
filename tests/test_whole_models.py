"""Classifier and tagger against the reference, and what must hold of them whatever their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from charlm.engine import layers, optimise
from charlm.engine.threads import Team
from charlm.models.classifier import Classifier, ClassifierConfig
from charlm.models.tagger import Tagger
from charlm.text.buckets import Rows
from charlm.training.collections import sequences
from tests.engine_harness import VARIANTS, same_bits
from tests.gradient_check import GradientError
from tests.whole_harness import (
    LABELS,
    check_classifier,
    check_tagger,
    classify_problem,
    cut,
    tag_problem,
)

variants = pytest.mark.parametrize(("cell", "activation"), VARIANTS)


@pytest.fixture(scope="module")
def teams() -> Iterator[list[Team]]:
    made = [Team(threads) for threads in (1, 2, 3)]
    yield made
    for team in made:
        team.close()


# The kernels


def test_turn_is_its_own_reverse() -> None:
    lengths = np.array([1, 4, 3])
    source = np.random.default_rng(0).standard_normal((4, 3, 5))
    turned, again = np.full_like(source, 7), np.full_like(source, 7)
    layers.turn(source, lengths, turned, 0, 3)
    layers.turn(turned, lengths, again, 0, 3)
    for row, length in enumerate(lengths):
        assert same_bits(turned[4 - length :, row], source[4 - length :, row][::-1].copy())
        assert not turned[: 4 - length, row].any()
        assert same_bits(again[4 - length :, row].copy(), source[4 - length :, row].copy())


def test_turn_keeps_to_its_rows() -> None:
    source, target = np.ones((3, 4, 2)), np.zeros((3, 4, 2))
    layers.turn(source, np.full(4, 3), target, 1, 3)
    layers.turn_add(source, np.full(4, 3), target, 1, 3)
    assert target[:, 1:3].tolist() == np.full((3, 2, 2), 2.0).tolist()
    assert not target[:, [0, 3]].any()


# Against the reference


@variants
@pytest.mark.parametrize("bidirectional", [True, False])
def test_classifier(cell: str, activation: str, bidirectional: bool) -> None:
    check_classifier(classify_problem(cell, activation, 2, bidirectional=bidirectional))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("dropout", ["", "each", "variational"])
def test_deep_classifier(layers: int, dropout: str) -> None:
    probes = None if layers == 3 and dropout == "each" else 8
    check_classifier(classify_problem("gru", layers=layers, dropout=dropout), probes)


@variants
def test_tagger(cell: str, activation: str) -> None:
    check_tagger(tag_problem(cell, activation, 2))


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("characters", [True, False])
@pytest.mark.parametrize("dropout", ["", "each", "variational"])
def test_tagger_of_each_kind(bidirectional: bool, characters: bool, dropout: str) -> None:
    check_tagger(tag_problem(bidirectional=bidirectional, characters=characters, dropout=dropout))


# Planted faults


def fails(check: object, problem: object) -> None:
    with pytest.raises((AssertionError, GradientError)):
        check(problem)  # type: ignore[operator]


def test_a_turn_shifted_by_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    original = layers.turn

    def shifted(source: np.ndarray, lengths: np.ndarray, target: np.ndarray, low: int, high: int) -> None:
        original(source, np.maximum(lengths - 1, 1), target, low, high)

    monkeypatch.setattr(layers, "turn", shifted)
    fails(check_classifier, classify_problem(layers=2))
    fails(check_tagger, tag_problem())


def test_no_turn_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: np.ndarray, lengths: np.ndarray, target: np.ndarray, low: int, high: int) -> None:
        target[:, low:high] = source[:, low:high]

    monkeypatch.setattr(layers, "turn", copy)
    fails(check_classifier, classify_problem(layers=2))
    fails(check_tagger, tag_problem())


def test_a_gradient_that_does_not_cross_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "turn_add", lambda *arguments: None)
    check_classifier(classify_problem(layers=1))
    fails(check_classifier, classify_problem(layers=2))


def test_a_gradient_a_thousandth_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    original = layers.turn_add

    def larger(source: np.ndarray, lengths: np.ndarray, target: np.ndarray, low: int, high: int) -> None:
        original(1.001 * source, lengths, target, low, high)

    monkeypatch.setattr(layers, "turn_add", larger)
    fails(check_classifier, classify_problem(layers=2))


def test_a_state_that_padding_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    from charlm.engine.cells import lstm

    broken = replace(
        lstm.CELL,
        forward=lambda pre, w_h, w_p, state, hidden, saved, reset, *rest: lstm.CELL.forward(
            pre, w_h, w_p, state, hidden, saved, np.zeros_like(reset), *rest
        ),
    )
    monkeypatch.setattr("charlm.models.encoder.cells.find", lambda name: broken)
    fails(check_classifier, classify_problem())


def test_characters_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Tagger._give_inputs

    def without(tagger: Tagger) -> None:
        characters, tagger.characters = tagger.characters, None
        original(tagger)
        tagger.characters = characters

    monkeypatch.setattr(Tagger, "_give_inputs", without)
    check_tagger(tag_problem(characters=False))
    fails(check_tagger, tag_problem())


# Rows and threads


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_row_alone_gives_the_same_bits(cell: str) -> None:
    problem = classify_problem(cell, layers=2)
    model = problem.model()
    together = model.log_probs(problem.batch())
    for number in range(len(together)):
        assert same_bits(model.log_probs(problem.batch([number])), together[number : number + 1])


def test_a_sentence_alone_gives_the_same_bits() -> None:
    problem = tag_problem(layers=2)
    model = problem.model()
    together = model.log_probs(problem.batch())
    for number, length in enumerate(problem.tags.lengths.tolist()):
        alone = model.log_probs(problem.batch([number]))
        assert alone.shape == (length, 1, LABELS)
        assert same_bits(alone[:, 0].copy(), together[len(together) - length :, number].copy())


def test_threads_change_no_bit(teams: list[Team]) -> None:
    classify, tag = classify_problem(layers=2, dropout="each"), tag_problem(layers=2, dropout="each")
    results = []
    for team in teams:
        classifier, tagger = classify.model(team), tag.model(team)
        loss = classifier.loss_and_gradients(classify.batch(), classify.labels, classify.draw(classifier))
        other = tagger.loss_and_gradients(tag.batch(), tag.tag_rows(), tag.draw(tagger))
        found = classifier.log_probs(classify.batch()), tagger.log_probs(tag.batch())[-1]
        results.append((np.array([loss, other]), classifier.gradients.flat, tagger.gradients.flat, *found))
    for result in results[1:]:
        assert all(same_bits(one, two) for one, two in zip(results[0], result, strict=True))


def test_gradients_are_made_anew() -> None:
    problem = classify_problem()
    model = problem.model()
    model.loss_and_gradients(problem.batch(), problem.labels)
    first = model.gradients.flat.copy()
    model.loss_and_gradients(problem.batch([2, 3]), problem.labels[2:4])
    model.loss_and_gradients(problem.batch(), problem.labels)
    assert same_bits(first, model.gradients.flat)


def test_a_row_without_a_label_teaches_nothing() -> None:
    problem = classify_problem()
    model = problem.model()
    labels = problem.labels.copy()
    labels[1] = -1
    model.loss_and_gradients(problem.batch(), labels, scale=1.0)
    with_row = model.gradients.flat.copy()
    others = [0, 2, 3, 4, 5]
    model.loss_and_gradients(problem.batch(others), labels[others], scale=1.0)
    np.testing.assert_allclose(with_row, model.gradients.flat, rtol=0, atol=1e-14)


# Learning


def test_log_probs_are_normalised() -> None:
    problem = tag_problem()
    np.testing.assert_allclose(np.exp(problem.model().log_probs(problem.batch())).sum(axis=2), 1, rtol=1e-12)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_loss_at_the_start_is_near_that_of_equal_chances(bidirectional: bool) -> None:
    config = ClassifierConfig(30, 16, 32, 2, bidirectional=bidirectional, labels=7)
    model = Classifier(config)
    model.initialise(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    rows = Rows.of_sequences([rng.integers(0, 30, length).astype(np.int32) for length in (9, 4, 12, 1)])
    log_probs = model.log_probs(sequences(rows, np.arange(4), 30))
    assert -log_probs.mean() == pytest.approx(np.log(7), abs=0.2)


def test_few_sequences_are_learnt_by_heart() -> None:
    problem = classify_problem("lstm")
    model = problem.model()
    model.initialise(np.random.default_rng(0))
    mean, square = np.zeros_like(model.parameters.flat), np.zeros_like(model.parameters.flat)
    size = model.parameters.flat.size
    for step in range(1, 121):
        model.loss_and_gradients(problem.batch(), problem.labels)
        optimise.adamw(
            model.parameters.flat, model.gradients.flat, mean, square, step, 0.05, 0.9, 0.99, 1e-8, 0.0, 1.0, 0, size
        )
        model.changed()
    assert model.log_probs(problem.batch()).argmax(axis=1).tolist() == problem.labels.tolist()
    assert len(set(problem.labels.tolist())) == LABELS
    assert len(cut(problem.rows)) == problem.labels.size
