"""Token ids -> embedding -> layers of a cell -> hidden output, forward and backward.

The work of a training step falls into phases, each run by all threads at once; nobody waits for anybody within one:

    prepare    each thread packs its share of the weights; the first layer's input projection becomes a table:
               one row for each distinct id of the batch, embedding @ w_x + b
    forward, backward     each thread takes its own rows of the batch through all steps and layers
    gradients  each thread sums its own share of every weight's gradient, over all rows in one order
    finish     the gradient of the table flows on to the embedding and the first w_x; by one thread if it is small

So the bits of a result do not depend on the number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.engine import cells, layers, matmul
from charlm.engine.jit import VECTOR_BYTES
from charlm.engine.matmul import BIAS, ZERO
from charlm.engine.memory import aligned_zeros
from charlm.engine.threads import share
from charlm.models.parameters import Array, Parameters

Ids = NDArray[np.int32]
MOST_VIEWS = 1000  # shapes that are remembered: looking one up costs a tenth of making it
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


def initialise(config: StackConfig, parameters: Parameters, rng: np.random.Generator) -> None:
    """Draw the weights of a stack.

    Embeddings are normal (0, 1); w_x uniform in +-sqrt(3 / E) (unit gain); w_h orthogonal, a gate at a time (Saxe et
    al., 2014); w_p and biases zero, but where the cell says otherwise.
    """
    cell = cells.find(config.cell)
    size = config.hidden_size
    parameters["embedding"][...] = rng.standard_normal(parameters["embedding"].shape)
    for layer in range(config.num_layers):
        w_x, w_h = parameters[f"layer{layer}/w_x"], parameters[f"layer{layer}/w_h"]
        bound = (1.0 if layer == 0 else 3.0**0.5) / w_x.shape[0] ** 0.5
        w_x[...] = rng.uniform(-bound, bound, w_x.shape)
        for gate in range(len(cell.gates)):
            q, r = np.linalg.qr(rng.standard_normal((size, size)))
            w_h[:, gate * size : (gate + 1) * size] = q * np.sign(np.diag(r))
        for gate_name, value in cell.biases:
            gate = cell.gates.index(gate_name)
            parameters[f"layer{layer}/b"][gate * size : (gate + 1) * size] = value


class Buffers:
    """Arrays by name, made once and used again: no step allocates."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._flat: dict[str, NDArray[Any]] = {}
        self._views: dict[tuple[str, tuple[int, ...]], NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> NDArray[Any]:
        """An array of that shape; what it holds is whatever was there before."""
        found = self._views.get((name, shape))
        if found is not None:
            return found
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.size < size:
            flat = self._flat[name] = aligned_zeros(size, dtype or self.dtype)
            self._views = {key: view for key, view in self._views.items() if key[0] != name}  # the old memory's
        if len(self._views) >= MOST_VIEWS:
            self._views.clear()
        view = self._views[name, shape] = flat[:size].reshape(shape)
        return view


class PackedWeight:
    """A weight (K, N) in the two forms that products take: itself and its transpose, a share of each a thread.

    Args:
        groups: the widths of the column groups that are multiplied apart; their sum is N.
        forward: where to pack the weight itself; room of its own if not given.
    """

    def __init__(
        self, shape: tuple[int, int], dtype: Any, groups: tuple[int, ...] = (), forward: Array | None = None
    ) -> None:
        k, n = shape
        lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
        self.groups = groups or (n,)
        self._ends = np.cumsum([matmul.packed_size(k, width, lanes) for width in self.groups])
        self._transposed_ends = np.cumsum([matmul.packed_size(width, k, lanes) for width in self.groups])
        self.forward = aligned_zeros(self._ends[-1], dtype) if forward is None else forward
        self.backward = aligned_zeros(self._transposed_ends[-1], dtype)

    @classmethod
    def pile(
        cls, count: int, shape: tuple[int, int], dtype: Any, groups: tuple[int, ...] = ()
    ) -> tuple[list[PackedWeight], Array]:
        """Several of the same shape, and the array (count, ...) of their packed forms."""
        size = cls(shape, dtype, groups).forward.size
        packed = aligned_zeros(count * size, dtype).reshape(count, size)
        return [cls(shape, dtype, groups, forward) for forward in packed], packed

    def pack(self, weight: Array, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weight, and of its transpose if ``backward``."""
        column = 0
        for i, width in enumerate(self.groups):
            begin = 0 if i == 0 else self._ends[i - 1]
            matmul.pack(weight, column, width, self.forward[begin : self._ends[i]], part, parts)
            if backward:
                begin = 0 if i == 0 else self._transposed_ends[i - 1]
                end = self._transposed_ends[i]
                matmul.pack_transposed(weight, column, width, self.backward[begin:end], part, parts)
            column += width


@dataclass
class Batch:
    """What one pass works on: T steps of N rows."""

    inputs: Ids  # (T, N); an id of V or more is the start of a sequence: V the zero vector, V + 1 + label a label's
    state: Array  # (L, S, N, H) before the first step; replaced by that after the last
    initial: Array  # (L, S, N, H): the state in which a sequence begins
    draws: list[NDArray[np.uint8]] | None = None  # for dropout, a (T or 1, N, H) for each layer
    threshold: int = 0  # dropped with probability threshold / 256


class Stack:
    """The recurrent part of every model.

    Args:
        parameters, gradients: hold the paths of `StackConfig.shapes`, perhaps ``label_embedding`` (K, E) (and others,
            which are not touched).
    """

    def __init__(self, config: StackConfig, parameters: Parameters, gradients: Parameters | None = None) -> None:
        self.config, self.parameters, self.gradients = config, parameters, gradients
        self.cell = cells.find(config.cell)
        self.activation = self.cell.activations.index(config.activation)
        self.dtype = parameters.flat.dtype
        self.buffers = Buffers(self.dtype)
        self.columns = len(self.cell.gates) * config.hidden_size
        groups = tuple(count * config.hidden_size for count in self.cell.products)
        above, self.packed_w_x = PackedWeight.pile(config.num_layers - 1, self._shape("layer0/w_h"), self.dtype)
        self.w_x = [PackedWeight(self._shape("layer0/w_x"), self.dtype), *above]
        self.w_h, self.packed_w_h = PackedWeight.pile(config.num_layers, self._shape("layer0/w_h"), self.dtype, groups)
        self.every_id = np.zeros(0, np.int32)
        self._no_bias = np.zeros(0, self.dtype)
        self._no_peepholes = np.zeros((0, config.hidden_size), self.dtype)
        self._no_labels = np.zeros((0, config.embedding_size), self.dtype)
        self.last_id = config.vocabulary_size + self._embeddings(parameters)[1].shape[0]

    def _shape(self, path: str) -> tuple[int, int]:
        rows, columns = self.parameters.shapes[path]
        return rows, columns

    def peepholes(self, values: Parameters, layer: int) -> Array:
        """The peephole weights of a layer, or their gradients; of no rows if the cell has none."""
        return values[f"layer{layer}/w_p"] if self.cell.peepholes else self._no_peepholes

    def _embeddings(self, values: Parameters) -> tuple[Array, Array]:
        """The embeddings of tokens (V, E) and of labels (K, E), or their gradients; K = 0 if there are no labels."""
        return values["embedding"], values.get("label_embedding", self._no_labels)

    def zero_state(self, rows: int) -> Array:
        """The state before a sequence: (L, S, rows, H) zeros."""
        return np.zeros((self.config.num_layers, len(self.cell.states), rows, self.config.hidden_size), self.dtype)

    def begin(self, batch: Batch, *, reuse_table: bool = False) -> None:
        """Set up the arrays of a pass over ``batch``, before its phases.

        Args:
            reuse_table: many passes with the same weights follow, so that a row for every id pays.
        """
        config = self.config
        batch.inputs, batch.initial = np.ascontiguousarray(batch.inputs), np.require(batch.initial, None, ["C", "W"])
        steps, rows = batch.inputs.shape
        size, states, get = config.hidden_size, len(self.cell.states), self.buffers.get
        self.batch, self.steps, self.rows = batch, steps, rows
        self.whole_table = self.last_id < max(steps * rows, WHOLE_TABLE if reuse_table else 0)
        if self.whole_table:
            if self.every_id.size == 0:
                self.every_id = np.arange(self.last_id + 1, dtype=np.int32)
            self.ids = self.every_id
            self.index = np.minimum(batch.inputs, np.int32(self.last_id))
        else:
            ids, index = np.unique(batch.inputs, return_inverse=True)
            self.ids, self.index = ids, index.reshape(steps, rows).astype(np.int32)
        self.reset = (batch.inputs >= config.vocabulary_size).astype(np.uint8)
        self.embedded = get("embedded", (1, self.ids.size, config.embedding_size))
        self.table = get("table", (1, self.ids.size, self.columns))
        self.pre, self.state, self.hidden, self.saved = [], [], [], []
        for layer in range(config.num_layers):
            self.pre.append(get(f"pre{layer}", (steps, rows, self.columns)))
            self.state.append(get(f"state{layer}", (steps + 1, states, rows, size)))
            self.hidden.append(get(f"hidden{layer}", (steps, rows, size)))
            self.saved.append(get(f"saved{layer}", (steps, rows, self.cell.saved * size)))
            self.state[layer][0] = batch.state[layer]

    def end(self) -> None:
        """Hand the last state back to the batch."""
        for layer in range(self.config.num_layers):
            self.batch.state[layer] = self.state[layer][self.steps]

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weights."""
        for layer in range(self.config.num_layers):
            self.w_x[layer].pack(self.parameters[f"layer{layer}/w_x"], part, parts, backward=backward)
            self.w_h[layer].pack(self.parameters[f"layer{layer}/w_h"], part, parts, backward=backward)

    def tabulate(self, part: int, parts: int) -> None:
        """Compute this thread's columns of the table: the ones whose weights it has packed itself."""
        if part == 0:
            layers.embed_rows(*self._embeddings(self.parameters), self.ids, self.embedded, 0, self.ids.size)
            embedded = self.embedded
        else:  # nobody waits: each thread looks the few rows up for itself
            embedded = self.buffers.get(f"embedded{part}", self.embedded.shape)
            layers.embed_rows(*self._embeddings(self.parameters), self.ids, embedded, 0, self.ids.size)
        width = self.config.embedding_size
        first, last = matmul.panel_share(self.columns, part, parts, self.dtype.itemsize)
        if first < last:
            matmul.multiply(
                embedded, 0, 0, width, self.w_x[0].forward[first * width :], self.table, 0, first, last - first,
                1, 0, self.ids.size, BIAS, self.parameters["layer0/b"][first:],
            )  # fmt: skip

    def forward(self, part: int, parts: int) -> None:
        """Take this thread's rows through all layers."""
        low, high = share(self.rows, part, parts)
        batch, size = self.batch, self.config.hidden_size
        for layer in range(self.config.num_layers):
            pre, hidden = self.pre[layer], self.hidden[layer]
            if layer == 0:
                layers.look_up(self.table, self.index, pre, low, high)
            else:
                matmul.multiply(
                    self.hidden[layer - 1], 0, 0, size, self.w_x[layer].forward, pre, 0, 0, self.columns,
                    self.steps, low, high, BIAS, self.parameters[f"layer{layer}/b"],
                )  # fmt: skip
            self.cell.forward(
                pre, self.w_h[layer].forward, self.peepholes(self.parameters, layer), self.state[layer], hidden,
                self.saved[layer], self.reset, batch.initial[layer], self.activation, low, high,
            )  # fmt: skip
            if batch.draws is not None:
                layers.dropout(hidden, batch.draws[layer], batch.threshold, low, high)

    def begin_backward(self) -> tuple[Array, Array]:
        """The arrays that `backward` reads: gradients of the output (T, N, H) and of the last state (L, S, N, H).

        The caller fills them; `backward` leaves the gradient of the state before the first step in the second.
        """
        shape = (self.steps, self.rows, self.config.hidden_size)
        self.d_hidden = [self.buffers.get(f"d_hidden{i}", shape) for i in range(2)]
        self.d_state = self.buffers.get("d_state", self.batch.state.shape)
        self.scratch = self.buffers.get("scratch", (1, *shape[1:]))
        self.d_table = self.buffers.get("d_table", self.table.shape)
        self.d_embedded = self.buffers.get("d_embedded", self.embedded.shape)
        return self.d_hidden[(self.config.num_layers - 1) % 2], self.d_state

    def backward(self, part: int, parts: int) -> None:
        """Take this thread's rows back through all layers; `pre` then holds its own gradient."""
        low, high = share(self.rows, part, parts)
        batch, size = self.batch, self.config.hidden_size
        for layer in reversed(range(self.config.num_layers)):
            d_hidden = self.d_hidden[layer % 2]
            if batch.draws is not None:
                layers.dropout(d_hidden, batch.draws[layer], batch.threshold, low, high)
            self.cell.backward(
                d_hidden, self.d_state[layer], self.pre[layer], self.w_h[layer].backward,
                self.peepholes(self.parameters, layer), self.state[layer], self.saved[layer], self.reset,
                self.scratch, self.activation, low, high,
            )  # fmt: skip
            if layer > 0:
                matmul.multiply(
                    self.pre[layer], 0, 0, self.columns, self.w_x[layer].backward, self.d_hidden[(layer - 1) % 2],
                    0, 0, size, self.steps, low, high, ZERO, self._no_bias,
                )  # fmt: skip

    def sum_gradients(self, part: int, parts: int) -> None:
        """Add this thread's share of the gradients of the layers' weights, and of the table."""
        assert self.gradients is not None
        size = self.config.hidden_size
        for layer in range(self.config.num_layers):
            pre = self.pre[layer]
            self.cell.gradients(
                pre, self.state[layer], self.saved[layer], self.gradients[f"layer{layer}/w_h"],
                self.peepholes(self.gradients, layer), part, parts,
            )  # fmt: skip
            if layer > 0:
                matmul.accumulate_outer(
                    self.hidden[layer - 1], 0, self.rows * size, size, pre, 0, self.columns,
                    self.gradients[f"layer{layer}/w_x"], 0, self.gradients[f"layer{layer}/b"], part, parts,
                )  # fmt: skip
        first, last = share(self.columns, part, parts)
        self.d_table[0, :, first:last] = 0
        layers.add_to_table(self.pre[0], self.index, self.d_table, first, last)

    def finish_gradients(self, part: int, parts: int) -> None:
        """This thread's share of how the table's gradient flows to the embedding, the first w_x and its bias."""
        assert self.gradients is not None
        width = self.config.embedding_size
        matmul.accumulate_outer(
            self.embedded, 0, self.ids.size * width, width, self.d_table, 0, self.columns,
            self.gradients["layer0/w_x"], 0, self.gradients["layer0/b"], part, parts,
        )  # fmt: skip
        low, high = share(self.ids.size, part, parts)
        matmul.multiply(
            self.d_table, 0, 0, self.columns, self.w_x[0].backward, self.d_embedded, 0, 0, width,
            1, low, high, ZERO, self._no_bias,
        )  # fmt: skip
        layers.add_to_embedding(self.d_embedded, self.ids, *self._embeddings(self.gradients), low, high)
