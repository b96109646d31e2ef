"""Networks that see all of a sequence: layers upon layers, in one direction or in both.

With a-> the states of the direction that reads a layer's input from the first step to the last, a<- of the one that
reads it from the last to the first, and x of the first layer the tokens' vectors:

    (1) a->[l]<t> = cell(x[l]<t>, a->[l]<t-1>)
    (2) a<-[l]<t> = cell(x[l]<t>, a<-[l]<t+1>)
    (3) x[l+1]<t> = [a->[l]<t>, a<-[l]<t>]

(Schuster and Paliwal, 1997). The second direction is the first one's machinery on reversed rows. Nothing is
concatenated: of each weight W_x above the first layer, the upper half of the rows meets a->, the lower half a<-, each
turned into the order of the direction that reads it.

The phases are those of `stack`: pack and tabulate; forward, backward; sum_gradients; finish_gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from charlm.engine import cells, layers, matmul
from charlm.engine.matmul import ADD, BIAS, ZERO
from charlm.engine.threads import share
from charlm.models.buffers import Buffers
from charlm.models.layer import Layer
from charlm.models.packed_weight import PackedWeight
from charlm.models.parameters import Array, Ids, Parameters
from charlm.models.projection import Projection
from charlm.models.sequences import Dropout, Lengths, Sequences
from charlm.models.stack import StackConfig, initialise, initialise_layer

BACKWARD = "/backward"


@dataclass(frozen=True)
class EncoderConfig(StackConfig):
    """A stack's sizes, in one direction or in both, H units each."""

    bidirectional: bool = False

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """D H, the width of what a layer gives."""
        return self.directions * self.hidden_size

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters, matrices first; ``layer0/backward/...`` is the other direction's."""
        shapes: dict[str, tuple[int, ...]] = {}
        for path, shape in super().shapes().items():
            layer, slash, name = path.partition("/")
            if name == "w_x" and layer != "layer0":
                shape = (self.output_size, shape[1])
            shapes[path] = shape
            if slash and self.bidirectional:
                shapes[f"{layer}{BACKWARD}/{name}"] = shape
        return shapes


def initialise_encoder(
    config: EncoderConfig, parameters: Parameters, rng: np.random.Generator, prefix: str = ""
) -> None:
    """Draw the weights: as those of a stack, each direction for itself."""
    initialise(config, parameters, rng, prefix)
    if config.bidirectional:
        for i in range(config.num_layers):
            initialise_layer(config.cell, parameters, f"{prefix}layer{i}{BACKWARD}", rng, is_first=i == 0)


