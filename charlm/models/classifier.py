"""Many to one: a label for a whole sequence.

With a->, a<- the top layer's outputs after the last token that each direction reads, zero if there is no token:

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
        self._is_packed = False

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the weights; at the start every label is about equally likely."""
        initialise_encoder(self.config, self.parameters, rng)
        self._output.initialise(rng, self.encoder.network.layers[0][0].cell.output_rms)
        self.changed()

    def changed(self) -> None:
        """Must be called after a change of the weights."""
        self._is_packed = False

    def draw_dropout(
        self, generator: np.random.Generator, sequences: Sequences, threshold: int, *, variational: bool
    ) -> Dropout:
        """The draws of a pass."""
        return self.encoder.draw_dropout(generator, sequences, threshold, variational=variational)

    def _begin(self, sequences: Sequences, labels: Ids, dropout: Dropout | None) -> Array:
        """Set up a pass; returns the output's input (1, N, D H), to be filled by `_forward`."""
        self.encoder.begin(sequences, dropout)
        rows = sequences.lengths.size
        ends = self._buffers.get("ends", (1, rows, self.config.output_size))
        self._output.begin(ends, np.ascontiguousarray(labels, np.int32).reshape(1, rows))
        return ends

    def _prepare(self, *, backward: bool) -> None:
        """Pack the weights, unless they are as they were in the last pass, and look the input up."""

        def pack(part: int, parts: int) -> None:
            self.encoder.network.pack(part, parts, backward=backward)
            self._output.pack(part, parts, backward=backward)

        if backward or not self._is_packed:
            self.team.run(pack)
        self._is_packed = not backward  # a training step changes them
        self.encoder.embed()
        self.team.run(self.encoder.network.tabulate)

    def _forward(self, ends: Array, part: int, parts: int) -> None:
        """Take this thread's rows through the network, and lay its last outputs side by side."""
        network = self.encoder.network
        network.forward(part, parts)
        network.take_ends(ends, *share(network.rows, part, parts))

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
        network = self.encoder.network
        if scale is None:
            scale = 1 / max(1, int(np.count_nonzero(labels >= 0)))
        ends = self._begin(sequences, labels, dropout)
        network.begin_backward()
        d_ends = self._buffers.get("d_ends", ends.shape)
        losses_nats = self._buffers.get("losses", ends.shape[:2], np.float64)
        self.gradients.flat[...] = 0
        self._prepare(backward=True)

        def through_time(part: int, parts: int) -> None:
            self._forward(ends, part, parts)
            low, high = share(network.rows, part, parts)
            self._output.loss(losses_nats, scale, d_ends, low, high)
            network.give_ends(d_ends, low, high)
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
        ends = self._begin(sequences, np.full(rows, -1, np.int32), None)
        self._prepare(backward=False)
        result = np.empty((rows, self.config.labels))
        weights = self._output.inference(rows)
        logits = self._buffers.get("logits of all", (1, rows, self.config.labels))

        def through_time(part: int, parts: int) -> None:
            self._forward(ends, part, parts)
            self._output.log_probs(ends, weights, logits, result, *share(rows, part, parts))

        self.team.run(through_time)
        return result
