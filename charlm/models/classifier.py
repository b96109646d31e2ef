"""Many to one: a label for a whole sequence.

With a<T> the last state's output of the top layer, after the last token in each direction:

    (1) y = softmax([a->, a<-] W_y + b_y)

or of a-> alone, if the network reads in one direction. P(label | sequence) = y[label].
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlm.engine.threads import Team, share
from charlm.models.buffers import Buffers
from charlm.models.encoder import Encoder, EncoderConfig, initialise_encoder
from charlm.models.parameters import Array, Ids, Parameters
from charlm.models.sequences import Dropout, Sequences
from charlm.models.softmax import Softmax


@dataclass(frozen=True)
class ClassifierConfig(EncoderConfig):
    """A network's sizes, and K labels."""

    labels: int = 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters, matrices first."""
        output = Softmax.shapes(self.labels, self.output_size, tied=False)
        return {"output/w": output["output/w"]} | super().shapes() | {"output/b": output["output/b"]}

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's header holds it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Classifier:
    """Weights, and what can be done with them.

    Args:
        team: the threads to work with; one thread if not given.
        dtype: float32, or float64 to check gradients.
    """

    def __init__(self, config: ClassifierConfig, team: Team | None = None, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.team = team or Team(1)
        self.parameters = Parameters(config.shapes(), dtype)
        self.gradients = self.parameters.like()
        self.encoder = Encoder(config, self.parameters, self.gradients)
        self._buffers = Buffers(dtype)
        sizes = config.labels, config.output_size
        self._output = Softmax(sizes, False, self.parameters, self.gradients, self._buffers)

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the weights; at the start every label is about equally likely."""
        initialise_encoder(self.config, self.parameters, rng)
        self._output.initialise(rng, self.encoder.network.layers[0][0].cell.output_rms)
        self.changed()

    def changed(self) -> None:
        """Must be called after a change of the weights."""

    def draw_dropout(
        self, generator: np.random.Generator, sequences: Sequences, threshold: int, *, variational: bool
    ) -> Dropout:
        """The draws of a pass."""
        return self.encoder.draw_dropout(generator, sequences, threshold, variational=variational)

    def _begin(self, sequences: Sequences, labels: Ids, dropout: Dropout | None) -> Array:
        """Set up a pass; returns the output's input (1, N, D H), to be filled by `_forward`."""
        self.encoder.begin(sequences, dropout)
        rows = sequences.lengths.size
        last = self._buffers.get("last", (1, rows, self.config.output_size))
        self._output.begin(last, np.ascontiguousarray(labels, np.int32).reshape(1, rows))
        return last

    def _prepare(self, *, backward: bool) -> None:
        network = self.encoder.network

        def prepare(part: int, parts: int) -> None:
            network.pack(part, parts, backward=backward)
            self._output.pack(part, parts, backward=backward)
            if part == 0:
                self.encoder.embed()

        self.team.run(prepare)
        self.team.run(network.tabulate)

    def _forward(self, last: Array, part: int, parts: int) -> None:
        """Take this thread's rows through the network; its last outputs side by side."""
        network, size = self.encoder.network, self.config.hidden_size
        network.forward(part, parts)
        low, high = share(network.count, part, parts)
        for d, layer in enumerate(network.layers[-1]):  # either ends with the last step
            last[0, low:high, d * size : (d + 1) * size] = layer.hidden[-1, low:high]

    def loss_and_gradients(
        self, sequences: Sequences, labels: Ids, dropout: Dropout | None = None, scale: float | None = None
    ) -> float:
        """Forward, loss, back-propagation; the gradients are left in ``gradients``.

        Args:
            labels: (N,), the true ones; -1 where there is none.
            scale: the gradients are those of scale * (sum of the losses); by default of their mean.

        Returns:
            loss_nats: sum over the rows, float64.
        """
        network, size = self.encoder.network, self.config.hidden_size
        if scale is None:
            scale = 1 / max(1, int(np.count_nonzero(labels >= 0)))
        last = self._begin(sequences, labels, dropout)
        network.begin_backward()
        d_last = self._buffers.get("d_last", last.shape)
        losses_nats = self._buffers.get("losses", last.shape[:2], np.float64)
        self.gradients.flat[...] = 0
        self._prepare(backward=True)

        def through_time(part: int, parts: int) -> None:
            self._forward(last, part, parts)
            low, high = share(network.count, part, parts)
            self._output.loss(losses_nats, scale, d_last, low, high)
            for d in range(self.config.directions):
                # In the order of the text the other direction's last output is each row's first.
                steps = np.full(high - low, network.steps - 1) if d == 0 else network.steps - network.lengths[low:high]
                network.d_outputs[d][steps, np.arange(low, high)] = d_last[0, low:high, d * size : (d + 1) * size]
            network.backward(part, parts)

        def weights(part: int, parts: int) -> None:
            network.sum_gradients(part, parts)
            self._output.sum_gradients(part, parts)

        for phase in (through_time, weights, self.encoder.finish_gradients):
            self.team.run(phase)
        return float(losses_nats.sum())

    def log_probs(self, sequences: Sequences) -> NDArray[np.float64]:
        """The log probability of each label for each row: (N, K), nats."""
        rows = sequences.lengths.size
        last = self._begin(sequences, np.full(rows, -1, np.int32), None)
        self._prepare(backward=False)
        result = np.empty((rows, self.config.labels))
        weights = self._output.inference(rows)
        logits = self._buffers.get("logits of all", (1, rows, self.config.labels))

        def through_time(part: int, parts: int) -> None:
            self._forward(last, part, parts)
            self._output.log_probs(last, weights, logits, result, *share(rows, part, parts))

        self.team.run(through_time)
        return result
