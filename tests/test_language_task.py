"""A text of one piece is begun at many places, others where their sequences begin and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charlm.models.classifier import Classifier, ClassifierConfig
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Batch
from charlm.text.batches import Batches
from charlm.text.buckets import Rows
from charlm.training import language_task
from charlm.training.collections import LabelledCollection
from charlm.training.language_task import LanguageTask
from charlm.training.options import TrainingOptions
from charlm.training.sequence_task import ClassifyTask
from charlm.training.task import BEGIN_DRAWS, DROPOUT_DRAWS, STATE_DRAWS

SYMBOLS, STREAMS, STEPS = 7, 16, 5


def task(*, begins_anew: bool, initial_state: str = "zero") -> LanguageTask:
    model = LanguageModel(LanguageModelConfig(SYMBOLS, 3, 4, cell="rnn"))
    model.initialise(np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(2, SYMBOLS, 16 * 200).astype(np.uint8)
    batches = Batches(tokens, vocabulary_size=SYMBOLS, streams=STREAMS, bptt=STEPS, shuffle=False, seed=0)
    options = TrainingOptions(STREAMS, STEPS, 1, 0.1, initial_state=initial_state)
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


def test_each_use_of_random_numbers_has_a_stream_of_its_own() -> None:
    assert len({DROPOUT_DRAWS, STATE_DRAWS, BEGIN_DRAWS}) == 3


def test_a_random_state_is_as_large_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    it = task(begins_anew=False, initial_state="random")
    seen: list[np.ndarray] = []
    monkeypatch.setattr(LanguageModel, "loss_and_gradients", lambda model, batch, targets: seen.append(batch.initial))
    for number, chunk in enumerate(it.examples(0, 0)):
        it.loss_and_gradients(chunk, number, lambda stream, number=number: np.random.default_rng([number, stream]))  # type: ignore[misc]
    assert np.std(seen) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("variational", [False, True])
def test_a_task_of_whole_sequences_passes_its_options_on(variational: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Classifier(ClassifierConfig(SYMBOLS, 3, 4, cell="rnn", labels=5))
    collection = LabelledCollection(Rows.of_sequences([np.array([2, 3], np.int32)] * 4), np.zeros(4, np.int32), SYMBOLS)
    options = TrainingOptions(2, None, 1, 0.1, dropout=0.5, variational=variational)
    it = ClassifyTask(model, collection, options, None, 5, lambda model, found: 0.0)
    assert it.guess_nats == pytest.approx(math.log(5))
    asked: list[bool] = []

    def draw(self: Classifier, *arguments: object, threshold: int, variational: bool) -> None:
        asked.append(variational)

    monkeypatch.setattr(Classifier, "draw_dropout", draw)
    it.loss_and_gradients(next(it.examples(0, 0)), 0, np.random.default_rng)
    assert asked == [variational]
