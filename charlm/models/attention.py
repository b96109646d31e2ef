"""A decoder's look at its source: a context for each step, and what the two together make.

    (4) a~<t> = tanh(W_c [context<t>; d<t>] + b_c)

d<t> is the decoder's top output, the context what `charlm.engine.attention` makes of it, equations (1)-(3). Nothing is
handed on to the decoder's next step (no input feeding), so that all steps are done at once.

The phases are those of an output layer (see `softmax`): `begin`; then each thread its own rows, `forward` and
`backward`; then each thread its share of the weights' gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.engine import attention, matmul
from charlm.engine.matmul import ADD, BIAS, ZERO
from charlm.models.buffers import Buffers
from charlm.models.packed_weight import PackedWeight
from charlm.models.parameters import Array, Parameters

Numbers = NDArray[np.int64]
W, B = "attention/w", "attention/b"


class Attention:
    """W_c and b_c, and what can be done with them.

    Args:
        size: H, of the decoder's outputs and of the source's.
    """

    def __init__(self, size: int, parameters: Parameters, gradients: Parameters, buffers: Buffers) -> None:
        self.size, self.parameters, self.gradients, self.buffers = size, parameters, gradients, buffers
        # The context's half of W_c and the decoder's: no (T, N, 2 H) copy of the two is made.
        self._halves = [PackedWeight((size, size), parameters.flat.dtype) for _ in range(2)]
        self._none: Array = np.zeros(0, parameters.flat.dtype)

    @staticmethod
    def shapes(size: int) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters, matrices first."""
        return {W: (2 * size, size), B: (size,)}

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw W_c uniform in +-sqrt(3 / H); b_c begins at zero.

        So a~ is at least about as large as d, whatever little the context, a mean of many outputs, adds to it.
        """
        bound = (3 / self.size) ** 0.5
        self.parameters[W][...] = rng.uniform(-bound, bound, self.parameters[W].shape)

    def _half(self, values: Parameters, i: int) -> Array:
        return values[W][i * self.size : (i + 1) * self.size]

    def pack(self, part: int, parts: int, *, backward: bool) -> None:
        """Pack this thread's share of the weights."""
        for i, packed in enumerate(self._halves):
            packed.pack(self._half(self.parameters, i), part, parts, backward=backward)

    def begin(self, hidden: Array, memory: Array, lengths: Numbers, sources: Numbers) -> Array:
        """Set up the arrays of a pass.

        Args:
            hidden: d, (T, N, H).
            memory: h, (S, M, H), of sources that are aligned at their ends.
            lengths: (M,), of the sources.
            sources: (N,), the source that each row asks.

        Returns:
            a~, (T, N, H), which `forward` fills.
        """
        steps, rows, _ = hidden.shape
        self.hidden, self.memory, self.lengths, self.sources = hidden, memory, lengths, sources
        self.alpha = self.buffers.get("alpha", (rows, steps, memory.shape[0]))
        self.context = self.buffers.get("context", hidden.shape)
        self.output = self.buffers.get("attentional", hidden.shape)
        return self.output

    def forward(self, low: int, high: int) -> None:
        """Equations (1)-(4) for the rows ``low`` .. ``high``."""
        steps, size = self.hidden.shape[0], self.size
        attention.attend(self.hidden, self.memory, self.lengths, self.sources, self.alpha, self.context, low, high)
        for i, source in enumerate((self.context, self.hidden)):
            matmul.multiply(
                source, 0, 0, size, self._halves[i].forward, self.output, 0, 0, size, steps, low, high,
                ADD if i else BIAS, self.parameters[B],
            )  # fmt: skip
        attention.squash(self.output, low, high)

    def begin_backward(self) -> tuple[Array, Array]:
        """The gradients of a~, which the caller fills, and of the source's outputs, which `backward` does."""
        self.d_output = self.buffers.get("d_attentional", self.output.shape)
        self.d_memory = self.buffers.get("d_memory", self.memory.shape)
        self.d_context = self.buffers.get("d_context", self.context.shape)
        self.d_scores = self.buffers.get("d_scores", self.alpha.shape)
        return self.d_output, self.d_memory

    def backward(self, d_hidden: Array, low: int, high: int) -> None:
        """Equations (4)-(1) in reverse, for rows that each ask the source of their own number.

        Args:
            d_hidden: OUT, (T, N, H).
        """
        steps, size = self.hidden.shape[0], self.size
        attention.squash_backward(self.output, self.d_output, low, high)
        for packed, target in zip(self._halves, (self.d_context, d_hidden), strict=True):
            matmul.multiply(
                self.d_output, 0, 0, size, packed.backward, target, 0, 0, size, steps, low, high, ZERO, self._none
            )
        attention.attend_backward(
            self.d_context, self.hidden, self.memory, self.lengths, self.alpha, self.d_scores, d_hidden, self.d_memory,
            low, high,
        )  # fmt: skip

    def sum_gradients(self, part: int, parts: int) -> None:
        """Add this thread's share of the gradients of the weights."""
        rows, size = self.hidden.shape[1], self.size
        sums: list[tuple[Any, Array]] = [(self.context, self.gradients[B]), (self.hidden, self._none)]
        for i, (source, row_sum) in enumerate(sums):
            matmul.accumulate_outer(
                source, 0, rows * size, size, self.d_output, 0, size, self._half(self.gradients, i), 0, row_sum,
                part, parts,
            )  # fmt: skip
