"""The whole language model against the reference, and what must hold of it whatever its weights."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charlm.engine import cells, optimise, threads
from charlm.engine.threads import Team
from charlm.models import language_model, stack
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.softmax import LOGIT_RMS, Softmax
from charlm.models.stack import Batch
from tests.engine_harness import VARIANTS, E, H, L, N, T, V, check_model, model_problem, same_bits
from tests.reference import network

LARGE_V = 23  # more than T * N: only the ids of the batch are looked up

variants = pytest.mark.parametrize(("name", "activation"), VARIANTS)


def first_activation(name: str) -> str:
    return cells.find(name).activations[0]


# Against the reference


@variants
def test_loss_and_every_gradient(name: str, activation: str) -> None:
    check_model(model_problem(name, activation, dropout="each"))


@variants
def test_tied_weights_and_a_large_vocabulary(name: str, activation: str) -> None:
    problem = model_problem(
        name, activation, sizes=(T, N, H, H, LARGE_V, L), tied=True, dropout="variational", scale=0.37
    )
    check_model(problem, probes=24)


@pytest.mark.parametrize("dropout", [None, "each", "variational"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("symbols", [V, LARGE_V])
def test_all_combinations(tied: bool, dropout: str | None, symbols: int) -> None:
    check_model(model_problem("gru", sizes=(T, N, E, H, symbols, L), tied=tied, dropout=dropout), probes=10)


@pytest.mark.parametrize(
    "sizes",
    [(1, 1, E, H, V, 1), (5, 1, E, H, V, 3), (1, 5, E, H, V, 3), (3, 2, 1, 1, 2, 4), (3, 11, 9, 37, 41, 2)],
)
def test_other_sizes(sizes: tuple[int, int, int, int, int, int]) -> None:
    check_model(model_problem("lstm", sizes=sizes, dropout="each"), probes=16)


def test_no_target_is_no_loss_and_no_gradient() -> None:
    problem = model_problem("lstm")
    model, batch = problem.model(), problem.batch()
    assert model.loss_and_gradients(batch, np.full_like(problem.targets, -1)) == 0
    assert not model.gradients.flat.any()


def test_the_gradient_of_the_start_is_no_embedding() -> None:
    """Inputs that are all the start of a sequence teach no embedding anything."""
    problem = model_problem("gru")
    problem.inputs[...] = V
    model = problem.model()
    model.loss_and_gradients(problem.batch(), problem.targets)
    assert not model.gradients["embedding"].any()
    assert model.gradients["layer0/b"].all()


def test_float32_is_near_float64() -> None:
    problem = model_problem("lstm", sizes=(12, 5, 13, 37, 41, 2), dropout="each")
    exact, rough = problem.model(), problem.model(dtype=np.float32)
    exact_loss = exact.loss_and_gradients(problem.batch(), problem.targets)
    assert rough.loss_and_gradients(problem.batch(np.float32), problem.targets) == pytest.approx(exact_loss, rel=1e-6)
    for path, wanted in exact.gradients.items():
        assert np.abs(rough.gradients[path] - wanted).max() <= 5e-6 * np.abs(wanted).max(), path


# The same bits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", cells.names())
def test_threads_change_no_bit(name: str, tied: bool, teams: list[Team]) -> None:
    """9 rows and 3 rows, weights of several panels; a team of 4 leaves one of its threads without rows."""
    for steps, rows, symbols in ((5, 9, 70), (5, 3, 17)):
        problem = model_problem(
            name,
            first_activation(name),
            sizes=(steps, rows, 40 if tied else 13, 40, symbols, 2),
            tied=tied,
            dropout="each",
        )
        results = []
        for team in teams:
            model, batch = problem.model(team), problem.batch()
            loss_nats = model.loss_and_gradients(batch, problem.targets)
            results.append((loss_nats, model.gradients.flat.copy(), batch.state))
        for loss_nats, flat, state in results[1:]:
            assert loss_nats == results[0][0]
            assert same_bits(flat, results[0][1])
            assert same_bits(state, results[0][2])


def test_threads_that_ask_for_memory_at_once_get_the_same(teams: list[Team], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's first pass makes its arrays. That is slow here, so that threads that each make one would be seen."""
    problem = model_problem("lstm", sizes=(5, 9, 13, 40, 70, 2), dropout="each")
    alone = problem.model()
    alone.loss_and_gradients(problem.batch(), problem.targets)
    model, zeros = problem.model(teams[-1]), np.zeros

    def slow_zeros(*args: Any, **options: Any) -> Any:
        time.sleep(0.005)
        return zeros(*args, **options)

    monkeypatch.setattr(np, "zeros", slow_zeros)
    model.loss_and_gradients(problem.batch(), problem.targets)
    assert same_bits(model.gradients.flat, alone.gradients.flat)


