"""The reference cells and network against facts that do not come from them.

Hand-computed examples choose pre-activations whose logistic or tanh is a fraction:

    sigma(0) = 1/2   sigma(ln 3) = 3/4   sigma(ln 4) = 4/5   tanh(ln 2) = 3/5   tanh(ln 3) = 4/5
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gradient_check import check, gradient
from tests.reference import network

Array = NDArray[np.inexact]
LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)

CELLS = network.cell_names()


def column(*values: float) -> Array:
    """A row of weights as the cells hold them for E = H = 1: (1, G)."""
    return np.array([values])


def scalar_step(name: str, x: float, state: tuple[float, ...], p: dict[str, Array]) -> list[float]:
    """One step with T = N = E = H = 1."""
    after = network.find_cell(name).step(np.array([[x]]), tuple(np.array([[s]]) for s in state), p)
    return [float(s[0, 0].real) for s in after]


def random_layer(name: str, E: int, H: int, seed: int = 0) -> dict[str, Array]:
    cell = network.find_cell(name)
    G, P = len(cell.GATES), len(cell.PEEPHOLES)
    rng = np.random.default_rng(seed)
    p: dict[str, Array] = {
        "w_x": rng.normal(size=(E, G * H)),
        "b": rng.normal(size=G * H),
        "w_h": 0.6 * rng.normal(size=(H, G * H)),
    }
    if P:
        p["w_p"] = rng.normal(size=(P, H))
    return p


def random_model(
    config: network.Config, V: int, E: int, H: int, seed: int = 0
) -> tuple[dict[str, Array], NDArray[np.float64]]:
    """Parameters, and states (L, S) that need only be broadcast: (L, S, 1, H)."""
    rng = np.random.default_rng(seed)
    parameters: dict[str, Array] = {"embedding": rng.normal(size=(V, E))}
    for layer in range(config.num_layers):
        for path, array in random_layer(config.cell, E if layer == 0 else H, H, seed + layer).items():
            parameters[f"layer{layer}/{path}"] = array
    if not config.tied:
        parameters["output/w"] = rng.normal(size=(H, V))
    parameters["output/b"] = rng.normal(size=V)
    S = len(network.find_cell(config.cell).STATES)
    return parameters, rng.normal(size=(config.num_layers, S, 1, H))


# The cells, by hand.


def test_rnn_by_hand() -> None:
    # 2 * ln2/4 + 3 * ln2/12 + ln2/4 = ln 2
    p = {"w_x": column(LN2 / 4), "w_h": column(LN2 / 12), "b": np.array([LN2 / 4])}
    assert scalar_step("rnn", 2.0, (3.0,), p) == pytest.approx([3 / 5], rel=1e-14)


def test_rnn_with_relu_by_hand() -> None:
    p: dict[str, Array] = {"w_x": column(2.0), "w_h": column(0.5), "b": np.array([-1.0])}
    x, a0 = np.array([[3.0], [-0.25], [-3.0]]), np.full((3, 1), 4.0)
    cell = network.find_cell("rnn")
    (a,) = cell.step(x, (a0,), p, "relu")
    assert a.tolist() == [[7.0], [0.5], [0.0]]  # 2x + 2 - 1
    expected = np.array([[2.0], [2.0], [0.0]])  # the slope, where the unit is on
    check({"x": expected}, lambda arrays: complex(cell.step(arrays["x"], (a0,), p, "relu")[0].sum()), {"x": x})


def test_gru_simple_by_hand() -> None:
    # gates u, c: x = 2, c0 = 3; u: ln 3, c: ln 2; c = 3/4 * 3/5 + 1/4 * 3 = 6/5
    p = {
        "w_x": column(LN3 / 4, LN2 / 2),
        "w_h": column(LN3 / 12, -LN2 / 3),
        "b": np.array([LN3 / 4, LN2]),
    }
    assert scalar_step("gru-simple", 2.0, (3.0,), p) == pytest.approx([6 / 5], rel=1e-14)


def test_gru_by_hand() -> None:
    # gates u, r, c: x = 2, c0 = 3; G_u = 3/4; G_r = 4/5, so the candidate sees 12/5;
    # c~ = tanh(2 * ln2/4 + 12/5 * 5 ln2/24 + 0) = tanh(ln 2) = 3/5; c = 3/4 * 3/5 + 1/4 * 3 = 6/5
    p = {
        "w_x": column(LN3 / 4, LN4, LN2 / 4),
        "w_h": column(LN3 / 12, -LN4 / 3, 5 * LN2 / 24),
        "b": np.array([LN3 / 4, 0.0, 0.0]),
    }
    assert scalar_step("gru", 2.0, (3.0,), p) == pytest.approx([6 / 5], rel=1e-14)


def test_gru_resets_before_the_matrix_product() -> None:
    # Unit 0 is reset to nothing, unit 1 kept; the candidates cross over: unit 0 looks at unit 1 and the other
    # way.
    H, far = 2, 50.0
    p: dict[str, Array] = {
        "w_x": np.zeros((1, 3 * H)),
        "b": np.array([far, far, -far, far, 0.0, 0.0]),
        "w_h": np.concatenate([np.zeros((H, 2 * H)), np.array([[0.0, 1.0], [1.0, 0.0]])], axis=1),
    }
    (c,) = network.find_cell("gru").step(np.zeros((1, 1)), (np.array([[LN2, LN3]]),), p)
    np.testing.assert_allclose(c, [[4 / 5, 0.0]], atol=1e-15)  # after the product it would be [0, 3/5]


@pytest.mark.parametrize("name", ["gru-simple", "gru"])
def test_an_update_gate_near_one_takes_the_new_value(name: str) -> None:
    G = len(network.find_cell(name).GATES)
    for far, expected in ((50.0, 3 / 5), (-50.0, 0.25)):
        p = {"w_x": np.zeros((1, G)), "w_h": np.zeros((1, G)), "b": np.array([far, *[0.0] * (G - 2), LN2])}
        assert scalar_step(name, 1.0, (0.25,), p) == pytest.approx([expected], rel=1e-14)


def test_lstm_by_hand() -> None:
    # gates u, f, o, c: x = 2, a0 = 3: 3/4, 1/2, 4/5, 3/5; c0 = 2 ln2 - 9/10;
    # c = 3/4 * 3/5 + c0/2 = ln 2; a = 4/5 * 3/5
    p = {
        "w_x": column(LN3 / 4, 1.5, LN4, LN2 / 2),
        "w_h": column(LN3 / 12, -1.0, -LN4 / 3, -LN2 / 3),
        "b": np.array([LN3 / 4, 0.0, 0.0, LN2]),
    }
    assert scalar_step("lstm", 2.0, (3.0, 2 * LN2 - 9 / 10), p) == pytest.approx([12 / 25, LN2], rel=1e-14)


def test_lstm_peephole_by_hand() -> None:
    # As above, with c0 = 2 ln2 - 9/10 in each gate; the bias takes it away again, one share for each
    # peephole.
    c0 = 2 * LN2 - 9 / 10
    p = {
        "w_x": column(LN3 / 4, 1.5, LN4, LN2 / 2),
        "w_h": column(LN3 / 12, -1.0, -LN4 / 3, -LN2 / 3),
        "b": np.array([LN3 / 4 - 5 * c0, 0.0 - 7 * c0, 0.0 + 11 * c0, LN2]),
        "w_p": np.array([[5.0], [7.0], [-11.0]]),
    }
    assert scalar_step("lstm-peephole", 2.0, (3.0, c0), p) == pytest.approx([12 / 25, LN2], rel=1e-13)


def test_the_output_gate_sees_the_old_memory_cell() -> None:
    # c0 = ln 3; the input gate is open and the forget gate shut, so that c = tanh(ln 2) = 3/5. The output
    # gate is sigma(c0) = 3/4 by its peephole alone.
    p = {
        "w_x": np.zeros((1, 4)),
        "w_h": np.zeros((1, 4)),
        "b": np.array([50.0, -50.0, 0.0, LN2]),
        "w_p": np.array([[0.0], [0.0], [1.0]]),
    }
    assert scalar_step("lstm-peephole", 1.0, (0.1, LN3), p) == pytest.approx([3 / 4 * math.tanh(3 / 5), 3 / 5])


def test_peepholes_of_zero_leave_the_lstm() -> None:
    p = random_layer("lstm-peephole", 3, 4)
    p["w_p"] = np.zeros_like(p["w_p"])
    rng = np.random.default_rng(1)
    x, a0, c0 = rng.normal(size=(2, 3)), rng.normal(size=(2, 4)), rng.normal(size=(2, 4))
    with_peepholes = network.find_cell("lstm-peephole").step(x, (a0, c0), p)
    without = network.find_cell("lstm").step(x, (a0, c0), p)
    np.testing.assert_array_equal(with_peepholes, without)


def test_a_reset_gate_of_one_leaves_the_simplified_gru() -> None:
    E, H = 3, 4
    simple = random_layer("gru-simple", E, H)
    full: dict[str, Array] = {
        path: np.concatenate([w[..., :H], np.full_like(w[..., :H], 50.0 if path == "b" else 0.0), w[..., H:]], axis=-1)
        for path, w in simple.items()
    }
    rng = np.random.default_rng(1)
    x, c0 = rng.normal(size=(2, E)), rng.normal(size=(2, H))
    np.testing.assert_allclose(
        network.find_cell("gru").step(x, (c0,), full),
        network.find_cell("gru-simple").step(x, (c0,), simple),
        rtol=1e-14,
    )


# What holds for every cell.


def test_the_five_cells_and_their_layout() -> None:
    layout = {name: (c.GATES, c.STATES, c.PEEPHOLES) for name in CELLS for c in [network.find_cell(name)]}
    assert (
        layout.items()
        >= {
            "rnn": (("a",), ("a",), ()),
            "gru-simple": (("u", "c"), ("c",), ()),
            "gru": (("u", "r", "c"), ("c",), ()),
            "lstm": (("u", "f", "o", "c"), ("a", "c"), ()),
            "lstm-peephole": (("u", "f", "o", "c"), ("a", "c"), ("u", "f", "o")),
        }.items()
    )


@pytest.mark.parametrize("name", CELLS)
def test_a_batch_is_its_rows(name: str) -> None:
    cell, p = network.find_cell(name), random_layer(name, 3, 4)
    rng = np.random.default_rng(2)
    x, state = rng.normal(size=(5, 3)), tuple(rng.normal(size=(5, 4)) for _ in cell.STATES)
    together = cell.step(x, state, p)
    for n in range(5):
        alone = cell.step(x[n : n + 1], tuple(s[n : n + 1] for s in state), p)
        for whole, row in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[n : n + 1], row, rtol=1e-13)


@pytest.mark.parametrize("name", CELLS)
def test_complex_step_agrees_with_differences(name: str) -> None:
    """Central differences, which need no complex numbers, give the same to their own, lower, precision."""
    T, N, E, H = 3, 2, 2, 3
    cell, p = network.find_cell(name), random_layer(name, E, H)
    rng = np.random.default_rng(3)
    arrays: dict[str, Array] = {
        **p,
        "x": rng.normal(size=(T, N, E)),
        "s": rng.normal(size=(len(cell.STATES), N, H)),
    }
    weights = rng.normal(size=(T, N, H))

    def function(arrays: dict[str, Array]) -> complex:
        hidden, state_T = network.run_layer(
            cell, arrays["x"], arrays["s"], arrays, np.zeros((T, N), bool), np.zeros_like(arrays["s"])
        )
        total: complex = (weights * hidden).sum() + (state_T**2).sum()
        return total

    exact = gradient(function, arrays)
    for path, array in arrays.items():
        for index in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[index] = 1e-6
            above, below = function({**arrays, path: array + step}), function({**arrays, path: array - step})
            assert exact[path][index] == pytest.approx((above - below).real / 2e-6, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", CELLS)
def test_large_activations_do_not_overflow(name: str) -> None:
    cell, p = network.find_cell(name), random_layer(name, 1, 2)
    for x in (-1e4, 1e4):
        for dtype in (np.float64, np.complex128):
            for s in cell.step(np.full((1, 1), x, dtype), tuple(np.ones((1, 2)) for _ in cell.STATES), p):
                assert np.isfinite(s).all()


@pytest.mark.parametrize("name", CELLS)
def test_chunks_make_the_whole(name: str) -> None:
    T, N, E, H = 6, 3, 2, 4
    cell, p = network.find_cell(name), random_layer(name, E, H)
    rng = np.random.default_rng(4)
    x, reset = rng.normal(size=(T, N, E)), rng.random((T, N)) < 0.3
    state_0, initial = rng.normal(size=(2, len(cell.STATES), N, H))
    hidden, state_T = network.run_layer(cell, x, state_0, p, reset, initial)
    first, state = network.run_layer(cell, x[:4], state_0, p, reset[:4], initial)
    second, state = network.run_layer(cell, x[4:], state, p, reset[4:], initial)
    np.testing.assert_array_equal(np.concatenate([first, second]), hidden)
    np.testing.assert_array_equal(state, state_T)
    np.testing.assert_array_equal(state[0], hidden[-1])


@pytest.mark.parametrize("name", CELLS)
def test_a_reset_row_starts_afresh_and_the_others_go_on(name: str) -> None:
    T, E, H = 5, 2, 4
    cell, p = network.find_cell(name), random_layer(name, E, H)
    rng = np.random.default_rng(5)
    x, reset = rng.normal(size=(T, 2, E)), np.zeros((T, 2), bool)
    reset[3, 0] = True
    state_0, initial = rng.normal(size=(2, len(cell.STATES), 2, H))
    hidden, _ = network.run_layer(cell, x, state_0, p, reset, initial)
    plain, _ = network.run_layer(cell, x, state_0, p, np.zeros_like(reset), initial)
    fresh, _ = network.run_layer(cell, x[3:], initial, p, np.zeros_like(reset[3:]), initial)
    np.testing.assert_array_equal(hidden[:, 1], plain[:, 1])
    np.testing.assert_array_equal(hidden[:3, 0], plain[:3, 0])
    np.testing.assert_array_equal(hidden[3:, 0], fresh[:, 0])


# The language model.


def test_loss_by_hand() -> None:
    """V = 2, one unit: a sequence starts from zeros, so its first prediction is the output biases' alone."""
    parameters: dict[str, Array] = {
        "embedding": np.array([[5.0], [LN2]]),
        "layer0/w_x": column(1.0),
        "layer0/b": np.zeros(1),
        "layer0/w_h": column(9.0),
        "output/w": np.array([[0.0, 5 * LN3 / 3]]),
        "output/b": np.array([LN3, 0.0]),
    }
    zeros = np.zeros((1, 1, 1, 1))
    config = network.Config("rnn", 1)
    # step 0: logits (ln 3, 0), P(1) = 1/4; step 1: input 1, a = tanh(ln 2) = 3/5, logits (ln 3, ln 3), P(0) =
    # 1/2
    inputs, targets = np.array([[2], [1]]), np.array([[1], [0]])
    assert network.loss(parameters, inputs, targets, 7 + zeros, zeros, config) == pytest.approx(3 * LN2, rel=1e-14)
    targets[0] = -1
    assert network.loss(parameters, inputs, targets, 7 + zeros, zeros, config) == pytest.approx(LN2, rel=1e-14)
    # a state of 7 before the chunk would have driven the unit to 1, had it not been reset
    inputs[0] = 1
    targets[0] = 0
    loss = network.loss(parameters, inputs[:1], targets[:1], 7 + zeros, zeros, config)
    assert loss == pytest.approx(math.log1p(3 ** (5 / 3) / 3), rel=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_every_next_token_is_a_probability(name: str, tied: bool) -> None:
    """The probabilities of all sequences of two tokens sum to one."""
    V, H, config = 3, 4, network.Config(name, 2, tied=tied)
    parameters, state = random_model(config, V, H if tied else 2, H)
    assert ("output/w" in parameters) != tied
    pairs = np.stack(np.meshgrid(np.arange(V), np.arange(V))).reshape(2, V * V)
    inputs = np.stack([np.full(V * V, V), pairs[0]])
    initial = np.broadcast_to(state, (*state.shape[:2], V * V, H))
    logits, _ = network.forward(parameters, inputs, np.zeros_like(initial), initial, config)
    log_probs = np.take_along_axis(network.log_softmax(logits), pairs[..., None], axis=-1).sum(axis=(0, 2))
    assert np.exp(log_probs.real).sum() == pytest.approx(1.0, rel=1e-13)
    loss = network.loss(parameters, inputs, pairs, np.zeros_like(initial), initial, config)
    assert loss == pytest.approx(-log_probs.sum(), rel=1e-13)


def test_the_gradient_of_the_output_bias_is_probability_minus_target() -> None:
    """The one gradient of the model that needs no back-propagation."""
    T, N, V, E, H = 3, 2, 5, 2, 4
    config = network.Config("lstm", 2)
    parameters, state = random_model(config, V, E, H)
    rng = np.random.default_rng(6)
    inputs, targets = rng.integers(0, V + 1, (T, N)), rng.integers(-1, V, (T, N))
    state_0 = rng.normal(size=(*state.shape[:2], N, H))
    keep = list(2.0 * (rng.random((config.num_layers, T, N, H)) < 0.5))
    initial = np.broadcast_to(state, state_0.shape)
    logits, _ = network.forward(parameters, inputs, state_0, initial, config, keep)
    probs = np.exp(network.log_softmax(logits))
    expected = (probs - (targets[..., None] == np.arange(V)))[targets >= 0].sum(axis=0)

    def function(arrays: dict[str, Array]) -> complex:
        return network.loss({**parameters, **arrays}, inputs, targets, state_0, initial, config, keep)

    check({"output/b": expected}, function, {"output/b": parameters["output/b"]}, rtol=1e-12)


def test_dropout_acts_on_what_a_layer_hands_on_and_not_on_its_state() -> None:
    T, N, V, E, H = 4, 2, 5, 2, 3
    config = network.Config("gru", 2)
    parameters, state = random_model(config, V, E, H)
    inputs = np.random.default_rng(7).integers(0, V, (T, N))
    state_0 = np.broadcast_to(state, (*state.shape[:2], N, H))
    plain, plain_T = network.forward(parameters, inputs, state_0, state_0, config)
    ones = [np.ones((T, N, H))] * 2
    np.testing.assert_array_equal(network.forward(parameters, inputs, state_0, state_0, config, ones)[0], plain)
    # The top layer's output dropped whole: the biases alone are left, and no state has moved.
    logits, state_T = network.forward(parameters, inputs, state_0, state_0, config, [ones[0], 0 * ones[1]])
    np.testing.assert_array_equal(logits, np.broadcast_to(parameters["output/b"], logits.shape))
    np.testing.assert_array_equal(state_T, plain_T)
    # The lower layer's output dropped whole: the top layer runs without input, the lower layer's state is as
    # before.
    logits, state_T = network.forward(parameters, inputs, state_0, state_0, config, [0 * ones[0], ones[1]])
    blind = {**parameters, "layer1/w_x": np.zeros_like(parameters["layer1/w_x"])}
    np.testing.assert_allclose(logits, network.forward(blind, inputs, state_0, state_0, config)[0], rtol=1e-13)
    np.testing.assert_array_equal(state_T[0], plain_T[0])


def test_log_softmax_stands_large_logits() -> None:
    log_probs = network.log_softmax(np.array([[1e4, 1e4, -1e4]]))
    np.testing.assert_allclose(log_probs, [[-LN2, -LN2, -2e4 - LN2]], rtol=1e-14)
