"""Texts scored under every label at once: how probable each label is, and the text whatever its label."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.engine.mixture import mix
from charlm.workflows import scoring_batches
from charlm.workflows.label_side import LabelSide
from charlm.workflows.scoring_batches import Ids, Nats, Places, ScoringModel, score_sequences

EVERY_LABEL = "all"

PriorName = Literal["training", "uniform"]


class Mixture:
    """P(text) = sum over the labels of P(label) P(text | label); see ``engine.mixture``.

    Args:
        model: scores a text given a label.
        size: V; the sequences of label k begin with the id V + 1 + k.
        side: the K labels.
        prior: P(label): the label's share of the training text, or the same for each.
    """

    def __init__(self, model: ScoringModel, size: int, side: LabelSide, prior: PriorName) -> None:
        self._model, self._size, self._count = model, size, side.labels.size
        self.prior = side.prior if prior == "training" else np.full(self._count, 1 / self._count)
        with np.errstate(divide="ignore"):  # a label that the training text named and did not have
            self._prior_nats = np.log(self.prior)

    @property
    def window_characters(self) -> int:
        """How much text to score at a time: as many numbers as with a single label."""
        return max(1, scoring_batches.WINDOW_CHARACTERS // self._count)

    def score(self, targets: Ids, ends: Places) -> tuple[Nats, Nats, Nats]:
        """Score sequences that are laid end to end.

        Args:
            targets: (M,), the tokens of all sequences, none of which is empty.
            ends: (S,), where each sequence ends in ``targets``, exclusive; rising, the last is M.

        Returns:
            The log probability of each token given those before it, (M,), and given the label too, (K, M), in nats;
            and the probability of each label given the sequence, (S, K).
        """
        label_nats = np.empty((self._count, targets.size))
        # Side by side: all labels, but of a line that is very long as many as memory for one window allows.
        together = max(1, scoring_batches.WINDOW_CHARACTERS // targets.size)
        for first in range(0, self._count, together):
            labels = np.arange(first, min(first + together, self._count))
            label_nats[labels] = self._score_labels(targets, ends, labels)
        nats, posterior_nats = np.empty(targets.size), np.empty((ends.size, self._count))
        mix(label_nats, ends, self._prior_nats, nats, posterior_nats)
        return nats, label_nats, np.exp(posterior_nats)

    def _score_labels(self, targets: Ids, ends: Places, labels: NDArray[Any]) -> Nats:
        """The log probability of each token given each of these labels, (len(labels), M), from one batch."""
        copies = np.tile(targets, labels.size)
        copy_ends = (ends + targets.size * np.arange(labels.size)[:, None]).ravel()
        first_inputs = np.repeat((self._size + 1 + labels).astype(np.int32), ends.size)
        return score_sequences(self._model, self._size, copies, copy_ends, first_inputs).reshape(labels.size, -1)
