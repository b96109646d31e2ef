"""Compare gradients with derivatives by complex step.

For a function f that is real on real arguments and built of analytic operations,

    df/dx = Im f(x + i h) / h

has no subtraction in it, so h may be as small as 1e-30 and the derivative is exact to rounding. The function
must let complex numbers through: no `abs`, no `astype(float)`, comparisons on the real part only.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]
Function = Callable[[dict[str, Array]], complex]
Known = dict[tuple[str, tuple[int, ...]], float]  # derivatives by name and place

STEP = 1e-30
SMALL = 1e-4  # a derivative below this part of its tensor's largest is judged as if it were that large
SHOWN = 5  # entries a message lists for each tensor


class GradientError(AssertionError):
    """A gradient is not the derivative."""


def derivative(function: Function, arrays: Mapping[str, Array], name: str, index: tuple[int, ...]) -> float:
    """The derivative of function(arrays) with respect to arrays[name][index], by complex step.

    Raises:
        TypeError: the function gave a real number for a complex argument, and so lost the derivative.
    """
    moved = dict(arrays)
    moved[name] = arrays[name].astype(np.complex128)
    moved[name][index] += 1j * STEP
    value = function(moved)
    if not np.iscomplexobj(value):
        raise TypeError(f"{name}: the function does not let complex numbers through")
    return float(np.imag(value)) / STEP


def gradient(function: Function, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The derivatives with respect to every entry of every array, by complex step."""
    return {
        name: np.array([derivative(function, arrays, name, index) for index in np.ndindex(array.shape)]).reshape(
            array.shape
        )
        for name, array in arrays.items()
    }


def check(
    analytic: Mapping[str, Array],
    function: Function,
    arrays: Mapping[str, Array],
    rtol: float = 1e-9,
    probes: int | None = None,
    seed: int = 0,
    known: Known | None = None,
) -> float:
    """Compare `analytic` with the derivatives of `function` by complex step.

    The error of an entry is |analytic - derivative| over the larger of the two, or over a ten-thousandth
    of the tensor's largest derivative where both are smaller than that: the rounding error of a sum goes
    by its largest terms.

    Args:
        analytic: the gradients to be judged, by name; names and shapes are those of `arrays`.
        function: of the named arrays, the number that was differentiated. Called once for each entry.
        arrays: where to differentiate, float64. Not modified.
        rtol: the largest relative error allowed.
        probes: how many entries of each tensor to try, drawn with `seed`; None tries all.
        seed: of the draw.
        known: derivatives of this very function at these arrays, found by an earlier call, which are not computed
            again; those that are computed are added.
    Returns:
        The worst relative error met.
    Raises:
        GradientError: names each wrong tensor and its worst entries, with both values and the relative error.
    """
    if set(analytic) != set(arrays):
        missing, extra = sorted(set(arrays) - set(analytic)), sorted(set(analytic) - set(arrays))
        raise GradientError(f"gradients missing for {missing}, and given for unknown {extra}")
    rng, known = np.random.default_rng(seed), {} if known is None else known
    worst, complaints = 0.0, []
    for name, array in arrays.items():
        given = analytic[name]
        if given.shape != array.shape:
            complaints.append(f"{name}: the gradient has shape {given.shape}, the array {array.shape}")
            continue
        indices = list(_indices(array.shape, probes, rng))
        found = np.array([given[index] for index in indices])
        for index in indices:
            if (name, index) not in known:
                known[name, index] = derivative(function, arrays, name, index)
        expected = np.array([known[name, index] for index in indices])
        errors = _relative_errors(found, expected)
        wrong = np.flatnonzero(~(errors <= rtol))  # a NaN is wrong
        worst = max(worst, errors.max(initial=0.0))
        if wrong.size:
            complaints.append(f"{name}: {wrong.size} of {len(indices)} entries are wrong (rtol {rtol:g})")
            for k in wrong[np.argsort(-errors[wrong], kind="stable")][:SHOWN]:
                where = ", ".join(map(str, indices[k]))
                complaints.append(
                    f"  {name}[{where}]: gradient {found[k]:.17g}, derivative {expected[k]:.17g}, "
                    f"relative error {errors[k]:.3g}"
                )
    if complaints:
        raise GradientError("\n".join(complaints))
    return float(worst)


def _indices(shape: tuple[int, ...], probes: int | None, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """All places of an array of that shape, or `probes` of them without repetition."""
    size = int(np.prod(shape))
    places = np.arange(size) if probes is None or probes >= size else rng.choice(size, probes, replace=False)
    for place in places:
        yield tuple(int(i) for i in np.unravel_index(place, shape))


def _relative_errors(found: Array, expected: Array) -> NDArray[np.float64]:
    """|found - expected| over the larger; 0 where both are 0, infinite where either is not finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(found - expected)
        scale = np.maximum(np.maximum(np.abs(found), np.abs(expected)), SMALL * np.abs(expected).max(initial=0.0))
        errors = np.where(difference == 0, 0.0, difference / scale)
    return np.where(np.isfinite(found) & np.isfinite(expected), errors, np.inf)
