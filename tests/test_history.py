"""The records of a long training's validations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from charlm.training.history import MOST_RECORDS, thinned
from charlm.workflows.gradients import clipping


def records(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    steps = np.cumsum(rng.integers(1, 9, count))
    return [
        {
            "step": int(step),
            "tokens": int(step) * 50,
            "train_nats": float(nats),
            "clipped": float(share),
            "valid_nats": i,
        }
        for i, (step, nats, share) in enumerate(zip(steps, rng.random(count), rng.random(count), strict=True))
    ]


def total(history: list[dict[str, Any]], name: str, weight: str) -> float:
    """What the whole training came to, from the means of its records."""
    ends = np.array([0, *(record[weight] for record in history)])
    return float(np.diff(ends) @ np.array([record[name] for record in history]))


def test_a_short_history_is_left_alone() -> None:
    history = records(MOST_RECORDS)
    assert thinned(history, 7) is history


@pytest.mark.parametrize("best", [0, 1, 500, 777, MOST_RECORDS])
def test_the_best_and_the_last_stay_and_totals_too(best: int) -> None:
    history = records(MOST_RECORDS + 1)
    found = thinned(history, history[best]["step"])
    assert len(found) <= MOST_RECORDS // 2 + 2
    assert history[best] in found
    assert found[-1] == history[-1]
    assert [record["step"] for record in found] == sorted({record["step"] for record in found})
    assert total(found, "train_nats", "tokens") == pytest.approx(total(history, "train_nats", "tokens"), rel=1e-12)
    assert total(found, "clipped", "step") == pytest.approx(total(history, "clipped", "step"), rel=1e-3)


def test_a_weekend_of_validations_stays_short() -> None:
    history: list[dict[str, Any]] = []
    for record in records(20 * MOST_RECORDS):
        history = thinned([*history, record], 0)
    assert MOST_RECORDS // 2 < len(history) <= MOST_RECORDS
    told = clipping({"training": {"clip": 1.0, "clip_mode": "norm"}, "history": history})
    assert told is not None
    assert told.steps == history[-1]["step"]
    assert told.share == pytest.approx(0.5, abs=0.02)
