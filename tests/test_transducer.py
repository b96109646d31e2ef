"""The encoder-decoder against its reference, and what must hold of it whatever its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charlm.engine import cells, optimise
from charlm.engine.threads import Team
from charlm.models import transducer
from charlm.models.attention import Sources
from charlm.models.transducer import Transducer, TransducerConfig
from tests.engine_harness import FORWARD_TOLERANCE, VARIANTS, same_bits
from tests.transducer_harness import V_T, Array, Problem, check_transducer, problem

variants = pytest.mark.parametrize(("cell", "activation"), VARIANTS)
LARGE = (60, 90, 9, 13, 38)  # weights of several panels


# Against the reference


@variants
@pytest.mark.parametrize("attention", [False, True])
def test_loss_and_every_gradient(cell: str, activation: str, attention: bool) -> None:
    check_transducer(problem(cell, activation, 2, attention=attention), probes=4)


@pytest.mark.parametrize("cell", ["gru-simple", "lstm"])  # of one state, and of two
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_depths_and_directions(cell: str, layers: int, bidirectional: bool, attention: bool) -> None:
    check_transducer(problem(cell, layers=layers, bidirectional=bidirectional, attention=attention), probes=4)


def test_every_entry_of_a_gradient() -> None:
    check_transducer(problem("lstm-peephole", dropout="each", sources=(3, 1), targets=(2, 3)))


@pytest.mark.parametrize("dropout", ["each", "variational"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout(bidirectional: bool, dropout: str) -> None:
    given = problem(
        "gru", layers=2, bidirectional=bidirectional, dropout=dropout, scale=0.37, sources=(4, 1, 2), targets=(1, 3, 2)
    )
    check_transducer(given, probes=4)


@pytest.mark.parametrize(
    ("sizes", "sources", "targets"),
    [
        ((1, 2, 1, 1, 2), (1,), (1,)),
        ((5, 7, 3, 2, 4), (6,), (1,)),
        ((5, 7, 3, 2, 4), (1, 1), (9, 3)),
        ((5, 7, 3, 2, 4), (0, 3), (3, 1)),
        ((11, 50, 9, 8, 38), (3, 19, 1), (4, 2, 7)),
    ],
)
def test_other_sizes(sizes: tuple[int, int, int, int, int], sources: tuple[int, ...], targets: tuple[int, ...]) -> None:
    check_transducer(problem("gru", sizes=sizes, sources=sources, targets=targets), probes=5)


@pytest.mark.parametrize("attention", [False, True])
def test_sources_that_are_all_empty(attention: bool) -> None:
    """The decoder begins at zero; the encoder learns nothing."""
    given = problem(attention=attention, sources=(0, 0), targets=(3, 2))
    model, batch = given.model(), given.batch()
    loss_nats = model.loss_and_gradients(*batch)
    assert loss_nats == pytest.approx(given.loss(given.parameters).real, rel=1e-12)
    assert -model.log_probs(*batch).sum() == pytest.approx(loss_nats, rel=1e-14)
    assert not any(gradient.any() for path, gradient in model.gradients.items() if path.startswith("encoder/"))


def test_no_target_is_no_loss_and_no_gradient() -> None:
    given = problem()
    model, (sources, inputs, targets) = given.model(), given.batch()
    assert model.loss_and_gradients(sources, inputs, np.full_like(targets, -1)) == 0
    assert not model.gradients.flat.any()


@pytest.mark.parametrize("attention", [False, True])
def test_float32_is_near_float64(attention: bool) -> None:
    given = problem("lstm", layers=2, attention=attention, sizes=LARGE)
    exact, rough = given.model(), given.model(dtype=np.float32)
    loss_nats = exact.loss_and_gradients(*given.batch())
    assert rough.loss_and_gradients(*given.batch()) == pytest.approx(loss_nats, rel=1e-6)
    for path, wanted in exact.gradients.items():
        assert rough.gradients[path].dtype == np.float32
        assert np.abs(rough.gradients[path] - wanted).max() <= 1e-5 * np.abs(wanted).max(), path


def test_an_odd_size_is_not_halved() -> None:
    with pytest.raises(ValueError, match="halves the hidden size, and 7 is odd"):
        TransducerConfig(5, 6, 4, 7)
    assert TransducerConfig(5, 6, 4, 7, bidirectional=False).encoder.hidden_size == 7


def test_a_configuration_comes_back_from_json() -> None:
    config = problem("gru", layers=2).config
    assert TransducerConfig(**config.to_json()) == config


def test_matrices_come_first() -> None:
    model = problem("lstm-peephole", layers=2).model()
    vectors = [path for path, shape in model.parameters.shapes.items() if len(shape) == 1 or path.endswith("/w_p")]
    assert list(model.parameters)[-len(vectors) :] == vectors


# Faults


def _handed_over(change: Callable[[Array, Array], object]) -> Callable[[Transducer], None]:
    """Change the decoder's first states of a layer (S, N, H), or the memory, once they are handed over."""

    def plant(model: Transducer) -> None:
        hand_over = model._hand_over

        def faulty(start: list[Array], outputs: Sources, low: int, high: int) -> None:
            hand_over(start, outputs, low, high)
            for state in start:
                change(state[:, low:high], model._memory[:, low:high])
            assert model.attention is not None
            model.attention.read(model._memory, outputs, low, high)

        model._hand_over = faulty  # type: ignore[method-assign,assignment]

    return plant