def test_threads_change_no_bit_in_float32(teams: list[Team]) -> None:
    problem = model_problem("lstm", sizes=(5, 17, 50, 70, 150, 2), dropout="variational")
    results = []
    for team in teams:
        model, batch = problem.model(team, np.float32), problem.batch(np.float32)
        model.loss_and_gradients(batch, problem.targets)
        results.append((model.gradients.flat.copy(), batch.state))
    for flat, state in results[1:]:
        assert same_bits(flat, results[0][0])
        assert same_bits(state, results[0][1])


def test_threads_change_no_bit_of_inference(teams: list[Team], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.models.inference.SMALL_WORK", 0)
    problem = model_problem("lstm", sizes=(5, 9, 13, 40, 70, 2))
    results = []
    for team in teams:
        model, state = problem.model(team), problem.state_0.copy()
        log_probs = model.log_probs(problem.inputs, problem.targets, state)
        results.append((log_probs, state, *model.step(state, problem.inputs[0])))
    for result in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))


def test_no_piece_of_a_gradient_begins_before_what_it_reads_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = model_problem("lstm", "tanh")
    model = problem.model()
    seen: dict[int, Any] = {}

    def read_by(stage: int) -> Any:
        assert isinstance(model.output, Softmax)
        return model.output.logits if stage == language_model.OUTPUT else model.stack.layers[stage].pre

    monkeypatch.setattr(threads.Pieces, "reach", lambda self, stage: seen.update({stage: read_by(stage).copy()}))
    monkeypatch.setattr(threads.Pieces, "work", lambda self: None)
    model.loss_and_gradients(problem.batch(), problem.targets)
    assert sorted(seen) == [language_model.OUTPUT, *range(L)]
    assert all(same_bits(array, read_by(stage)) for stage, array in seen.items())


def test_a_run_repeats_whatever_ran_between() -> None:
    """Buffers are used again: what a larger or smaller batch left in them must not show."""
    sizes = [(4, 3), (9, 5), (2, 1), (4, 3), (1, 7), (9, 5)]
    problems = [model_problem("gru", sizes=(t, n, E, H, LARGE_V, L), dropout="each", seed=t) for t, n in sizes]
    weights = problems[0].parameters
    old = problems[0].model()
    for problem in problems:
        fresh = replace(problem, parameters=weights).model()
        losses = [model.loss_and_gradients(problem.batch(), problem.targets) for model in (old, fresh)]
        assert losses[0] == losses[1]
        assert same_bits(old.gradients.flat, fresh.gradients.flat)
        scores = [model.log_probs(problem.inputs, problem.targets, problem.state_0.copy()) for model in (old, fresh)]
        assert same_bits(*scores)


# State


@variants
def test_twelve_steps_are_three_times_four(name: str, activation: str) -> None:
    problem = model_problem(name, activation, sizes=(12, N, E, H, V, L), dropout="each")
    model, whole = problem.model(), problem.batch()
    loss_nats = model.loss_and_gradients(whole, problem.targets, 1.0)
    chunks, state = 0.0, problem.batch().state
    assert problem.draws is not None
    for first in (0, 4, 8):
        now = slice(first, first + 4)
        draws = [draw[now] for draw in problem.draws]
        batch = Batch(problem.inputs[now], state, problem.initial, draws, problem.threshold)
        chunks += model.loss_and_gradients(batch, problem.targets[now], 1.0)
        state = batch.state
    assert chunks == pytest.approx(loss_nats, rel=1e-14)
    assert same_bits(state, whole.state)


@pytest.mark.parametrize("name", cells.names())
def test_a_step_agrees_with_log_probs_and_with_the_reference(name: str) -> None:
    problem = model_problem(name, first_activation(name))
    zeros = np.zeros_like(problem.initial)
    logits, last = network.forward(problem.parameters, problem.inputs, problem.state_0, zeros, problem.reference_config)
    expected = network.log_softmax(logits)
    model, state = problem.model(), problem.state_0
    scored_state = problem.state_0.copy()
    scores = model.log_probs(problem.inputs, problem.targets, scored_state)
    for t in range(T):
        before = state.copy()
        after, log_probs = model.step(state, problem.inputs[t])
        assert same_bits(state, before), "step modified its argument"
        assert not np.shares_memory(after, state)
        assert log_probs.dtype == np.float64
        np.testing.assert_allclose(log_probs, expected[t], rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-13)
        for n in range(N):
            target = problem.targets[t, n]
            wanted = log_probs[n, target] if target >= 0 else 0.0
            assert scores[t, n] == pytest.approx(wanted, rel=1e-14, abs=0)
        state = after
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-12)
    assert same_bits(state, scored_state)


