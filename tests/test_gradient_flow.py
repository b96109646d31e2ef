"""The norms of one step's gradient in the states before it, against the reference and where they are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine.threads import Team
from charlm.models import gradient_flow
from charlm.models.gradient_flow import gradient_norms
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Stack
from tests.engine_harness import VARIANTS, ModelProblem, model_problem, same_bits
from tests.reference import gradient_flow as reference

TOLERANCE = 1e-9  # relative, float64
FLOAT32_TOLERANCE = 2e-5  # relative: K + 1 steps of some 100 roundings of 6e-8
SIZES = (5, 3, 4, 7, 6, 2)  # T, N, E, H, V, L
BACK = 5

variants = pytest.mark.parametrize(("name", "activation"), VARIANTS)


def problem_of(name: str, activation: str = "tanh", **options: Any) -> ModelProblem:
    return model_problem(name, activation, **{"sizes": SIZES, "seed": 3} | options)


def found(problem: ModelProblem, team: Team | None = None, dtype: type = np.float64) -> NDArray[np.float64]:
    targets = np.abs(problem.targets[-1])
    return gradient_norms(problem.model(team, dtype), problem.inputs, targets, problem.state_0.astype(dtype), BACK)


def expected(problem: ModelProblem) -> NDArray[np.float64]:
    return reference.norms(
        problem.parameters, problem.inputs, np.abs(problem.targets[-1]), problem.state_0, problem.reference_config, BACK
    )


def assert_right(problem: ModelProblem, wanted: NDArray[np.float64] | None = None) -> None:
    """``wanted``: what is expected, if it was computed before."""
    wanted = expected(problem) if wanted is None else wanted
    np.testing.assert_allclose(found(problem), wanted, rtol=TOLERANCE)


@cache
def expected_of(name: str) -> NDArray[np.float64]:
    """Of `problem_of` a cell."""
    return expected(problem_of(name))


# Against the reference


@variants
def test_every_cell(name: str, activation: str) -> None:
    problem = problem_of(name, activation)
    norms = found(problem)
    assert norms.shape == (BACK + 1, 3, 2)
    assert_right(problem)
    assert (norms[0, :, 0] == 0).all()  # the softmax does not see the lower layer's state
    assert (norms[:3, 2] == 0).any(axis=1).tolist() == [True, False, False]
    assert (norms[3:, 2] == 0).all()  # a sequence begins in the middle of the last row: nothing passes
    assert (norms[1:5, 0] > 0).all()


@pytest.mark.parametrize("options", [{"tied": True, "sizes": (5, 3, 7, 7, 6, 2)}, {"sizes": (5, 3, 4, 7, 23, 3)}])
def test_other_outputs(options: dict[str, Any]) -> None:
    assert_right(problem_of("gru", **options))


def test_an_adaptive_softmax() -> None:
    assert_right(problem_of("lstm", softmax="adaptive", sizes=(5, 3, 4, 16, 61, 2)))


# The checks are checked


def scaled(factor: float) -> Callable[[Stack], None]:
    def change(stack: Stack) -> None:
        stack.d_state[...] *= factor

    return change


def without_a_state(stack: Stack) -> None:
    stack.d_state[:, 0] = 0


def without_a_layer(stack: Stack) -> None:
    stack.d_state[0] = 0


def exchanged_rows(stack: Stack) -> None:
    stack.d_state[...] = stack.d_state[:, :, ::-1].copy()


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    "fault", [scaled(1.001), scaled(1 + 1e-7), scaled(0.0), without_a_state, without_a_layer, exchanged_rows]
)
def test_a_fault_in_what_a_step_hands_back_is_caught(
    name: str, fault: Callable[[Stack], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Stack.backward

    def faulty(self: Stack, part: int, parts: int) -> None:
        plain(self, part, parts)
        fault(self)

    monkeypatch.setattr(Stack, "backward", faulty)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_right(problem_of(name), expected_of(name))


def test_a_fault_in_the_order_of_steps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gradient_flow._Flow.forward

    def shifted(self: gradient_flow._Flow, step: int, state: Any) -> None:
        plain(self, max(0, step - 1), state)

    monkeypatch.setattr(gradient_flow._Flow, "forward", shifted)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_right(problem_of("gru"))


def test_a_loss_that_enters_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gradient_flow._Flow.backward

    def twice(self: gradient_flow._Flow) -> Any:
        before = self._d_output.copy()
        norms = plain(self)
        self._d_output[...] = before
        return norms

    monkeypatch.setattr(gradient_flow._Flow, "backward", twice)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_right(problem_of("gru"))


# Where the norms are known


def linear_model(size: int, w_h: NDArray[np.float64], dtype: type = np.float64) -> LanguageModel:
    """A relu network whose units are all on: s<t> = s<t-1> w_h + x<t>."""
    model = LanguageModel(LanguageModelConfig(5, 2, size, 1, "rnn", "relu"), dtype=dtype)
    rng = np.random.default_rng(4)
    model.parameters["embedding"][...] = 0
    model.parameters["output/w"][...] = rng.normal(size=(size, 5))
    model.parameters["layer0/w_h"][...] = w_h
    model.parameters["layer0/b"][...] = 1.0
    model.changed()
    return model


def norms_of(model: LanguageModel, steps: int, back: int) -> NDArray[np.float64]:
    state = model.zero_state(2) + 1
    inputs = np.full((steps, 2), 3, np.int32)
    return gradient_norms(model, inputs, np.array([1, 4], np.int32), state, back)[:, :, 0]


@pytest.mark.parametrize(("factor", "steps"), [(1.0, 40), (0.5, 40), (1.5, 40)])
def test_a_multiple_of_the_identity_is_a_power(factor: float, steps: int) -> None:
    norms = norms_of(linear_model(7, factor * np.eye(7)), steps, steps)
    np.testing.assert_allclose(norms / norms[0], factor ** np.arange(steps + 1)[:, None] * [1, 1], rtol=1e-12)


def test_a_permutation_keeps_the_norm() -> None:
    norms = norms_of(linear_model(7, np.roll(np.eye(7), 1, axis=0)), 20, 20)
    np.testing.assert_allclose(norms, norms[[0] * 21], rtol=1e-12)


@pytest.mark.parametrize("factor", [2.0**-6, 2.0**6])
def test_float32_does_not_underflow_nor_overflow(factor: float) -> None:
    """After 40 steps the gradient is 2^-240, or 2^240 times as large; float32 ends at 2^-149 and 2^128."""
    model = linear_model(7, factor * np.eye(7), np.float32)
    model.parameters["layer0/b"][...] = 1.0
    norms = norms_of(model, 20 if factor > 1 else 40, 20 if factor > 1 else 40)  # the states themselves must not
    assert (norms > 0).all()
    np.testing.assert_allclose(norms / norms[0], factor ** np.arange(len(norms))[:, None] * [1, 1], rtol=1e-6)


def test_a_saturated_lstm_gate_keeps_the_cell() -> None:
    """Forget gate 1, the other gates' inputs cut off: the memory cell's gradient is the same at every step."""
    model = LanguageModel(LanguageModelConfig(5, 2, 7, 1, "lstm"), dtype=np.float64)
    model.initialise(np.random.default_rng(5))
    model.parameters["layer0/w_h"][...] = 0
    model.parameters["layer0/b"][7:14] = 40.0  # f
    model.changed()
    norms = norms_of(model, 30, 30)[1:]
    np.testing.assert_allclose(norms, norms[[0] * 30], rtol=1e-12)


# What must hold whatever the weights


@variants
def test_float32_is_near_float64(name: str, activation: str) -> None:
    problem = problem_of(name, activation)
    np.testing.assert_allclose(found(problem, dtype=np.float32), found(problem), rtol=FLOAT32_TOLERANCE)


@pytest.fixture(scope="module")
def teams() -> Iterator[list[Team]]:
    made = [Team(threads) for threads in (2, 3, 4)]
    yield made
    for team in made:
        team.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_threads_gives_the_same_bits(teams: list[Team], dtype: type) -> None:
    problem = problem_of("lstm", sizes=(5, 13, 4, 19, 6, 2))
    alone = found(problem, dtype=dtype)
    for team in teams:
        assert same_bits(found(problem, team, dtype), alone)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_does_not_depend_on_its_neighbours(dtype: type) -> None:
    problem = problem_of("gru", sizes=(5, 13, 4, 19, 6, 2))
    together = found(problem, dtype=dtype)
    for low, high in ((0, 1), (3, 8), (12, 13)):
        part = replace(
            problem,
            inputs=problem.inputs[:, low:high],
            targets=problem.targets[:, low:high],
            state_0=problem.state_0[:, :, low:high],
        )
        assert same_bits(found(part, dtype=dtype), np.ascontiguousarray(together[:, low:high]))


def test_fewer_steps_back_are_the_first_of_more() -> None:
    problem, targets = problem_of("gru"), np.array([0, 1, 2], np.int32)
    for back in (0, 1, 3):
        model = problem.model()
        some = gradient_norms(model, problem.inputs, targets, problem.state_0, back)
        assert same_bits(some, gradient_norms(model, problem.inputs, targets, problem.state_0, BACK)[: back + 1])
    with pytest.raises(ValueError, match="6 steps back of 5"):
        gradient_norms(problem.model(), problem.inputs, targets, problem.state_0, 6)


def test_neither_the_model_nor_the_arguments_change() -> None:
    problem, targets = problem_of("lstm"), np.array([0, 1, 2], np.int32)
    model, state, inputs = problem.model(), problem.state_0.copy(), problem.inputs.copy()
    model.loss_and_gradients(problem.batch(), problem.targets)
    gradients, weights = model.gradients.flat.copy(), model.parameters.flat.copy()
    before = model.log_probs(inputs, problem.targets, state.copy())
    gradient_norms(model, inputs, targets, state, BACK)
    assert same_bits(model.gradients.flat, gradients)
    assert same_bits(model.parameters.flat, weights)
    assert same_bits(state, problem.state_0)
    assert same_bits(inputs, problem.inputs)
    assert same_bits(model.log_probs(inputs, problem.targets, state.copy()), before)


def test_a_nan_stays_visible() -> None:
    problem = problem_of("gru")
    problem.parameters["output/w"][2, 1] = np.nan
    assert np.isnan(found(problem)[0, :, 1]).all()
