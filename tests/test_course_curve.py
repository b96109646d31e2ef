"""A published loss curve: a tanh network on a list of names, by plain SGD, a name a step.

The exercise that published it states: one-hot input, weights 0.01 * randn, zero biases, every gradient clipped to
[-5, 5], rate 0.01, the state carried from name to name, a zero vector as the first input. The embedding here is the
identity and does not learn; a sequence's start resets the state to what was carried.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.engine import optimise
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Batch
from tests.known_source import MarkovSource

H, RATE, BOUND = 50, 0.01, 5.0
NAMES = os.environ.get("CHARLM_COURSE_NAMES")
PUBLISHED = {0: 23.087336, 2000: 27.884160, 4000: 25.901815, 6000: 24.608779}

Array = NDArray[np.float64]


def drawn_weights(symbols: int) -> tuple[Array, Array, Array]:
    """W_ax (H, V), W_aa (H, H), W_ya (V, H), by the generator and in the order of the exercise."""
    rng = np.random.RandomState(1)  # the published figures hang on the legacy generator
    return tuple(rng.randn(*shape) * 0.01 for shape in ((H, symbols), (H, H), (symbols, H)))  # type: ignore[return-value]


def library_losses(
    names: Sequence[Sequence[int]], symbols: int, rate: float = RATE, bound: float = BOUND
) -> Iterator[float]:
    """The summed loss of each step, by the engine; the newline is symbol 0."""
    config = LanguageModelConfig(symbols, symbols, H, cell="rnn", activation="tanh")
    model = LanguageModel(config, dtype=np.float64)
    w_ax, w_aa, w_ya = drawn_weights(symbols)
    model.parameters.assign(
        {path: np.zeros(shape) for path, shape in config.shapes().items()}
        | {"embedding": np.eye(symbols), "layer0/w_x": w_ax.T, "layer0/w_h": w_aa.T, "output/w": w_ya.T}
    )
    model.changed()
    learnt = [path for path in model.parameters if path != "embedding"]
    velocity = {path: np.zeros(model.parameters[path].size) for path in learnt}
    carried = model.zero_state(1)
    for name in names:
        inputs, targets = (np.array([ids], np.int32).T for ids in ([symbols, *name], [*name, 0]))
        # The first input resets the state to `initial`, which is the state carried over.
        yield model.loss_and_gradients(Batch(inputs, carried, carried.copy()), targets, scale=1.0)
        for path in learnt:
            gradient, parameter = model.gradients[path].reshape(-1), model.parameters[path].reshape(-1)
            optimise.clip_values(gradient, bound, 0, gradient.size)
            optimise.sgd(parameter, gradient, velocity[path], rate, 0.0, 0.0, 1.0, 0, gradient.size)
        model.changed()


def numpy_losses(
    names: Sequence[Sequence[int]], symbols: int, rate: float = RATE, bound: float = BOUND
) -> Iterator[float]:
    """The same, written from the equations."""
    w_ax, w_aa, w_ya = drawn_weights(symbols)
    b_a, b_y, a_0 = np.zeros(H), np.zeros(symbols), np.zeros(H)
    for name in names:
        x = [np.zeros(symbols), *np.eye(symbols)[list(name)]]
        targets = [*name, 0]
        a, probs, loss = [a_0], [], 0.0
        for x_t, target in zip(x, targets, strict=True):
            a.append(np.tanh(w_ax @ x_t + w_aa @ a[-1] + b_a))
            scores = np.exp(w_ya @ a[-1] + b_y)
            probs.append(scores / scores.sum())
            loss -= math.log(probs[-1][target])
        yield loss
        d_w_ax, d_w_aa, d_w_ya, d_b_a, d_b_y = (np.zeros_like(w) for w in (w_ax, w_aa, w_ya, b_a, b_y))
        d_next: Array = np.zeros(H)
        for t in reversed(range(len(x))):
            d_y = probs[t] - np.eye(symbols)[targets[t]]
            d_z = (w_ya.T @ d_y + d_next) * (1 - a[t + 1] ** 2)
            d_w_ya += np.outer(d_y, a[t + 1])
            d_b_y += d_y
            d_w_ax += np.outer(d_z, x[t])
            d_w_aa += np.outer(d_z, a[t])
            d_b_a += d_z
            d_next = w_aa.T @ d_z
        for w, d_w in ((w_ax, d_w_ax), (w_aa, d_w_aa), (w_ya, d_w_ya), (b_a, d_b_a), (b_y, d_b_y)):
            w -= rate * np.clip(d_w, -bound, bound)
        a_0 = a[-1]


@pytest.mark.parametrize(("rate", "bound"), [(RATE, BOUND), (0.1, 0.5)])
def test_the_library_follows_the_equations(rate: float, bound: float) -> None:
    lines = MarkovSource.draw("abcdefgh", mean_length=7.0).lines(60)
    names = [["\nabcdefgh".index(letter) for letter in line] for line in lines]
    expected = list(numpy_losses(names, 9, rate, bound))
    np.testing.assert_allclose(list(library_losses(names, 9, rate, bound)), expected, rtol=0, atol=1e-9)
    if rate > RATE:  # the weights have moved far enough for all of it to matter
        assert np.abs(np.array(expected) - list(numpy_losses(names, 9))).max() > 0.5


@pytest.mark.slow
@pytest.mark.skipif(not NAMES, reason="CHARLM_COURSE_NAMES names no file with the list of names of the exercise")
def test_the_published_curve() -> None:
    names = [line.lower().strip() for line in Path(NAMES or "").read_text(encoding="utf-8").splitlines()]
    np.random.RandomState(0).shuffle(names)
    symbols = sorted({"\n", *"".join(names)})
    place: dict[Any, int] = {symbol: i for i, symbol in enumerate(symbols)}
    ids = [[place[letter] for letter in name] for name in names]
    smoothed = 7 * math.log(len(symbols))
    found = {}
    for step, loss in enumerate(library_losses([ids[i % len(ids)] for i in range(max(PUBLISHED) + 1)], len(symbols))):
        smoothed = 0.999 * smoothed + 0.001 * loss
        if step in PUBLISHED:
            found[step] = round(smoothed, 6)
    assert found == PUBLISHED
