"""Classifier and tagger against the reference, and what must hold of them whatever their weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charlm.engine import layers, optimise
from charlm.engine.threads import Team
from charlm.models.classifier import Classifier, ClassifierConfig
from charlm.models.encoder import Directions
from charlm.models.tagger import Tagger
from charlm.text.buckets import Rows
from charlm.training.collections import sequences
from tests.engine_harness import VARIANTS, same_bits
from tests.gradient_check import GradientError, Known
from tests.reference import network
from tests.whole_harness import (
    LABELS,
    ClassifyProblem,
    check_classifier,
    check_tagger,
    classify_problem,
    cut,
    draw_parameters,
    tag_problem,
)

variants = pytest.mark.parametrize(("cell", "activation"), VARIANTS)


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
def test_classifier(cell: str, activation: str) -> None:
    check_classifier(classify_problem(cell, activation, 2))


@pytest.mark.parametrize("cell", ["gru", "lstm"])  # of one state, and of two
def test_classifier_of_one_direction(cell: str) -> None:
    check_classifier(classify_problem(cell, layers=2, bidirectional=False))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("dropout", ["", "each", "variational"])
def test_deep_classifier(layers: int, dropout: str) -> None:
    """Every entry of one layer; of the layers above, test_encoder's `test_with_dropout` tries every entry."""
    probes = None if layers == 1 and dropout == "each" else 6
    check_classifier(classify_problem("gru", layers=layers, dropout=dropout), probes)


@variants
def test_tagger(cell: str, activation: str) -> None:
    check_tagger(tag_problem(cell, activation, 2), probes=6)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("characters", [True, False])
@pytest.mark.parametrize("dropout", ["", "each", "variational"])
def test_tagger_of_each_kind(bidirectional: bool, characters: bool, dropout: str) -> None:
    check_tagger(tag_problem(bidirectional=bidirectional, characters=characters, dropout=dropout), probes=6)


