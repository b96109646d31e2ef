"""The network over whole sequences, by itself: what it gives, its last states, and all gradients of either."""

from __future__ import annotations

import numpy as np
import pytest

from charlm.engine import cells
from charlm.engine.threads import Team
from charlm.models.encoder import Directions, EncoderConfig, initialise_encoder
from charlm.models.parameters import Parameters
from charlm.models.sequences import Dropout
from tests.encoder_harness import EncoderRun, Fault, check_encoder, encoder_problem
from tests.engine_harness import VARIANTS, same_bits
from tests.gradient_check import GradientError, Known

variants = pytest.mark.parametrize(("cell", "activation"), VARIANTS)


# Against the reference


@variants
def test_outputs_last_states_and_gradients(cell: str, activation: str) -> None:
    check_encoder(encoder_problem(cell, activation), probes=5)


@pytest.mark.parametrize("cell", ["gru", "lstm-peephole"])  # of one state, and of two
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_depths_and_directions(cell: str, bidirectional: bool, layers: int) -> None:
    check_encoder(encoder_problem(cell, layers=layers, bidirectional=bidirectional), probes=5)


@pytest.mark.parametrize("dropout", ["each", "variational"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_with_dropout(dropout: str, bidirectional: bool) -> None:
    probes = None if bidirectional and dropout == "each" else 8
    check_encoder(encoder_problem(bidirectional=bidirectional, dropout=dropout), probes)


@pytest.mark.parametrize("lengths", [(1,), (5,), (1, 1, 1), (0, 2), (0,), (0, 0), (4, 4)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_other_lengths(lengths: tuple[int, ...], bidirectional: bool) -> None:
    check_encoder(encoder_problem("gru", lengths=lengths, bidirectional=bidirectional))


@pytest.mark.parametrize("sizes", [(23, 3, 1), (2, 1, 2), (41, 13, 37)])  # one panel of weights, and several
def test_other_sizes(sizes: tuple[int, int, int]) -> None:
    check_encoder(encoder_problem("lstm-peephole", sizes=sizes), probes=4)


def test_a_sequence_without_a_token_gives_zeros_and_takes_nothing() -> None:
    run = check_encoder(encoder_problem(lengths=(0, 0)))
    assert not run.last.any()
    assert not run.gradients.flat.any()


def test_float32_is_near_float64() -> None:
    problem = encoder_problem("lstm", lengths=(12, 3, 9), sizes=(41, 13, 37))
    exact, rough = EncoderRun(problem), EncoderRun(problem, dtype=np.float32)
    assert rough.last.dtype == np.float32
    np.testing.assert_allclose(rough.last, exact.last, rtol=0, atol=5e-6)
    for path, wanted in exact.gradients.items():
        assert np.abs(rough.gradients[path] - wanted).max() <= 1e-5 * np.abs(wanted).max(), path


# Planted faults


def swap(one: np.ndarray, two: np.ndarray) -> None:
    kept = one.copy()
    one[...] = two
    two[...] = kept


def roll(values: np.ndarray) -> None:
    values[...] = np.roll(values, 1, axis=0)


def scale(values: np.ndarray, factor: float = 1.001) -> None:
    values *= factor


FAULTS: list[tuple[str, str, Fault]] = [
    ("the other direction reads forward", "forward", lambda n: n._index.__setitem__(1, n._index[0])),
    ("directions read each other's order", "forward", lambda n: n._index.reverse()),
    ("reset ignored", "forward", lambda n: n._reset.fill(0)),
    ("reset a step late", "forward", lambda n: roll(n._reset)),
    ("tables exchanged", "forward", lambda n: n.projections.reverse()),
    ("input rows shifted", "tabulate", lambda n: n.inputs.__setitem__(0, np.roll(n.inputs[0], 1, axis=0))),
    ("weights of the layer above exchanged", "forward", lambda n: n._w_x[0][0].reverse()),
    ("d_state of one direction dropped", "backward", lambda n: n.d_state[:, 1].fill(0)),
    ("d_state of the lower layer dropped", "backward", lambda n: n.d_state[0].fill(0)),
    ("d_state of directions exchanged", "backward", lambda n: swap(n.d_state[:, 0], n.d_state[:, 1])),
    ("d_state of states exchanged", "backward", lambda n: swap(n.d_state[:, :, 0], n.d_state[:, :, 1])),
    ("d_state a thousandth too large", "backward", lambda n: scale(n.d_state)),
    ("d_outputs of directions exchanged", "backward", lambda n: swap(*n.d_outputs)),
    ("d_outputs a step late", "backward", lambda n: roll(n.d_outputs[0])),
    ("d_outputs a step late, other direction", "backward", lambda n: roll(n.d_outputs[1])),
    ("d_outputs a ten-millionth too large", "backward", lambda n: scale(n.d_outputs[1], 1 + 1e-7)),
    ("a row is one shorter", "backward", lambda n: n.lengths.__setitem__(2, n.lengths[2] - 1)),
    ("outputs of the layer below dropped", "sum_gradients", lambda n: n.layers[0][1].hidden.fill(0)),
    ("turned outputs dropped", "sum_gradients", lambda n: n._turned[0][0].fill(0)),
    ("turned outputs exchanged", "sum_gradients", lambda n: n._turned[0].reverse()),
    ("d_pre a thousandth too large", "sum_gradients", lambda n: scale(n.layers[1][1].pre)),
    ("d_pre of directions exchanged", "sum_gradients", lambda n: swap(n.layers[0][0].pre, n.layers[0][1].pre)),
    ("a table's gradient dropped", "finish_gradients", lambda n: n.projections[1]._d_table.fill(0)),
    ("tables' gradients exchanged", "finish_gradients", lambda n: swap(*(p._d_table for p in n.projections))),
]  # fmt: skip


@pytest.fixture(scope="module")
def known() -> Known:
    """The derivatives of `encoder_problem()`, which the faults are in turn compared with."""
    found: Known = {}
    check_encoder(encoder_problem(), known=found)
    return found


@pytest.mark.parametrize(("phase", "fault"), [pytest.param(p, f, id=name) for name, p, f in FAULTS])
def test_a_fault_is_caught(phase: str, fault: Fault, known: Known) -> None:
    with pytest.raises((AssertionError, GradientError)):
        check_encoder(encoder_problem(), faults={phase: fault}, known=known)


def test_a_last_state_of_another_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Directions, "last",
        property(lambda n: np.stack([[layer.state[n.steps - 1] for layer in pair] for pair in n.layers])),
    )  # fmt: skip
    with pytest.raises(AssertionError):
        check_encoder(encoder_problem())


def test_gradients_at_rows_without_a_token_are_not_taken() -> None:
    """The owner may leave anything in the gradient of such a row's last states."""
    problem = encoder_problem()
    plain = EncoderRun(problem)
    other = EncoderRun(problem, faults={"backward": lambda n: n.d_state[:, :, :, 3].fill(1e3)})
    assert same_bits(plain.gradients.flat, other.gradients.flat)


# The same bits


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("cell", cells.names())
def test_threads_change_no_bit(cell: str, dtype: type, teams: list[Team]) -> None:
    """Nine rows, and three for four threads; weights of several panels."""
    for lengths in ((7, 1, 5, 0, 6, 7, 3, 2, 4), (3, 5, 2)):
        problem = encoder_problem(
            cell, cells.find(cell).activations[0], dropout="each", lengths=lengths, sizes=(70, 13, 40)
        )  # fmt: skip
        runs = [EncoderRun(problem, team, dtype) for team in teams]
        for run in runs[1:]:
            assert same_bits(run.gradients.flat, runs[0].gradients.flat)
            assert same_bits(run.last, runs[0].last)
            assert all(same_bits(one, two) for one, two in zip(run.outputs, runs[0].outputs, strict=True))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@variants
def test_a_row_alone_gives_the_same_bits(cell: str, activation: str, dtype: type) -> None:
    lengths = (3, 1, 6, 0, 4, 6, 2)
    problem = encoder_problem(cell, activation, lengths=lengths, sizes=(9, 5, 19))
    together = EncoderRun(problem, dtype=dtype)
    for number in range(len(lengths)):
        alone = EncoderRun(problem.row(number), dtype=dtype)
        assert same_bits(alone.outputs[0], together.outputs[number])
        assert same_bits(alone.last[:, :, :, 0].copy(), together.last[:, :, :, number].copy())


def test_a_batch_has_the_gradients_of_its_rows() -> None:
    problem = encoder_problem("gru", layers=3)
    together = EncoderRun(problem).gradients.flat
    alone = sum(EncoderRun(problem.row(number)).gradients.flat for number in range(5))
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-12)


def test_a_run_repeats_whatever_ran_between() -> None:
    """Arrays are used again: what a longer or wider batch left in them must not show."""
    problem, wide = encoder_problem("lstm"), encoder_problem("lstm", lengths=(9, 2, 8, 9, 1, 1, 7))
    run = EncoderRun(problem)
    first = run.gradients.flat.copy()
    for between in (wide, encoder_problem("lstm", lengths=(1,)), encoder_problem("lstm", lengths=(0,)), problem):
        run.problem = between
        run.run()
        fresh = EncoderRun(between)
        assert same_bits(run.gradients.flat, fresh.gradients.flat)
        assert same_bits(run.last, fresh.last)
    assert same_bits(run.gradients.flat, first)


@pytest.mark.parametrize("path", list(encoder_problem().parameters))
def test_a_nan_stays_visible(path: str) -> None:
    problem = encoder_problem()
    problem.parameters[path][...] = np.nan
    run = EncoderRun(problem)
    assert np.isnan(run.last[-1, :, :, [0, 1, 2, 4]]).any(axis=(1, 2, 3)).all()
    assert not run.last[:, :, :, 3].any()  # the row without a token


# Before a pass


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", cells.names())
def test_matrices_lie_first(cell: str, bidirectional: bool) -> None:
    config = EncoderConfig(9, 5, 4, 3, cell, bidirectional=bidirectional)
    shapes = config.shapes()
    parameters = Parameters(shapes)
    is_matrix = [len(shape) > 1 and not path.endswith("/w_p") for path, shape in shapes.items()]
    assert is_matrix == sorted(is_matrix, reverse=True)
    parameters.flat[: parameters.matrices] = 1
    assert all(view.all() == matrix for view, matrix in zip(parameters.values(), is_matrix, strict=True))
    assert shapes["layer1/w_x"][0] == config.directions * 4
    assert ("layer2/backward/w_h" in shapes) == bidirectional


def test_initialisation() -> None:
    """The bound of w_x goes by the width of both directions; each direction has weights of its own."""
    config = EncoderConfig(50, 20, 30, 2, "lstm", bidirectional=True)
    drawn = []
    for seed in (1, 1, 2):
        parameters = Parameters({f"encoder/{path}": shape for path, shape in config.shapes().items()}, np.float64)
        initialise_encoder(config, parameters, np.random.default_rng(seed), "encoder/")
        drawn.append(parameters)
    assert same_bits(drawn[0].flat, drawn[1].flat)
    assert not np.array_equal(drawn[0].flat, drawn[2].flat)
    for name in ("w_x", "w_h"):
        one, two = (drawn[0][f"encoder/layer1/{direction}{name}"] for direction in ("", "backward/"))
        assert not np.array_equal(one, two)
    for direction in ("", "backward/"):
        bound = np.abs(drawn[0][f"encoder/layer1/{direction}w_x"]).max()
        assert bound == pytest.approx((3 / 60) ** 0.5, rel=0.01)
        w_h, b = drawn[0][f"encoder/layer0/{direction}w_h"][:, :30], drawn[0][f"encoder/layer0/{direction}b"]
        np.testing.assert_allclose(w_h.T @ w_h, np.eye(30), atol=1e-13)
        assert b[30:60].tolist() == [1.0] * 30  # the forget gate's


def test_dropout_draws_follow_from_the_generator() -> None:
    draws = [
        Dropout.draw(np.random.default_rng(seed), (5, 3, 4), 2, 2, 99, variational=variational).draws
        for seed, variational in ((1, False), (1, False), (2, False), (1, True))
    ]
    assert all(same_bits(draws[0][i][d], draws[1][i][d]) for i in range(2) for d in range(2))
    assert not np.array_equal(draws[0][0][0], draws[2][0][0])
    assert not np.array_equal(draws[0][0][0], draws[0][0][1])
    assert not np.array_equal(draws[0][0][0], draws[0][1][0])
    assert {draw.shape for pair in draws[3] for draw in pair} == {(1, 3, 4)}
