"""Bayes' rule, a token at a time: the kernel against the definitions."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine import mixture
from tests.engine_harness import same_bits
from tests.reference import mixture as reference

LENGTHS, K = (3, 1, 5), 4
ENDS = np.cumsum(LENGTHS)
INF = np.inf
Mix = Callable[..., None]


def problem(seed: int = 0) -> tuple[Any, Any]:
    """Log probabilities (K, M) and a prior (K,)."""
    rng = np.random.default_rng(seed)
    return np.log(rng.uniform(0.01, 1, (K, ENDS[-1]))), rng.dirichlet(np.ones(K))


def run(label_nats: Any, prior: Any, ends: Any = ENDS, mix: Mix = mixture.mix) -> tuple[Any, Any]:
    nats, posterior_nats = np.full(label_nats.shape[1], np.nan), np.full((ends.size, prior.size), np.nan)
    with np.errstate(divide="ignore"):
        mix(label_nats, ends, np.log(prior), nats, posterior_nats)
    return nats, np.exp(posterior_nats)


def check(mix: Mix = mixture.mix) -> None:
    label_nats, prior = problem()
    nats, posteriors = run(label_nats, prior, mix=mix)
    for s, (begin, end) in enumerate(zip([0, *ENDS[:-1]], ENDS, strict=True)):
        wanted_nats, wanted = reference.mix(label_nats[:, begin:end], prior)
        np.testing.assert_allclose(nats[begin:end], wanted_nats, rtol=0, atol=1e-12)
        np.testing.assert_allclose(posteriors[s], wanted, rtol=0, atol=1e-12)


def test_against_the_definitions() -> None:
    check()
    check(mixture.mix.py_func)  # type: ignore[attr-defined]


FAULTS = {
    "the prior is left out": ("posterior[:] = prior_nats", "posterior[:] = 0.0"),
    "the posterior goes on to the next sequence": (
        "posterior[:] = prior_nats", "posterior[:] = prior_nats if s == 0 else posterior_nats[s - 1]",
    ),
    "the last label is left out of the sum": (
        "range(posterior.size):\n                total", "range(posterior.size - 1):\n                total",
    ),
    "the posterior stays": ("posterior[k] += label_nats[k, t] - nats[t]", "pass"),
    "the posterior is not normalised": ("label_nats[k, t] - nats[t]", "label_nats[k, t]"),
    "a factor of the sum": ("math.log(total)", "math.log(1.001 * total)"),
    "a small factor of the sum": ("math.log(total)", "math.log((1 + 1e-10) * total)"),
    "the token before": ("label_nats[k, t] - largest", "label_nats[k, max(t - 1, 0)] - largest"),
    "labels exchanged": ("math.exp(posterior[k] +", "math.exp(posterior[-1 - k] +"),
    "a sequence begins late": ("begin = ends[s]", "begin = ends[s] + 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str) -> None:
    text = inspect.getsource(mixture)
    old, new = FAULTS[name]
    assert text.count(old) == 1
    faulty = ast.parse(text.replace("@kernel\n", "").replace(old, new))
    namespace: dict[str, Any] = {"__name__": "faulty"}
    exec(compile(faulty, name, "exec"), namespace)
    with pytest.raises(AssertionError):
        check(namespace["mix"])


@given(
    st.integers(1, 5), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.floats(0, 300), st.integers(0, 2**32 - 1)
)
def test_posteriors_are_probabilities_and_tokens_add_up(
    labels: int, lengths: list[int], surprise: float, seed: int
) -> None:
    """However improbable the text, also where its probability is no float."""
    rng, ends = np.random.default_rng(seed), np.cumsum(lengths)
    label_nats = -surprise * rng.random((labels, ends[-1]))
    prior = rng.dirichlet(np.ones(labels))
    nats, posteriors = run(label_nats, prior, ends)
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, rtol=1e-12)
    begins = np.concatenate([[0], ends[:-1]])
    joint = np.add.reduceat(label_nats, begins, axis=1) + np.log(prior)[:, None]
    text_nats = np.logaddexp.reduce(joint, axis=0)
    np.testing.assert_allclose(np.add.reduceat(nats, begins), text_nats, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(posteriors, np.exp(joint - text_nats).T, rtol=1e-9, atol=1e-12)


def test_one_label_is_no_mixture() -> None:
    label_nats = problem()[0][:1]
    nats, posteriors = run(label_nats, np.ones(1))
    assert same_bits(nats, label_nats[0])
    assert posteriors.tolist() == [[1.0]] * len(LENGTHS)


def test_what_is_impossible() -> None:
    label_nats, prior = problem()
    impossible = label_nats.copy()
    impossible[2, 1] = -INF  # under one label
    _, posteriors = run(impossible, prior)
    assert posteriors[0, 2] == 0
    assert posteriors[0].sum() == pytest.approx(1)
    assert (posteriors[1:] > 0).all()
    impossible[:, 1] = -INF  # under every one: it tells nothing of the label
    nats, posteriors = run(impossible, prior)
    without = run(np.delete(label_nats[:, :3], 1, axis=1), prior, np.array([2]))
    assert nats[1] == -INF
    assert same_bits(nats[[0, 2]], without[0])
    assert same_bits(posteriors[0], without[1][0])
    prior = np.array([0.5, 0, 0.25, 0.25])
    nats, posteriors = run(label_nats, prior)
    assert (posteriors[:, 1] == 0).all()
    assert np.isfinite(nats).all()


@pytest.mark.parametrize("others", [-1.0, -INF])
def test_a_nan_stays_visible(others: float) -> None:
    label_nats, prior = problem()
    label_nats[:, 1] = others
    label_nats[2, 1] = np.nan
    nats, posteriors = run(label_nats, prior)
    assert np.isnan(nats[1:3]).all()
    assert np.isnan(posteriors[0]).all()
    assert np.isfinite(nats[3:]).all()
