"""The same seed and flags give the same bits: the quick parts of `tests.faults.same_bits` and `narrow_vectors`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.faults.narrow_vectors import LEVELS, apart, worst
from tests.faults.same_bits import CASES, CONDITIONS, QUICK, Failure, differences, digest, run

CASE = next(replace(case, uses=case.uses[:1]) for case in CASES if case.name == "word")  # each use is a process


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run without any condition comes to."""
    return run(CASE, CONDITIONS[0], tmp_path_factory.mktemp("first"))


def test_with_everything_different_at_once(first: dict[str, bytes], tmp_path: Path) -> None:
    """Other threads, locale, time zone, hashes, folder, -O, and stopped in between; each process a fresh one."""
    parts = run(CASE, QUICK, tmp_path)
    assert differences(first, parts) == []
    assert digest(first) == digest(parts)


def test_one_bit_is_a_difference(first: dict[str, bytes]) -> None:
    for name, data in first.items():
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        assert differences(first, first | {name: flipped}) == [name]
        assert digest(first | {name: flipped}) != digest(first)
    assert differences(first, {}) == sorted(first)
    assert any(np.frombuffer(data[-4:], np.float32)[0] for name, data in first.items() if name.endswith("/w_h"))


# ---- other processors ----


def answers(*values: dict[str, object]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def test_the_worst_of_the_lines_counts() -> None:
    one = answers({"log_prob": -20.0}, {"log_prob": -4.0}, {"log_prob": -0.5})
    assert worst(one, one) == (0, 0, 3)
    assert worst(one, answers({"log_prob": -20.0}, {"log_prob": -4.1}, {"log_prob": -0.5}))[0] == pytest.approx(0.025)
    assert worst(one, answers({"log_prob": -20.0}, {"log_prob": -4.0}, {"log_prob": -0.6}))[0] == pytest.approx(0.1)
    with pytest.raises(Failure):
        worst(one, answers({"log_prob": -20.0}))


def test_another_answer_is_counted_not_compared() -> None:
    labels = [{"labels": [{"label": name, "probability": 0.5}]} for name in "ab"]
    assert worst(answers(*labels), answers(labels[0], labels[0])) == (0, 1, 2)
    targets = [{"targets": [{"target": "x", "log_prob_nats": nats}]} for nats in (-2.0, -2.2)]
    assert worst(answers(targets[0]), answers(targets[1])) == (pytest.approx(0.1), 0, 1)
    assert worst(answers({"tags": ["A"]}), answers({"tags": ["B"]})) == (0, 1, 1)


def test_how_far_weights_are_apart() -> None:
    one = [np.full((2, 2), 3.0), np.zeros(3)]
    assert apart(one, one) == 0
    assert apart(one, [np.full((2, 2), 3.3), np.zeros(3)]) == pytest.approx(0.1)
    assert apart(one, [np.full((2, 2), 3.0)]) == np.inf


def test_each_level_is_another_processor() -> None:
    kinds = [(tuple(level.command()[1:]), tuple(sorted(level.variables().items()))) for level in LEVELS]
    assert kinds[0] == (("-m", "charlm"), ())
    assert len(set(kinds)) == len(LEVELS)
