"""Training networks that read whole sequences: batches of like length, in random order."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from charlm.models.classifier import Classifier
from charlm.models.tagger import Tagger
from charlm.models.transducer import Transducer
from charlm.text.buckets import Buckets
from charlm.training.collections import Collection, Labelled, Paired, Tagged, best_tags
from charlm.training.options import TrainingOptions
from charlm.training.task import DROPOUT_DRAWS, Draws, Example

EVALUATION_ROWS = 64

E = TypeVar("E", bound=Example)


class SequenceTask(ABC, Generic[E]):
    """See `TrainingTask`.

    Args:
        collection: to train on.
        validation: None if there is none.
        choices: of which one is right, for each prediction.
        error: tells how much of what was held out a model gets wrong, 0 to 1, from what it found there.
    """

    def __init__(
        self,
        model: Any,
        collection: Collection[E],
        options: TrainingOptions,
        validation: Collection[E] | None,
        choices: int,
        error: Callable[[Any, list[Any]], float],
    ) -> None:
        self.model, self.options = model, options
        self._collection, self._validation = collection, validation
        self._buckets = buckets(collection, options)
        self._error = error
        self._threshold = round(256 * options.dropout)
        self.steps_per_epoch = self._buckets.steps_per_epoch
        self.guess_nats = math.log(choices)
        self.has_validation = validation is not None
        self.carried = np.zeros(0, model.parameters.flat.dtype)

    def examples(self, epoch: int, first: int) -> Iterator[E]:
        """See `TrainingTask`."""
        return map(self._collection.example, self._buckets.batches(epoch, first))

    def loss_and_gradients(self, example: E, number: int, draws: Draws) -> float:
        """See `TrainingTask`."""
        draw = None
        if self._threshold:
            draw = partial(
                self.model.draw_dropout, draws(DROPOUT_DRAWS), threshold=self._threshold,
                variational=self.options.variational,
            )  # fmt: skip
        return self._learn(example, draw)

    def validation(self) -> tuple[float, float]:
        """See `TrainingTask`."""
        assert self._validation is not None
        total_nats, predicted = 0.0, 0
        all_found: list[Any] = [None] * int(self._validation.lengths.size)
        for numbers in Buckets(self._validation.lengths, batch_size=EVALUATION_ROWS).once():
            example = self._validation.example(numbers)
            nats, found = self._judge(example)
            total_nats += nats
            predicted += example.predicted
            for number, one in zip(numbers.tolist(), found, strict=True):
                all_found[number] = one
        return total_nats / predicted if predicted else float("nan"), self._error(self.model, all_found)

    @abstractmethod
    def _learn(self, example: E, draw: Any) -> float:
        """`Model.loss_and_gradients` of an example; ``draw`` makes its dropout, or is None."""

    @abstractmethod
    def _judge(self, example: E) -> tuple[float, list[Any]]:
        """The loss summed over an example, and what is found for each row; None for what only a search finds."""


def buckets(collection: Collection[Any], options: TrainingOptions) -> Buckets:
    """The batches of a collection in training."""
    return Buckets(collection.lengths, batch_size=options.batch_size, seed=options.seed)


class ClassifyTask(SequenceTask[Labelled]):
    """A label for each text."""

    model: Classifier

    def _learn(self, example: Labelled, draw: Any) -> float:
        return self.model.loss_and_gradients(example.sequences, example.labels, draw and draw(example.sequences))

    def _judge(self, example: Labelled) -> tuple[float, list[int]]:
        log_probs = self.model.log_probs(example.sequences)
        nats = -float(log_probs[np.arange(example.labels.size), example.labels].sum())
        return nats, log_probs.argmax(axis=1).tolist()


class TagTask(SequenceTask[Tagged]):
    """A tag for each token."""

    model: Tagger

    def _learn(self, example: Tagged, draw: Any) -> float:
        return self.model.loss_and_gradients(example.sentences, example.tags, draw and draw(example.sentences))

    def _judge(self, example: Tagged) -> tuple[float, list[list[int]]]:
        log_probs = self.model.log_probs(example.sentences)
        t, n = np.nonzero(example.tags >= 0)
        return -float(log_probs[t, n, example.tags[t, n]].sum()), best_tags(log_probs, example.sentences)


class TransduceTask(SequenceTask[Paired]):
    """A text for each text."""

    model: Transducer

    def _learn(self, example: Paired, draw: Any) -> float:
        dropout = draw and draw(example.sources, example.inputs)
        return self.model.loss_and_gradients(example.sources, example.inputs, example.targets, dropout)

    def _judge(self, example: Paired) -> tuple[float, list[None]]:
        log_probs = self.model.log_probs(example.sources, example.inputs, example.targets)
        return -float(log_probs.sum()), [None] * int(example.numbers.size)
