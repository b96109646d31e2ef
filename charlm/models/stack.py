"""Token ids -> embedding -> layers of a cell -> hidden output, forward and backward.

The work of a training step falls into phases, each run by all threads at once:

    prepare    each thread packs its share of the weights; the first layer's input projection becomes a table:
               one row for each distinct id of the batch, embedding @ w_x + b
    forward, backward     each thread takes its own rows of the batch through all steps and layers
    gradients  each thread sums its own share of every weight's gradient, over all rows in one order
    finish     the gradient of the table flows on to the embedding

Of the last two a language model makes pieces: a thread that is ready takes the next as soon as all rows have passed
back through a layer, see `weight_gradients`.

So the bits of a result do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from charlm.engine import cells, layers, matmul
from charlm.engine.matmul import BIAS, ZERO
from charlm.engine.threads import Task, share
from charlm.models.buffers import Buffers
from charlm.models.layer import Flags, Layer
from charlm.models.packed_weight import PackedWeight
from charlm.models.parameters import Array, Ids, Parameters
from charlm.models.projection import Projection

WHOLE_TABLE = 4096  # vocabularies below this keep the projection of every id between passes with the same weights


@dataclass(frozen=True)
class StackConfig:
    """Sizes of a stack: V ids, embedding E, hidden H, L layers."""

    vocabulary_size: int
    embedding_size: int
    hidden_size: int
    num_layers: int = 1
    cell: str = "lstm"
    activation: str = "tanh"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters, matrices first."""
        cell = cells.find(self.cell)
        columns = len(cell.gates) * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocabulary_size, self.embedding_size)}
        for layer in range(self.num_layers):
            width = self.embedding_size if layer == 0 else self.hidden_size
            shapes[f"layer{layer}/w_x"] = (width, columns)
            shapes[f"layer{layer}/w_h"] = (self.hidden_size, columns)
        for layer in range(self.num_layers):
            shapes[f"layer{layer}/b"] = (columns,)
            if cell.peepholes:
                shapes[f"layer{layer}/w_p"] = (len(cell.peepholes), self.hidden_size)
        return shapes


def initialise(config: StackConfig, parameters: Parameters, rng: np.random.Generator, prefix: str = "") -> None:
    """Draw the weights of a stack whose paths begin with ``prefix``.

    Embeddings are normal (0, 1); w_x uniform, in +-1 / sqrt(E) in the first layer and in +-sqrt(3 / H) (unit gain)
    above; w_h orthogonal, a gate at a time (Saxe et al., 2014); w_p and biases zero, but where the cell says otherwise.
    """
    embedding = parameters[f"{prefix}embedding"]
    embedding[...] = rng.standard_normal(embedding.shape)
    for layer in range(config.num_layers):
        initialise_layer(config.cell, parameters, f"{prefix}layer{layer}", rng, is_first=layer == 0)


def initialise_layer(
    cell_name: str, parameters: Parameters, path: str, rng: np.random.Generator, *, is_first: bool
) -> None:
    """Draw the weights of a layer; the inputs of the first are as large as embeddings."""
    cell = cells.find(cell_name)
    w_x, w_h = parameters[f"{path}/w_x"], parameters[f"{path}/w_h"]
    size = w_h.shape[0]
    bound = (1.0 if is_first else 3.0**0.5) / w_x.shape[0] ** 0.5
    w_x[...] = rng.uniform(-bound, bound, w_x.shape)
    for gate in range(len(cell.gates)):
        q, r = np.linalg.qr(rng.standard_normal((size, size)))
        w_h[:, gate * size : (gate + 1) * size] = q * np.sign(np.diag(r))
    for gate_name, value in cell.biases:
        gate = cell.gates.index(gate_name)
        parameters[f"{path}/b"][gate * size : (gate + 1) * size] = value


@dataclass
class Batch:
    """What one pass works on: T steps of N rows."""

    inputs: Ids  # (T, N); an id of V or more is the start of a sequence: V the zero vector, V + 1 + label a label's
    state: Array  # (L, S, N, H) before the first step; replaced by that after the last
    initial: Array  # (L, S, N, H): the state in which a sequence begins
    draws: list[NDArray[np.uint8]] | None = None  # for dropout, a (T or 1, N, H) for each layer
    threshold: int = 0  # dropped with probability threshold / 256
    reset: Flags | None = None  # (T, N): 1 where a sequence begins; by default where an input is a start


