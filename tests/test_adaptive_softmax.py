"""The adaptive softmax: the frequent tokens first, the others in tails (Grave et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charlm.engine import cells, layers
from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel
from charlm.models.softmax import AdaptiveSoftmax
from charlm.workflows.decoding import Truncation
from tests.engine_harness import GRADIENT_TOLERANCE, ModelProblem, check_model, model_problem, same_bits
from tests.gradient_check import check
from tests.reference import network
from tests.test_planted_faults import must_fail

V, H, L = 29, 7, 2
SIZES = (4, 3, 5, H, V, L)


def problem_of(cell: str = "gru", **options: Any) -> ModelProblem:
    return model_problem(cell, cells.find(cell).activations[0], softmax="adaptive", sizes=SIZES, **options)


@pytest.mark.parametrize("symbols", [3, 4, 5, 10, 29, 1000, 50_000])
def test_every_token_is_in_one_part(symbols: int) -> None:
    head, middle, end = AdaptiveSoftmax.parts(symbols)
    assert 2 <= head < middle < end
    assert end == max(symbols, 4)


@pytest.mark.parametrize("name", cells.names())
def test_loss_and_gradients(name: str) -> None:
    """Every entry with one cell: what is below the softmax is test_language_model's."""
    check_model(problem_of(name), probes=None if name == "gru" else 10)


@pytest.mark.parametrize("dropout", [None, "each"])
@pytest.mark.parametrize("scale", [None, 0.37])
def test_loss_and_gradients_with_dropout_and_a_scale(dropout: str | None, scale: float | None) -> None:
    check_model(problem_of("lstm", dropout=dropout, scale=scale), probes=10)


@pytest.mark.parametrize(("ids", "idle"), [((0, 2), ("tail0", "tail1")), ((2, 11), ("tail1",)), ((11, 29), ("tail0",))])
def test_targets_of_one_part_alone(ids: tuple[int, int], idle: tuple[str, ...]) -> None:
    """A tail without targets has a gradient of zeros; the others' are right."""
    problem = problem_of()
    targets = np.random.default_rng(1).integers(*ids, problem.targets.shape).astype(np.int32)
    problem = replace(problem, targets=targets)
    model = problem.model()
    loss_nats = model.loss_and_gradients(problem.batch(), targets)
    assert loss_nats == pytest.approx(problem.loss(problem.parameters).real, rel=1e-12)
    for path, gradient in model.gradients.items():
        if path.startswith(tuple(f"output/{name}" for name in idle)):
            assert not gradient.any()
            continue
        check(
            {path: gradient},
            lambda moved: problem.objective(problem.parameters | moved),
            {path: problem.parameters[path]},
            GRADIENT_TOLERANCE,
            10,
        )


def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Plant one fault after another."""
    gather, scatter = layers.gather, layers.scatter_add

    def no_scatter(*arguments: Any) -> None:
        pass

    def scaled_scatter(d_rows: Any, *arguments: Any) -> None:
        d_rows *= 1.001
        scatter(d_rows, *arguments)

    def other_rows(hidden: Any, t: Any, n: Any, *arguments: Any) -> None:
        gather(hidden, t[::-1].copy(), n[::-1].copy(), *arguments)

    for name, kernel, fault in (
        ("the tails send nothing back", "scatter_add", no_scatter),
        ("a factor", "scatter_add", scaled_scatter),
        ("positions exchanged", "gather", other_rows),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(layers, kernel, fault)
            yield name


def test_faults_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of()
    for name in faults(monkeypatch):
        must_fail(lambda: check_model(problem, probes=10), name)


def test_steps_scores_and_the_reference_agree() -> None:
    problem = problem_of()
    zeros = np.zeros_like(problem.initial)
    expected, _ = network.forward(problem.parameters, problem.inputs, problem.state_0, zeros, problem.reference_config)
    np.testing.assert_allclose(np.exp(expected).sum(axis=-1), 1, rtol=1e-13)
    model, state = problem.model(), problem.state_0
    scores = model.log_probs(problem.inputs, problem.targets, problem.state_0.copy())
    for t, targets in enumerate(problem.targets):
        state, log_probs = model.step(state, problem.inputs[t])
        np.testing.assert_allclose(log_probs, expected[t], rtol=0, atol=1e-12)
        for n, target in enumerate(targets):
            assert scores[t, n] == pytest.approx(log_probs[n, target] if target >= 0 else 0.0, rel=1e-13)


def test_threads_change_no_bit() -> None:
    problem = model_problem("lstm", softmax="adaptive", sizes=(5, 13, 9, 40, 301, 2))
    found = []
    for threads in (1, 2, 3, 20):
        team = Team(threads)
        model, batch = problem.model(team, np.float32), problem.batch(np.float32)
        loss_nats = model.loss_and_gradients(batch, problem.targets)
        scores = model.log_probs(problem.inputs, problem.targets, batch.state.copy())
        found.append((np.array(loss_nats), model.gradients.flat.copy(), batch.state, scores))
        team.close()
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert same_bits(one, two)


def test_what_is_generated_has_the_probabilities_of_its_steps() -> None:
    problem = problem_of()
    model, rows = problem.model(), 3
    now = model.step(problem.state_0, np.arange(rows, dtype=np.int32))
    uniforms = np.random.default_rng(3).random((6, rows))
    _, drawn = model.generate(*now, uniforms, Truncation().rule(), np.full(rows, 6), np.full(rows, 9))
    for tokens, nats in zip(*drawn, strict=True):
        assert same_bits(nats, now[1][np.arange(rows), tokens])
        now = model.step(now[0], tokens)


def test_the_loss_at_the_start_is_near_that_of_the_parts() -> None:
    """Head and tails alike begin with equal chances: half the nats of a token are those of its part."""
    problem = model_problem("lstm", softmax="adaptive", sizes=(20, 8, 16, 64, 500, 1))
    model = LanguageModel(problem.config, dtype=np.float64)
    model.initialise(np.random.default_rng(0))
    head, middle, end = AdaptiveSoftmax.parts(500)
    targets = problem.targets[problem.targets >= 0]
    equal_nats = np.log(head + 2) + np.where(
        targets < head, 0.0, np.where(targets < middle, np.log(middle - head), np.log(end - middle))
    )
    assert model.loss_and_gradients(problem.batch(), problem.targets) / targets.size == pytest.approx(
        equal_nats.mean(), abs=0.15
    )
