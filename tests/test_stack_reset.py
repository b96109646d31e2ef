"""Where a sequence begins, if the batch says so itself and not by its inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from charlm.models.parameters import Parameters
from charlm.models.stack import Batch, Stack
from tests.engine_harness import VARIANTS, Array, ModelProblem, model_problem, same_bits
from tests.gradient_check import GradientError, check
from tests.reference import network

variants = pytest.mark.parametrize(("name", "activation"), VARIANTS)


def problem_and_reset(name: str, activation: str) -> tuple[ModelProblem, Array]:
    """A problem of one layer. Its inputs hold starts that are none, and its resets are where no start is."""
    problem = model_problem(name, activation, sizes=(4, 3, 5, 7, 6, 1))
    problem.inputs[0] = 6
    reset = np.zeros((4, 3), np.uint8)
    reset[2, 0] = reset[0, 2] = 1
    return problem, reset


def run(problem: ModelProblem, reset: Array | None) -> tuple[Stack, Batch]:
    """Forward, and backward from gradients that are 1, 2, 3 ... of the outputs and of the last states."""
    parameters = Parameters(problem.config.shapes(), np.float64)
    parameters.assign(problem.parameters)
    stack = Stack(problem.config, parameters, parameters.like())
    batch = replace(problem.batch(), reset=reset)
    stack.begin(batch)
    stack.pack(0, 1, backward=True)
    stack.tabulate(0, 1)
    stack.forward(0, 1)
    stack.end()
    for array in stack.begin_backward():
        array[...] = weights_of(array)
    stack.backward(0, 1)
    return stack, batch


def weights_of(array: Array) -> Array:
    return np.arange(1, array.size + 1).reshape(array.shape) / array.size


def check_reset(problem: ModelProblem, reset: Array, given: Array | None) -> None:
    """Outputs, last states and the gradient of the first states, if ``given`` is what the stack is told."""
    stack, batch = run(problem, given)
    parameters = problem.parameters

    def reference(state_0: Array) -> tuple[Array, Array]:
        return network.run_layer(
            network.find_cell(problem.config.cell), network.embed(parameters["embedding"], problem.inputs), state_0,
            network.layer_parameters(parameters, 0), reset.astype(bool), problem.initial[0], problem.config.activation,
        )  # fmt: skip

    def objective(arrays: dict[str, Array]) -> complex:
        hidden, last = reference(arrays["state_0"])
        return complex((weights_of(hidden) * hidden).sum() + (weights_of(last) * last).sum())

    hidden, last = reference(problem.state_0[0])
    np.testing.assert_allclose(stack.hidden[0], hidden, rtol=0, atol=1e-12)
    np.testing.assert_allclose(batch.state[0], last, rtol=0, atol=1e-12)
    check({"state_0": stack.d_state[0]}, objective, {"state_0": problem.state_0[0]}, rtol=1e-9)


@variants
def test_a_batch_may_say_where_its_sequences_begin(name: str, activation: str) -> None:
    problem, reset = problem_and_reset(name, activation)
    check_reset(problem, reset, reset)
    check_reset(problem, np.zeros_like(reset), np.zeros_like(reset))


@variants
def test_another_reset_is_caught(name: str, activation: str) -> None:
    problem, reset = problem_and_reset(name, activation)
    for wrong in (None, np.zeros_like(reset), np.roll(reset, 1, axis=0)):
        with pytest.raises((AssertionError, GradientError)):
            check_reset(problem, reset, wrong)


def test_a_reset_that_agrees_with_the_inputs_changes_no_bit() -> None:
    problem = model_problem("lstm")
    by_inputs, first = run(problem, None)
    told, second = run(problem, (problem.inputs >= problem.config.vocabulary_size).astype(np.uint8))
    assert same_bits(first.state, second.state)
    assert same_bits(by_inputs.hidden[-1], told.hidden[-1])
    assert same_bits(by_inputs.d_state, told.d_state)
