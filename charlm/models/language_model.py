"""The language model: a stack of cells and a softmax over the next token.

P(sequence) = product over its tokens, then EOS, of softmax(a<t> W_y + b_y): the first step's input is the zero vector,
so no begin-of-sentence token is needed. State goes in and comes out: nothing is remembered between calls.

A model that is given a label, one of K, has an embedding of labels. That of the sequence's label is then the first
step's input, so P(sequence | label) is one product too: one to many. Ids of inputs, V tokens:

    0 .. V - 1     a token
    V              the zero vector; a sequence begins
    V + 1 + k      label k; a sequence begins
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlm.engine import decode
from charlm.engine.threads import Task, Team, share
from charlm.models.buffers import Buffers
from charlm.models.parameters import Array, Ids, Parameters
from charlm.models.softmax import AdaptiveSoftmax, Output, Softmax
from charlm.models.stack import Batch, Stack, StackConfig, initialise

State = tuple[Array, NDArray[np.float64]]  # (L, S, N, H), and the log probabilities (N, V) of what comes next
Drawn = tuple[Ids, NDArray[np.float64]]  # tokens and their log probabilities, (T, N)

SOFTMAXES = ("full", "adaptive")
SMALL_TABLE = 200  # ids of a batch below which one thread is faster than two
SMALL_WORK = 8_000_000  # multiplications of a pass below which one thread is faster than two

# Gates of a few steps that a thread keeps in its second-level cache when it scores: 20 % faster than 64 steps at a time
# (LSTM 2 x 128, 64 rows). In training, which reads everything again much later, blocks of steps gain nothing.
CACHED_NUMBERS = 1 << 17


@dataclass(frozen=True)
class LanguageModelConfig(StackConfig):
    """A stack's sizes, and whether the output's weights are the embedding's (then E = H)."""

    tie_weights: bool = False
    softmax: str = "full"  # one of SOFTMAXES
    labels: int = 0  # K; a model of none is not given any

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters, matrices first."""
        sizes = self.vocabulary_size, self.hidden_size
        if self.softmax == "adaptive":
            output = AdaptiveSoftmax.shapes(*sizes)
        else:
            output = Softmax.shapes(*sizes, tied=self.tie_weights)
        matrices = {path: shape for path, shape in output.items() if len(shape) > 1}
        if self.labels:
            matrices["label_embedding"] = (self.labels, self.embedding_size)
        return matrices | super().shapes() | {path: shape for path, shape in output.items() if len(shape) == 1}

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's header holds it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class LanguageModel:
    """Weights, and what can be done with them.

    Args:
        team: the threads to work with; one thread if not given.
        dtype: float32, or float64 to check gradients.
    """

    def __init__(self, config: LanguageModelConfig, team: Team | None = None, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.team = team or Team(1)
        self.parameters = Parameters(config.shapes(), dtype)
        self.gradients = self.parameters.like()
        self.stack = Stack(config, self.parameters, self.gradients)
        self.buffers = Buffers(dtype)
        self.output = self._make_output()
        self._packed = self._tabulated = False
        self._no_table = np.zeros((1, 0, self.stack.columns), dtype)

    def _make_output(self) -> Output:
        config = self.config
        sizes, arrays = (config.vocabulary_size, config.hidden_size), (self.parameters, self.gradients, self.buffers)
        if config.softmax == "adaptive":
            return AdaptiveSoftmax(sizes, *arrays)
        return Softmax(sizes, config.tie_weights, *arrays)

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the weights; at the start every token is about equally likely, whatever the label."""
        initialise(self.config, self.parameters, rng)
        self.output.initialise(rng, self.stack.cell.output_rms)
        if self.config.labels:  # last: the other weights are those of a model without
            label_embedding = self.parameters["label_embedding"]
            label_embedding[...] = rng.standard_normal(label_embedding.shape)
        self.changed()

    def changed(self) -> None:
        """Must be called after a change of the weights."""
        self._packed = False

    def zero_state(self, rows: int) -> Array:
        """The state before a sequence: (L, S, rows, H) zeros."""
        return self.stack.zero_state(rows)

    def _pack(self, part: int, parts: int, *, backward: bool) -> None:
        self.stack.pack(part, parts, backward=backward)
        self.output.pack(part, parts, backward=backward)

    def loss_and_gradients(self, batch: Batch, targets: Ids, scale: float | None = None) -> float:
        """Forward, loss, back-propagation through time; the gradients are left in ``gradients``.

        Args:
            batch: its state is replaced by that after the last step.
            targets: (T, N), -1 where nothing is predicted.
            scale: the gradients are those of scale * (sum of the losses); by default of their mean.

        Returns:
            loss_nats: sum over the predicted tokens, float64.
        """
        stack, team = self.stack, self.team
        targets = np.ascontiguousarray(targets)
        if scale is None:
            scale = 1 / max(1, int(np.count_nonzero(targets >= 0)))
        stack.begin(batch)
        self.output.begin(stack.hidden[-1], targets)
        losses_nats = self.buffers.get("losses", targets.shape, np.float64)
        d_output, d_state = stack.begin_backward()
        d_state[...] = 0

        def prepare(part: int, parts: int) -> None:
            self._pack(part, parts, backward=True)
            stack.tabulate(part, parts)
            first, last = share(self.gradients.flat.size, part, parts)
            self.gradients.flat[first:last] = 0

        def through_time(part: int, parts: int) -> None:
            stack.forward(part, parts)
            self.output.loss(losses_nats, scale, d_output, *share(stack.rows, part, parts))
            stack.backward(part, parts)

        def weights(part: int, parts: int) -> None:
            stack.sum_gradients(part, parts)
            self.output.sum_gradients(part, parts)

        for phase in (prepare, through_time, weights):
            team.run(phase)
        if stack.ids.size < SMALL_TABLE:
            stack.finish_gradients(0, 1)
        else:
            team.run(stack.finish_gradients)
        stack.end()
        self._packed = False
        return float(losses_nats.sum())

    def _infer(self, batch: Batch) -> None:
        """Set up a pass without what only training needs."""
        stack = self.stack
        stack.begin(batch, reuse_table=True)
        if not self._packed:
            self.team.run(lambda part, parts: self._pack(part, parts, backward=False))
            self._packed, self._tabulated = True, False
        if not (self._tabulated and stack.whole_table):
            self.team.run(stack.tabulate)
            self._tabulated = stack.whole_table

    def _run_rows(self, task: Task, tokens: int) -> None:
        """Run a task over rows; work of a few microseconds is not worth waking anyone for."""
        if self.stack.rows == 1 or tokens * self.parameters.count < SMALL_WORK:
            task(0, 1)
        else:
            self.team.run(task)

    def log_probs(self, inputs: Ids, targets: Ids, state: Array) -> NDArray[np.float64]:
        """The log probability of each target.

        Args:
            inputs: (T, N); an id of V or more begins a sequence: the state is zero from there on.
            targets: (T, N), -1 where nothing is predicted.
            state: (L, S, N, H) before the first step; replaced by that after the last.

        Returns:
            (T, N) nats; 0 where nothing is predicted. NaN where the weights are so large that the logits overflow.
        """
        targets = np.ascontiguousarray(targets)
        result = np.empty(targets.shape)
        steps, rows = inputs.shape
        block = max(1, CACHED_NUMBERS * self.team.threads // (rows * self.stack.columns))
        for first in range(0, steps, block):
            here = slice(first, first + block)
            self._infer(Batch(inputs[here], state, self.zero_state(rows)))
            self.output.begin(self.stack.hidden[-1], targets[here])
            self._run_rows(partial(self._score, result[here]), rows * self.stack.steps)
            self.stack.end()
        # What a softmax gives is finite: it is the difference of two logits. But one that float32 cannot hold is not.
        result[np.isneginf(result)] = np.nan
        return result

    def _score(self, result: NDArray[np.float64], part: int, parts: int) -> None:
        self.stack.forward(part, parts)
        self.output.score(result, *share(self.stack.rows, part, parts))

    def step(self, state: Array, tokens: Ids) -> tuple[Array, NDArray[np.float64]]:
        """One step of N sequences: what sampling, beam search and scoring stand on.

        Args:
            state: (L, S, N, H). Not modified.
            tokens: (N,); an id of V or more begins a sequence.

        Returns:
            The state after the step, and the log probabilities of the next token: (N, V), nats.
        """
        state = state.copy()
        result = np.empty((tokens.size, self.config.vocabulary_size))
        self._infer(Batch(tokens.reshape(1, -1), state, self.zero_state(tokens.size)))

        weights, logits = self.output.inference(tokens.size), self._logits(tokens.size)

        def through_time(part: int, parts: int) -> None:
            self.stack.forward(part, parts)
            low, high = share(tokens.size, part, parts)
            self.output.log_probs(self.stack.hidden[-1], weights, logits, result, low, high)

        self._run_rows(through_time, tokens.size)
        self.stack.end()
        return state, result

    def generate(
        self,
        state: Array,
        log_probs: NDArray[np.float64],
        uniforms: NDArray[np.float64],
        rule: decode.Rule,
        left: NDArray[np.int64],
        before_end: NDArray[np.int64],
    ) -> tuple[State, Drawn]:
        """Draw up to T tokens for each of N sequences, and take a step with each.

        Args:
            state: (L, S, N, H). Not modified.
            log_probs: (N, V), nats, of the next token. Not modified.
            uniforms: (T, N), random numbers from [0, 1).
            rule: how to draw.
            left: (N,): how many tokens each may still get. Replaced.
            before_end: (N,): how many each must get before it may end. Replaced.

        Returns:
            The state and the log probabilities after the last token (of use for unfinished sequences alone); and the
            tokens, (T, N), -1 where a sequence was finished, with their log probabilities under the model as it is.
        """
        steps, rows = uniforms.shape
        log_probs, tokens, nats = log_probs.copy(), np.full((steps, rows), -1, np.int32), np.zeros((steps, rows))
        start = np.full((1, rows), self.config.vocabulary_size, np.int32)
        self._infer(Batch(start, state, self.zero_state(rows)))
        weights, room = self._decoding_weights(rows), self._room(rows)
        room.state[:, 0] = state
        kernel = decode.generate(self.stack.cell, self.output.log_probs)

        def draw(part: int, parts: int) -> None:
            low, high = share(rows, part, parts)
            kernel(weights, room, log_probs, uniforms, rule, left, before_end, tokens, nats, low, high)

        self._run_rows(draw, steps * rows)
        return (room.state[:, 0].copy(), log_probs), (tokens, nats)

    def _logits(self, rows: int) -> Array:
        """Room for the logits of one step."""
        return self.buffers.get("step_logits", (1, rows, self.output.width))

    def _decoding_weights(self, rows: int) -> decode.Weights:
        stack, values, layer_range = self.stack, self.parameters, range(self.config.num_layers)
        return decode.Weights(
            table=stack.projection.table if stack.whole_table else self._no_table,
            embedding=values["embedding"],
            w_x_0=stack.projection.w_x.forward,
            w_x=stack.packed_w_x,
            w_h=stack.packed_w_h,
            w_p=np.stack([layer.w_p for layer in stack.layers]),
            b=np.stack([values[f"layer{layer}/b"] for layer in layer_range]),
            output=self.output.inference(rows),
            initial=stack.batch.initial,
            activation=stack.activation,
        )

    def _room(self, rows: int) -> decode.Room:
        config, stack, get = self.config, self.stack, self.buffers.get
        layer_count, states, size = config.num_layers, len(stack.cell.states), config.hidden_size
        return decode.Room(
            tokens=get("tokens", (1, rows), np.int32),
            reset=get("no_reset", (1, rows), np.uint8),  # zeros, and never written
            embedded=get("embedded_token", (1, rows, config.embedding_size)),
            pre=get("pre", (1, rows, stack.columns)),
            state=get("state", (layer_count, 2, states, rows, size)),
            hidden=get("hidden", (layer_count, 1, rows, size)),
            saved=get("saved", (1, rows, stack.cell.saved * size)),
            logits=self._logits(rows),
            weights=get("weights", (rows, config.vocabulary_size), np.float64),
            heap=get("heap", (rows, config.vocabulary_size), np.int32),
        )