def _exchange_directions(state: Array, memory: Array) -> None:
    state[...] = np.roll(state, state.shape[-1] // 2, axis=-1)


def _exchange_directions_of_memory(state: Array, memory: Array) -> None:
    memory[...] = np.roll(memory, memory.shape[-1] // 2, axis=-1)


def _handed_back(change: Callable[[Transducer], None]) -> Callable[[Transducer], None]:
    """Change the gradients that go back into the encoder."""

    def plant(model: Transducer) -> None:
        hand_back = model._hand_back

        def faulty(low: int, high: int) -> None:
            hand_back(low, high)
            change(model)

        model._hand_back = faulty  # type: ignore[method-assign]

    return plant


def _scale_d_state(model: Transducer) -> None:
    model.encoder.network.d_state *= 1.001


def _swap_d_state(model: Transducer) -> None:
    model.encoder.network.d_state[...] = model.encoder.network.d_state[:, ::-1].copy()


def _drop_d_outputs(model: Transducer) -> None:
    model.encoder.network.d_outputs[1][...] = 0


def _shift_d_outputs(model: Transducer) -> None:
    model.encoder.network.d_outputs[0][...] = np.roll(model.encoder.network.d_outputs[0], 1, axis=0)


FAULTS = {
    "factor of a state": _handed_over(lambda state, memory: np.multiply(state, 1 + 1e-9, out=state)),
    "directions exchanged": _handed_over(_exchange_directions),
    "rows exchanged": _handed_over(lambda state, memory: np.copyto(state, state[:, ::-1].copy())),
    "memory a step late": _handed_over(lambda state, memory: np.copyto(memory, np.roll(memory, 1, axis=0))),
    "memory's directions exchanged": _handed_over(_exchange_directions_of_memory),
    "factor of d_state": _handed_back(_scale_d_state),
    "d_state's directions exchanged": _handed_back(_swap_d_state),
    "no gradient of an output": _handed_back(_drop_d_outputs),
    "gradient of an output a step late": _handed_back(_shift_d_outputs),
}


@pytest.mark.parametrize("plant", FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_caught(plant: Callable[[Transducer], None]) -> None:
    given = problem("lstm", sources=(4, 1, 3), targets=(2, 3, 1))
    model = given.model()
    plant(model)
    with pytest.raises(AssertionError):
        check_transducer(given, model, probes=3)


def test_a_decoder_that_resets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a language model's rows do at their first input: the encoder would learn from attention alone."""
    given, batch = problem(), transducer.Batch

    def faulty(inputs: Any, state: Any, initial: Any, **options: Any) -> Any:
        return batch(inputs, state, initial)

    monkeypatch.setattr(transducer, "Batch", faulty)
    with pytest.raises(AssertionError):
        check_transducer(given, probes=3)


# The same bits


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("cell", cells.names())
def test_threads_change_no_bit(cell: str, attention: bool, teams: list[Team], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a team of 4 leaves threads without rows."""
    monkeypatch.setattr("charlm.models.inference.SMALL_WORK", 0)
    activation = cells.find(cell).activations[0]
    nine = {"sources": (4, 1, 5, 2, 0, 7, 3, 5, 6), "targets": (2, 4, 1, 3, 2, 5, 1, 6, 2)}
    three = {"sources": (4, 1, 5), "targets": (2, 4, 1)}
    for lengths in (nine, three):
        given = problem(cell, activation, 2, attention=attention, sizes=LARGE, dropout="each", **lengths)
        results: list[list[Array]] = []
        for team in teams:
            model = given.model(team, np.float32)
            sources, inputs, targets = given.batch()
            loss_nats = model.loss_and_gradients(sources, inputs, targets, given.draw(model))
            gradients, scores = model.gradients.flat.copy(), model.log_probs(sources, inputs, targets)
            memory = model.encode(sources)
            stepped = model.step(memory, memory.state, inputs[0])
            results.append([np.array(loss_nats), gradients, scores, memory.start, *stepped])
            if memory.outputs:
                results[-1] += [memory.outputs.keys, memory.outputs.values]
        for result in results[1:]:
            assert all(same_bits(found, wanted) for found, wanted in zip(result, results[0], strict=True))


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("cell", cells.names())
def test_a_pair_alone_gives_the_same_bits(cell: str, attention: bool) -> None:
    given = problem(cell, cells.find(cell).activations[0], 2, attention=attention, sizes=LARGE)
    model = given.model(dtype=np.float32)
    whole = model.log_probs(*given.batch())
    for row, targets in enumerate(given.targets):
        alone = model.log_probs(*given.rows([row]).batch())
        assert same_bits(alone[:, 0], np.ascontiguousarray(whole[: targets.size, row]))


def test_what_stands_behind_a_target_is_no_matter() -> None:
    given = problem(layers=2)
    sources, inputs, targets = given.batch()
    other = inputs.copy()
    for row, own in enumerate(given.targets):
        other[own.size :, row] = 3
    models = given.model(), given.model()
    losses = [
        model.loss_and_gradients(sources, each, targets) for model, each in zip(models, (inputs, other), strict=True)
    ]
    assert losses[0] == losses[1]
    assert same_bits(models[0].gradients.flat, models[1].gradients.flat)


def test_a_run_repeats_whatever_ran_between() -> None:
    """Buffers are used again: what a larger or smaller batch left in them must not show."""
    given = problem("gru", layers=2)
    old = given.model()
    for chosen in ([0, 1, 2, 3], [3, 1], [2], [3, 2, 0], [0, 1, 2, 3]):
        part = given.rows(chosen)
        fresh = part.model()
        losses = [model.loss_and_gradients(*part.batch()) for model in (old, fresh)]
        assert losses[0] == losses[1]
        assert same_bits(old.gradients.flat, fresh.gradients.flat)
        assert same_bits(*(model.log_probs(*part.batch()) for model in (old, fresh)))


# A step at a time


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_steps_give_what_log_probs_and_the_reference_give(bidirectional: bool, attention: bool) -> None:
    given = problem("lstm", layers=2, bidirectional=bidirectional, attention=attention)
    model, (sources, inputs, targets) = given.model(), given.batch()
    scores = model.log_probs(sources, inputs, targets)
    memory = model.encode(sources)
    state = memory.state
    for t, tokens in enumerate(inputs):
        before = state.copy()
        after, found = model.step(memory, state, tokens)
        assert same_bits(state, before), "step modified its argument"
        assert not np.shares_memory(after, state)
        assert found.dtype == np.float64
        for row, own in enumerate(given.targets):
            if t < own.size:
                expected = given.log_probs(given.parameters, row)[t]
                np.testing.assert_allclose(found[row], expected, rtol=0, atol=FORWARD_TOLERANCE)
                if own[t] >= 0:
                    assert scores[t, row] == pytest.approx(found[row, own[t]], rel=1e-14)
        state = after


@pytest.mark.parametrize("attention", [False, True])
def test_a_memory_outlasts_the_next_one(attention: bool) -> None:
    given = problem("gru", layers=2, attention=attention)
    model, (sources, inputs, _) = given.model(), given.batch()
    memory = model.encode(sources)
    _, before = model.step(memory, memory.state, inputs[0])
    other = replace(sources, ids=sources.ids[::-1].copy(), reversed_ids=sources.reversed_ids[::-1].copy())
    another = model.encode(other)
    _, different = model.step(another, another.state, inputs[0])
    _, after = model.step(memory, memory.state, inputs[0])
    assert same_bits(before, after)
    assert not np.array_equal(different, after)


@pytest.mark.parametrize("attention", [False, True])
def test_rows_can_be_chosen_from_a_memory(attention: bool) -> None:
    """As a beam does: some sources often, in any order, some not at all."""
    given = problem("gru", layers=2, attention=attention)
    model, (sources, inputs, _) = given.model(), given.batch()
    memory = model.encode(sources)
    state, _ = model.step(memory, memory.state, inputs[0])
    _, each = model.step(memory, state, np.full(4, 2, np.int32))
    rows = np.array([3, 0, 0, 2])
    _, chosen = model.step(memory.take(rows), state[:, :, rows], np.full(4, 2, np.int32))
    assert same_bits(chosen, each[rows])
    again = np.array([2, 1])
    _, chosen = model.step(memory.take(rows).take(again), state[:, :, rows[again]], np.full(2, 2, np.int32))
    assert same_bits(chosen, each[rows[again]])


def test_inference_sees_every_change_of_the_weights() -> None:
    given = problem(layers=2)
    model, batch = given.model(), given.batch()

    def compare() -> None:
        fresh = Transducer(given.config, dtype=np.float64)
        fresh.parameters.assign(model.parameters)
        for _ in range(2):
            assert same_bits(*(each.log_probs(*batch) for each in (model, fresh)))
            memories = [each.encode(batch[0]) for each in (model, fresh)]
            steps = [
                m.step(memory, memory.state, batch[1][0]) for m, memory in zip((model, fresh), memories, strict=True)
            ]
            assert all(same_bits(*pair) for pair in zip(*steps, strict=True))

    compare()
    model.parameters.flat *= 0.9
    model.changed()
    compare()
    model.loss_and_gradients(*batch)
    model.parameters.flat -= 0.1 * model.gradients.flat  # after a training step no call of `changed` is due
    compare()


def test_a_nan_stays_visible() -> None:
    given = problem(layers=2, sources=(4, 2, 5), targets=(3, 4, 2))
    for path in given.parameters:
        broken = replace(given, parameters=given.parameters | {path: np.full_like(given.parameters[path], np.nan)})
        model = broken.model()
        assert np.isnan(model.loss_and_gradients(*given.batch())), path


# At the start, and learning


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("cell", cells.names())
def test_the_loss_at_the_start_is_near_that_of_equal_chances(cell: str, attention: bool) -> None:
    given = problem(cell, cells.find(cell).activations[0], 2, attention=attention, sizes=(30, 50, 16, 16, 64))
    model = Transducer(given.config, dtype=np.float64)
    model.initialise(np.random.default_rng(0))
    loss_nats = model.loss_and_gradients(*given.batch()) * given.factor
    assert loss_nats == pytest.approx(np.log(50), abs=0.2)


def test_initialisation_repeats_with_its_seed() -> None:
    models = [problem().model() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.initialise(np.random.default_rng(seed))
    assert same_bits(models[0].parameters.flat, models[1].parameters.flat)
    assert not np.array_equal(models[0].parameters.flat, models[2].parameters.flat)


def learn(given: Problem, steps: int, rate: float) -> list[float]:
    """Nats per token before each step of Adam, in float32."""
    model = Transducer(given.config)
    model.initialise(np.random.default_rng(0))
    flat, gradient = model.parameters.flat, model.gradients.flat
    mean, square = np.zeros_like(flat), np.zeros_like(flat)
    losses_nats = []
    for step in range(1, steps + 1):
        losses_nats.append(model.loss_and_gradients(*given.batch()) * given.factor)
        optimise.adamw(flat, gradient, mean, square, step, rate, 0.9, 0.999, 1e-8, 0.0, 1.0, 0, flat.size)
    return losses_nats


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("cell", cells.names())
def test_few_pairs_are_learnt_by_heart(cell: str, attention: bool) -> None:
    given = problem(
        cell, cells.find(cell).activations[0], attention=attention, sizes=(9, V_T, 8, 8, 16),
        sources=(4, 6, 5, 2, 3), targets=(5, 4, 3, 3, 6),
    )  # fmt: skip
    losses_nats = learn(given, 150, 0.02)
    assert losses_nats[0] == pytest.approx(np.log(V_T), abs=0.4)
    assert losses_nats[-1] < 0.05
