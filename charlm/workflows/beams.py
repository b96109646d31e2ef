"""Beam search for several sequences side by side, a step at a time: what is kept, what has ended, what comes next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.engine import beam
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.workflows.numbers import not_a_number

Ids = NDArray[np.int32]
Nats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Hypothesis:
    """A sequence, or a continuation of one, that a search has found.

    Attributes:
        ids: its tokens, without EOS.
        log_prob_nats: of all tokens, and of EOS if that ended it.
        is_finished: ended by EOS, not by the length.
    """

    ids: list[int]
    log_prob_nats: float
    is_finished: bool


class Beams:
    """B searches; each keeps up to ``width`` unfinished hypotheses from one length to the next.

    A search ends as soon as no unfinished one can become better than its ``best`` finished ones: a log probability
    only falls. What it finds does not depend on the searches beside it.

    Args:
        count: B.
        width: how many unfinished hypotheses a search keeps.
        best: how many hypotheses are wanted of it.
        longest: the most tokens of a hypothesis, EOS not counted; one number for all, or (B,).
        shortest: the fewest tokens of a hypothesis that ends.
        can_end: whether EOS may end a hypothesis; if not, all are as long as can be.
        allow_unk: whether a hypothesis may hold the unknown token.
        end_competes: whether an ended hypothesis must be among the ``width`` likeliest of all that follow at its step,
            and takes a place among these (so that a width of 1 is the likeliest token each time). If not, every
            hypothesis of every length may end, and the search is exact if it is as wide as there are unfinished ones.
    """

    def __init__(
        self,
        count: int,
        *,
        width: int,
        best: int,
        longest: int | NDArray[np.int64],
        shortest: int = 0,
        can_end: bool = True,
        allow_unk: bool = False,
        end_competes: bool = False,
    ) -> None:
        self._best, self._shortest, self._can_end = best, shortest, can_end
        self._longest = np.broadcast_to(longest, (count,))
        self._allow_unk, self._end_competes = allow_unk, end_competes
        self._length = 0
        self._ids: Ids = np.zeros((count, width, 0), np.int32)  # of the unfinished ones
        self._scores: Nats = np.full((count, width), -np.inf)  # theirs, -inf where there is none
        self._rows: Rows = np.full((count, width), -1)  # theirs among what the model computes
        self._scores[:, 0], self._rows[:, 0] = 0, np.arange(count)
        self._finished: list[list[Hypothesis]] = [[] for _ in range(count)]
        self._cut_short: list[list[Hypothesis]] = [[] for _ in range(count)]

    def advance(self, log_probs: Nats) -> tuple[Rows, Ids]:
        """Take the likeliest next tokens.

        Args:
            log_probs: (R, V), nats, of each unfinished hypothesis's next token: at first one of each search, then as
                this method has asked for.

        Returns:
            Each unfinished hypothesis now continues one of those R, with a token: which rows, which tokens, both
            (R',). None when all searches have ended.

        Raises:
            CheckpointError: a probability is no number.
        """
        may_end = self._can_end and self._length >= self._shortest
        if may_end and not self._end_competes:
            unfinished = self._rows >= 0
            searches, slots = np.nonzero(unfinished)
            self._finish(searches, slots, self._scores[unfinished] + log_probs[self._rows[unfinished], EOS_ID])
        totals, parents, tokens = self._likeliest(log_probs, may_end and self._end_competes)
        ended = (totals > -np.inf) & (tokens == EOS_ID)
        self._finish(np.nonzero(ended)[0], parents[ended], totals[ended])
        is_longest = self._longest == self._length
        self._cut(np.flatnonzero(is_longest))
        least = np.array([self._least(found) for found in self._finished])
        return self._go_on(totals, parents, tokens, (totals > least[:, None]) & ~ended & ~is_longest[:, None])

    def _likeliest(self, log_probs: Nats, with_end: bool) -> tuple[Nats, Rows, Rows]:
        """Each search's likeliest continuations, (B, W): total, slot of the hypothesis that it continues, token."""
        allowed = np.ones(log_probs.shape[1], np.uint8)
        allowed[UNK_ID], allowed[EOS_ID] = self._allow_unk, with_end
        totals, places = np.empty_like(self._scores), np.zeros_like(self._rows)
        if not beam.extend(log_probs, self._scores, self._rows, allowed, totals, places):
            raise not_a_number()
        return totals, *np.divmod(places, log_probs.shape[1])

    def _go_on(self, totals: Nats, parents: Rows, tokens: Rows, going: NDArray[np.bool_]) -> tuple[Rows, Ids]:
        """Make those continuations that are ``going`` the unfinished hypotheses."""
        rows: Rows = np.take_along_axis(self._rows, parents, axis=1)[going]
        continued = np.take_along_axis(self._ids, parents[:, :, None], axis=1)
        self._ids = np.concatenate([continued, tokens[:, :, None].astype(np.int32)], axis=2)
        self._scores = np.where(going, totals, -np.inf)
        self._rows = np.full_like(self._rows, -1)
        self._rows[going] = np.arange(rows.size)
        self._length += 1
        return rows, tokens[going].astype(np.int32)

    def _least(self, finished: list[Hypothesis]) -> float:
        """What a hypothesis must exceed to be of use."""
        return finished[-1].log_prob_nats if len(finished) == self._best else -np.inf

    def _finish(self, searches: Rows, slots: Rows, totals: Nats) -> None:
        """Note hypotheses that end here, of those searches and places, if they are among the best."""
        for search, slot, total in zip(searches.tolist(), slots.tolist(), totals.tolist(), strict=True):
            finished = self._finished[search]
            if total > self._least(finished):
                finished.append(Hypothesis(self._ids[search, slot].tolist(), total, True))
                finished.sort(key=lambda found: -found.log_prob_nats)  # stable: of equals, the first found
                del finished[self._best :]

    def _cut(self, searches: Iterable[np.intp]) -> None:
        """Note the unfinished hypotheses of those searches: they may grow no longer."""
        for search in searches:
            for slot in np.flatnonzero(self._rows[search] >= 0):
                ids, score = self._ids[search, slot].tolist(), float(self._scores[search, slot])
                self._cut_short[search].append(Hypothesis(ids, score, False))

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Of each search at most ``best``, the likeliest first, by total log probability: not divided by length.

        Those that the length cut short come last, and only where too few are finished.
        """
        result = []
        for finished, cut_short in zip(self._finished, self._cut_short, strict=True):
            seen = [found.ids for found in finished]
            result.append((finished + [one for one in cut_short if one.ids not in seen])[: self._best])
        return result
