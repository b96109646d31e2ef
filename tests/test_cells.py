"""Every cell's kernels against the reference. A new cell's file is tested with no edit here."""

from __future__ import annotations

import numpy as np
import pytest

from charlm.engine import cells
from tests.engine_harness import (
    VARIANTS,
    CellProblem,
    CellRun,
    cell_problem,
    check_cell_forward,
    check_cell_gradients,
    same_bits,
)
from tests.reference import network

SIZES = [(4, 3, 5, 7), (1, 1, 5, 7), (1, 3, 2, 5), (5, 1, 3, 2), (3, 2, 1, 1), (2, 13, 3, 9)]  # T, N, E, H
FLOAT32_TOLERANCE = 5e-6  # of the largest number of an array: T steps, some 100 roundings of 6e-8

variants = pytest.mark.parametrize(("name", "activation"), VARIANTS)


def test_every_cell_has_a_reference() -> None:
    assert cells.names() == network.cell_names()


def test_an_unknown_cell_is_a_key_error() -> None:
    for name in ("gru_simple", "_cell", "transformer", ""):
        with pytest.raises(KeyError):
            cells.find(name)


@pytest.mark.parametrize("name", cells.names())
def test_the_record_agrees_with_the_reference(name: str) -> None:
    cell, reference = cells.find(name), network.find_cell(name)
    assert cell.gates == tuple(reference.GATES)
    assert cell.states == tuple(reference.STATES)
    assert cell.peepholes == tuple(reference.PEEPHOLES)
    assert sum(cell.products) == len(cell.gates)
    assert {gate for gate, _ in cell.biases} <= set(cell.gates)
    assert cell.activations


@variants
@pytest.mark.parametrize("sizes", [*SIZES, (3, 2, 5, 33), (2, 8, 5, 64)])
def test_forward(name: str, activation: str, sizes: tuple[int, int, int, int]) -> None:
    check_cell_forward(cells.find(name), cell_problem(name, activation, *sizes))


@variants
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients(name: str, activation: str, sizes: tuple[int, int, int, int]) -> None:
    check_cell_gradients(cells.find(name), cell_problem(name, activation, *sizes))


@variants
def test_gradients_of_a_size_beyond_one_panel(name: str, activation: str) -> None:
    check_cell_gradients(cells.find(name), cell_problem(name, activation, 3, 7, 2, 37), probes=12)


@variants
def test_the_gradient_of_the_last_state_alone(name: str, activation: str) -> None:
    """With no gradient of any output, only what enters by d_state flows back."""
    problem = cell_problem(name, activation)
    problem.weights[...] = 0
    check_cell_gradients(cells.find(name), problem)
    problem = cell_problem(name, activation)
    problem.state_weights[...] = 0
    check_cell_gradients(cells.find(name), problem)


@variants
def test_gradients_are_added_to_what_is_there(name: str, activation: str) -> None:
    cell, problem = cells.find(name), cell_problem(name, activation)
    plain = CellRun(cell, problem).forward().backward().gradients()
    run = CellRun(cell, problem).forward().backward()
    run.d_w_h += 1.0
    run.d_w_p += 1.0
    added = run.gradients()
    for path in {"w_h", "w_p"} & set(added):
        np.testing.assert_allclose(added[path], plain[path] + 1.0, rtol=1e-13, atol=1e-13)


@variants
def test_gradients_do_not_depend_on_the_number_of_parts(name: str, activation: str) -> None:
    cell, problem = cells.find(name), cell_problem(name, activation, 3, 5, 2, 37)
    whole = CellRun(cell, problem).forward().backward().gradients()
    for parts in (2, 3, 4, 7):
        shared = CellRun(cell, problem).forward().backward().gradients(parts)
        for path, values in whole.items():
            assert same_bits(shared[path], values), (path, parts)


@variants
def test_float32_is_near_float64(name: str, activation: str) -> None:
    cell, problem = cells.find(name), cell_problem(name, activation, 12, 3, 5, 37)
    exact, rough = CellRun(cell, problem).forward(), CellRun(cell, problem, np.float32).forward()
    pairs = {"hidden": (exact.hidden, rough.hidden), "state": (exact.state, rough.state)}
    found, wanted = rough.backward().gradients(), exact.backward().gradients()
    pairs |= {path: (wanted[path], found[path]) for path in wanted}
    for path, (precise, approximate) in pairs.items():
        assert approximate.dtype == np.float32, path
        assert np.abs(precise - approximate).max() <= FLOAT32_TOLERANCE * np.abs(precise).max(), path