@pytest.mark.parametrize(("tied", "layers"), [(False, 1), (False, L), (True, L), (False, 4)])
def test_the_loss_is_the_sum_of_the_log_probs(tied: bool, layers: int) -> None:
    problem = model_problem("lstm", tied=tied, sizes=(T, N, H if tied else E, H, V, layers))
    problem = replace(problem, initial=np.zeros((layers, 2, N, H)))
    model = problem.model()
    loss_nats = model.loss_and_gradients(problem.batch(), problem.targets)
    scores = model.log_probs(problem.inputs, problem.targets, problem.state_0.copy())
    assert -scores.sum() == pytest.approx(loss_nats, rel=1e-14)


def test_a_batch_scores_as_its_rows() -> None:
    problem = model_problem("lstm", sizes=(T, 13, E, H, LARGE_V, L))
    model = problem.model()
    whole = model.log_probs(problem.inputs, problem.targets, problem.state_0.copy())
    for n in range(13):
        rows = slice(n, n + 1)
        alone = model.log_probs(
            np.ascontiguousarray(problem.inputs[:, rows]),
            np.ascontiguousarray(problem.targets[:, rows]),
            problem.state_0[:, :, rows].copy(),
        )
        assert same_bits(alone[:, 0], np.ascontiguousarray(whole[:, n]))


def test_a_state_can_be_used_twice() -> None:
    """Two continuations of one prefix, as beam search and scoring of alternatives do."""
    model = model_problem("gru").model()
    state, _ = model.step(model.zero_state(1), np.array([V], np.int32))
    kept = state.copy()
    one, first = model.step(state, np.array([1], np.int32))
    two, second = model.step(state, np.array([2], np.int32))
    again, third = model.step(state, np.array([1], np.int32))
    assert same_bits(state, kept)
    assert same_bits(one, again)
    assert same_bits(first, third)
    assert not np.array_equal(first, second)
    assert not np.array_equal(one, two)


# Weights that change


@pytest.mark.parametrize("whole_table", [0, 4096])
def test_inference_sees_every_change_of_the_weights(whole_table: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "WHOLE_TABLE", whole_table)
    problem = model_problem("lstm", sizes=(T, N, E, H, LARGE_V, L))
    model = problem.model()

    def compare() -> None:
        """Steps and scores, in turn, as a fresh model gives them."""
        fresh = LanguageModel(problem.config, dtype=np.float64)
        fresh.parameters.assign(model.parameters)
        for t in (0, 1):
            for found, wanted in zip(
                model.step(problem.state_0, problem.inputs[t]), fresh.step(problem.state_0, problem.inputs[t]),
                strict=True,
            ):  # fmt: skip
                assert same_bits(found, wanted)
            scores = [m.log_probs(problem.inputs, problem.targets, problem.state_0.copy()) for m in (model, fresh)]
            assert same_bits(*scores)

    compare()
    model.parameters.flat *= 0.9
    model.changed()
    compare()
    model.loss_and_gradients(problem.batch(), problem.targets)
    compare()
    model.parameters.flat -= 0.1 * model.gradients.flat  # after a training step no call of `changed` is due
    model.loss_and_gradients(problem.batch(), problem.targets)
    compare()
    model.initialise(np.random.default_rng(3))
    compare()


def test_a_nan_stays_visible() -> None:
    problem = model_problem("lstm")
    for path in problem.config.shapes():
        model = problem.model()
        model.parameters[path][...] = np.nan
        assert np.isnan(model.loss_and_gradients(problem.batch(), problem.targets)), path
        assert np.isnan(model.step(problem.state_0, np.zeros(N, np.int32))[1]).all(), path


def test_a_logit_beyond_float32_is_no_probability() -> None:
    problem = model_problem("lstm")
    model = problem.model(dtype=np.float32)
    unlikely = problem.targets.max()
    model.parameters["output/b"][unlikely] = -np.inf
    log_probs = model.log_probs(problem.inputs, problem.targets, problem.state_0.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(log_probs), problem.targets == unlikely)
    assert not np.isinf(log_probs).any()


# At the start, and learning


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", cells.names())
def test_the_loss_at_the_start_is_near_that_of_equal_chances(name: str, tied: bool) -> None:
    symbols, size, steps, rows = 50, 64, 20, 8
    config = LanguageModelConfig(symbols, size if tied else 16, size, 2, name, first_activation(name), tie_weights=tied)
    model, rng = LanguageModel(config, dtype=np.float64), np.random.default_rng(0)
    model.initialise(rng)
    inputs, targets = rng.integers(0, symbols, (2, steps, rows)).astype(np.int32)
    batch = Batch(inputs, model.zero_state(rows), model.zero_state(rows))
    loss_nats = model.loss_and_gradients(batch, targets) / targets.size
    assert loss_nats == pytest.approx(np.log(symbols), abs=0.15)


