"""Which model of a training is kept, and that what is told of it while training is what `predict` finds afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.text.batches import Batches
from charlm.training.language_task import LanguageTask
from charlm.training.loop import Trainer
from charlm.training.options import TrainingOptions
from tests.test_cli_tasks import FILES, OPTIONS, QUICK, run, some_lines

EVALUATED: dict[str, Any] = {
    "classify": lambda figures: 1 - figures["accuracy"],
    "tag": lambda figures: 1 - figures["entities"]["all"]["f1"],
    "transduce": lambda figures: 1 - figures["sequence_accuracy"],
}


@pytest.mark.parametrize("task", FILES)
def test_the_model_that_is_kept_gets_the_least_wrong(task: str, tmp_path: Path) -> None:
    text = some_lines(FILES[task], tmp_path / "text", 500)
    valid = some_lines(FILES[task], tmp_path / "valid", 120)
    model = tmp_path / "m.npz"
    options = [*OPTIONS[task], *QUICK, "--epochs", "12", "--lr", "0.02"]  # with fewer, one or the other gets none right
    run("train", text, "-o", model, "--valid", valid, *options, "--quiet")
    found = json.loads(run("info", model, "--json").stdout)
    errors = [one["valid_error"] for one in found["history"]]
    assert len(set(errors)) > 1
    figures = json.loads(run("predict", model, valid, "--evaluate", "--json").stdout)
    assert EVALUATED[task](figures) == pytest.approx(found["best"]["error"], abs=1e-9)
    assert found["best"]["error"] == min(errors) < 1


def test_the_least_error_is_the_best_and_among_equals_the_least_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LanguageModel(LanguageModelConfig(5, 3, 4, cell="rnn"))
    model.initialise(np.random.default_rng(0))
    batches = Batches(np.full(99, 2, np.uint8), vocabulary_size=5, streams=3, bptt=4, shuffle=False, seed=0)
    options = TrainingOptions(3, 4, 1, 0.1)
    task = LanguageTask(model, batches, options, lambda: [])
    trainer = Trainer(task, options)
    # nats, error, and whether that is the best so far
    validations = [
        (2.0, 0.5, True), (1.5, 0.5, True), (1.6, 0.5, False), (3.0, 0.4, True), (0.1, 0.45, False), (2.9, 0.4, True),
    ]  # fmt: skip
    for nats, error, is_best in validations:
        monkeypatch.setattr(task, "validation", lambda found=(nats, error): found)
        trainer.state.progress.interval.tokens = 1
        fault, event = trainer._validate()
        assert (fault, event.improved) == ("", is_best)
    assert (trainer.state.progress.best_error, trainer.state.progress.best_nats) == (0.4, 2.9)
