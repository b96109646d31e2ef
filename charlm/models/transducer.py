"""From one sequence to another of its own length: an encoder, a decoder, and attention between them if wanted.

    h<s>, last = encoder(source)                                    both directions, or one
    d<t>       = decoder(d<t-1>, y<t-1>),  d<0> = last,  y<0> = 0   a stack of the same cell and number of layers
    a~<t>      = attention(d<t>, h<1> ... h<S>)                     see `attention`
    P(y<t>)    = softmax(a~<t> W_y + b_y)                           or of d<t>, without attention

The decoder is a language model of the target, EOS and all, that begins in the encoder's last states instead of zero.
Of two directions each has H / 2 units, so that the two last states of a layer side by side, [->, <-], are a state of
the decoder's layer, and the two outputs side by side are as wide as the decoder's.

Sources are aligned at their ends, targets at their beginnings. What follows a target's EOS is never a target, so that
nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from charlm.engine.threads import Task, Team, share
from charlm.models.attention import Attention, Numbers, Sources
from charlm.models.buffers import Buffers
from charlm.models.encoder import Encoder, EncoderConfig, initialise_encoder
from charlm.models.inference import run_rows
from charlm.models.parameters import Array, Ids, Parameters
from charlm.models.sequences import Dropout, Sequences
from charlm.models.softmax import Nats, Softmax
from charlm.models.stack import Batch, Stack, StackConfig, initialise

ENCODER, DECODER = "encoder/", "decoder/"


@dataclass(frozen=True)
class TransducerConfig:
    """Sizes: V_s and V_t ids, embeddings E, H hidden units of the decoder, L layers of each network.

    Attributes:
        embedding_size: of both vocabularies.
        source_embedding_size: if the source's is another; 0 if not.

    Raises:
        ValueError: an odd H cannot be shared by two directions.
    """

    source_size: int
    target_size: int
    embedding_size: int
    hidden_size: int
    num_layers: int = 1
    cell: str = "lstm"
    activation: str = "tanh"
    bidirectional: bool = True
    attention: bool = False
    source_embedding_size: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size % self.directions:
            raise ValueError(f"a bidirectional encoder halves the hidden size, and {self.hidden_size} is odd")

    @property
    def directions(self) -> int:
        """D: of the encoder."""
        return 2 if self.bidirectional else 1

    @property
    def encoder(self) -> EncoderConfig:
        """The encoder's sizes."""
        size = self.hidden_size // self.directions
        common = size, self.num_layers, self.cell, self.activation
        embedding_size = self.source_embedding_size or self.embedding_size
        return EncoderConfig(self.source_size, embedding_size, *common, bidirectional=self.bidirectional)

    @property
    def decoder(self) -> StackConfig:
        """The decoder's sizes."""
        common = self.hidden_size, self.num_layers, self.cell, self.activation
        return StackConfig(self.target_size, self.embedding_size, *common)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters, matrices first."""
        shapes: dict[str, tuple[int, ...]] = Softmax.shapes(self.target_size, self.hidden_size, tied=False)
        shapes |= Attention.shapes(self.hidden_size) if self.attention else {}
        for prefix, config in ((ENCODER, self.encoder), (DECODER, self.decoder)):
            shapes |= {prefix + path: shape for path, shape in config.shapes().items()}
        return dict(sorted(shapes.items(), key=lambda item: len(item[1]) == 1 or item[0].endswith("/w_p")))

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's header holds it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Memory:
    """M sources that were read, for R rows that each continue one of them.

    Attributes:
        start: (L, S, M, H): the decoder's state before the first step.
        outputs: the encoder's, for attention; None without.
        sources: (R,): which source each row continues.
    """

    start: Array
    outputs: Sources | None
    sources: Numbers

    @property
    def state(self) -> Array:
        """The state of each row before its first step: (L, S, R, H)."""
        return self.start[:, :, self.sources]

    def take(self, rows: Numbers) -> Memory:
        """The same for other rows (R,): each continues the source of that one of the rows now."""
        return replace(self, sources=self.sources[rows])


@dataclass(frozen=True)
class TransducerDropout:
    """The draws of a pass, for each layer of the encoder and of the decoder."""

    encoder: Dropout
    decoder: Dropout


class Transducer:
    """Weights, and what can be done with them.

    Args:
        team: the threads to work with; one thread if not given.
        dtype: float32, or float64 to check gradients.
    """

    def __init__(self, config: TransducerConfig, team: Team | None = None, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.team = team or Team(1)
        self.parameters = Parameters(config.shapes(), dtype)
        self.gradients = self.parameters.like()
        self.buffers = Buffers(dtype)
        arrays = self.parameters, self.gradients
        self.encoder = Encoder(config.encoder, *arrays, prefix=ENCODER)
        self.decoder = Stack(config.decoder, *arrays, prefix=DECODER)
        self.attention = Attention(config.hidden_size, *arrays, self.buffers) if config.attention else None
        self.output = Softmax((config.target_size, config.hidden_size), False, *arrays, self.buffers)
        self._packed = self._tabulated = False

    @property
    def start_id(self) -> int:
        """The decoder's first input: the zero vector."""
        return self.config.target_size

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the weights; at the start every token is about equally likely."""
        initialise_encoder(self.config.encoder, self.parameters, rng, ENCODER)
        initialise(self.config.decoder, self.parameters, rng, DECODER)
        if self.attention:
            self.attention.initialise(rng)
        self.output.initialise(rng, self.decoder.cell.output_rms)
        self.changed()

    def changed(self) -> None:
        """Must be called after a change of the weights."""
        self._packed = False

    def draw_dropout(
        self, generator: np.random.Generator, sources: Sequences, inputs: Ids, threshold: int, *, variational: bool
    ) -> TransducerDropout:
        """The draws of a pass, of the encoder and of the decoder: an output of theirs is dropped, a~ is not."""
        config, shape = self.config, (*inputs.shape, self.config.hidden_size)
        return TransducerDropout(
            self.encoder.draw_dropout(generator, sources, threshold, variational=variational),
            Dropout.draw(generator, shape, config.num_layers, 1, threshold, variational=variational),
        )

    def _pack(self, part: int, parts: int, *, backward: bool) -> None:
        self.encoder.network.pack(part, parts, backward=backward)
        self.decoder.pack(part, parts, backward=backward)
        if self.attention:
            self.attention.pack(part, parts, backward=backward)
        self.output.pack(part, parts, backward=backward)

    def loss_and_gradients(
        self,
        sources: Sequences,
        inputs: Ids,
        targets: Ids,
        dropout: TransducerDropout | None = None,
        scale: float | None = None,
    ) -> float:
        """Forward, loss, back-propagation through target and source; the gradients are left in ``gradients``.

        Args:
            sources: N of them.
            inputs: (T, N), of the decoder: V_t, then each target's tokens. What they are after its end is no matter.
            targets: (T, N), -1 where nothing is predicted.
            dropout: from `draw_dropout`; none by default.
            scale: the gradients are those of scale * (sum of the losses); by default of their mean.

        Returns:
            loss_nats: sum over the predicted tokens, float64.
        """
        network, targets = self.encoder.network, np.ascontiguousarray(targets)
        if scale is None:
            scale = 1 / max(1, int(np.count_nonzero(targets >= 0)))
        self._packed = False  # from here on, for both ways, and the tables are of the batch
        self._begin(sources, inputs, targets, dropout)
        losses_nats = self.buffers.get("losses", targets.shape, np.float64)

        def prepare(part: int, parts: int) -> None:
            self._pack(part, parts, backward=True)
            self.decoder.tabulate(part, parts)
            if part == 0:
                self.encoder.embed()
            first, last = share(self.gradients.flat.size, part, parts)
            self.gradients.flat[first:last] = 0

        def through_time(part: int, parts: int) -> None:
            low, high = share(self.decoder.rows, part, parts)
            network.forward(part, parts)
            self._hand_over([layer.state[0] for layer in self.decoder.layers], self._outputs, low, high)
            self.decoder.forward(part, parts)
            if self.attention:
                self.attention.forward(low, high)
            self.output.loss(losses_nats, scale, self._d_output, low, high)
            if self.attention:
                self.attention.backward(self._d_hidden, low, high)
            self.decoder.backward(part, parts)
            self._hand_back(low, high)
            network.backward(part, parts)

        for phase in (prepare, network.tabulate, through_time, self._sum_gradients, self._finish_gradients):
            self.team.run(phase)
        return float(losses_nats.sum())

    def _begin(self, sources: Sequences, inputs: Ids, targets: Ids, dropout: TransducerDropout | None) -> None:
        """Set up the arrays of a pass forward and back."""
        rows = inputs.shape[1]
        of_source, of_target = (dropout.encoder, dropout.decoder) if dropout else (None, None)
        self.encoder.begin(sources, of_source)
        self.encoder.network.begin_backward()
        self._begin_decoder(inputs, self.decoder.zero_state(rows), of_target)
        self._d_hidden, self._d_state = self.decoder.begin_backward()
        self._d_state[...] = 0
        self._d_output, self._outputs = self._d_hidden, self._room_for(sources, keep=False)
        output = self.decoder.hidden[-1]
        if self.attention and self._outputs:
            output = self.attention.begin(output, self._outputs, np.arange(rows))
            self._d_output, self._d_memory = self.attention.begin_backward()
        self.output.begin(output, targets)

    def _room_for(self, sources: Sequences, *, keep: bool) -> Sources | None:
        """Room for the encoder's outputs, side by side and as attention reads them; None without attention."""
        if self.attention is None:
            return None
        steps, rows = sources.ids.shape
        self._memory = self.buffers.get("memory", (steps, rows, self.config.hidden_size))
        return self.attention.sources(sources.lengths, steps, keep=keep)

    def _begin_decoder(
        self, inputs: Ids, state: Array, dropout: Dropout | None = None, *, reuse_table: bool = False
    ) -> None:
        """Set up the decoder's arrays; no row is reset, as each begins in the encoder's state."""
        batch = Batch(inputs, state, state, reset=np.zeros(inputs.shape, np.uint8))
        if dropout is not None:
            batch.draws, batch.threshold = [draws for (draws,) in dropout.draws], dropout.threshold
        self.decoder.begin(batch, reuse_table=reuse_table)

    def _columns(self) -> list[slice]:
        """Each direction's columns where both lie side by side."""
        size = self.config.encoder.hidden_size
        return [slice(i * size, (i + 1) * size) for i in range(self.config.directions)]

    def _hand_over(self, start: Sequence[Array], outputs: Sources | None, low: int, high: int) -> None:
        """Lay the encoder's directions side by side, for the rows ``low`` .. ``high``.

        Args:
            start: OUT, of each layer (S, N, H): the decoder's state before its first step.
            outputs: OUT, the encoder's outputs; None without attention.
        """
        network = self.encoder.network
        is_read = (network.lengths[low:high] > 0)[:, np.newaxis]  # a source without any token begins at zero
        for i, columns in enumerate(self._columns()):
            for state, pair in zip(start, network.layers, strict=True):
                state[:, low:high, columns] = pair[i].state[network.steps, :, low:high] * is_read
        if self.attention and outputs:
            for i, columns in enumerate(self._columns()):
                self._memory[:, low:high, columns] = network.output(i)[:, low:high]
            self.attention.read(self._memory, outputs, low, high)

    def _hand_back(self, low: int, high: int) -> None:
        """The reverse of `_hand_over`, for the gradients."""
        network = self.encoder.network
        is_read = (network.lengths[low:high] > 0)[:, np.newaxis]
        for i, columns in enumerate(self._columns()):
            network.d_state[:, i, :, low:high] = self._d_state[:, :, low:high, columns] * is_read
            if self.attention:
                network.d_outputs[i][:, low:high] = self._d_memory[:, low:high, columns]

    def _sum_gradients(self, part: int, parts: int) -> None:
        self.encoder.network.sum_gradients(part, parts)
        self.decoder.sum_gradients(part, parts)
        if self.attention:
            self.attention.sum_gradients(part, parts)
        self.output.sum_gradients(part, parts)

    def _finish_gradients(self, part: int, parts: int) -> None:
        self.encoder.finish_gradients(part, parts)
        self.decoder.finish_gradients(part, parts)

    def _run_rows(self, task: Task, rows: int, tokens: int) -> None:
        run_rows(self.team, task, rows, tokens * self.parameters.count)

    def encode(self, sources: Sequences) -> Memory:
        """Read sources; a row for each."""
        network, decoder, (steps, rows) = self.encoder.network, self.decoder, sources.ids.shape
        self.encoder.begin(sources)
        self.encoder.embed()
        if not self._packed:
            self.team.run(lambda part, parts: self._pack(part, parts, backward=False))
            self._packed, self._tabulated = True, False
        self.team.run(network.tabulate)
        start, outputs = decoder.zero_state(rows), self._room_for(sources, keep=True)

        def through_time(part: int, parts: int) -> None:
            network.forward(part, parts)
            self._hand_over(list(start), outputs, *share(rows, part, parts))

        self._run_rows(through_time, rows, steps * rows)
        return Memory(start, outputs, np.arange(rows))

    def _infer(self, memory: Memory, inputs: Ids, state: Array) -> Array:
        """Set up a pass of the decoder; returns what the output layer reads."""
        self._begin_decoder(inputs, state, reuse_table=True)
        if not (self._tabulated and self.decoder.whole_table):
            self.team.run(self.decoder.tabulate)
            self._tabulated = self.decoder.whole_table
        hidden = self.decoder.hidden[-1]
        if self.attention and memory.outputs:
            return self.attention.begin(hidden, memory.outputs, memory.sources)
        return hidden

    def _forward(self, part: int, parts: int) -> tuple[int, int]:
        """Take this thread's rows through decoder and attention; which they are."""
        low, high = share(self.decoder.rows, part, parts)
        self.decoder.forward(part, parts)
        if self.attention:
            self.attention.forward(low, high)
        return low, high

    def log_probs(self, sources: Sequences, inputs: Ids, targets: Ids) -> Nats:
        """The log probability of each target.

        Args:
            sources, inputs, targets: as in `loss_and_gradients`.

        Returns:
            (T, N) nats; 0 where nothing is predicted.
        """
        targets = np.ascontiguousarray(targets)
        result = np.empty(targets.shape)
        memory = self.encode(sources)
        self.output.begin(self._infer(memory, inputs, memory.state), targets)
        self._run_rows(lambda *shared: self.output.score(result, *self._forward(*shared)), inputs.shape[1], inputs.size)
        return result

    def step(self, memory: Memory, state: Array, tokens: Ids) -> tuple[Array, Nats]:
        """One step of the decoder for R rows: what decoding stands on.

        Args:
            memory: from `encode` with this model's weights as they are now, or of other rows from `Memory.take`.
            state: (L, S, R, H); at first that of the memory. Not modified.
            tokens: (R,); at first `start_id`.

        Returns:
            The state after the step, and the log probabilities of the next token: (R, V_t), nats.
        """
        state, result = state.copy(), np.empty((tokens.size, self.config.target_size))
        hidden = self._infer(memory, tokens.reshape(1, -1), state)
        weights = self.output.inference(tokens.size)
        logits = self.buffers.get("step_logits", (1, tokens.size, self.output.width))

        def through_time(part: int, parts: int) -> None:
            self.output.log_probs(hidden, weights, logits, result, *self._forward(part, parts))

        self._run_rows(through_time, tokens.size, tokens.size)
        self.decoder.end()
        return state, result
