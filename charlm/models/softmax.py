"""From a stack's output to the probabilities of the next token: all at once, or the frequent ones first.

Both kinds have the same methods. `begin` sets up a pass; then each thread takes its own rows through `score`, or
through `loss`; when all rows are done, each thread sums its own share of the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.engine import layers, matmul
from charlm.engine.crew import Crew, shared
from charlm.engine.matmul import BIAS, ZERO
from charlm.models.buffers import Buffers
from charlm.models.packed_weight import PackedWeight
from charlm.models.parameters import Array, Ids, Parameters

Nats = NDArray[np.float64]
Shapes = dict[str, tuple[int, ...]]

HEAD_PART, MIDDLE_PART = 10, 2.5  # a tenth of the vocabulary is the head, the next three tenths the first tail
# Scored in one go: logits that a near cache keeps until they are read again, but rows enough to make good use of each
# weight that is read.
CACHED_LOGITS, LEAST_ROWS = 1 << 18, 512
LEAST_WIDTH = 8  # of a tail's projection

# Of a new network's logits. Larger ones would cost at the start, but through smaller ones the layers below learn
# slowly: tiny-shakespeare (LSTM 2 x 256, 10 epochs) ends at 1.445 nats with 50 rows, with 0.2 at 1.461; with 32 rows at
# 1.444, with 0.05 at 1.498.
LOGIT_RMS = 0.3


class Output(Protocol):
    """What a language model needs of its last layer."""

    log_probs: Callable[..., None]  # kernel (hidden (1, N, H), inference(N), logits, log_probs (N, V), low, high)
    width: int  # columns of the `logits` that ``log_probs`` takes, (1, N, width)

    def initialise(self, rng: np.random.Generator, rms: float) -> None:
        """Draw the weights; at the start every token is about equally likely.

        Args:
            rms: of the layer below's outputs, root of the mean square.
        """

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weights."""

    def inference(self, rows: int, crew: Crew | None = None) -> Any:
        """The packed weights as the kernel ``log_probs`` takes them; for a thread of a crew, with room of its own."""

    def begin(self, hidden: Array, targets: Ids) -> None:
        """Set up the arrays of a pass: hidden (T, N, H), targets (T, N), -1 where nothing is predicted."""

    def score(self, result: Nats, low: int, high: int) -> None:
        """The log probability of each target in the rows ``low`` .. ``high``; result (T, N), nats."""

    def loss(self, losses_nats: Nats, scale: float, d_hidden: Array, low: int, high: int) -> None:
        """The loss of each target in these rows (T, N), and the gradient of ``scale`` * its sum in ``hidden``."""

    def sum_gradients(self, part: int, parts: int) -> None:
        """Add this thread's share of the gradients of the weights."""


def _bound(size: int, rms: float) -> float:
    """Weights uniform in +- this make logits of `LOGIT_RMS` from inputs of ``rms``."""
    return LOGIT_RMS / rms * math.sqrt(3 / size)


