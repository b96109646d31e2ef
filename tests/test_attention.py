"""Attention against its equations: its kernels, the layer around them, and faults that must be caught."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from charlm.engine import attention as kernels
from charlm.models import attention
from charlm.models.attention import Attention
from charlm.models.buffers import Buffers
from charlm.models.parameters import Parameters
from tests.engine_harness import FORWARD_TOLERANCE, GRADIENT_TOLERANCE, same_bits
from tests.gradient_check import check
from tests.reference import attention as reference

Array = NDArray[Any]
Arrays = dict[str, Array]

T, S, H = 4, 5, 7
LENGTHS = (5, 0, 1, 3, 2, 5)  # of the sources: as long as can be, of no step, of one
N = len(LENGTHS)


def problem(steps: int = T, longest: int = S, size: int = H, lengths: tuple[int, ...] = LENGTHS) -> Arrays:
    """What asks, what answers and the weights; and the factors of a~ in the number that is differentiated."""
    rng = np.random.default_rng(5)
    rows = len(lengths)
    return {
        "d": rng.normal(size=(steps, rows, size)),
        "h": rng.normal(size=(longest, rows, size)),
        "w": rng.normal(size=(2 * size, size)) / size**0.5,
        "b": rng.normal(size=size),
        "weights": rng.normal(size=(steps, rows, size)),
        "lengths": np.array(lengths, np.int64),
    }


def layer(arrays: Arrays, dtype: DTypeLike = np.float64) -> Attention:
    size = arrays["b"].size
    parameters = Parameters(Attention.shapes(size), dtype)
    found = Attention(size, parameters, parameters.like(), Buffers(dtype))
    parameters.assign({attention.W: arrays["w"], attention.B: arrays["b"]})
    return found


def run(
    arrays: Arrays,
    sources: Array | None = None,
    cuts: tuple[int, ...] = (),
    parts: int = 1,
    found: Attention | None = None,
    dtype: DTypeLike = np.float64,
) -> Arrays:
    """Forward and, where each row asks its own source, backward; the rows in pieces that end at ``cuts``."""
    model = found or layer(arrays, dtype)
    d, h = arrays["d"].astype(dtype), arrays["h"].astype(dtype)
    rows = d.shape[1]
    own = sources is None
    for part in range(parts):
        model.pack(part, parts, backward=True)
    for name in ("alpha", "context", "attentional", "d_memory", "d_context", "d_scores"):
        model.buffers.get(name, (max(S * N * H, T * N * S, 4000),))[...] = np.nan  # what is left from another pass
    asked = np.arange(rows) if sources is None else sources
    result: Arrays = {"output": model.begin(d, h, arrays["lengths"], asked)}
    pieces = [0, *cuts, rows]
    for low, high in itertools.pairwise(pieces):
        model.forward(low, high)
    if not own:
        return result
    result["output"] = result["output"].copy()
    d_output, result["h"] = model.begin_backward()
    d_output[...] = arrays["weights"]
    result["d"] = np.full_like(d, np.nan)
    for low, high in itertools.pairwise(pieces):
        model.backward(result["d"], low, high)
    model.gradients.flat[...] = 0
    for part in range(parts):
        model.sum_gradients(part, parts)
    return result | {"w": model.gradients[attention.W].copy(), "b": model.gradients[attention.B].copy()}


def expected_output(arrays: Arrays, sources: Array | None = None) -> Array:
    outputs = []
    for n in range(arrays["d"].shape[1]):
        source = n if sources is None else sources[n]
        h = arrays["h"][arrays["h"].shape[0] - arrays["lengths"][source] :, source]
        _, context = reference.attend(arrays["d"][:, n], h)
        outputs.append(reference.attentional(arrays["d"][:, n], context, arrays["w"], arrays["b"]))
    return np.stack(outputs, axis=1)


def objective(arrays: Arrays) -> complex:
    total: complex = (arrays["weights"] * expected_output(arrays)).sum()
    return total


def check_attention(arrays: Arrays, found: Attention | None = None, probes: int | None = None) -> None:
    result = run(arrays, found=found)
    np.testing.assert_allclose(result["output"], expected_output(arrays), rtol=0, atol=FORWARD_TOLERANCE)
    names = ("d", "h", "w", "b")
    check(
        {name: result[name] for name in names},
        lambda moved: objective(arrays | moved),
        {name: arrays[name] for name in names},
        GRADIENT_TOLERANCE,
        probes,
    )


def test_output_and_every_gradient() -> None:
    check_attention(problem())


@pytest.mark.parametrize(
    ("steps", "longest", "size", "lengths"),
    [(1, 1, 1, (1,)), (1, 5, 3, (5, 4)), (6, 1, 5, (1, 0, 1)), (3, 19, 33, (19, 17, 2)), (2, 4, 3, (0, 4))],
)
def test_other_sizes(steps: int, longest: int, size: int, lengths: tuple[int, ...]) -> None:
    check_attention(problem(steps, longest, size, lengths), probes=40)


def test_the_weights_are_a_distribution_over_the_source_alone() -> None:
    arrays = problem()
    alpha = np.full((N, T, S), np.nan)
    kernels.attend(arrays["d"], arrays["h"], arrays["lengths"], np.arange(N), alpha, arrays["d"].copy(), 0, N)
    for n, length in enumerate(LENGTHS):
        assert np.isnan(alpha[n, :, length:]).all()
        if length:
            np.testing.assert_allclose(alpha[n, :, :length].sum(axis=1), 1, rtol=1e-14)
            expected, _ = reference.attend(arrays["d"][:, n], arrays["h"][S - length :, n])
            np.testing.assert_allclose(alpha[n, :, :length], expected, rtol=0, atol=FORWARD_TOLERANCE)


def test_large_scores_do_not_overflow() -> None:
    arrays = problem()
    arrays["d"] *= 1e3
    assert np.isfinite(run(arrays, dtype=np.float32)["h"]).all()
    np.testing.assert_allclose(run(arrays)["output"], expected_output(arrays), rtol=0, atol=FORWARD_TOLERANCE)


def test_several_rows_may_ask_one_source() -> None:
    """As the hypotheses of a beam do; in any order, and not every source is asked."""
    arrays, sources = problem(), np.array([3, 1, 3, 0, 5, 3])
    found = run(arrays, sources)["output"]
    np.testing.assert_allclose(found, expected_output(arrays, sources), rtol=0, atol=FORWARD_TOLERANCE)


def test_how_rows_and_weights_are_shared_out_changes_no_bit() -> None:
    for arrays in (problem(), problem(6, 19, 70, (19, 4, 11, 18, 7, 0, 9))):
        whole = run(arrays)
        for cuts, parts in (((1,), 2), ((2, 2, 3), 4)):
            shared = run(arrays, cuts=cuts, parts=parts)
            assert all(same_bits(shared[name], whole[name]) for name in whole)


def test_a_row_is_the_same_alone_and_beside_longer_ones() -> None:
    arrays = problem(6, 19, 33, (19, 4, 11, 0, 7))
    whole = run(arrays)
    for n, length in enumerate(arrays["lengths"].tolist()):
        own = slice(n, n + 1)
        rows = {name: np.ascontiguousarray(arrays[name][:, own]) for name in ("d", "weights")}
        h = np.ascontiguousarray(arrays["h"][19 - max(1, length) :, own])
        alone = run(arrays | rows | {"h": h, "lengths": arrays["lengths"][own]})
        assert same_bits(alone["output"], np.ascontiguousarray(whole["output"][:, own]))
        assert same_bits(alone["d"], np.ascontiguousarray(whole["d"][:, own]))
        assert same_bits(alone["h"], np.ascontiguousarray(whole["h"][19 - max(1, length) :, own]))
        assert not whole["h"][: 19 - length, n].any()


def test_float32_is_near_float64() -> None:
    arrays = problem(6, 19, 70, (19, 4, 11, 18, 7, 0, 9))
    exact, rough = run(arrays), run(arrays, dtype=np.float32)
    for name, wanted in exact.items():
        assert rough[name].dtype == np.float32
        assert np.abs(rough[name] - wanted).max() <= 5e-6 * np.abs(wanted).max(), name


def test_a_nan_stays_visible() -> None:
    arrays = problem()
    arrays["h"][S - 1, 3, 2] = np.nan
    found = run(arrays)
    assert np.isnan(found["output"][:, 3]).all()
    assert np.isfinite(found["output"][:, :3]).all()
    assert np.isnan(found["d"][:, 3]).all()


# Faults


Change = Callable[[list[Any]], None]


def kernel_faults() -> Iterator[tuple[str, str, Change, Change]]:
    """Name, kernel, and changes of its arguments before and after the call."""

    def nothing(arguments: list[Any]) -> None:
        """No change."""

    def scale(place: int, factor: float) -> Change:
        def change(arguments: list[Any]) -> None:
            arguments[place][...] *= factor

        return change

    def instead(place: int, function: Callable[[Any], Any]) -> Change:
        def change(arguments: list[Any]) -> None:
            arguments[place] = np.ascontiguousarray(function(arguments[place]))

        return change

    def roll(place: int, axis: int) -> Change:
        return instead(place, lambda values: np.roll(values, 1, axis))

    def put(place: int, axis: int) -> Change:
        def change(arguments: list[Any]) -> None:
            arguments[place][...] = np.roll(arguments[place], 1, axis)

        return change

    for place, what in ((4, "alpha"), (5, "context")):
        yield f"factor of {what}", "attend", nothing, scale(place, 1.001)
    yield "padding takes part", "attend", instead(2, lambda lengths: np.full_like(lengths, S)), nothing
    yield "a step too few", "attend", instead(2, lambda lengths: np.maximum(lengths - 1, 1)), nothing
    yield "aligned at the beginning", "attend", roll(1, 0), nothing
    yield "another row's source", "attend", roll(3, 0), nothing
    yield "a step late", "attend", nothing, put(5, 0)
    yield "no squashing", "squash", instead(0, np.zeros_like), nothing
    yield "no reverse of squashing", "squash_backward", instead(1, np.zeros_like), nothing
    for place, what in ((6, "d_d"), (7, "d_h")):
        yield f"factor of {what}", "attend_backward", nothing, scale(place, 1.001)
        yield f"{what} a step late", "attend_backward", nothing, put(place, 0)
    yield "no gradient through the scores", "attend_backward", instead(1, np.zeros_like), nothing
    yield "no gradient through alpha's sum", "attend_backward", roll(4, 1), nothing
    yield "d_d not added to", "attend_backward", scale(6, 0.0), nothing
    yield "padding learns", "attend_backward", instead(3, lambda lengths: np.full_like(lengths, S)), nothing
    yield "no context", "attend_backward", instead(0, np.zeros_like), nothing


@pytest.mark.parametrize("fault", list(kernel_faults()), ids=lambda fault: fault[0])
def test_faults_of_the_kernels_are_caught(
    fault: tuple[str, str, Change, Change], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, before, after = fault
    kernel = getattr(kernels, name)

    def faulty(*values: Any) -> None:
        arguments = list(values)
        before(arguments)
        kernel(*arguments)
        after(arguments)

    monkeypatch.setattr(kernels, name, faulty)
    with pytest.raises(AssertionError):
        check_attention(problem(), probes=20)


def exchange_halves(found: Attention) -> None:
    pack = found.pack

    def faulty(part: int, parts: int, *, backward: bool) -> None:
        pack(part, parts, backward=backward)
        found._halves.reverse()

    found.pack = faulty  # type: ignore[method-assign]


def scale_gradient(path: str) -> Callable[[Attention], None]:
    def plant(found: Attention) -> None:
        sum_gradients = found.sum_gradients

        def faulty(part: int, parts: int) -> None:
            sum_gradients(part, parts)
            found.gradients[path][...] *= 1.001

        found.sum_gradients = faulty  # type: ignore[method-assign]

    return plant


@pytest.mark.parametrize(
    "plant",
    [
        exchange_halves,
        lambda found: found.parameters[attention.B].__imul__(1.001),
        lambda found: found.parameters[attention.W][H:].fill(0),
        scale_gradient(attention.W),
        scale_gradient(attention.B),
    ],
    ids=["halves exchanged", "factor of b", "no decoder", "factor of d_w", "factor of d_b"],
)
def test_faults_of_the_layer_are_caught(plant: Callable[[Attention], None]) -> None:
    found = layer(problem())
    plant(found)
    with pytest.raises(AssertionError):
        check_attention(problem(), found, probes=20)
