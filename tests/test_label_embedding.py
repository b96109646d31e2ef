"""A language model that is given a label: the label is the first input in place of the zero vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charlm.engine import cells, layers, optimise
from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Batch
from charlm.workflows.decoding import Truncation
from tests.engine_harness import VARIANTS, E, H, L, ModelProblem, N, T, V, check_model, model_problem, same_bits
from tests.reference import network
from tests.test_planted_faults import must_fail

K = 4
LARGE_V = 23  # more than T * N: only the ids of the batch are looked up


def problem_of(cell: str = "gru", **options: Any) -> ModelProblem:
    return model_problem(cell, cells.find(cell).activations[0], labels=K, **options)


@pytest.fixture(scope="module")
def teams() -> Iterator[list[Team]]:
    made = [Team(threads) for threads in (1, 2, 4)]
    yield made
    for team in made:
        team.close()


# Against the reference


@pytest.mark.parametrize(("name", "activation"), VARIANTS)
def test_loss_and_every_gradient(name: str, activation: str) -> None:
    problem = model_problem(name, activation, labels=K, dropout="each")
    check_model(problem)
    assert problem.parameters["label_embedding"].shape == (K, E)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("symbols", [V, LARGE_V])
def test_both_tables_and_tied_weights(tied: bool, symbols: int) -> None:
    check_model(problem_of(sizes=(T, N, E, H, symbols, L), tied=tied, scale=0.37), probes=20)


def test_an_adaptive_softmax() -> None:
    check_model(problem_of("lstm", sizes=(T, N, E, H, 29, L), softmax="adaptive"), probes=12)


@pytest.mark.parametrize("labels", [1, 50])  # more than all ids of the batch
def test_other_numbers_of_labels(labels: int) -> None:
    check_model(model_problem("lstm", labels=labels), probes=20)


def test_labels_that_do_not_occur_learn_nothing() -> None:
    """Nor does the zero vector teach anyone, and a label no token."""
    problem = problem_of()
    model = problem.model()
    model.loss_and_gradients(problem.batch(), problem.targets)
    assert [bool(row.any()) for row in model.gradients["label_embedding"]] == [True, False, False, True]
    problem.inputs[...] = V
    model.loss_and_gradients(problem.batch(), problem.targets)
    assert not model.gradients["label_embedding"].any()
    problem.inputs[...] = V + 1
    model.loss_and_gradients(problem.batch(), problem.targets)
    assert not model.gradients["embedding"].any()


OTHER_IDS: dict[str, Callable[[Any], Any]] = {
    "labels in another order": lambda ids: np.where(ids > V, V + 1 + (ids - V) % K, ids),
    "a label too low": lambda ids: np.where(ids > V, ids - 1, ids),
    "a token for a label": lambda ids: np.where(ids > V, ids - V - 1, ids),
    "the zero vector for a label": lambda ids: np.where(ids > V, V, ids),
    "a label for the zero vector": lambda ids: np.where(ids == V, V + 1, ids),
}
FACTORS = (1.001, 1 + 1e-7, 0.0, -1.0)


def test_planted_faults_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, embed, add = problem_of(), layers.embed_rows, layers.add_to_embedding
    check_model(problem, probes=8)

    def must_be_caught(kernel: str, faulty: Callable[..., None], fault: object) -> None:
        with monkeypatch.context() as context:
            context.setattr(layers, kernel, faulty)
            must_fail(lambda: check_model(problem), (kernel, fault))

    for name, change in OTHER_IDS.items():
        must_be_caught("embed_rows", lambda e, k, ids, *rest, f=change: embed(e, k, f(ids), *rest), name)
        must_be_caught("add_to_embedding", lambda d, ids, *rest, f=change: add(d, f(ids), *rest), name)
    for factor in FACTORS:

        def embed_scaled(e: Any, k: Any, *rest: Any, factor: float = factor) -> None:
            embed(e, k * factor, *rest)

        def add_scaled(d: Any, ids: Any, d_e: Any, d_k: Any, *rest: Any, factor: float = factor) -> None:
            add(d, ids, d_e, d_k, *rest)
            d_k *= factor

        must_be_caught("embed_rows", embed_scaled, factor)
        must_be_caught("add_to_embedding", add_scaled, factor)


# The same bits


def test_threads_change_no_bit(teams: list[Team], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.models.inference.SMALL_WORK", 0)
    for symbols in (70, 17):
        problem = problem_of("lstm", sizes=(5, 9, 13, 40, symbols, 2), dropout="each")
        results: list[list[Any]] = []
        for team in teams:
            model, batch, state = problem.model(team), problem.batch(), problem.state_0.copy()
            loss_nats = np.array(model.loss_and_gradients(batch, problem.targets))
            scores = model.log_probs(problem.inputs, problem.targets, state)
            results.append([loss_nats, model.gradients.flat.copy(), batch.state, scores, state])
        for result in results[1:]:
            assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))


def test_a_batch_scores_as_its_rows() -> None:
    problem = problem_of("lstm", sizes=(T, 13, E, H, LARGE_V, L))
    problem.inputs[0] = LARGE_V + np.arange(13) % (K + 1)  # each label, and the zero vector
    model = problem.model()
    whole = model.log_probs(problem.inputs, problem.targets, problem.state_0.copy())
    for n in range(13):
        inputs, targets = (np.ascontiguousarray(ids[:, n : n + 1]) for ids in (problem.inputs, problem.targets))
        alone = model.log_probs(inputs, targets, problem.state_0[:, :, n : n + 1].copy())
        assert same_bits(alone[:, 0], np.ascontiguousarray(whole[:, n]))


def test_a_model_without_labels_begins_with_the_same_weights() -> None:
    """And a sequence that begins with the zero vector has the same probability in both."""
    sizes = (V, E, H, L, "lstm")
    models = [LanguageModel(LanguageModelConfig(*sizes, labels=labels), dtype=np.float64) for labels in (0, K)]
    for model in models:
        model.initialise(np.random.default_rng(4))
    plain, given = (dict(model.parameters) for model in models)
    drawn = given.pop("label_embedding")
    assert all(same_bits(plain[path], given[path]) for path in plain)
    assert plain.keys() == given.keys()
    assert np.abs(drawn).max() < 4
    assert drawn.std() > 0.3
    problem = model_problem("lstm")
    scores = [m.log_probs(problem.inputs, problem.targets, m.zero_state(N)) for m in models]
    assert same_bits(*scores)


def test_tying_leaves_the_labels_alone() -> None:
    model = LanguageModel(LanguageModelConfig(V, 64, 64, tie_weights=True, labels=100))
    model.initialise(np.random.default_rng(4))
    assert model.parameters["label_embedding"].std() == pytest.approx(1, abs=0.1)
    assert model.parameters["embedding"].std() < 0.5


def test_labels_are_a_matrix_that_decays() -> None:
    parameters = problem_of().model().parameters
    end = parameters["label_embedding"].ctypes.data + parameters["label_embedding"].nbytes
    assert end <= parameters.flat[parameters.matrices :].ctypes.data


# Steps and drawing


@pytest.mark.parametrize("limit", [0, 4096])  # without a whole table, and with one
def test_a_step_agrees_with_log_probs_and_with_the_reference(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.models.stack.WHOLE_TABLE", limit)
    problem = problem_of(sizes=(T, N, E, H, LARGE_V, L))
    zeros = np.zeros_like(problem.initial)
    logits, last = network.forward(problem.parameters, problem.inputs, problem.state_0, zeros, problem.reference_config)
    expected = network.log_softmax(logits)
    model, state = problem.model(), problem.state_0
    scores = model.log_probs(problem.inputs, problem.targets, problem.state_0.copy())
    for t in range(T):
        state, log_probs = model.step(state, problem.inputs[t])
        np.testing.assert_allclose(log_probs, expected[t], rtol=0, atol=1e-12)
        wanted = np.where(problem.targets[t] >= 0, log_probs[np.arange(N), problem.targets[t]], 0.0)
        np.testing.assert_allclose(scores[t], wanted, rtol=1e-14, atol=0)
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("limit", [0, 4096])
def test_what_is_drawn_after_a_label(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token has the log probability that it has step by step."""
    monkeypatch.setattr("charlm.models.stack.WHOLE_TABLE", limit)
    problem = problem_of("lstm")
    model, rows = problem.model(), np.arange(K)
    start = model.step(model.zero_state(K), (V + 1 + rows).astype(np.int32))
    assert len({row.tobytes() for row in start[1]}) == K
    uniforms = np.random.default_rng(1).random((6, K))
    _, (tokens, nats) = model.generate(*start, uniforms, Truncation().rule(), np.full(K, 9), np.full(K, 9))
    state, log_probs = start
    for t in range(6):
        np.testing.assert_allclose(nats[t], log_probs[rows, tokens[t]], rtol=1e-12)
        state, log_probs = model.step(state, tokens[t])