def assert_same_run(pieces: list[CellRun], whole: CellRun, axis: str) -> None:
    """Runs of consecutive steps, or rows, hold the same bits as the run of all of them."""
    hidden = np.concatenate([piece.hidden for piece in pieces], axis=0 if axis == "steps" else 1)
    assert same_bits(hidden, whole.hidden)
    if axis == "steps":
        assert same_bits(pieces[-1].state[-1], whole.state[-1])
    else:
        assert same_bits(np.concatenate([piece.state for piece in pieces], axis=2), whole.state)


@variants
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_twelve_steps_are_three_times_four(name: str, activation: str, dtype: type) -> None:
    cell, problem = cells.find(name), cell_problem(name, activation, 12, 3, 5, 19)
    whole = CellRun(cell, problem, dtype).forward()
    pieces: list[CellRun] = []
    state = problem.arrays["state_0"]
    for first in (0, 4, 8):
        pieces.append(CellRun(cell, problem.steps(first, first + 4, state), dtype).forward())
        state = pieces[-1].state[-1]
    assert_same_run(pieces, whole, "steps")


@variants
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_batch_is_its_rows(name: str, activation: str, dtype: type) -> None:
    cell, rows = cells.find(name), 13
    problem = cell_problem(name, activation, 4, rows, 5, 19)
    whole = CellRun(cell, problem, dtype)
    # NumPy's product of a batch may differ from that of a row in the last bit: the rows take the batch's.
    pieces = [CellRun(cell, problem.rows(n, n + 1), dtype) for n in range(rows)]
    for n, piece in enumerate(pieces):
        piece.pre[...] = whole.pre[:, n : n + 1]
        piece.forward()
    assert_same_run(pieces, whole.forward(), "rows")
    whole.backward()
    for n, piece in enumerate(pieces):
        piece.backward()
        assert same_bits(piece.pre[:, 0], whole.pre[:, n])
        assert same_bits(piece.d_state[:, 0], whole.d_state[:, n])


@variants
def test_a_reset_in_mid_sequence_is_two_sequences(name: str, activation: str) -> None:
    cell, problem = cells.find(name), cell_problem(name, activation, 7, 3)
    problem.reset[...] = False
    problem.reset[3] = True
    whole = CellRun(cell, problem).forward()
    before = CellRun(cell, problem.steps(0, 3, problem.arrays["state_0"])).forward()
    after = CellRun(cell, problem.steps(3, 7, problem.initial)).forward()
    after.reset[...] = 0
    assert_same_run([before, after], whole, "steps")
    # And backward: nothing crosses the border.
    before.d_state[...] = 0
    for run in (whole, before, after):
        run.backward()
    assert same_bits(np.concatenate([before.pre, after.pre]), whole.pre)
    assert same_bits(before.d_state, whole.d_state)


@variants
def test_no_gradient_reaches_the_state_before_a_reset(name: str, activation: str) -> None:
    problem = cell_problem(name, activation)
    assert problem.reset[0, 1]
    run = CellRun(cells.find(name), problem).forward().backward()
    assert not run.d_state[:, 1].any()
    assert run.d_state[:, 0].all()


@variants
def test_rows_outside_are_untouched(name: str, activation: str) -> None:
    cell, problem, low, high = cells.find(name), cell_problem(name, activation, 4, 9, 5, 19), 2, 7
    outside = np.array([n for n in range(9) if not low <= n < high])
    whole, part = CellRun(cell, problem).forward(), CellRun(cell, problem)
    for compute in ("forward", "backward"):
        before = {path: rows[outside].copy() for path, rows in part.row_arrays()}
        getattr(part, compute)(low, high)
        for path, rows in part.row_arrays():
            assert same_bits(rows[outside], before[path]), (compute, path)
        if compute == "backward":
            whole.backward()
        inside = dict(whole.row_arrays())
        for path, rows in part.row_arrays():
            if path not in ("scratch", "d_hidden"):
                assert same_bits(rows[low:high], inside[path][low:high]), (compute, path)


@variants
def test_no_rows_are_no_work(name: str, activation: str) -> None:
    """A team may have more threads than a batch has rows."""
    run = CellRun(cells.find(name), cell_problem(name, activation))
    run.forward(1, 1)
    assert np.isnan(run.hidden).all()


@variants
def test_a_nan_stays_visible(name: str, activation: str) -> None:
    problem: CellProblem = cell_problem(name, activation)
    problem.reset[...] = False
    run = CellRun(cells.find(name), problem)
    run.pre[1, 2] = np.nan
    run.forward()
    assert np.isnan(run.hidden[1:, 2]).all()
    assert np.isfinite(run.hidden[:, :2]).all()
    assert np.isfinite(run.hidden[0]).all()


@variants
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_pre_activations_saturate(name: str, activation: str, size: float) -> None:
    run = CellRun(cells.find(name), cell_problem(name, activation))
    run.pre *= size
    assert np.isfinite(run.forward().hidden).all()
    assert np.isfinite(run.backward().pre).all()
