"""Many to many of equal length: a tag for each token of a sentence.

    (1) x<t> = [E word<t>, c->, c<-]           c->, c<-: a network's last outputs over the token's characters, or zero
    (2) y<t> = softmax([a-><t>, a<-<t>] W_y + b_y)

A network over characters reads each distinct spelling of a batch once, however often it occurs: its vector is a row of
the input, looked up by every token of that spelling. Without characters, x<t> is the word's embedding alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlm.engine import layers
from charlm.engine.threads import Team, share
from charlm.models.buffers import Buffers
from charlm.models.encoder import Directions, Encoder, EncoderConfig, initialise_encoder
from charlm.models.parameters import Array, Ids, Parameters
from charlm.models.sequences import Dropout, Sentences
from charlm.models.softmax import Softmax

CHARACTERS = "characters/"


@dataclass(frozen=True)
class TaggerConfig:
    """Sizes: V words, E of their embedding, H units in each direction of L layers, K labels.

    Of the characters: how many there are (0 if they are not looked at), the size of their embedding, and the units in
    each direction.
    """

    vocabulary_size: int
    embedding_size: int
    hidden_size: int
    labels: int
    num_layers: int = 1
    cell: str = "lstm"
    activation: str = "tanh"
    bidirectional: bool = True
    char_features: int = 0
    char_embedding_size: int = 32
    char_hidden_size: int = 32

    @property
    def network(self) -> EncoderConfig:
        """The network over the words; its ``embedding_size`` is the width of x."""
        width = self.embedding_size + (self.characters.output_size if self.char_features else 0)
        return EncoderConfig(
            self.vocabulary_size, width, self.hidden_size, self.num_layers, self.cell, self.activation,
            self.bidirectional,
        )  # fmt: skip

    @property
    def characters(self) -> EncoderConfig:
        """The network over a token's characters."""
        return EncoderConfig(
            self.char_features, self.char_embedding_size, self.char_hidden_size, 1, self.cell, self.activation, True
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters, matrices first."""
        shapes: dict[str, tuple[int, ...]] = Softmax.shapes(self.labels, self.network.output_size, tied=False)
        shapes |= self.network.shapes() | {"embedding": (self.vocabulary_size, self.embedding_size)}
        if self.char_features:
            shapes |= {f"{CHARACTERS}{path}": shape for path, shape in self.characters.shapes().items()}
        return dict(sorted(shapes.items(), key=lambda item: len(item[1]) == 1 or item[0].endswith("/w_p")))

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's header holds it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class TaggerDropout:
    """The draws of a pass, for the network over words and for that over characters, if there is one."""

    words: Dropout
    characters: Dropout | None


class Tagger:
    """Weights, and what can be done with them.

    Args:
        team: the threads to work with; one thread if not given.
        dtype: float32, or float64 to check gradients.
    """

    def __init__(self, config: TaggerConfig, team: Team | None = None, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.team = team or Team(1)
        self.parameters = Parameters(config.shapes(), dtype)
        self.gradients = self.parameters.like()
        self.network = Directions(config.network, self.parameters, self.gradients)
        self.characters: Encoder | None = None
        if config.char_features:
            self.characters = Encoder(config.characters, self.parameters, self.gradients, CHARACTERS)
        self._buffers = Buffers(dtype)
        sizes = config.labels, config.network.output_size
        self._output = Softmax(sizes, False, self.parameters, self.gradients, self._buffers)
        self._no_labels = np.zeros((0, config.embedding_size), dtype)
        self._is_packed = False

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the weights; at the start every tag is about equally likely."""
        initialise_encoder(self.config.network, self.parameters, rng)
        if self.characters is not None:
            initialise_encoder(self.config.characters, self.parameters, rng, CHARACTERS)
        self._output.initialise(rng, self.network.layers[0][0].cell.output_rms)
        self.changed()

    def changed(self) -> None:
        """Must be called after a change of the weights."""
        self._is_packed = False

    def draw_dropout(
        self, generator: np.random.Generator, sentences: Sentences, threshold: int, *, variational: bool
    ) -> TaggerDropout:
        """The draws of a pass."""
        config = self.config
        words = Dropout.draw(
            generator, (*sentences.index.shape, config.hidden_size), config.num_layers, config.network.directions,
            threshold, variational=variational,
        )  # fmt: skip
        characters = None
        if self.characters is not None and sentences.spellings is not None:
            characters = self.characters.draw_dropout(
                generator, sentences.spellings, threshold, variational=variational
            )  # fmt: skip
        return TaggerDropout(words, characters)

    def _begin(self, sentences: Sentences, tags: Ids, dropout: TaggerDropout | None) -> Array:
        """Set up a pass; returns the output's input (T, N, D H), to be filled by `_forward`."""
        self._word_ids = np.ascontiguousarray(sentences.word_ids, np.int32)
        if self.characters is not None:
            assert sentences.spellings is not None
            self.characters.begin(sentences.spellings, None if dropout is None else dropout.characters)
        count = self._word_ids.size + 1  # the last row is that of no token: zero
        self.network.begin(
            count, sentences.index, sentences.reversed_index, sentences.lengths,
            None if dropout is None else dropout.words,
        )  # fmt: skip
        states = self._buffers.get("states", (*sentences.index.shape, self.config.network.output_size))
        self._output.begin(states, np.ascontiguousarray(tags, np.int32))
        return states

    def _prepare(self, *, backward: bool) -> None:
        """Everything before the words' network can begin; packs unless the weights are as in the last pass."""
        network, characters = self.network, self.characters

        def pack(part: int, parts: int) -> None:
            network.pack(part, parts, backward=backward)
            self._output.pack(part, parts, backward=backward)
            if characters is not None:
                characters.network.pack(part, parts, backward=backward)

        if backward or not self._is_packed:
            self.team.run(pack)
        self._is_packed = not backward  # a training step changes them
        if characters is not None:
            characters.embed()
            self.team.run(characters.network.tabulate)
            self.team.run(characters.network.forward)
        self._fill_inputs()
        self.team.run(network.tabulate)

    def _fill_inputs(self) -> None:
        """Equation (1)."""
        inputs, width, count = self.network.inputs, self.config.embedding_size, self._word_ids.size
        words = self._buffers.get("words", (1, count, width))
        layers.embed_rows(self.parameters["embedding"], self._no_labels, self._word_ids, words, 0, count)
        inputs[0, :count, :width] = words[0]
        inputs[0, count] = 0
        if self.characters is not None:
            ends = self._buffers.get("character ends", (1, count, self.config.characters.output_size))
            self.characters.network.take_ends(ends, 0, count)
            inputs[0, :count, width:] = ends[0]

    def _forward(self, states: Array, part: int, parts: int) -> None:
        """Take this thread's sentences through the words' network; its outputs side by side."""
        network, size = self.network, self.config.hidden_size
        network.forward(part, parts)
        low, high = share(network.rows, part, parts)
        for d in range(self.config.network.directions):
            states[:, low:high, d * size : (d + 1) * size] = network.output(d)[:, low:high]

    def loss_and_gradients(
        self, sentences: Sentences, tags: Ids, dropout: TaggerDropout | None = None, scale: float | None = None
    ) -> float:
        """Forward, loss, back-propagation; the gradients are left in ``gradients``.

        Args:
            tags: (T, N), the true ones, aligned as the tokens are; -1 where there is none.
            scale: the gradients are those of scale * (sum of the losses); by default of their mean.

        Returns:
            loss_nats: sum over the tags, float64.
        """
        network, size = self.network, self.config.hidden_size
        if scale is None:
            scale = 1 / max(1, int(np.count_nonzero(tags >= 0)))
        states = self._begin(sentences, tags, dropout)
        network.begin_backward()
        d_states = self._buffers.get("d_states", states.shape)
        losses_nats = self._buffers.get("losses", states.shape[:2], np.float64)
        self.gradients.flat[...] = 0
        self._prepare(backward=True)

        def through_time(part: int, parts: int) -> None:
            self._forward(states, part, parts)
            low, high = share(network.rows, part, parts)
            self._output.loss(losses_nats, scale, d_states, low, high)
            for d in range(self.config.network.directions):
                network.d_outputs[d][:, low:high] = d_states[:, low:high, d * size : (d + 1) * size]
            network.backward(part, parts)

        def weights(part: int, parts: int) -> None:
            network.sum_gradients(part, parts)
            self._output.sum_gradients(part, parts)

        for phase in (through_time, weights, network.finish_gradients):
            self.team.run(phase)
        self._give_inputs()
        return float(losses_nats.sum())

    def _give_inputs(self) -> None:
        """Equation (1), backward: by one thread to the words, of which spellings may share one, then the characters."""
        d_inputs, width, count = self.network.d_inputs, self.config.embedding_size, self._word_ids.size
        d_words = self._buffers.get("d_words", (1, count, width))
        d_words[0] = d_inputs[0, :count, :width]
        layers.add_to_embedding(
            d_words, self._word_ids, self.gradients["embedding"], self._no_labels, 0, count
        )  # fmt: skip
        if self.characters is None:
            return
        characters = self.characters.network
        characters.begin_backward()
        characters.give_ends(d_inputs[:, :count, width:], 0, count)
        for phase in (characters.backward, characters.sum_gradients, self.characters.finish_gradients):
            self.team.run(phase)

    def log_probs(self, sentences: Sentences) -> NDArray[np.float64]:
        """The log probability of each tag for each token: (T, N, K), nats; of no meaning where there is no token."""
        steps, rows = sentences.index.shape
        states = self._begin(sentences, np.full((steps, rows), -1, np.int32), None)
        self._prepare(backward=False)
        self.team.run(lambda part, parts: self._forward(states, part, parts))
        width = self.config.network.output_size
        result = np.empty((steps * rows, self.config.labels))
        weights = self._output.inference(steps * rows)
        flat = states.reshape(1, steps * rows, width)
        logits = self._buffers.get("logits of all", (1, steps * rows, self.config.labels))

        def score(part: int, parts: int) -> None:
            self._output.log_probs(flat, weights, logits, result, *share(steps * rows, part, parts))

        self.team.run(score)
        return result.reshape(steps, rows, self.config.labels)
