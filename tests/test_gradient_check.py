"""The gradient checker is checked: it passes a right gradient and catches planted faults."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gradient_check import GradientError, check, derivative, gradient
from tests.reference import network

Array = NDArray[np.inexact]
Floats = NDArray[np.float64]

T, N, E, H = 4, 3, 2, 5


def make_problem() -> tuple[dict[str, Array], Floats]:
    """A simplified GRU over T steps with a random start, and the weights its outputs are summed with."""
    rng = np.random.default_rng(11)
    arrays: dict[str, Array] = {
        "x": rng.normal(size=(T, N, E)),
        "c_0": rng.normal(size=(N, H)),
        "w_x": rng.normal(size=(E, 2 * H)),
        "b": rng.normal(size=2 * H),
        "w_h": 0.5 * rng.normal(size=(H, 2 * H)),
    }
    return arrays, rng.normal(size=(T, N, H))


def weighted_sum(weights: Floats) -> Callable[[dict[str, Array]], complex]:
    """The function under test: sum of weights * hidden."""

    def function(arrays: dict[str, Array]) -> complex:
        hidden, _ = network.run_layer(
            network.find_cell("gru-simple"),
            arrays["x"],
            arrays["c_0"][None],
            {name: arrays[name] for name in ("w_x", "b", "w_h")},
            np.zeros((T, N), bool),
            np.zeros((1, N, H)),
        )
        total: complex = (weights * hidden).sum()
        return total

    return function


def backward(arrays: dict[str, Array], weights: Floats, fault: str = "") -> dict[str, Array]:
    """The gradient of `weighted_sum` derived by hand, with one of the planted faults."""
    x, w_x, b, w_h = arrays["x"], arrays["w_x"], arrays["b"], arrays["w_h"]
    states, gates, candidates = [arrays["c_0"]], [], []
    for x_t in x:
        pre = states[-1] @ w_h + x_t @ w_x + b
        u, g = 1.0 / (1.0 + np.exp(-pre[:, :H])), np.tanh(pre[:, H:])
        gates.append(u)
        candidates.append(g)
        states.append(u * g + (1.0 - u) * states[-1])

    d: dict[str, Array] = {name: np.zeros_like(array) for name, array in arrays.items()}
    d_c = np.zeros((N, H))
    for t in reversed(range(T)):
        u, g, c_0 = gates[t], candidates[t], states[t]
        d_c = d_c + weights[t]
        d_u = d_c * (g - c_0) * u * (1.0 - u)
        d_g = d_c * u * (1.0 - g**2)
        d_pre = np.concatenate([d_g, d_u] if fault == "swapped gates" else [d_u, d_g], axis=1)
        d["x"][t] = d_pre @ w_x.T
        d["w_x"] += x[t].T @ d_pre
        d["b"] += d_pre.sum(axis=0)
        d["w_h"] += (states[t + 1] if fault == "shifted step" else c_0).T @ d_pre
        d_c = d_c * (1.0 - u)
        if fault != "dropped term":
            d_c = d_c + d_pre @ w_h.T
    d["c_0"] = d_c
    if fault == "factor":
        d["w_h"] *= 1.001
    if fault == "one entry":
        d["w_h"][H - 1, 2 * H - 1] *= 1.0 + 1e-7
    if fault == "sign":
        d["b"][H:] *= -1.0
    return d


def test_the_right_gradient_passes() -> None:
    arrays, weights = make_problem()
    worst = check(backward(arrays, weights), weighted_sum(weights), arrays)
    assert worst < 1e-12


@pytest.mark.parametrize(
    ("fault", "tensors"),
    [
        ("factor", {"w_h"}),
        ("one entry", {"w_h"}),
        ("sign", {"b"}),
        ("shifted step", {"w_h"}),
        ("dropped term", {"x", "c_0", "w_x", "b", "w_h"}),
        ("swapped gates", {"x", "c_0", "w_x", "b", "w_h"}),
    ],
)
def test_a_planted_fault_is_caught(fault: str, tensors: set[str]) -> None:
    arrays, weights = make_problem()
    with pytest.raises(GradientError) as caught:
        check(backward(arrays, weights, fault), weighted_sum(weights), arrays)
    headings = [line for line in str(caught.value).splitlines() if not line.startswith(" ")]
    assert {heading.partition(":")[0] for heading in headings} == tensors


@pytest.mark.parametrize("fault", ["factor", "shifted step", "dropped term", "swapped gates"])
def test_a_sample_of_the_entries_is_enough_for_a_fault_of_a_whole_tensor(fault: str) -> None:
    arrays, weights = make_problem()
    check(backward(arrays, weights), weighted_sum(weights), arrays, probes=4, seed=1)
    with pytest.raises(GradientError, match="w_h: 4 of 4 entries are wrong"):
        check(backward(arrays, weights, fault), weighted_sum(weights), arrays, probes=4, seed=1)


def test_a_sample_is_drawn_without_repetition_and_repeats_with_its_seed() -> None:
    def places(probes: int, seed: int) -> list[int]:
        seen: list[int] = []

        def function(arrays: dict[str, Array]) -> complex:
            seen.extend(np.flatnonzero(arrays["x"].imag))
            return complex(arrays["x"].sum())

        check({"x": np.ones((3, 4))}, function, {"x": np.zeros((3, 4))}, probes=probes, seed=seed)
        return seen

    assert len(set(places(7, 0))) == 7
    assert places(7, 0) == places(7, 0) != places(7, 1)
    assert places(12, 0) == places(99, 0) == list(range(12))


def test_the_message_names_tensor_index_values_and_error() -> None:
    arrays: dict[str, Array] = {"p": np.array([[1.0, 2.0], [3.0, 4.0]]), "q": np.array(1.0)}

    def function(arrays: dict[str, Array]) -> complex:
        total: complex = (arrays["p"] ** 2).sum() + arrays["q"]
        return total

    with pytest.raises(GradientError) as caught:
        check({"p": np.array([[2.0, 4.0], [7.5, 8.0]]), "q": np.array(1.0)}, function, arrays)
    assert str(caught.value).splitlines() == [
        "p: 1 of 4 entries are wrong (rtol 1e-09)",
        "  p[1, 0]: gradient 7.5, derivative 6, relative error 0.2",
    ]


def test_the_worst_entries_come_first_and_the_list_is_short() -> None:
    with pytest.raises(GradientError) as caught:
        check({"x": np.arange(100.0)}, lambda arrays: complex(arrays["x"].sum()), {"x": np.ones(100)})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("x: 99 of 100 entries are wrong")
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "  x[0]",
        "  x[99]",
        "  x[98]",
        "  x[97]",
        "  x[96]",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_caught(value: float) -> None:
    with pytest.raises(GradientError, match=r"x\[1\]"):
        check({"x": np.array([1.0, value])}, lambda arrays: complex(arrays["x"].sum()), {"x": np.ones(2)})


def test_zero_is_compared_too() -> None:
    def function(arrays: dict[str, Array]) -> complex:
        return complex(3.0 * arrays["x"][0])  # x[1] has no part in it

    check({"x": np.array([3.0, 0.0])}, function, {"x": np.ones(2)})
    with pytest.raises(GradientError, match=r"x\[1\]"):
        check({"x": np.array([3.0, 0.01])}, function, {"x": np.ones(2)})
    with pytest.raises(GradientError, match=r"x\[0\]"):
        check({"x": np.array([0.0, 0.0])}, function, {"x": np.ones(2)})


def test_names_and_shapes_must_agree() -> None:
    def function(arrays: dict[str, Array]) -> complex:
        return complex(arrays["x"].sum())

    with pytest.raises(GradientError, match=r"missing for \['x'\], and given for unknown \['y'\]"):
        check({"y": np.ones(2)}, function, {"x": np.ones(2)})
    with pytest.raises(GradientError, match=r"x: the gradient has shape \(1, 2\), the array \(2,\)"):
        check({"x": np.ones((1, 2))}, function, {"x": np.ones(2)})


def test_a_function_that_drops_the_imaginary_part_is_refused() -> None:
    with pytest.raises(TypeError, match="x: the function does not let complex numbers through"):
        derivative(lambda arrays: np.abs(arrays["x"]).sum(), {"x": np.ones(2)}, "x", (0,))


def test_derivatives_of_known_functions() -> None:
    x = np.array([[0.3, -1.2, 2.0]])

    def function(arrays: dict[str, Array]) -> complex:
        total: complex = (np.sin(arrays["x"]) * np.exp(arrays["x"])).sum()
        return total

    expected = (np.sin(x) + np.cos(x)) * np.exp(x)
    np.testing.assert_allclose(gradient(function, {"x": x})["x"], expected, rtol=1e-14)


def test_the_arrays_are_left_alone() -> None:
    arrays, weights = make_problem()
    before = {name: array.copy() for name, array in arrays.items()}
    gradient(weighted_sum(weights), arrays)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], before[name])