@pytest.mark.parametrize("lengths", [(1,), (5,), (1, 1), (0, 3), (0,), (0, 0)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_classifier_of_few_rows(lengths: tuple[int, ...], bidirectional: bool) -> None:
    check_classifier(classify_problem("gru", bidirectional=bidirectional, lengths=lengths), probes=4)


def test_a_sequence_without_a_token_is_judged_by_the_bias_alone() -> None:
    problem = classify_problem(lengths=(0,))
    model = problem.model()
    expected = network.log_softmax(model.parameters["output/b"])
    np.testing.assert_allclose(model.log_probs(problem.batch())[0], expected, rtol=0, atol=1e-15)
    model.loss_and_gradients(problem.batch(), problem.labels)
    assert {path for path, view in model.gradients.items() if view.any()} == {"output/b"}


@pytest.mark.parametrize("sentence", [[0], [3, 3], [2]])  # spelling 2 has no character
@pytest.mark.parametrize("characters", [True, False])
def test_tagger_of_one_sentence(sentence: list[int], characters: bool) -> None:
    problem = tag_problem("gru", characters=characters)
    tokens = replace(problem.tokens, rows=Rows.of_sequences([np.array(sentence, np.int32)]))
    tags = Rows.of_sequences([np.arange(len(sentence), dtype=np.int32)])
    check_tagger(replace(problem, tokens=tokens, tags=tags), probes=4)


@pytest.mark.parametrize("characters", [True, False])
def test_sentences_without_a_token(characters: bool) -> None:
    problem = tag_problem(characters=characters)
    model, empty = problem.model(), [2, 2]
    model.gradients.flat[...] = 1
    assert model.log_probs(problem.batch(empty)).shape == (0, 2, LABELS)
    assert model.loss_and_gradients(problem.batch(empty), problem.tag_rows(empty)) == 0
    assert not model.gradients.flat.any()


@pytest.mark.parametrize("kind", ["classifier", "tagger"])
def test_float32_is_near_float64(kind: str) -> None:
    """With the weights of a beginning: drawn ones of 0.6 saturate the cells."""
    problem = classify_problem(layers=2) if kind == "classifier" else tag_problem(layers=2)
    models: list[Any] = [type(problem.model())(problem.config, dtype=dtype) for dtype in (np.float64, np.float32)]
    losses = []
    for model in models:
        model.initialise(np.random.default_rng(4))
        targets = problem.labels if isinstance(problem, ClassifyProblem) else problem.tag_rows()
        losses.append(model.loss_and_gradients(problem.batch(), targets))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for path, wanted in models[0].gradients.items():
        assert models[1].gradients[path].dtype == np.float32
        assert np.abs(models[1].gradients[path] - wanted).max() <= 1e-5 * np.abs(wanted).max(), path


# Planted faults


KNOWN: dict[object, Known] = {}  # the derivatives of the problem of a configuration, the same for every fault


def fails(check: Any, problem: Any) -> None:
    with pytest.raises((AssertionError, GradientError)):
        check(problem, known=KNOWN.setdefault(problem.config, {}))


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


def test_the_ends_of_the_other_direction_at_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last output is that at the first token; in the order of the text it is not at the end."""

    def at_the_end(network: Directions, d_ends: Any, low: int, high: int) -> None:
        size = network.config.hidden_size
        for d in range(network.config.directions):
            network.d_outputs[d][-1, low:high] = d_ends[0, low:high, d * size : (d + 1) * size]

    monkeypatch.setattr(Directions, "give_ends", at_the_end)
    fails(check_classifier, classify_problem())
    fails(check_tagger, tag_problem())


def test_ends_of_the_directions_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Directions.take_ends

    def exchanged(network: Directions, ends: Any, low: int, high: int) -> None:
        original(network, ends, low, high)
        ends[:, low:high] = np.roll(ends[:, low:high], network.config.hidden_size, axis=2)

    monkeypatch.setattr(Directions, "take_ends", exchanged)
    fails(check_classifier, classify_problem())
    fails(check_tagger, tag_problem())


def test_words_of_two_spellings_that_learn_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_wins(d_rows: Any, ids: Any, d_embedding: Any, labels: Any, low: int, high: int) -> None:
        own = low + np.flatnonzero(ids[low:high] < len(d_embedding))
        d_embedding[ids[own]] = d_rows[0, own]

    check_tagger(tag_problem())
    monkeypatch.setattr("charlm.models.tagger.layers.add_to_embedding", last_wins)
    fails(check_tagger, tag_problem())


def test_tags_a_step_late() -> None:
    problem = tag_problem()
    late = replace(problem, tags=Rows.of_sequences([np.roll(tags, 1) for tags in cut(problem.tags)]))
    model = problem.model()
    parameters = {path: view.copy() for path, view in model.parameters.items()}
    loss_nats = model.loss_and_gradients(problem.batch(), late.tag_rows())
    assert loss_nats == pytest.approx(late.reference_loss(parameters).real, rel=1e-12)
    assert loss_nats != pytest.approx(problem.reference_loss(parameters).real, rel=1e-3)


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


def large(problem: Any, **sizes: int) -> Any:
    """The problem with weights of several panels, whose shares threads take."""
    return replace(problem, config=replace(problem.config, hidden_size=40, embedding_size=13, **sizes))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_threads_change_no_bit_of_larger_models(teams: list[Team], dtype: type) -> None:
    lengths = (7, 1, 5, 0, 6, 2)
    problems = [
        large(classify_problem("gru", layers=2, lengths=lengths)),
        large(tag_problem("gru", layers=2), char_hidden_size=36, char_embedding_size=11),
    ]
    for problem in problems:
        targets = problem.labels if isinstance(problem, ClassifyProblem) else problem.tag_rows()
        results = []
        for team in teams:
            model = type(problem.model())(problem.config, team, dtype)
            draw_parameters(model)
            loss_nats = model.loss_and_gradients(problem.batch(), targets)
            results.append((np.array(loss_nats), model.gradients.flat, model.log_probs(problem.batch())))
        for result in results[1:]:
            assert all(same_bits(one, two) for one, two in zip(results[0], result, strict=True))


@pytest.mark.parametrize("kind", ["classifier", "tagger"])
def test_inference_sees_every_change_of_the_weights(kind: str) -> None:
    problem: Any = classify_problem(layers=2) if kind == "classifier" else tag_problem(layers=2)
    targets = problem.labels if kind == "classifier" else problem.tag_rows()
    model = problem.model()

    def compare() -> None:
        """Twice, as a fresh model gives it."""
        fresh = type(model)(problem.config, dtype=np.float64)
        fresh.parameters.assign(model.parameters)
        wanted = fresh.log_probs(problem.batch())
        for _ in range(2):
            assert same_bits(model.log_probs(problem.batch()), wanted)

    compare()
    model.parameters.flat *= 0.9
    model.changed()
    compare()
    model.loss_and_gradients(problem.batch(), targets)
    model.parameters.flat -= 0.1 * model.gradients.flat  # after a training step no call of `changed` is due
    compare()
    model.initialise(np.random.default_rng(3))
    compare()


@pytest.mark.parametrize("kind", ["classifier", "tagger"])
def test_a_nan_stays_visible(kind: str) -> None:
    problem: Any = classify_problem() if kind == "classifier" else tag_problem()
    targets = problem.labels if kind == "classifier" else problem.tag_rows()
    for path in problem.config.shapes():
        model = problem.model()
        model.parameters[path][...] = np.nan
        model.changed()
        assert np.isnan(model.loss_and_gradients(problem.batch(), targets)), path
        assert np.isnan(model.log_probs(problem.batch())).any(), path


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


def learn(model: Any, batch: Any, targets: Any, steps: int) -> None:
    model.initialise(np.random.default_rng(0))
    mean, square = np.zeros_like(model.parameters.flat), np.zeros_like(model.parameters.flat)
    size = model.parameters.flat.size
    for step in range(1, steps + 1):
        model.loss_and_gradients(batch, targets)
        optimise.adamw(
            model.parameters.flat, model.gradients.flat, mean, square, step, 0.05, 0.9, 0.99, 1e-8, 0.0, 1.0, 0, size
        )
        model.changed()


@variants
def test_few_sequences_are_learnt_by_heart(cell: str, activation: str) -> None:
    problem = classify_problem(cell, activation)
    model = problem.model()
    learn(model, problem.batch(), problem.labels, 120)
    found = model.log_probs(problem.batch())
    assert found.argmax(axis=1).tolist() == problem.labels.tolist()
    assert found.max(axis=1).min() > np.log(0.9)
    assert len(set(problem.labels.tolist())) == LABELS


@variants
def test_few_sentences_are_learnt_by_heart(cell: str, activation: str) -> None:
    problem = tag_problem(cell, activation)
    model, tags = problem.model(), problem.tag_rows()
    learn(model, problem.batch(), tags, 120)
    found = model.log_probs(problem.batch())
    known = tags >= 0
    assert found.argmax(axis=2)[known].tolist() == tags[known].tolist()
    assert found.max(axis=2)[known].min() > np.log(0.9)


def test_a_spelling_alone_can_tell_the_tag() -> None:
    """All words unknown, and each token by itself: the characters are all there is to learn from."""
    problem = tag_problem()
    single = [np.array([spelling], np.int32) for spelling in (0, 1, 3)]
    tokens = replace(problem.tokens, rows=Rows.of_sequences(single), word_ids=np.zeros(4, np.int32))
    problem = replace(problem, tokens=tokens, tags=Rows.of_sequences([np.array([k], np.int32) for k in (2, 0, 1)]))
    model, tags = problem.model(), problem.tag_rows()
    learn(model, problem.batch(), tags, 120)
    assert model.log_probs(problem.batch()).argmax(axis=2).tolist() == tags.tolist()
    without = replace(problem, config=replace(problem.config, char_features=0))
    blind = without.model()
    learn(blind, without.batch(), tags, 120)
    np.testing.assert_allclose(np.exp(blind.log_probs(without.batch())), 1 / 3, atol=0.02)