def test_a_changed_label_is_seen() -> None:
    """The table of every id is kept between passes, but not beyond a change of the weights."""
    model = problem_of().model()
    first = np.array([V + 2], np.int32)
    _, before = model.step(model.zero_state(1), first)
    model.parameters["label_embedding"][1] += 0.1
    model.changed()
    _, after = model.step(model.zero_state(1), first)
    assert not np.array_equal(before, after)
    fresh = replace(problem_of(), parameters=dict(model.parameters)).model()
    assert same_bits(after, fresh.step(fresh.zero_state(1), first)[1])


def test_a_nan_stays_visible() -> None:
    problem = problem_of()
    model = problem.model()
    model.parameters["label_embedding"][0] = np.nan
    assert np.isnan(model.loss_and_gradients(problem.batch(), problem.targets))


@pytest.mark.parametrize("tied", [False, True])
def test_labels_tell_sequences_apart(tied: bool) -> None:
    """K sequences that only their labels announce are learnt by heart, the first token too."""
    symbols, steps, labels = 11, 6, 5
    rng = np.random.default_rng(5)
    targets = rng.integers(0, symbols, (steps, labels)).astype(np.int32)
    targets[0] = np.arange(labels)
    inputs = np.concatenate([(symbols + 1 + np.arange(labels, dtype=np.int32))[None], targets[:-1]])
    model = LanguageModel(LanguageModelConfig(symbols, 32, 32, 1, "gru", tie_weights=tied, labels=labels))
    model.initialise(rng)
    flat, gradient = model.parameters.flat, model.gradients.flat
    mean, square = np.zeros_like(flat), np.zeros_like(flat)
    for step in range(1, 121):
        batch = Batch(inputs, model.zero_state(labels), model.zero_state(labels))
        loss_nats = model.loss_and_gradients(batch, targets) / targets.size
        optimise.adamw(flat, gradient, mean, square, step, 0.01, 0.9, 0.999, 1e-8, 0.0, 1.0, 0, flat.size)
    assert loss_nats < 0.05
