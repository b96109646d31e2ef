"""A text of one piece is begun at many places, others where their sequences begin and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Batch
from charlm.text.batches import Batches
from charlm.training import language_task
from charlm.training.language_task import LanguageTask
from charlm.training.options import TrainingOptions

SYMBOLS, STREAMS, STEPS = 7, 16, 5


def task(*, begins_anew: bool) -> LanguageTask:
    model = LanguageModel(LanguageModelConfig(SYMBOLS, 3, 4, cell="rnn"))
    model.initialise(np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(2, SYMBOLS, 16 * 200).astype(np.uint8)
    batches = Batches(tokens, vocabulary_size=SYMBOLS, streams=STREAMS, bptt=STEPS, shuffle=False, seed=0)
    options = TrainingOptions(STREAMS, STEPS, 1, 0.1)
    return LanguageTask(model, batches, options, begins_anew=begins_anew)


def inputs_of(it: LanguageTask, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The inputs of all chunks of an epoch, as the model gets them."""
    seen: list[np.ndarray] = []

    def note(model: LanguageModel, batch: Batch, targets: np.ndarray) -> float:
        seen.append(batch.inputs)
        return 0.0

    monkeypatch.setattr(LanguageModel, "loss_and_gradients", note)
    for number, chunk in enumerate(it.examples(0, 0)):
        it.loss_and_gradients(chunk, number, lambda stream, number=number: np.random.default_rng([number, stream]))  # type: ignore[misc]
    return seen


def test_a_text_of_one_piece_begins_anew_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    it = task(begins_anew=True)
    plain = [chunk.inputs for chunk in it.examples(0, 0)]
    given = inputs_of(it, monkeypatch)
    begun = np.array([one[0] == SYMBOLS for one in given[1:]])
    assert begun.mean() == pytest.approx(language_task.BEGIN_ANEW, rel=0.5)
    for before, now in zip(plain, given, strict=True):
        kept = now != SYMBOLS
        assert np.array_equal(now[kept], before[kept])
        assert kept[1:].all()


def test_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    it = task(begins_anew=False)
    plain = [chunk.inputs for chunk in it.examples(0, 0)]
    assert all(np.array_equal(a, b) for a, b in zip(plain, inputs_of(it, monkeypatch), strict=True))
