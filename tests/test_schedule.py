"""The learning rate: warm-up, cosine, plateau, and what the loop makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.text.batches import Batches
from charlm.training import defaults
from charlm.training.language_task import LanguageTask
from charlm.training.loop import StepDone, Trainer, Validated
from charlm.training.options import TrainingOptions
from charlm.training.schedule import FINAL_FRACTION, rate_factor

SYMBOLS, TOKENS = 7, 100  # 4 rows of 25: 5 chunks of 5


def trainer(**options: object) -> Trainer:
    model = LanguageModel(LanguageModelConfig(SYMBOLS, 4, 4, cell="rnn"))
    model.initialise(np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(1, SYMBOLS, TOKENS).astype(np.uint8)
    batches = Batches(tokens, vocabulary_size=SYMBOLS, streams=4, bptt=5, shuffle=False, seed=0)
    values = {"batch_size": 4, "bptt": 5, "epochs": 4, "lr": 0.1, "valid_interval": 5, **options}
    chosen = TrainingOptions(**values)  # type: ignore[arg-type]
    return Trainer(LanguageTask(model, batches, chosen), chosen)


def rates(run: Trainer) -> list[float]:
    return [event.lr for event in run.run() if isinstance(event, StepDone)]


def test_constant_is_constant() -> None:
    assert {rate_factor("constant", step, 0, step / 100) for step in range(101)} == {1.0}
    assert rates(trainer(schedule="constant")) == [0.1] * 20


@pytest.mark.parametrize("schedule", ["constant", "plateau", "cosine"])
def test_warmup_rises_by_equal_steps(schedule: str) -> None:
    factors = [rate_factor(schedule, step, 8, 0.0) for step in range(12)]
    assert factors == [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1, 1, 1, 1]


def test_cosine_by_hand() -> None:
    factors = [rate_factor("cosine", 100, 8, progress) for progress in (0, 1 / 3, 1 / 2, 2 / 3, 1, 1.5)]
    ends = FINAL_FRACTION
    parts = [ends + (1 - ends) * part for part in (1, 0.75, 0.5, 0.25, 0)]
    assert factors == pytest.approx([*parts, ends], rel=1e-14)


def test_cosine_falls_step_by_step_over_all_epochs() -> None:
    found = rates(trainer(schedule="cosine", warmup=4))
    assert len(found) == 20
    assert found[0] == pytest.approx(0.1 / 4)
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[10] == pytest.approx(0.1 * (FINAL_FRACTION + (1 - FINAL_FRACTION) / 2))
    assert FINAL_FRACTION * 0.1 < found[-1] < 0.1 * (FINAL_FRACTION + 0.01)


def test_cosine_follows_the_seconds() -> None:
    run = trainer(schedule="cosine", epochs=None, time_seconds=10.0)
    for seconds, part in ((0, 1), (5, 0.5), (10, 0), (20, 0)):
        run.state.progress.seconds = seconds
        assert rate_factor("cosine", 0, 0, run.done()) == pytest.approx(FINAL_FRACTION + (1 - FINAL_FRACTION) * part)
    assert list(run.run())[-1].reason == "10 seconds are over"  # type: ignore[union-attr]


def test_the_nearer_end_counts() -> None:
    run = trainer(epochs=4, time_seconds=100.0)
    run.state.progress.step, run.state.progress.seconds = 10, 20.0
    assert run.done() == 0.5
    run.state.progress.seconds = 80.0
    assert run.done() == 0.8


def test_plateau_halves_after_each_validation_without_improvement(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0])
    run = trainer(schedule="plateau")
    run.task.has_validation = True
    monkeypatch.setattr(LanguageTask, "validation_nats", lambda trainer: next(losses))
    events = list(run.run())
    assert [event.improved for event in events if isinstance(event, Validated)] == [True, True, False, False]
    found = [event.lr for event in events if isinstance(event, StepDone)]
    assert found == [0.1] * 15 + [0.05] * 5  # the last halving comes after the last step
    assert run.state.progress.halvings == 2


def test_without_validation_the_training_loss_judges() -> None:
    run = trainer(schedule="plateau", lr=1e-9)
    events = [event for event in run.run() if isinstance(event, Validated)]
    assert all(event.valid_nats is None for event in events)
    assert run.state.progress.best_nats == min(event.train_nats for event in events)
    assert events[0].train_nats == pytest.approx(math.log(SYMBOLS), abs=0.3)


def test_validations_within_an_epoch_and_after_it() -> None:
    def places(interval: int, **options: object) -> list[int]:
        run = trainer(valid_interval=interval, **options)
        return [run.state.progress.step for event in run.run() if isinstance(event, Validated)]

    assert places(5) == [5, 10, 15, 20]
    assert places(2) == [2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20]
    assert places(8) == [8, 16, 20]  # longer than an epoch: as it comes, and at the end
    assert places(5, epochs=1) == [5]


def test_defaults_follow_the_size() -> None:
    assert defaults.warmup_steps(40) == 2
    assert defaults.warmup_steps(10**6) == defaults.warmup_steps(None) == 60
    sizes = [defaults.choose(tokens, 60, "char")["hidden_size"][0] for tokens in (10**4, 10**5, 10**6, 10**8)]
    assert sizes == sorted(sizes)
    for tokens in (1, 10**4, 10**6, 10**9):
        assert all(reason for _, reason in defaults.choose(tokens, 60, "word").values())
    for steps, total in ((1, 40), (10, 400), (5000, 50_000), (10**6, 10**7)):
        assert 1 <= defaults.valid_interval(steps, total) <= max(2 * steps, total // defaults.VALIDATIONS)
