"""Training a language model: chunks of a text, the state carried from one to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from charlm.models.language_model import LanguageModel
from charlm.models.parameters import Ids
from charlm.models.sequences import Dropout
from charlm.models.stack import Batch
from charlm.text.batches import Batches, Chunk
from charlm.training.options import TrainingOptions
from charlm.training.task import BEGIN_DRAWS, DROPOUT_DRAWS, STATE_DRAWS, Draws

RANDOM_STATE_SIZE = 0.1  # standard deviation of a random initial state

# Rows of a chunk that begin anew although the text goes on. Otherwise a text of one piece is begun only where its
# streams begin, the same few places in each epoch; a model trained so for ten epochs could not go on from a prompt.
BEGIN_ANEW = 1 / 32


class LanguageTask:
    """See `TrainingTask`.

    Args:
        validation: gives the chunks of the validation text anew each time it is called; None if there is none.
        begins_anew: whether now and then a row begins anew, for a text of one piece.
    """

    def __init__(
        self,
        model: LanguageModel,
        batches: Batches,
        options: TrainingOptions,
        validation: Callable[[], Iterable[Chunk]] | None = None,
        *,
        begins_anew: bool = False,
    ) -> None:
        self.model, self.batches, self.options, self._validation = model, batches, options, validation
        self._begins_anew = begins_anew
        self.steps_per_epoch = batches.steps_per_epoch
        self.guess_nats = math.log(model.config.vocabulary_size)
        self.has_validation = validation is not None
        self.carried = model.zero_state(batches.streams)
        self._zero = model.zero_state(batches.streams)
        self._threshold = round(256 * options.dropout)

    def examples(self, epoch: int, first: int) -> Iterator[Chunk]:
        """See `TrainingTask`."""
        return self.batches.chunks(epoch, first)

    def loss_and_gradients(self, example: Chunk, number: int, draws: Draws) -> float:
        """See `TrainingTask`."""
        return self.model.loss_and_gradients(self._batch(example, number, draws), example.targets)

    def _batch(self, chunk: Chunk, number: int, draws: Draws) -> Batch:
        options = self.options
        initial = self._zero
        if options.initial_state == "random":
            numbers = draws(STATE_DRAWS).standard_normal(self._zero.shape, np.float32)
            initial = (RANDOM_STATE_SIZE * numbers).astype(self._zero.dtype)
        if number == 0:
            self.carried[...] = initial
        inputs = self._inputs(chunk, draws)
        if not self._threshold:
            return Batch(inputs, self.carried, initial)
        config = self.model.config
        dropout = Dropout.draw(
            draws(DROPOUT_DRAWS), (*inputs.shape, config.hidden_size), config.num_layers, 1, self._threshold,
            variational=options.variational,
        )  # fmt: skip
        return Batch(inputs, self.carried, initial, [one for (one,) in dropout.draws], dropout.threshold)

    def _inputs(self, chunk: Chunk, draws: Draws) -> Ids:
        """The chunk's, but that some rows begin anew."""
        if not self._begins_anew:
            return chunk.inputs
        begins = draws(BEGIN_DRAWS).random(chunk.inputs.shape[1]) < BEGIN_ANEW
        inputs: Ids = chunk.inputs.copy()
        inputs[0, begins] = self.model.config.vocabulary_size
        return inputs

    def validation(self) -> tuple[float, None]:
        """See `TrainingTask`."""
        return self.validation_nats(), None

    def validation_nats(self) -> float:
        """The mean loss per token of the validation text.

        A chunk's losses are float64 and summed in pairs (NumPy), the chunks' sums exactly.
        """
        assert self._validation is not None
        sums_nats: list[float] = []
        tokens, state = 0, None
        for chunk in self._validation():
            if state is None:
                state = self.model.zero_state(chunk.inputs.shape[1])
            sums_nats.append(-float(self.model.log_probs(chunk.inputs, chunk.targets, state).sum()))
            tokens += chunk.predicted
        return math.fsum(sums_nats) / tokens