class Softmax:
    """p = softmax(a W_y + b_y) over all V tokens.

    Args:
        sizes: V, H.
        tied: W_y is the transpose of the embedding.
    """

    log_probs = staticmethod(layers.softmax_log_probs)

    def __init__(
        self, sizes: tuple[int, int], tied: bool, parameters: Parameters, gradients: Parameters, buffers: Buffers
    ) -> None:
        self.symbols, self.size = sizes
        self.tied, self.parameters, self.gradients, self.buffers = tied, parameters, gradients, buffers
        self.path = "embedding" if tied else "output/w"
        rows, columns = parameters.shapes[self.path]
        self._w = PackedWeight((rows, columns), parameters.flat.dtype)
        self.width = self.symbols

    @staticmethod
    def shapes(symbols: int, size: int, *, tied: bool) -> Shapes:
        """Paths and shapes of the parameters, matrices first."""
        return ({} if tied else {"output/w": (size, symbols)}) | {"output/b": (symbols,)}

    def initialise(self, rng: np.random.Generator, rms: float) -> None:
        """See `Output`."""
        weight, bound = self.parameters[self.path], _bound(self.size, rms)
        if self.tied:
            weight *= bound / math.sqrt(3)  # of a normal distribution, as wide as the uniform one
        else:
            weight[...] = rng.uniform(-bound, bound, weight.shape)

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """See `Output`."""
        self._w.pack(self.parameters[self.path], part, parts, backward=backward or self.tied)

    @property
    def _towards(self) -> Array:
        """The packed (H, V) weight."""
        return self._w.backward if self.tied else self._w.forward

    def inference(self, rows: int, crew: Crew | None = None) -> layers.SoftmaxWeights:
        """See `Output`."""
        return layers.SoftmaxWeights(shared(self._towards, crew), self.parameters["output/b"])

    def begin(self, hidden: Array, targets: Ids) -> None:
        """See `Output`."""
        self.hidden, self.targets = hidden, targets
        self.logits = self.buffers.get("logits", (*targets.shape, self.symbols))

    def _forward(self, first: int, steps: int, low: int, high: int) -> None:
        """The logits of ``steps`` steps from ``first`` on, in the first steps' place."""
        matmul.multiply(
            self.hidden, first, 0, self.size, self._towards, self.logits, 0, 0, self.symbols, steps, low, high,
            BIAS, self.parameters["output/b"],
        )  # fmt: skip

    def score(self, result: Nats, low: int, high: int) -> None:
        """See `Output`."""
        total, rows = self.targets.shape
        block = max(1, CACHED_LOGITS // (rows * self.symbols), LEAST_ROWS // rows)
        for first in range(0, total, block):
            here = slice(first, first + block)
            targets = self.targets[here]
            self._forward(first, len(targets), low, high)
            layers.target_log_probs(self.logits[: len(targets)], targets, result[here], low, high)

    def loss(self, losses_nats: Nats, scale: float, d_hidden: Array, low: int, high: int) -> None:
        """See `Output`; the logits become their own gradient: there is no second (T * N, V) matrix."""
        self._forward(0, self.hidden.shape[0], low, high)
        layers.cross_entropy(self.logits, self.targets, losses_nats, scale, low, high)
        back = self._w.forward if self.tied else self._w.backward
        matmul.multiply(
            self.logits, 0, 0, self.symbols, back, d_hidden, 0, 0, self.size, self.hidden.shape[0], low, high, ZERO,
            self.parameters["output/b"],
        )  # fmt: skip

    def sum_gradients(self, part: int, parts: int) -> None:
        """See `Output`."""
        rows, gradients = self.hidden.shape[1], self.gradients
        if self.tied:
            first, last = self.symbols * part // parts, self.symbols * (part + 1) // parts
            layers.sum_rows(self.logits, gradients["output/b"], first, last)
            matmul.accumulate_outer(
                self.logits, 0, rows * self.symbols, self.symbols, self.hidden, 0, self.size, gradients["embedding"],
                0, gradients["output/b"][:0], part, parts,
            )  # fmt: skip
        else:
            matmul.accumulate_outer(
                self.hidden, 0, rows * self.size, self.size, self.logits, 0, self.symbols, gradients["output/w"], 0,
                gradients["output/b"], part, parts,
            )  # fmt: skip


class Tail:
    """Tokens of middling or low frequency: p(token) = p(tail) * softmax(a W_z W + b), W_z narrow.

    A pass computes it for the positions alone whose target it holds, ordered by row, then step.

    Args:
        name: of its parameters: ``output/NAME/...``.
        first, last: the ids it holds.
    """

    def __init__(
        self, name: str, first: int, last: int, parameters: Parameters, gradients: Parameters, buffers: Buffers
    ) -> None:
        self.name, self.first, self.last = name, first, last
        self.parameters, self.gradients, self.buffers = parameters, gradients, buffers
        self.size, self.width = parameters.shapes[f"output/{name}/w_z"]
        kind = parameters.flat.dtype
        self.w_z = PackedWeight((self.size, self.width), kind)
        self.w = PackedWeight((self.width, last - first), kind)
        self.b = parameters[f"output/{name}/b"]
        self._no_sum = self.b[:0]

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weights."""
        self.w_z.pack(self.parameters[f"output/{self.name}/w_z"], part, parts, backward=backward)
        self.w.pack(self.parameters[f"output/{self.name}/w"], part, parts, backward=backward)

    def begin(self, targets: Ids) -> None:
        """Find the positions, and make room for them."""
        self.n, self.t = np.nonzero(((targets >= self.first) & (targets < self.last)).T)
        count = self.n.size
        self.targets = (targets[self.t, self.n] - self.first).reshape(1, count)
        get, name = self.buffers.get, self.name
        self.a, self.d_a = get(f"{name} a", (1, count, self.size)), get(f"{name} d_a", (1, count, self.size))
        self.z, self.d_z = get(f"{name} z", (1, count, self.width)), get(f"{name} d_z", (1, count, self.width))
        self.logits = get(f"{name} logits", (1, count, self.last - self.first))
        self.nats = get(f"{name} nats", (1, count), np.float64)

    def _forward(self, hidden: Array, low: int, high: int) -> tuple[int, int]:
        """The logits of the positions in these rows; returns which they are."""
        first, last = np.searchsorted(self.n, (low, high)).tolist()
        layers.gather(hidden, self.t, self.n, self.a, first, last)
        for source, width, packed, target, columns, start in (
            (self.a, self.size, self.w_z, self.z, self.width, ZERO),
            (self.z, self.width, self.w, self.logits, self.last - self.first, BIAS),
        ):
            matmul.multiply(
                source, 0, 0, width, packed.forward, target, 0, 0, columns, 1, first, last, start, self.b
            )  # fmt: skip
        return first, last

    def score(self, hidden: Array, result: Nats, low: int, high: int) -> None:
        """Add the log probabilities of the targets within the tail."""
        first, last = self._forward(hidden, low, high)
        layers.target_log_probs(self.logits, self.targets, self.nats, first, last)
        result[self.t[first:last], self.n[first:last]] += self.nats[0, first:last]

    def loss(self, hidden: Array, losses_nats: Nats, scale: float, d_hidden: Array, low: int, high: int) -> None:
        """Add the losses of the targets within the tail, and their gradients."""
        first, last = self._forward(hidden, low, high)
        layers.cross_entropy(self.logits, self.targets, self.nats, scale, first, last)
        losses_nats[self.t[first:last], self.n[first:last]] += self.nats[0, first:last]
        for source, width, packed, target, columns in (
            (self.logits, self.last - self.first, self.w, self.d_z, self.width),
            (self.d_z, self.width, self.w_z, self.d_a, self.size),
        ):
            matmul.multiply(
                source, 0, 0, width, packed.backward, target, 0, 0, columns, 1, first, last, ZERO, self.b
            )  # fmt: skip
        layers.scatter_add(self.d_a, self.t, self.n, d_hidden, first, last)

    def sum_gradients(self, part: int, parts: int) -> None:
        """Add this thread's share of the gradients of the weights."""
        count, paths = self.n.size, self.gradients
        if count == 0:
            return
        matmul.accumulate_outer(
            self.z, 0, count * self.width, self.width, self.logits, 0, self.last - self.first,
            paths[f"output/{self.name}/w"], 0, paths[f"output/{self.name}/b"], part, parts,
        )  # fmt: skip
        matmul.accumulate_outer(
            self.a, 0, count * self.size, self.size, self.d_z, 0, self.width, paths[f"output/{self.name}/w_z"], 0,
            self._no_sum, part, parts,
        )  # fmt: skip


class AdaptiveSoftmax:
    """The frequent tokens and the tails in one softmax, the head; the others within their tail (Grave et al., 2017).

    p(token) = p_head(token), or p_head(tail) * p_tail(token). Ids fall by frequency, so each part is a range of them.

    Args:
        sizes: V, H.
    """

    log_probs = staticmethod(layers.adaptive_log_probs)

    def __init__(self, sizes: tuple[int, int], parameters: Parameters, gradients: Parameters, buffers: Buffers) -> None:
        symbols, size = sizes
        self.parameters, self.buffers = parameters, buffers
        self.cutoffs = self.parts(symbols)
        self.head = Softmax((self.cutoffs[0] + 2, size), False, parameters, gradients, buffers)
        self.tails = [
            Tail(f"tail{i}", self.cutoffs[i], self.cutoffs[i + 1], parameters, gradients, buffers) for i in range(2)
        ]
        self._layers: list[Softmax | Tail] = [self.head, *self.tails]
        self.width = max(self.head.symbols, *(tail.last - tail.first for tail in self.tails))

    @staticmethod
    def parts(symbols: int) -> tuple[int, int, int]:
        """The ids at which the head, the first tail and the second end."""
        head = max(2, symbols // HEAD_PART)  # <unk> and <eos> are never rare
        middle = max(head + 1, int(symbols / MIDDLE_PART))
        return head, middle, max(middle + 1, symbols)

    @classmethod
    def shapes(cls, symbols: int, size: int) -> Shapes:
        """Paths and shapes of the parameters, matrices first."""
        ends = cls.parts(symbols)
        matrices: Shapes = {"output/w": (size, ends[0] + 2)}
        vectors: Shapes = {"output/b": (ends[0] + 2,)}
        for i in range(2):
            width, count = max(LEAST_WIDTH, size // 4 ** (i + 1)), ends[i + 1] - ends[i]
            matrices |= {f"output/tail{i}/w_z": (size, width), f"output/tail{i}/w": (width, count)}
            vectors[f"output/tail{i}/b"] = (count,)
        return matrices | vectors

    def initialise(self, rng: np.random.Generator, rms: float) -> None:
        """See `Output`."""
        self.head.initialise(rng, rms)
        for tail in self.tails:
            bound = (3 / tail.size) ** 0.5  # z of about the size of a
            w_z, w = (self.parameters[f"output/{tail.name}/{path}"] for path in ("w_z", "w"))
            w_z[...] = rng.uniform(-bound, bound, w_z.shape)
            within = _bound(tail.width, rms) / math.sqrt(2)  # the head's logits tell of these tokens too
            w[...] = rng.uniform(-within, within, w.shape)

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """See `Output`."""
        for layer in self._layers:
            layer.pack(part, parts, backward=backward)

    def inference(self, rows: int, crew: Crew | None = None) -> layers.AdaptiveWeights:
        """See `Output`."""
        kind, (first, second) = self.head.inference(rows, crew), self.tails
        widest = max(tail.width for tail in self.tails)
        own = f" of part {crew.part}" if crew is not None else ""
        return layers.AdaptiveWeights(
            kind.w, kind.b, (shared(first.w_z.forward, crew), shared(second.w_z.forward, crew)),
            (shared(first.w.forward, crew), shared(second.w.forward, crew)),
            (first.b, second.b), np.array([[tail.width, tail.last - tail.first] for tail in self.tails]),
            self.buffers.get(f"tail nats{own}", (rows, 2), np.float64),
            self.buffers.get(f"tail z{own}", (1, rows, widest)),
        )  # fmt: skip

    def begin(self, hidden: Array, targets: Ids) -> None:
        """See `Output`."""
        self.hidden = hidden
        in_head = targets.copy()
        for i, tail in enumerate(self.tails):
            tail.begin(targets)
            in_head[tail.t, tail.n] = self.cutoffs[0] + i
        self.head.begin(hidden, in_head)

    def score(self, result: Nats, low: int, high: int) -> None:
        """See `Output`."""
        self.head.score(result, low, high)
        for tail in self.tails:
            tail.score(self.hidden, result, low, high)

    def loss(self, losses_nats: Nats, scale: float, d_hidden: Array, low: int, high: int) -> None:
        """See `Output`."""
        self.head.loss(losses_nats, scale, d_hidden, low, high)
        for tail in self.tails:
            tail.loss(self.hidden, losses_nats, scale, d_hidden, low, high)

    def sum_gradients(self, part: int, parts: int) -> None:
        """See `Output`."""
        for layer in self._layers:
            layer.sum_gradients(part, parts)