class Directions:
    """The layers of a network over given input rows, all directions.

    Args:
        config: its vocabulary means nothing here; ``embedding_size`` is the width of the input rows.
        parameters, gradients: hold the layers' paths, which begin with ``prefix``.

    Attributes:
        inputs: (1, U, E), the distinct vectors of the input; to be filled before `tabulate`.
        d_inputs: (1, U, E), their gradient, after `finish_gradients`.
        d_outputs: for each direction (T, N, H), the gradient of its output, in the order of the text; to be filled
            before `backward`, and to be left at zero where a row has no token.
        d_state: (L, D, S, N, H), the gradient of `last`; to be filled likewise.
        steps, rows: T and N.
    """

    def __init__(
        self, config: EncoderConfig, parameters: Parameters, gradients: Parameters, prefix: str = ""
    ) -> None:  # fmt: skip
        self.config, self.parameters, self.gradients = config, parameters, gradients
        self.buffers = Buffers(parameters.flat.dtype)
        cell, size = cells.find(config.cell), config.hidden_size
        self.states, self.columns = len(cell.states), len(cell.gates) * size
        activation, dtype = cell.activations.index(config.activation), parameters.flat.dtype
        groups = tuple(count * size for count in cell.products)
        self.layers: list[list[Layer]] = []
        self._w_x: list[list[list[PackedWeight]]] = []  # of layers above the first: by direction, by what it meets
        for i in range(config.num_layers):
            paths = [f"{prefix}layer{i}{name}" for name in ("", BACKWARD)[: config.directions]]
            self.layers.append(
                [
                    Layer(
                        cell, activation, path, PackedWeight((size, self.columns), dtype, groups), parameters,
                        gradients, self.buffers,
                    )
                    for path in paths
                ]
            )  # fmt: skip
            if i > 0:
                self._w_x.append([[PackedWeight((size, self.columns), dtype) for _ in paths] for _ in paths])
        self.projections = [Projection(layer.path, parameters, gradients, self.buffers) for layer in self.layers[0]]
        self._no_bias = np.zeros(0, dtype)

    @property
    def last(self) -> Array:
        """A copy of the states after the last token that each direction reads, zero without any: (L, D, S, N, H)."""
        last = np.stack([[layer.state[self.steps] for layer in pair] for pair in self.layers])
        last[:, :, :, self.lengths == 0] = 0
        return last

    def output(self, direction: int) -> Array:
        """The top layer's output of a direction, (T, N, H), in the order of the text; unspecified at padding."""
        return self._given(len(self.layers) - 1, direction, 0)

    def take_ends(self, ends: Array, low: int, high: int) -> None:
        """What the top layer gives after the last token that each direction reads, for the rows ``low`` .. ``high``.

        Args:
            ends: OUT, (1, N, D H), the directions side by side; zero for a row without any token.
        """
        size, rows = self.config.hidden_size, low + np.flatnonzero(self.lengths[low:high])
        ends[0, low:high] = 0
        for d, layer in enumerate(self.layers[-1] if rows.size else []):  # either ends with the last step
            ends[0, rows, d * size : (d + 1) * size] = layer.hidden[-1, rows]

    def give_ends(self, d_ends: Array, low: int, high: int) -> None:
        """The reverse of `take_ends`: puts these rows' gradients into ``d_outputs``."""
        size, rows = self.config.hidden_size, low + np.flatnonzero(self.lengths[low:high])
        # In the order of the text the other direction's last token is each row's first.
        ends = np.full(rows.size, self.steps - 1), self.steps - self.lengths[rows]
        for d, d_output in enumerate(self.d_outputs if rows.size else []):
            d_output[ends[d], rows] = d_ends[0, rows, d * size : (d + 1) * size]

    def begin(self, count: int, index: Ids, reversed_index: Ids, lengths: Lengths, dropout: Dropout | None) -> None:
        """Set up a pass.

        Args:
            count: U.
            index, reversed_index: (T, N), which of the vectors each step reads, in either order.
            lengths: (N,), 0 to T.
        """
        self.steps, self.rows = index.shape
        self.lengths, self.dropout = np.ascontiguousarray(lengths, np.int64), dropout
        self._index = [np.ascontiguousarray(one) for one in (index, reversed_index)]
        self._reset = (np.arange(self.steps)[:, np.newaxis] <= self.steps - self.lengths).astype(np.uint8)
        shape = (self.states, self.rows, self.config.hidden_size)
        self._initial = np.zeros(shape, self.parameters.flat.dtype)
        self.inputs = self.buffers.get("inputs", (1, count, self.config.embedding_size))
        for projection in self.projections:
            projection.begin(count)
        self._turned = []
        for i, pair in enumerate(self.layers):
            for layer in pair:
                layer.begin(self.steps, self.rows)
                layer.state[0] = 0
            shape = self.steps, self.rows, self.config.hidden_size
            turned = range(len(pair) if self.config.bidirectional else 0)
            self._turned.append([self.buffers.get(f"turned{i} {d}", shape) for d in turned])

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weights."""
        for projection in self.projections:
            projection.pack(part, parts, backward=backward)
        size = self.config.hidden_size
        for i, pair in enumerate(self.layers):
            for d, layer in enumerate(pair):
                layer.pack(part, parts, backward=backward)
                if i > 0:
                    weight = self.parameters[f"{layer.path}/w_x"]
                    for e, packed in enumerate(self._w_x[i - 1][d]):
                        packed.pack(weight[e * size : (e + 1) * size], part, parts, backward=backward)

    def tabulate(self, part: int, parts: int) -> None:
        """Project the input rows: this thread's columns."""
        for projection in self.projections:
            projection.tabulate(self.inputs, part, parts)

    def _given(self, i: int, e: int, d: int) -> Array:
        """What direction ``e`` of layer ``i`` gave, in the order in which direction ``d`` reads."""
        return self.layers[i][e].hidden if e == d else self._turned[i][e]

    def forward(self, part: int, parts: int) -> None:
        """Take this thread's rows through all layers."""
        low, high = share(self.rows, part, parts)
        size, top = self.config.hidden_size, len(self.layers) - 1
        for i, pair in enumerate(self.layers):
            for d, layer in enumerate(pair):
                if i == 0:
                    layers.look_up(self.projections[d].table, self._index[d], layer.pre, low, high)
                for e in range(len(pair) if i > 0 else 0):
                    matmul.multiply(
                        self._given(i - 1, e, d), 0, 0, size, self._w_x[i - 1][d][e].forward, layer.pre, 0, 0,
                        self.columns, self.steps, low, high, BIAS if e == 0 else ADD,
                        self.parameters[f"{layer.path}/b"],
                    )  # fmt: skip
                layer.forward(self._reset, self._initial, low, high)
                if self.dropout is not None:
                    layers.dropout(layer.hidden, self.dropout.draws[i][d], self.dropout.threshold, low, high)
                if self.config.bidirectional and (i < top or d == 1):
                    layers.turn(layer.hidden, self.lengths, self._turned[i][d], low, high)

    def begin_backward(self) -> None:
        """Set up the gradients: those of the outputs and of the last states are zero."""
        shape, get = (self.steps, self.rows, self.config.hidden_size), self.buffers.get
        count = self.config.directions
        self.d_outputs = [get(f"d_output{d}", shape) for d in range(count)]
        self.d_state = get("d_state", (self.config.num_layers, count, self.states, *shape[1:]))
        for array in (*self.d_outputs, self.d_state):
            array[...] = 0
        self._d_hidden = [[get(f"d_hidden{i} {d}", shape) for d in range(count)] for i in range(2)]
        self._d_turned = get("d_turned", shape)
        self._scratch = get("scratch", (1, *shape[1:]))
        for projection in self.projections:
            projection.begin_backward()
        self.d_inputs = get("d_inputs", self.inputs.shape)

    def backward(self, part: int, parts: int) -> None:
        """Take this thread's rows back through all layers."""
        low, high = share(self.rows, part, parts)
        self.d_state[:, :, :, low:high][:, :, :, self.lengths[low:high] == 0] = 0  # theirs are no cell's
        top = len(self.layers) - 1
        for i in reversed(range(top + 1)):
            for d, layer in enumerate(self.layers[i]):
                d_hidden = self._d_hidden[i % 2][d]
                if i == top and d == 1:
                    layers.turn(self.d_outputs[d], self.lengths, d_hidden, low, high)
                elif i == top:
                    d_hidden[:, low:high] = self.d_outputs[d][:, low:high]
                if self.dropout is not None:
                    layers.dropout(d_hidden, self.dropout.draws[i][d], self.dropout.threshold, low, high)
                layer.backward(d_hidden, self.d_state[i, d], self._reset, self._scratch, low, high)
            if i > 0:
                self._descend(i, low, high)

    def _descend(self, i: int, low: int, high: int) -> None:
        """The gradient of what each direction of the layer below gave: by way of its own direction, and the other."""
        below = self._d_hidden[(i - 1) % 2]
        for d, layer in enumerate(self.layers[i]):
            self._multiply_back(layer.pre, self._w_x[i - 1][d][d], below[d], low, high)
        for d, layer in enumerate(self.layers[i] if self.config.bidirectional else []):
            self._multiply_back(layer.pre, self._w_x[i - 1][d][1 - d], self._d_turned, low, high)
            layers.turn_add(self._d_turned, self.lengths, below[1 - d], low, high)

    def _multiply_back(self, d_pre: Array, w_x: PackedWeight, target: Array, low: int, high: int) -> None:
        matmul.multiply(
            d_pre, 0, 0, self.columns, w_x.backward, target, 0, 0, self.config.hidden_size, self.steps, low, high,
            ZERO, self._no_bias,
        )  # fmt: skip

    def sum_gradients(self, part: int, parts: int) -> None:
        """Add this thread's share of the gradients of the layers' weights, and sum the tables'."""
        size = self.config.hidden_size
        for i, pair in enumerate(self.layers):
            for d, layer in enumerate(pair):
                layer.sum_gradients(part, parts)
                if i == 0:
                    self.projections[d].sum_gradients(self.inputs, layer.pre, self._index[d], part, parts)
                    continue
                d_weight, d_bias = self.gradients[f"{layer.path}/w_x"], self.gradients[f"{layer.path}/b"]
                for e in range(len(pair)):
                    matmul.accumulate_outer(
                        self._given(i - 1, e, d), 0, self.rows * size, size, layer.pre, 0, self.columns,
                        d_weight[e * size : (e + 1) * size], 0, d_bias if e == 0 else self._no_bias, part, parts,
                    )  # fmt: skip

    def finish_gradients(self, part: int, parts: int) -> None:
        """This thread's share of how the tables' gradients flow to the rows."""
        for d, projection in enumerate(self.projections):
            projection.finish_gradients(self.d_inputs, part, parts, adds=d > 0)


