"""Threads that draw one row together: the same bits as one thread alone, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from charlm.engine import crew as crews
from charlm.engine.crew import ENOUGH_STEPS, LONGEST, Muster, SharedWeight, new_crew
from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.packed_weight import PackedWeight
from charlm.workflows.decoding import Truncation
from tests.engine_harness import same_bits


def drawn(config: LanguageModelConfig, threads: int) -> tuple[Any, Any, Any, Any]:
    """Tokens, log probabilities, and the state and log probabilities after the last."""
    team = Team(threads)
    model = LanguageModel(config, team)
    model.initialise(np.random.default_rng(3))
    start = model.step(model.zero_state(1), np.zeros(1, np.int32))
    uniforms = np.random.default_rng(4).random((40, 1))
    (state, log_probs), (tokens, nats) = model.generate(
        *start, uniforms, Truncation().rule(), np.full(1, 40), np.full(1, 40)
    )
    team.close()
    return tokens, nats, state, log_probs


@pytest.mark.parametrize("cell", ["lstm", "gru"])  # of one product a step, and of two: a crew changes nothing else
def test_a_crew_draws_the_same_bits(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sizes that no panel divides; products of (190, 190) and more are shared."""
    monkeypatch.setattr("charlm.models.drawing.CREW_WORK", 0)
    config = LanguageModelConfig(30, 21, 190, 2, cell)
    alone = drawn(config, 1)
    for threads in (2, 3):
        assert all(same_bits(a, b) for a, b in zip(alone, drawn(config, threads), strict=True))


@pytest.mark.parametrize("softmax", ["full", "adaptive"])
def test_a_crew_shares_the_softmax_of_a_large_vocabulary_without_a_table(
    softmax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charlm.models.drawing.CREW_WORK", 0)
    config = LanguageModelConfig(5000, 40, 40, 1, softmax=softmax)
    assert all(same_bits(a, b) for a, b in zip(drawn(config, 1), drawn(config, 2), strict=True))


@pytest.fixture
def product() -> tuple[Any, ...]:
    """a (1, 2, K), a packed weight (K, N), a result, biases: large enough to be shared."""
    rng = np.random.default_rng(5)
    weight = PackedWeight((200, 300), np.float32)
    weight.pack(rng.standard_normal((200, 300), np.float32), 0, 1, backward=False)
    return (
        rng.standard_normal((1, 2, 200), np.float32), weight.forward, np.zeros((1, 2, 310), np.float32),
        rng.standard_normal(300, np.float32),
    )  # fmt: skip


def multiply(product: tuple[Any, ...], crew: crews.Crew) -> Any:
    a, packed, c, bias = product
    result = c.copy()
    crews.multiply(a, 0, 0, 200, SharedWeight(packed, crew), result, 0, 7, 300, 1, 0, 2, crews.matmul.BIAS, bias)
    return result


def test_each_member_has_the_whole_product(product: tuple[Any, ...]) -> None:
    expected = multiply(product, new_crew(1, 600, np.float32)[0])
    assert (expected[..., :7] == 0).all()
    team, crew, found = Team(3), new_crew(3, 600, np.float32), {}

    def task(part: int, parts: int) -> None:
        for number in range(5):
            found[part, number] = multiply(product, crew[part])

    team.run(task)
    team.close()
    assert len(found) == 15
    assert all(same_bits(result, expected) for result in found.values())


@pytest.mark.parametrize("at_fault", [0, 1])
def test_nobody_waits_for_a_member_that_failed(product: tuple[Any, ...], at_fault: int) -> None:
    team, crew = Team(2), new_crew(2, 600, np.float32)

    def task(part: int, parts: int) -> None:
        if part == at_fault:
            raise ValueError("no memory, say")
        multiply(product, crew[part])

    with pytest.raises(ValueError, match="no memory"):
        team.run(task, lambda: crews.dissolve(crew[0]))
    team.close()


def taken(muster: Muster, tasks: int, seconds: Callable[[int], float], steps: int = 100) -> list[int]:
    """How many threads a muster takes along to so many tasks, if with p of them each takes ``seconds(p)``."""
    result = []
    for _ in range(tasks):
        result.append(muster.parts())
        muster.learn(steps, seconds(result[-1]) * steps)
    return result


def test_a_crew_goes_where_it_is_faster_and_one_thread_where_it_is_not() -> None:
    def free(parts: int) -> float:
        return 1 / parts

    def crowded(parts: int) -> float:
        return float(parts)

    muster = Muster(2)
    assert taken(muster, 5, free) == [2, 1, 2, 1, 2]
    assert taken(muster, 3000, free).count(1) < 20
    assert taken(muster, 1, crowded) == [2]  # and then no more
    assert taken(muster, 3000, crowded).count(2) < 20
    assert taken(muster, 2 * LONGEST, free).count(2) > LONGEST // 2  # it is noticed that the others have gone


def test_a_single_disturbed_task_is_soon_forgotten() -> None:
    muster = Muster(3)
    taken(muster, 1000, lambda parts: 1 / parts)
    muster.learn(100, 5000.0)
    assert taken(muster, 10, lambda parts: 1 / parts).count(1) <= 3


def test_short_tasks_tell_something_together() -> None:
    muster, tasks = Muster(2), 4000
    taken(muster, 3, lambda parts: 1 / parts)  # a trial is due
    assert taken(muster, tasks, lambda parts: 1 / parts, ENOUGH_STEPS // 2).count(1) < tasks // 20
    assert taken(muster, tasks, float, ENOUGH_STEPS // 4).count(2) < tasks // 20
