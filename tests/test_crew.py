"""Threads that draw one row together: the same bits as one thread alone, and nobody waits for ever."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from charlm.engine import crew as crews
from charlm.engine.crew import LONGEST, Muster, SharedWeight, new_crew
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


def test_where_the_processors_are_wanted_one_thread_goes_alone_for_a_while() -> None:
    muster = Muster(2)
    crowded, free = new_crew(2, 1, np.float32), new_crew(2, 1, np.float32)
    crowded[1].attended[1] = 90
    taken = []
    for _ in range(4):
        taken.append(muster.parts())
        muster.learn(crowded if taken[-1] == 2 else crowded[:1], 100)
    assert taken == [2, 1, 2, 1]
    alone = 0
    for _ in range(3000):
        parts = muster.parts()
        alone += parts == 1
        muster.learn(crowded if parts == 2 else crowded[:1], 100)
    assert alone > 2900
    while muster.parts() == 1:
        pass
    muster.learn(free, 100)
    assert [muster.parts() for _ in range(LONGEST)] == [2] * LONGEST