class Stack:
    """The recurrent part of a language model.

    Args:
        parameters, gradients: hold the paths of `StackConfig.shapes`, perhaps ``label_embedding`` (K, E) (and others,
            which are not touched).
        prefix: what these paths begin with.
    """

    def __init__(
        self, config: StackConfig, parameters: Parameters, gradients: Parameters | None = None, prefix: str = ""
    ) -> None:
        self.config, self.parameters, self.gradients, self.prefix = config, parameters, gradients, prefix
        self.cell = cells.find(config.cell)
        self.activation = self.cell.activations.index(config.activation)
        self.dtype = parameters.flat.dtype
        self.buffers = Buffers(self.dtype)
        self.columns = len(self.cell.gates) * config.hidden_size
        self.projection = Projection(f"{prefix}layer0", parameters, gradients, self.buffers)
        square = config.hidden_size, self.columns
        self._w_x_above, self.packed_w_x = PackedWeight.pile(config.num_layers - 1, square, self.dtype)
        groups = tuple(count * config.hidden_size for count in self.cell.products)
        w_h, self.packed_w_h = PackedWeight.pile(config.num_layers, square, self.dtype, groups)
        self.layers = [
            Layer(self.cell, self.activation, f"{prefix}layer{i}", w_h[i], parameters, gradients, self.buffers)
            for i in range(config.num_layers)
        ]
        self.every_id = np.zeros(0, np.int32)
        self._no_bias = np.zeros(0, self.dtype)
        self._no_labels = np.zeros((0, config.embedding_size), self.dtype)
        self.last_id = config.vocabulary_size + self._embeddings(parameters)[1].shape[0]

    def _embeddings(self, values: Parameters) -> tuple[Array, Array]:
        """The embeddings of tokens (V, E) and of labels (K, E), or their gradients; K = 0 if there are no labels."""
        return values[f"{self.prefix}embedding"], values.get(f"{self.prefix}label_embedding", self._no_labels)

    @property
    def hidden(self) -> list[Array]:
        """The output of each layer, (T, N, H)."""
        return [layer.hidden for layer in self.layers]

    def zero_state(self, rows: int) -> Array:
        """The state before a sequence: (L, S, rows, H) zeros."""
        return np.zeros((self.config.num_layers, len(self.cell.states), rows, self.config.hidden_size), self.dtype)

    def begin(self, batch: Batch, *, reuse_table: bool = False) -> None:
        """Set up the arrays of a pass over ``batch``, before its phases; ``reuse_table`` as in `begin_table`."""
        batch.inputs, batch.initial = np.ascontiguousarray(batch.inputs), np.require(batch.initial, None, ["C", "W"])
        steps, rows = batch.inputs.shape
        self.batch, self.steps, self.rows = batch, steps, rows
        self.begin_table(batch.inputs, reuse=reuse_table)
        self.reset = self.starts(batch.inputs) if batch.reset is None else batch.reset
        for layer, state in zip(self.layers, batch.state, strict=True):
            layer.begin(steps, rows)
            layer.state[0] = state

    def starts(self, inputs: Ids) -> Flags:
        """1 where an input is the start of a sequence, (T, N)."""
        return (inputs >= self.config.vocabulary_size).astype(np.uint8)

    def begin_table(self, inputs: Ids, *, reuse: bool) -> None:
        """Set up the table of the first layer's projection for inputs (T, N): a row for each id that occurs, or all.

        Args:
            reuse: many passes with the same weights follow, so that a row for every id pays.
        """
        self.whole_table = self.last_id < max(inputs.size, WHOLE_TABLE if reuse else 0)
        if self.whole_table:
            if self.every_id.size == 0:
                self.every_id = np.arange(self.last_id + 1, dtype=np.int32)
            self.ids = self.every_id
            self.index = np.minimum(inputs, np.int32(self.last_id))
        else:
            ids, index = np.unique(inputs, return_inverse=True)
            self.ids, self.index = ids, index.reshape(inputs.shape).astype(np.int32)
        self.embedded = self.buffers.get("embedded", (1, self.ids.size, self.config.embedding_size))
        self.projection.begin(self.ids.size)

    def end(self) -> None:
        """Hand the last state back to the batch."""
        for layer, state in zip(self.layers, self.batch.state, strict=True):
            state[...] = layer.state[self.steps]

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weights."""
        self.projection.pack(part, parts, backward=backward)
        for layer, w_x in zip(self.layers[1:], self._w_x_above, strict=True):
            w_x.pack(self.parameters[f"{layer.path}/w_x"], part, parts, backward=backward)
        for layer in self.layers:
            layer.pack(part, parts, backward=backward)

    def tabulate(self, part: int, parts: int) -> None:
        """Compute this thread's columns of the table: the ones whose weights it has packed itself."""
        embedded = self.embedded
        if part > 0:  # nobody waits: each thread looks the few rows up for itself
            embedded = self.buffers.get(f"embedded{part}", self.embedded.shape)
        layers.embed_rows(*self._embeddings(self.parameters), self.ids, embedded, 0, self.ids.size)
        self.projection.tabulate(embedded, part, parts)

    def forward(self, part: int, parts: int) -> None:
        """Take this thread's rows through all layers."""
        low, high = share(self.rows, part, parts)
        batch, size = self.batch, self.config.hidden_size
        for i, layer in enumerate(self.layers):
            if i == 0:
                layers.look_up(self.projection.table, self.index, layer.pre, low, high)
            else:
                matmul.multiply(
                    self.layers[i - 1].hidden, 0, 0, size, self._w_x_above[i - 1].forward, layer.pre, 0, 0,
                    self.columns, self.steps, low, high, BIAS, self.parameters[f"{layer.path}/b"],
                )  # fmt: skip
            layer.forward(self.reset, batch.initial[i], low, high)
            if batch.draws is not None:
                layers.dropout(layer.hidden, batch.draws[i], batch.threshold, low, high)

    def begin_backward(self) -> tuple[Array, Array]:
        """The arrays that `backward` reads: gradients of the output (T, N, H) and of the last state (L, S, N, H).

        The caller fills them; `backward` leaves the gradient of the state before the first step in the second.
        """
        shape = (self.steps, self.rows, self.config.hidden_size)
        self.d_hidden = [self.buffers.get(f"d_hidden{i}", shape) for i in range(2)]
        self.d_state = self.buffers.get("d_state", self.batch.state.shape)
        self.scratch = self.buffers.get("scratch", (1, *shape[1:]))
        self.projection.begin_backward()
        self.d_embedded = self.buffers.get("d_embedded", self.embedded.shape)
        return self.d_hidden[(self.config.num_layers - 1) % 2], self.d_state

    def backward(self, part: int, parts: int, reach: Callable[[int], object] = lambda layer: None) -> None:
        """Take this thread's rows back through all layers; `pre` then holds its own gradient.

        Args:
            reach: called with each layer that they have passed.
        """
        low, high = share(self.rows, part, parts)
        batch, size = self.batch, self.config.hidden_size
        for i in reversed(range(self.config.num_layers)):
            layer, d_hidden = self.layers[i], self.d_hidden[i % 2]
            if batch.draws is not None:
                layers.dropout(d_hidden, batch.draws[i], batch.threshold, low, high)
            layer.backward(d_hidden, self.d_state[i], self.reset, self.scratch, low, high)
            reach(i)
            if i > 0:
                matmul.multiply(
                    layer.pre, 0, 0, self.columns, self._w_x_above[i - 1].backward, self.d_hidden[(i - 1) % 2], 0, 0,
                    size, self.steps, low, high, ZERO, self._no_bias,
                )  # fmt: skip

    def weight_gradients(self) -> list[tuple[int, Task]]:
        """What adds a share of the gradients of the layers' weights and biases, but for what `sum_table` sums.

        Returns:
            From the top down: the layer through which all rows must have passed before, and the task.
        """
        tasks: list[tuple[int, Task]] = []
        for i in reversed(range(self.config.num_layers)):
            tasks.append((i, self.layers[i].sum_gradients))
            if i > 0:
                tasks.append((i, partial(self._sum_input_gradients, i)))
        return tasks

    def _sum_input_gradients(self, i: int, part: int, parts: int) -> None:
        assert self.gradients is not None
        layer, size = self.layers[i], self.config.hidden_size
        matmul.accumulate_outer(
            self.layers[i - 1].hidden, 0, self.rows * size, size, layer.pre, 0, self.columns,
            self.gradients[f"{layer.path}/w_x"], 0, self.gradients[f"{layer.path}/b"], part, parts,
        )  # fmt: skip

    def sum_table(self, part: int, parts: int) -> None:
        """Sum this thread's columns of the table's gradient, and what flows from them to w_x and b."""
        self.projection.sum_gradients(self.embedded, self.layers[0].pre, self.index, part, parts)

    def sum_gradients(self, part: int, parts: int) -> None:
        """All of `weight_gradients` and `sum_table`, where all rows have passed through all layers."""
        for _, task in self.weight_gradients():
            task(part, parts)
        self.sum_table(part, parts)

    def finish_gradients(self, part: int, parts: int) -> None:
        """This thread's share of how the table's gradient, when all of it is there, flows to the embedding."""
        assert self.gradients is not None
        self.projection.finish_gradients(self.d_embedded, part, parts)
        low, high = share(self.ids.size, part, parts)
        layers.add_to_embedding(self.d_embedded, self.ids, *self._embeddings(self.gradients), low, high)
