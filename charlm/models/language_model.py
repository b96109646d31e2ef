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
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlm.engine import decode, inference
from charlm.engine.threads import Pieces, Task, Team, share
from charlm.models.buffers import Buffers
from charlm.models.drawing import Drawing, Drawn, NextToken
from charlm.models.inference import begin_inference, run_rows
from charlm.models.parameters import Array, Ids, Parameters
from charlm.models.softmax import AdaptiveSoftmax, Output, Softmax
from charlm.models.stack import Batch, Stack, StackConfig, initialise

SOFTMAXES = ("full", "adaptive")
LEAST_SYMBOLS = {"full": 3, "adaptive": 4}  # the two special ones, and one for each part that must not be empty

# Stages of the gradients: all those of logits are there, all of the table's rows. The other stages are layers.
OUTPUT, TABLE = -1, -2
WIDE = 1024  # columns of a weight whose gradient is summed in smaller pieces; each piece packs its inputs anew

# Gates of a few steps that a thread keeps in its second-level cache when it scores, half of one of 512 KB: 20 % faster
# than 64 steps at a time (LSTM 2 x 128, 64 rows); with twice as many numbers it is at times 30 % slower. In training,
# which reads everything again much later, blocks of steps gain nothing.
CACHED_NUMBERS = 1 << 16


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
        self._drawing = Drawing(self.stack, self.output, self.buffers, self.team)

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
        if self.config.tie_weights:  # the output has made the embeddings small, and the first layer reads them
            w_x = self.parameters["layer0/w_x"]
            w_x /= self.parameters["embedding"].std()
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
        self._packed = False  # from here on, for both ways, and the table is of the batch
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

        weights = self._weight_gradients()

        def through_time(part: int, parts: int) -> None:
            stack.forward(part, parts)
            self.output.loss(losses_nats, scale, d_output, *share(stack.rows, part, parts))
            weights.reach(OUTPUT)
            stack.backward(part, parts, weights.reach)
            weights.work()

        team.run(prepare)
        team.run(through_time, weights.dissolve)
        stack.end()
        return float(losses_nats.sum())

    def _weight_gradients(self) -> Pieces:
        """The sums of the weights' gradients over steps and rows, and what flows from the table to the embedding.

        First the output's, then the layers' from the top down.

        A thread that is ready with its rows begins, where it would otherwise wait for the slowest: on two threads of a
        machine that others use small models train 1.04 to 1.1 times as fast, 2 x 256 units 1.01, a free one the same.
        """
        threads, stack = self.team.threads, self.stack
        wide = 2 * threads if threads > 1 else 1

        def sum_table(part: int, parts: int) -> None:
            stack.sum_table(part, parts)
            pieces.reach(TABLE)

        output = (OUTPUT, self.output.sum_gradients, wide if self.output.width >= WIDE else threads)
        pieces_of_layer = wide if stack.columns >= WIDE else threads
        tasks: list[tuple[int, Task, int]] = [output]
        tasks += [(layer, task, pieces_of_layer) for layer, task in stack.weight_gradients()]
        tasks += [(0, sum_table, threads), (TABLE, stack.finish_gradients, threads)]
        pieces = Pieces(threads, tasks)
        return pieces

    def _infer(self, inputs: Ids) -> None:
        """Set up a pass over inputs (T, N) without what only training needs."""
        stack = self.stack
        stack.begin_table(inputs, reuse=True)
        if not self._packed:
            self.team.run(lambda part, parts: self._pack(part, parts, backward=False))
            self._packed, self._tabulated = True, False
        if not (self._tabulated and stack.whole_table):
            self.team.run(stack.tabulate)
            self._tabulated = stack.whole_table

    def log_probs(self, inputs: Ids, targets: Ids, state: Array) -> NDArray[np.float64]:
        """The log probability of each target.

        Args:
            inputs: (T, N); an id of V or more begins a sequence: the state is zero from there on.
            targets: (T, N), -1 where nothing is predicted.
            state: (L, S, N, H) before the first step; replaced by that after the last.

        Returns:
            (T, N) nats; 0 where nothing is predicted. NaN where the weights are so large that the logits overflow.
        """
        inputs, targets = np.ascontiguousarray(inputs), np.ascontiguousarray(targets)
        steps, rows = inputs.shape
        result = np.empty(targets.shape)
        self._infer(inputs)
        hidden = self.buffers.get("hidden", (steps, rows, self.config.hidden_size))
        self.output.begin(hidden, targets)
        block = max(1, CACHED_NUMBERS * self.team.threads // (rows * self.stack.columns))
        with_state = begin_inference(self.stack, self.buffers, state, min(block, steps), self.stack.projection.table)
        through, reset, index = inference.through(self.stack.cell), self.stack.starts(inputs), self.stack.index

        def score(part: int, parts: int) -> None:
            low, high = share(rows, part, parts)
            through(*with_state, index, reset, hidden, low, high)
            self.output.score(result, low, high)

        run_rows(self.team, score, rows, steps * rows * self.parameters.count)
        state[...] = with_state[1].state[:, 0]
        # What a softmax gives is finite: it is the difference of two logits. But one that float32 cannot hold is not.
        result[np.isneginf(result)] = np.nan
        return result

    def step(self, state: Array, tokens: Ids) -> tuple[Array, NDArray[np.float64]]:
        """One step of N sequences: what sampling, beam search and scoring stand on.

        Args:
            state: (L, S, N, H). Not modified.
            tokens: (N,); an id of V or more begins a sequence.

        Returns:
            The state after the step, and the log probabilities of the next token: (N, V), nats.
        """
        rows, inputs = tokens.size, tokens.reshape(1, -1)
        result = np.empty((rows, self.config.vocabulary_size))
        self._infer(inputs)
        hidden = self.buffers.get("hidden", (1, rows, self.config.hidden_size))
        logits = self.buffers.get("step_logits", (1, rows, self.output.width))
        with_state = begin_inference(self.stack, self.buffers, state, 1, self.stack.projection.table)
        output = self.output.inference(rows)
        through, reset, index = inference.through(self.stack.cell), self.stack.starts(inputs), self.stack.index

        def advance(part: int, parts: int) -> None:
            low, high = share(rows, part, parts)
            through(*with_state, index, reset, hidden, low, high)
            self.output.log_probs(hidden, output, logits, result, low, high)

        run_rows(self.team, advance, rows, rows * self.parameters.count)
        return with_state[1].state[:, 0].copy(), result

    def generate(
        self,
        state: Array,
        log_probs: NDArray[np.float64],
        uniforms: NDArray[np.float64],
        rule: decode.Rule,
        left: NDArray[np.int64],
        before_end: NDArray[np.int64],
    ) -> tuple[NextToken, Drawn]:
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
        self._infer(np.full((1, uniforms.shape[1]), self.config.vocabulary_size, np.int32))
        return self._drawing(state, log_probs, uniforms, rule, left, before_end)
