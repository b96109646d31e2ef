"""Batches of whole sequences, as networks read them that see all of a sequence at once.

Rows are aligned at their ends: the state after the last step is that after each row's last token, whatever the
lengths. What comes before a row's first token is padding; there the state stays that of a beginning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.models.parameters import Ids

Lengths = NDArray[np.int64]
Draws = NDArray[np.uint8]


@dataclass(frozen=True)
class Sequences:
    """Ids of N sequences.

    Attributes:
        ids: (T, N), in the order of the text, V or more where there is none.
        reversed_ids: (T, N), each sequence from its last id to its first.
        lengths: (N,), 0 to T; T may be 0.
    """

    ids: Ids
    reversed_ids: Ids
    lengths: Lengths


@dataclass(frozen=True)
class Sentences:
    """Tokens of N sentences by their spelling, of which there are U.

    Attributes:
        index: (T, N), the number of each token's spelling, U where there is none.
        reversed_index: (T, N), each sentence from its last token to its first.
        lengths: (N,), 0 to T; T may be 0.
        word_ids: (U,), the word that each spelling is.
        spellings: its characters; None for a model that does not look at them.
    """

    index: Ids
    reversed_index: Ids
    lengths: Lengths
    word_ids: Ids
    spellings: Sequences | None

    @property
    def is_token(self) -> NDArray[np.bool_]:
        """Where there is a token, (T, N)."""
        steps = self.index.shape[0]
        result: NDArray[np.bool_] = np.arange(steps)[:, np.newaxis] >= steps - self.lengths
        return result


@dataclass(frozen=True)
class Dropout:
    """What decides which outputs are dropped: those whose draw is below ``threshold``.

    Attributes:
        draws: (T or 1, N, H) for each direction of each layer; of one step for the same units at all steps.
        threshold: 1 to 255; the probability is threshold / 256.
    """

    draws: list[list[Draws]]
    threshold: int

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        shape: tuple[int, int, int],
        layers: int,
        directions: int,
        threshold: int,
        *,
        variational: bool,
    ) -> Dropout:
        """Draw for a pass of (T, N, H)."""
        steps, *rest = shape
        all_draws = layers, directions, 1 if variational else steps, *rest
        size = math.prod(all_draws)
        # Eight bytes at a time: `Generator.bytes` takes eight times as long, 8 % of a step of LSTM 1 x 128.
        numbers = generator.integers(0, 2**64, -(-size // 8), np.uint64).astype("<u8", copy=False)
        return cls([list(pair) for pair in numbers.view(np.uint8)[:size].reshape(all_draws)], threshold)