@pytest.mark.parametrize("softmax", ["full", "tied", "adaptive"])
@pytest.mark.parametrize("name", cells.names())
def test_the_logits_at_the_start_are_as_large_as_they_should(name: str, softmax: str) -> None:
    sizes = {"softmax": "full", "tie_weights": True} if softmax == "tied" else {"softmax": softmax}
    config = LanguageModelConfig(200, 128, 128, 2, name, first_activation(name), **sizes)
    model, rng = LanguageModel(config), np.random.default_rng(0)
    model.initialise(rng)
    state = model.zero_state(64)
    for _ in range(20):
        state, log_probs = model.step(state, rng.integers(0, 200, 64).astype(np.int32))
    frequent = log_probs[:, :20]  # of an adaptive softmax, the head
    assert frequent.std(axis=1).mean() == pytest.approx(LOGIT_RMS, rel=0.25)


def test_the_first_weights_are_as_large_as_they_should() -> None:
    size = 64
    for tied in (False, True):
        model = LanguageModel(LanguageModelConfig(50, size, size, 2, "lstm", tie_weights=tied))
        model.initialise(np.random.default_rng(0))
        # The first layer reads embeddings of size 1, if they are not tied, those above what a layer gives.
        first = 1 / size**0.5 / (model.parameters["embedding"].std() if tied else 1)
        for layer, bound in ((0, first), (1, (3 / size) ** 0.5)):
            assert 0.95 * bound < np.abs(model.parameters[f"layer{layer}/w_x"]).max() <= bound
        output_rms = LOGIT_RMS / model.stack.cell.output_rms / size**0.5
        weight = model.parameters["embedding" if tied else "output/w"]
        assert weight.std() == pytest.approx(output_rms, rel=0.05)


def test_initialisation_repeats_with_its_seed() -> None:
    models = [LanguageModel(model_problem("lstm").config, dtype=np.float64) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.initialise(np.random.default_rng(seed))
    assert same_bits(models[0].parameters.flat, models[1].parameters.flat)
    assert not np.array_equal(models[0].parameters.flat, models[2].parameters.flat)


@pytest.mark.parametrize("name", cells.names())
def test_initial_biases_are_those_of_the_record(name: str) -> None:
    cell, config = cells.find(name), model_problem(name, first_activation(name)).config
    model = LanguageModel(config, dtype=np.float64)
    model.initialise(np.random.default_rng(0))
    expected = np.array([[dict(cell.biases).get(gate, 0.0)] * H for gate in cell.gates]).ravel()
    for layer in range(L):
        np.testing.assert_array_equal(model.parameters[f"layer{layer}/b"], expected)
        for gate in range(len(cell.gates)):
            w = model.parameters[f"layer{layer}/w_h"][:, gate * H : (gate + 1) * H]
            np.testing.assert_allclose(w.T @ w, np.eye(H), atol=1e-13)


@variants
def test_a_tiny_batch_overfits(name: str, activation: str) -> None:
    """Some random sequences are learnt by heart: float32, with AdamW."""
    symbols, steps, rows = 11, 12, 4
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, symbols, (steps + 1, rows)).astype(np.int32)
    tokens[0] = symbols
    inputs, targets = np.ascontiguousarray(tokens[:-1]), np.ascontiguousarray(tokens[1:])
    model = LanguageModel(LanguageModelConfig(symbols, 16, 32, 1, name, activation))
    model.initialise(rng)
    flat, gradient = model.parameters.flat, model.gradients.flat
    mean, square = np.zeros_like(flat), np.zeros_like(flat)
    losses_nats = []
    for step in range(1, 201):
        batch = Batch(inputs, model.zero_state(rows), model.zero_state(rows))
        losses_nats.append(model.loss_and_gradients(batch, targets) / targets.size)
        optimise.adamw(flat, gradient, mean, square, step, 0.01, 0.9, 0.999, 1e-8, 0.0, 1.0, 0, flat.size)
    assert losses_nats[0] == pytest.approx(np.log(symbols), abs=0.3)
    # The first tokens of the rows cannot be told apart: ln 4 nats for one token in 12, at least.
    first = [-np.log(np.mean(targets[0] == targets[0, n])) for n in range(rows)]
    assert losses_nats[-1] < np.mean(first) / steps + 0.05
