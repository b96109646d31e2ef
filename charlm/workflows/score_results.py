"""What ``charlm score`` finds: of lines and of tokens in columns, a window at a time, and in all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm import units

Mask = NDArray[np.bool_]
Nats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelScores:
    """What K labels make of the lines of a window.

    Attributes:
        log_probs_nats: (lines, K), of the tokens counted, given the label.
        posteriors: (lines, K), of the label, given all that was scored of the line.
    """

    log_probs_nats: Nats
    posteriors: NDArray[np.float64]

    @property
    def likeliest(self) -> NDArray[np.intp]:
        """The most probable label of each line, (lines,); of equals, the one most frequent in training."""
        likeliest: NDArray[np.intp] = np.argmax(self.posteriors, axis=1)
        return likeliest


@dataclass(frozen=True)
class Sentences:
    """The scores of the lines of a window, in columns: a record a line would take longer than the scoring of it.

    Attributes:
        log_probs_nats: of the tokens counted.
        tokens: how many those are, EOS included; without the unknown ones where they are skipped or excluded.
        unknowns: how many tokens are unknown.
        texts: the lines as they were given.
        labels: what each label makes of them, if they were scored under every one.
    """

    log_probs_nats: Nats
    tokens: list[int]
    unknowns: list[int]
    texts: Sequence[str]
    labels: LabelScores | None = None


@dataclass(frozen=True)
class Tokens:
    """The scores of the tokens of a window, in columns; the end of a line is one of them.

    Attributes:
        lines: in which each stands, from 1.
        positions: of each in its line, from 1.
        symbols: as they stand in the text, known or not.
        log_probs_nats: of each.
        counted: whether its score is; where unknown tokens are excluded, theirs is not. (M,).
        unknown: whether it is.
    """

    lines: list[int]
    positions: list[int]
    symbols: list[str]
    log_probs_nats: Nats
    counted: Mask
    unknown: list[bool]


class Total:
    """A sum of many numbers that loses none of its digits (Neumaier, 1974): what an addition rounds off is kept apart.

    One of n numbers of the same sign that is added up plainly may be wrong by n / 2^53 of itself: of the 1e8 lines of a
    pipe, each scored as it comes, in the eighth digit. This one is right to 2 / 2^53, whatever n is.
    """

    def __init__(self) -> None:
        self._high = self._low = 0.0

    def add(self, number: float) -> None:
        """Add a number."""
        high = self._high + number
        larger, smaller = (self._high, number) if abs(self._high) >= abs(number) else (number, self._high)
        self._low += (larger - high) + smaller
        self._high = high

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Total) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    @property
    def value(self) -> float:
        """The sum."""
        return self._high + self._low if math.isfinite(self._high) else self._high


@dataclass
class Summary:
    """What was scored in all.

    Attributes:
        sentences: sequences: lines, or as the model was trained on them.
        empty: how many of these hold nothing.
        tokens: those scored, the end of each sequence included.
        unknowns: tokens of the text that are not in the vocabulary, scored or skipped.
        characters: code points of the text, one for each line's end included; bytes at byte level.
        words: what whitespace separates.
        log_prob: of all ``tokens``, nats.
        unknown_tokens: those of the ``tokens`` that are unknown.
        unknown_log_prob: of these, nats.
        label: under which the text was scored, "all" for every one; None for a model that is not given any.
        prior: the probability of each label before its text is known, if it was scored under every one.
        prior_name: what that is called.
    """

    sentences: int = 0
    empty: int = 0
    tokens: int = 0
    unknowns: int = 0
    characters: int = 0
    words: int = 0
    log_prob: Total = field(default_factory=Total)
    unknown_tokens: int = 0
    unknown_log_prob: Total = field(default_factory=Total)
    label: str | None = None
    prior: dict[str, float] | None = None
    prior_name: str | None = None

    @property
    def log_prob_nats(self) -> float:
        """Of all ``tokens``."""
        return self.log_prob.value

    @property
    def unknown_log_prob_nats(self) -> float:
        """Of those of them that are unknown."""
        return self.unknown_log_prob.value

    def nats_per(self, count: int) -> float | None:
        """The cross entropy, shared out; None if there is nothing to share it among."""
        return -self.log_prob_nats / count if count else None

    def bits_per(self, count: int) -> float | None:
        """As ``nats_per``, in bits."""
        nats = self.nats_per(count)
        return None if nats is None else units.nats_to_bits(nats)

    @property
    def perplexity(self) -> float | None:
        """Over all tokens; None if there are none."""
        nats = self.nats_per(self.tokens)
        return None if nats is None else units.perplexity(nats)

    @property
    def perplexity_excluding_unknowns(self) -> float | None:
        """Over the known tokens: the unknown ones are in neither the sum nor the count. None if there are none."""
        known = self.tokens - self.unknown_tokens
        return units.perplexity((self.unknown_log_prob_nats - self.log_prob_nats) / known) if known else None

    def to_json(self) -> dict[str, Any]:
        """For a program to read; label and prior if there are such."""
        labels = {"label": self.label, "prior": self.prior}
        return {key: value for key, value in labels.items() if value is not None} | {
            "sentences": self.sentences,
            "tokens": self.tokens,
            "unknowns": self.unknowns,
            "characters": self.characters,
            "words": self.words,
            "log_prob_nats": self.log_prob_nats,
            "nats_per_token": self.nats_per(self.tokens),
            "bits_per_token": self.bits_per(self.tokens),
            "bits_per_character": self.bits_per(self.characters),
            "bits_per_word": self.bits_per(self.words),
            "perplexity": self.perplexity,
            "perplexity_excluding_unknowns": self.perplexity_excluding_unknowns,
        }
