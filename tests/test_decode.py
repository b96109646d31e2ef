"""Draws of single tokens: the engine's kernels against their definition in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from charlm.engine import cells, decode, layers
from charlm.engine.threads import Team
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.workflows.decoding import Truncation
from tests.engine_harness import VARIANTS, model_problem, same_bits
from tests.test_sample import random_table

Array = NDArray[Any]


def weights_of(truncation: Truncation, log_probs: ArrayLike, *, can_end: bool = True, greedy: bool = False) -> Array:
    """The kernel's weights of each row, (N, V)."""
    rows = np.array(log_probs)
    weights, heap = np.empty(rows.shape), np.empty(rows.shape[1], np.int32)
    for row, out in zip(rows, weights, strict=True):
        decode.weigh(row, truncation.rule(greedy=greedy), can_end, out, heap)
    return weights


def draw(weights: Array, uniforms: Array) -> Array:
    """The kernel's draw from each row, (N,)."""
    return np.array([decode.draw(row, uniform) for row, uniform in zip(weights, uniforms, strict=True)])


def likeliest(log_probs: Array, truncation: Truncation) -> Array:
    return draw(weights_of(truncation, log_probs, greedy=True), np.full(len(log_probs), 0.5))


def reference_weights(truncation: Truncation, log_probs: Array, *, can_end: bool = True) -> Array:
    """By the definition, with a sort."""
    weights = log_probs.copy()
    if not truncation.allow_unk:
        weights[:, UNK_ID] = -np.inf
    if not can_end:
        weights[:, EOS_ID] = -np.inf
    weights = np.exp((weights - weights.max(axis=1, keepdims=True)) / truncation.temperature)
    order = np.argsort(-weights, axis=1, kind="stable")
    falling = np.take_along_axis(weights, order, axis=1)
    if truncation.top_k is not None:
        falling[:, truncation.top_k :] = 0
    if truncation.top_p is not None and truncation.top_p < 1:
        sums = falling.cumsum(axis=1)
        falling[:, 1:][sums[:, :-1] >= sums[:, -1:] * (truncation.top_p * (1 - 1e-12))] = 0
    np.put_along_axis(weights, order, falling, axis=1)
    return weights


@pytest.mark.parametrize("can_end", [True, False])
@pytest.mark.parametrize(
    "truncation",
    [
        Truncation(),
        Truncation(True, 0.7),
        Truncation(top_k=1),
        Truncation(top_k=7),
        Truncation(top_k=50, temperature=2.0),
        Truncation(top_p=0.9),
        Truncation(top_p=0.05),
        Truncation(True, 1.3, 12, 0.6),
    ],
)
def test_weights_are_those_of_the_definition(truncation: Truncation, can_end: bool) -> None:
    rng = np.random.default_rng(4)
    tables = [random_table(30, size, seed=size) for size in (5, 31, 200)]
    tables.append(rng.choice([0.0, 1.0, 1.0, 2.0], size=(30, 17)) + 0.01)  # many are equal
    for table in tables:
        log_probs = np.log(table / table.sum(-1, keepdims=True))
        expected = reference_weights(truncation, log_probs, can_end=can_end)
        found = weights_of(truncation, log_probs, can_end=can_end)
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)


def test_a_nan_is_reported() -> None:
    log_probs = np.log(random_table(3, 9))
    log_probs[1, 4] = np.nan
    tokens, nats, heap = np.empty(3, np.int32), np.empty(3), np.empty((3, 9), np.int32)
    decode.choose(
        log_probs, np.full(3, 0.5), Truncation().rule(), np.full(3, 2), np.zeros(3, int), tokens, nats,
        np.empty((3, 9)), heap, 0, 3,
    )  # fmt: skip
    assert np.isnan(nats).tolist() == [False, True, False]
    assert ((tokens >= 0) & (tokens < 9)).all()


# ---- one token ----


def test_weights_without_a_change_are_the_probabilities_but_for_the_unknown() -> None:
    p = np.array([[0.2, 0.1, 0.4, 0.2, 0.1]])
    assert weights_of(Truncation(), np.log(p))[0] == pytest.approx([0, 0.25, 1, 0.5, 0.25])
    assert weights_of(Truncation(allow_unk=True), np.log(p))[0] == pytest.approx([0.5, 0.25, 1, 0.5, 0.25])


