"""From a source to its likeliest targets: the likeliest token each time, and beam search, many sources side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.models.sequences import Sequences
from charlm.workflows.beams import Beams, Hypothesis
from charlm.workflows.decoding import ROWS, Ids, Nats, State

MemoryT = TypeVar("MemoryT", bound="Memory")

MOST_NUMBERS = 1 << 22  # hypotheses side by side times target vocabulary: 32 MB of log probabilities
STEPS_PER_TOKEN, STEPS_BESIDES = 2, 20  # what bounds a target's length by its source's


class Memory(Protocol):
    """What a model keeps of sources that it has read, for rows that each continue one of them."""

    @property
    def state(self) -> State:
        """The decoder's state before the first step, of each source: (L, S, M, H)."""

    def take(self: MemoryT, rows: NDArray[np.int64]) -> MemoryT:
        """The same for other rows (R,): each continues the source of that one of the rows now."""


class Model(Protocol[MemoryT]):
    """What decoding needs; see ``Transducer``."""

    @property
    def start_id(self) -> int:
        """The decoder's first input; as many target ids there are."""

    def encode(self, sources: Sequences) -> MemoryT:
        """Read sources; a row for each."""

    def step(self, memory: MemoryT, state: State, tokens: Ids) -> tuple[State, Nats]:
        """The state after ``tokens`` (R,), and the log probabilities of what comes next (R, V)."""


def longest_targets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most tokens of the targets of sources of these lengths, if the user does not say: 2 * length + 20."""
    return STEPS_PER_TOKEN * lengths + STEPS_BESIDES


def beam(
    model: Model[Any], sources: Sequences, *, width: int, best: int = 1, longest: int | None = None
) -> list[list[Hypothesis]]:
    """The likeliest targets that a search over ``width`` unfinished ones finds.

    An ended target takes one of the places at its step, and is kept (Sutskever et al., 2014); see `Beams`. No target
    holds the unknown token. A source's targets do not depend on the other sources.

    Args:
        model: a transducer.
        sources: N of them.
        width: how many targets are kept from one length to the next.
        best: how many of each source to return.
        longest: the most tokens of a target, EOS not counted; by default `longest_targets`.

    Returns:
        For each source at most ``best``, the likeliest first: by log probability of the whole target with its EOS,
        not divided by length. Those cut short by ``longest`` come last, and only where too few are finished.

    Raises:
        NotFiniteError: the model's probabilities are no numbers.
    """
    found: list[list[Hypothesis]] = []
    for block in _blocks(sources, max(1, MOST_NUMBERS // (width * model.start_id))):
        count = block.lengths.size
        most = longest_targets(block.lengths) if longest is None else longest
        beams = Beams(count, width=width, best=best, longest=most, end_competes=True)
        memory = model.encode(block)
        state, tokens = memory.state, np.full(count, model.start_id, np.int32)
        while tokens.size:
            state, log_probs = model.step(memory, state, tokens)
            rows, tokens = beams.advance(log_probs)
            state, memory = np.take(state, rows, axis=ROWS), memory.take(rows)
        found += beams.hypotheses()
    return found


def greedy(model: Model[Any], sources: Sequences, longest: int | None = None) -> list[tuple[list[int], float]]:
    """The target that takes the likeliest token each time, a beam of one: ids without EOS, and log probability."""
    return [(one.ids, one.log_prob_nats) for (one,) in beam(model, sources, width=1, longest=longest)]


def _blocks(sources: Sequences, rows: int) -> Iterator[Sequences]:
    """The sources, at most so many at once."""
    for low in range(0, sources.lengths.size, rows):
        lengths = sources.lengths[low : low + rows]
        first = sources.ids.shape[0] - int(lengths.max())
        ids, reversed_ids = (each[first:, low : low + rows] for each in (sources.ids, sources.reversed_ids))
        yield Sequences(ids, reversed_ids, lengths)
