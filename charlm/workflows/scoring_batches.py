"""Many sequences through a model side by side, within a bounded memory.

Sequences are laid end to end and dealt to at most ``LANES`` lanes, the rows of a batch. Within a lane a sequence's
first input resets the state, so nothing of one sequence reaches the next, and no lane is padded but at its end.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Nats = NDArray[np.float64]

LANES = 64  # sequences side by side
STEPS = 256  # of a pass; a longer lane is continued in the next, with its state
PASS_FLOATS = 1 << 24  # of a pass: its logits, and what the layers keep


class ScoringModel(Protocol):
    """What scoring asks of a model; ``LanguageModel`` says what the methods do."""

    def zero_state(self, rows: int) -> NDArray[Any]:
        """The state before a sequence, (L, S, rows, H)."""

    def log_probs(self, inputs: Ids, targets: Ids, state: NDArray[Any]) -> Nats:
        """The log probability of each target, (T, N), nats; ``state`` is replaced by that after the last step."""


def score_sequences(model: ScoringModel, size: int, targets: Ids, ends: NDArray[np.int64]) -> Nats:
    """The log probability of each token of sequences that are laid end to end.

    Args:
        size: V, which is also the id that begins a sequence.
        targets: (M,), the tokens of all sequences.
        ends: where each sequence ends in ``targets``, exclusive; rising, the last is M.

    Returns:
        (M,), nats.
    """
    if not targets.size:
        return np.zeros(0)
    inputs = np.empty_like(targets)
    inputs[1:] = targets[:-1]
    inputs[0] = size
    inputs[ends[:-1]] = size
    lanes = max(1, min(LANES, ends.size, PASS_FLOATS // _floats_per_token(model, size)))
    # Lane k begins with the first sequence that ends beyond k / lanes of the tokens.
    shares = np.arange(1, lanes) * targets.size // lanes
    borders = np.unique(np.concatenate(([0], ends[np.searchsorted(ends, shares)], [targets.size])))
    return _run(model, size, inputs, targets, borders, model.zero_state(borders.size - 1))


class OpenSequence:
    """One sequence that comes in pieces.

    Args:
        size: V, which is also the id that begins a sequence.
    """

    def __init__(self, model: ScoringModel, size: int) -> None:
        self._model, self._size = model, size
        self._state = model.zero_state(1)
        self._last_id = size

    def score(self, targets: Ids) -> Nats:
        """The log probability of each of the next tokens, (M,), nats."""
        if not targets.size:
            return np.zeros(0)
        inputs = np.empty_like(targets)
        inputs[1:] = targets[:-1]
        inputs[0] = self._last_id
        self._last_id = int(targets[-1])
        return _run(self._model, self._size, inputs, targets, np.array([0, targets.size]), self._state)


def _floats_per_token(model: ScoringModel, size: int) -> int:
    """About how many floats a pass holds for each token: the logits, and for each state its gates and outputs."""
    return size + 10 * int(model.zero_state(1).size)


def _run(
    model: ScoringModel, size: int, inputs: Ids, targets: Ids, borders: NDArray[np.int64], state: NDArray[Any]
) -> Nats:
    """Take all lanes through the model, a pass after the other; those at their end drop out.

    Args:
        inputs, targets: (M,).
        borders: (N + 1,), where lanes begin and end.
        state: (L, S, N, H) before the first step; that of a single lane is replaced.
    """
    lengths = np.diff(borders)
    longest_first = np.argsort(-lengths, kind="stable")
    starts, lengths = borders[:-1][longest_first], lengths[longest_first]
    budget = PASS_FLOATS // _floats_per_token(model, size)
    result = np.empty(targets.size)
    done, total = 0, int(lengths[0])
    while done < total:
        lanes = int(np.count_nonzero(lengths > done))
        if lanes < state.shape[2]:
            state = np.ascontiguousarray(state[:, :, :lanes])
        steps = min(STEPS, max(1, budget // lanes), total - done)
        step = np.arange(done, done + steps)[:, None]  # (T, 1)
        is_token = step < lengths[:lanes]  # (T, N)
        place = np.where(is_token, starts[:lanes] + step, 0)
        wanted = np.where(is_token, targets[place], np.int32(-1))
        log_probs = model.log_probs(inputs[place], wanted, state)
        result[place[is_token]] = log_probs[is_token]
        done += steps
    return result