def test_temperature_is_a_power_and_never_underflows_to_nothing() -> None:
    p = np.array([[0.2, 0.1, 0.4, 0.2, 0.1]])
    assert weights_of(Truncation(temperature=0.5), np.log(p))[0] == pytest.approx([0, 1 / 16, 1, 1 / 4, 1 / 16])
    assert weights_of(Truncation(temperature=2), np.log(p))[0] == pytest.approx([0, 0.5, 1, 0.5**0.5, 0.5])
    assert weights_of(Truncation(temperature=1e-300), np.log(p))[0].tolist() == [0, 0, 1, 0, 0]
    assert weights_of(Truncation(temperature=1e300), np.log(p))[0] == pytest.approx([0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [
        (Truncation(top_k=1), {2}),
        (Truncation(top_k=2), {2, 3}),
        (Truncation(top_k=3), {1, 2, 3}),  # 1 and 4 are equally likely
        (Truncation(top_k=99), {1, 2, 3, 4}),
        (Truncation(top_p=0.3), {2}),
        (Truncation(top_p=0.5), {2}),  # 0.4 of 0.8
        (Truncation(top_p=0.51), {2, 3}),
        (Truncation(top_p=0.75), {2, 3}),
        (Truncation(top_p=0.76), {1, 2, 3}),
        (Truncation(top_p=1.0), {1, 2, 3, 4}),
        (Truncation(top_p=1e-9), {2}),
        (Truncation(top_k=2, top_p=0.66), {2}),  # 0.4 of the 0.6 that top-k leaves
        (Truncation(top_k=2, top_p=0.67), {2, 3}),
        (Truncation(temperature=0.5, top_p=0.72), {2}),  # 16 of 16 + 4 + 1 + 1
        (Truncation(temperature=0.5, top_p=0.73), {2, 3}),
    ],
)
def test_truncation_keeps_the_likeliest_and_their_proportions(truncation: Truncation, kept: set[int]) -> None:
    log_probs = np.log([[0.2, 0.1, 0.4, 0.2, 0.1], [0.2, 0.1, 0.4, 0.2, 0.1]])
    weights = weights_of(truncation, log_probs)
    whole = weights_of(Truncation(temperature=truncation.temperature), log_probs)
    for row, expected in zip(weights, whole, strict=True):
        assert set(np.flatnonzero(row).tolist()) == kept
        assert all(row[i] == expected[i] for i in kept)


def test_truncation_does_not_touch_its_argument() -> None:
    log_probs = np.log(random_table(6, 5))
    before = log_probs.copy()
    weights_of(Truncation(temperature=0.3, top_k=2, top_p=0.5), log_probs)
    assert (log_probs == before).all()


def test_a_draw_is_the_inverse_of_the_cumulative_distribution() -> None:
    weights = np.array([[0.0, 1.0, 0.0, 3.0, 0.0]])

    def drawn(uniform: float) -> int:
        return int(draw(weights, np.array([uniform]))[0])

    assert [drawn(u) for u in (0, 0.2499, 0.25, 0.9999, 1 - 2**-53)] == [1, 1, 3, 3, 3]
    assert draw(np.array([[0.1] * 10]), np.array([1 - 2**-53])).tolist() == [9]


def test_a_row_is_drawn_the_same_alone_and_among_others() -> None:
    rng = np.random.default_rng(3)
    log_probs, uniforms = np.log(random_table(200, 61)), rng.random(200)
    change = Truncation(temperature=0.7, top_k=20, top_p=0.9)
    together = draw(weights_of(change, log_probs), uniforms)
    alone = [int(draw(weights_of(change, log_probs[i : i + 1]), uniforms[i : i + 1])[0]) for i in range(200)]
    assert together.tolist() == alone


@pytest.mark.parametrize(
    "truncation",
    [Truncation(), Truncation(allow_unk=True), Truncation(temperature=0.6), Truncation(top_k=9, top_p=0.8)],
)
def test_frequencies_follow_the_softmax(truncation: Truncation) -> None:
    draws = 40_000
    log_probs = np.log(random_table(1, 21, seed=5))
    weights = weights_of(truncation, log_probs)
    ids = draw(np.repeat(weights, draws, axis=0), np.random.default_rng(8).random(draws))
    expected = weights[0] / weights.sum() * draws
    found = np.bincount(ids, minlength=21)
    possible = expected > 0
    assert found[~possible].sum() == 0
    chi_squared = ((found - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    assert abs(chi_squared - freedom) < 3.1 * (2 * freedom) ** 0.5  # one in a thousand


def test_likeliest_takes_the_first_of_equals_and_never_the_unknown_unless_allowed() -> None:
    log_probs = np.log([[0.4, 0.1, 0.2, 0.2, 0.1], [0.25, 0.25, 0.25, 0.125, 0.125]])
    assert likeliest(log_probs, Truncation()).tolist() == [2, 1]
    assert likeliest(log_probs, Truncation(allow_unk=True)).tolist() == [0, 0]


# ---- a model's steps ----


@pytest.mark.parametrize(("name", "activation"), VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_what_is_generated_has_the_probabilities_of_its_steps(name: str, activation: str, tied: bool) -> None:
    """The kernel's steps are `step`'s, bit for bit, for any number of threads, in bursts and in one go.

    In float32, as the command line has it: a kernel for each cell that is compiled there too.
    """
    problem = model_problem(name, activation, sizes=(4, 5, 6, 7, 11, 3), tied=tied)
    rng = np.random.default_rng(6)
    rows, steps, rule = 5, 6, Truncation(top_k=6).rule()
    uniforms = rng.random((steps, rows))
    expected: list[tuple[Array, Array]] = []
    for threads in (1, 2, 4):
        team = Team(threads)
        model = problem.model(team, np.float32)
        state_0 = problem.state_0.astype(np.float32)
        state, log_probs = model.step(state_0[:, :, np.arange(rows)], np.arange(rows, dtype=np.int32))
        for bursts in ([steps], [1, 2, 3]):
            now, left, before_end = (state, log_probs), np.array([6, 6, 3, 1, 6]), np.array([9, 9, 9, 9, 2])
            drawn: list[tuple[Array, Array]] = []
            for burst, first in zip(bursts, np.cumsum([0, *bursts]), strict=False):
                now, piece = model.generate(*now, uniforms[first : first + burst], rule, left, before_end)
                drawn += zip(*piece, strict=True)
            expected = expected or drawn
            assert len(drawn) == steps
            for (tokens, nats), (other_tokens, other_nats) in zip(drawn, expected, strict=True):
                assert same_bits(tokens, other_tokens)
                assert same_bits(nats, other_nats)
        now = state, log_probs
        for tokens, nats in drawn:
            alive = tokens >= 0
            assert same_bits(nats[alive], now[1][np.arange(rows), tokens][alive])
            now = model.step(now[0], np.maximum(tokens, 0))
        team.close()
    tokens = np.stack([tokens for tokens, _ in expected])
    assert (tokens >= 0).sum(axis=0)[:4].tolist() == [6, 6, 3, 1]
    assert (tokens[:, :4] != EOS_ID).all()
    assert (tokens[:2, 4] != EOS_ID).all()


def test_generating_leaves_its_arguments_alone() -> None:
    problem = model_problem("lstm")
    model = problem.model()
    state, log_probs = model.step(problem.state_0, np.zeros(3, np.int32))
    before = state.copy(), log_probs.copy()
    model.generate(state, log_probs, np.full((5, 3), 0.3), Truncation().rule(), np.full(3, 9), np.zeros(3, int))
    assert same_bits(state, before[0])
    assert same_bits(log_probs, before[1])


def test_a_large_vocabulary_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = model_problem("gru")
    uniforms = np.random.default_rng(1).random((6, 3))
    drawn = []
    for limit in (4096, 0):
        monkeypatch.setattr("charlm.models.stack.WHOLE_TABLE", limit)
        model = problem.model()
        start = model.step(problem.state_0, np.zeros(3, np.int32))
        drawn.append(model.generate(*start, uniforms, Truncation().rule(), np.full(3, 9), np.full(3, 9)))
    assert same_bits(drawn[0][1][0], drawn[1][1][0])
    np.testing.assert_allclose(drawn[0][1][1], drawn[1][1][1], rtol=1e-12)


def test_every_cell_has_a_generator_of_its_own() -> None:
    outputs = (layers.softmax_log_probs, layers.adaptive_log_probs)
    kernels = [decode.generate(cells.find(name), output) for name in cells.names() for output in outputs]
    assert len({kernel.py_func.__qualname__ for kernel in kernels}) == len(kernels)  # type: ignore[attr-defined]
    assert decode.generate(cells.find("lstm"), outputs[0]) is decode.generate(cells.find("lstm"), outputs[0])