class Encoder:
    """Token ids -> embedding -> layers in one direction or in both.

    Args:
        parameters, gradients: hold the paths of `EncoderConfig.shapes`, which begin with ``prefix``.

    Attributes:
        network: the layers; see `Directions` for its outputs, last states, and their gradients.
    """

    def __init__(
        self, config: EncoderConfig, parameters: Parameters, gradients: Parameters, prefix: str = ""
    ) -> None:  # fmt: skip
        self.config = config
        self.network = Directions(config, parameters, gradients, prefix)
        self._embedding, self._d_embedding = parameters[f"{prefix}embedding"], gradients[f"{prefix}embedding"]
        self._no_labels = np.zeros((0, config.embedding_size), parameters.flat.dtype)

    def begin(self, sequences: Sequences, dropout: Dropout | None = None) -> None:
        """Set up a pass."""
        self.ids = np.unique(sequences.ids)
        index, reversed_index = (
            np.searchsorted(self.ids, ids).astype(np.int32) for ids in (sequences.ids, sequences.reversed_ids)
        )
        self.network.begin(self.ids.size, index, reversed_index, sequences.lengths, dropout)

    def embed(self) -> None:
        """Look the input rows up; before `tabulate`, by one thread."""
        layers.embed_rows(self._embedding, self._no_labels, self.ids, self.network.inputs, 0, self.ids.size)

    def finish_gradients(self, part: int, parts: int) -> None:
        """This thread's share of how the tables' gradients flow to the embedding."""
        self.network.finish_gradients(part, parts)
        low, high = share(self.ids.size, part, parts)
        layers.add_to_embedding(self.network.d_inputs, self.ids, self._d_embedding, self._no_labels, low, high)

    def draw_dropout(
        self, generator: np.random.Generator, sequences: Sequences, threshold: int, *, variational: bool
    ) -> Dropout:
        """The draws of a pass."""
        config = self.config
        return Dropout.draw(
            generator, (*sequences.ids.shape, config.hidden_size), config.num_layers, config.directions, threshold,
            variational=variational,
        )  # fmt: skip
