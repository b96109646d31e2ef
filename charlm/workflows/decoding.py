"""From the probabilities of the next token to a token: truncation, draws, and beam search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError
from charlm.text.vocabulary import EOS_ID, UNK_ID

Ids = NDArray[np.int32]
State = NDArray[Any]  # (L, S, N, H): the rows of a batch are its third axis
Nats = NDArray[np.float64]

SIDE_BY_SIDE = 64  # sequences that are drawn together
ROWS = 2  # the axis of a state along which the sequences lie side by side


class NextToken(Protocol):
    """What decoding needs of a language model; see ``LanguageModel``."""

    def zero_state(self, rows: int) -> State:
        """The state before a sequence."""

    def step(self, state: State, tokens: Ids) -> tuple[State, Nats]:
        """The state after ``tokens`` (N,), and the log probabilities of what comes next (N, V)."""

    def log_probs(self, inputs: Ids, targets: Ids, state: State) -> Nats:
        """The log probability of each target (T, N); ``state`` is replaced by that after the last."""


@dataclass(frozen=True)
class Start:
    """A model that has read the beginning of one sequence."""

    state: State  # (L, S, 1, H)
    log_probs: Nats  # (1, V) of the next token

    def repeat(self, count: int) -> tuple[State, Nats]:
        """The same for ``count`` sequences side by side."""
        return np.repeat(self.state, count, axis=ROWS), np.repeat(self.log_probs, count, axis=0)


@dataclass(frozen=True)
class Truncation:
    """How the distribution of the next token is changed before a draw, in this order.

    Attributes:
        allow_unk: whether the unknown token can be drawn; if not, the others share its probability.
        temperature: each probability is raised to the power of 1 / temperature.
        top_k: keep the k likeliest tokens.
        top_p: keep the fewest tokens, the likeliest first, whose probabilities add up to p or more.

    Of equally likely tokens, those with the smaller id are kept.
    """

    allow_unk: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def weights(self, log_probs: Nats) -> Nats:
        """Numbers in proportion to the changed probabilities, (N, V); the likeliest token has 1."""
        weights: Nats = log_probs.copy()
        if not self.allow_unk:
            weights[:, UNK_ID] = -np.inf
        weights -= weights.max(axis=1, keepdims=True)
        if self.temperature != 1:
            weights /= self.temperature
        np.exp(weights, out=weights)
        if self.top_k is not None or self.top_p is not None:
            self._truncate(weights)
        return weights

    def _truncate(self, weights: Nats) -> None:
        """Set the weights to 0 that are not kept."""
        order = np.argsort(-weights, axis=1, kind="stable")
        falling = np.take_along_axis(weights, order, axis=1)
        if self.top_k is not None:
            falling[:, self.top_k :] = 0
        if self.top_p is not None and self.top_p < 1:
            sums = falling.cumsum(axis=1)
            # A hair less than p, or 0.5 + 0.3 might not be found to reach 0.8.
            wanted = sums[:, -1:] * (self.top_p * (1 - 1e-12))
            falling[:, 1:][sums[:, :-1] >= wanted] = 0
        np.put_along_axis(weights, order, falling, axis=1)


def draw(weights: Nats, uniforms: Nats) -> Ids:
    """Draw a token for each row, in proportion to its weights.

    Args:
        weights: (N, V), 0 or more.
        uniforms: (N,), each from [0, 1): the token is the first whose cumulative share exceeds it.

    Returns:
        (N,). A row's token depends on nothing but that row.
    """
    sums = weights.cumsum(axis=1)  # one addition after another, so the same in any batch
    totals = sums[:, -1]
    # A product that rounds up to the total would point behind the last token.
    places = np.minimum(uniforms * totals, np.nextafter(totals, 0))
    ids: Ids = (sums <= places[:, None]).sum(axis=1, dtype=np.int32)
    return ids


def likeliest(log_probs: Nats, *, allow_unk: bool = False) -> Ids:
    """The likeliest token of each row, (N,); of equally likely ones, that with the smallest id."""
    first = UNK_ID if allow_unk else UNK_ID + 1
    ids: Ids = (log_probs[:, first:].argmax(axis=1) + first).astype(np.int32)
    return ids


class Drawing:
    """A sequence in the making.

    Attributes:
        index: the sample's number.
        refused: how many draws of this sample were refused before, or including this one once it is.
        ids: its tokens so far, without EOS.
        log_prob_nats: of all that was drawn, EOS too, under the unchanged distribution.
        is_ended: by EOS.
    """

    def __init__(self, seed: int | None, index: int, refused: int = 0) -> None:
        self.index, self.refused = index, refused
        self.ids: list[int] = []
        self.log_prob_nats = 0.0
        self.is_ended = False
        self._random = None if seed is None else np.random.default_rng([seed, index, refused])
        self._numbers: Iterator[float] = iter(())

    def uniform(self) -> float:
        """The next random number of this sequence alone, from [0, 1)."""
        number = next(self._numbers, None)
        if number is None:
            assert self._random is not None
            self._numbers = iter(self._random.random(64).tolist())
            number = next(self._numbers)
        return number


def draw_sequences(
    model: NextToken,
    start: Start,
    truncation: Truncation,
    *,
    count: int,
    max_length: int,
    shortest: int = 0,
    seed: int | None,
    refuse: Callable[[list[int]], bool],
    attempts: int,
) -> Iterator[int | Drawing]:
    """Draw sequences, up to ``SIDE_BY_SIDE`` together; a finished one's place goes to the next.

    Args:
        start: what to continue.
        truncation: how to change the distributions.
        count: how many.
        max_length: the most tokens, EOS not counted.
        shortest: the fewest: EOS is not drawn before.
        seed: of the random numbers; None to take the likeliest token each time.
        refuse: whether to draw a sequence of these ids again.
        attempts: how many draws of one sequence may be refused.

    Yields:
        Each token if ``count`` is 1, and each finished sequence, in the order in which they end. One of which
        ``attempts`` draws were refused is finished too.
    """
    rows = [Drawing(seed, index) for index in range(min(count, SIDE_BY_SIDE))]
    following = len(rows)
    state, log_probs = start.repeat(len(rows))
    while rows:
        choices = _without_end(log_probs, [len(row.ids) < shortest for row in rows])
        if seed is None:
            tokens = likeliest(choices, allow_unk=truncation.allow_unk)
        else:
            tokens = draw(truncation.weights(choices), np.array([row.uniform() for row in rows]))
        token_nats = log_probs[np.arange(len(rows)), tokens]
        staying: list[int] = []
        new: list[Drawing] = []
        for place, (row, token, nats) in enumerate(zip(rows, tokens.tolist(), token_nats.tolist(), strict=True)):
            if math.isnan(nats):
                raise _not_a_number()
            row.log_prob_nats += nats
            row.is_ended = token == EOS_ID
            if not row.is_ended:
                row.ids.append(token)
                if count == 1:
                    yield token
                if len(row.ids) < max_length:
                    staying.append(place)
                    continue
            if refuse(row.ids):
                row.refused += 1
                if row.refused < attempts:
                    new.append(Drawing(seed, row.index, row.refused))
                    continue
            yield row
            if following < count:
                new.append(Drawing(seed, following))
                following += 1
        if len(staying) < len(rows):
            rows = [rows[place] for place in staying]
            state, tokens = np.take(state, staying, axis=ROWS), tokens[staying]
        if rows:
            state, log_probs = model.step(state, tokens)
        if new:
            new_state, new_log_probs = start.repeat(len(new))
            state = np.concatenate([state, new_state], axis=ROWS) if rows else new_state
            log_probs = np.concatenate([log_probs, new_log_probs]) if rows else new_log_probs
            rows += new


def _without_end(log_probs: Nats, too_short: list[bool]) -> Nats:
    """Log probabilities, (N, V), in which the rows that are too short cannot end."""
    if not any(too_short):
        return log_probs
    choices: Nats = log_probs.copy()
    choices[too_short, EOS_ID] = -np.inf
    return choices


@dataclass(frozen=True)
class Hypothesis:
    """A continuation that beam search has found.

    Attributes:
        ids: its tokens, without EOS.
        log_prob_nats: of all tokens, and of EOS if that ended it.
        is_finished: ended by EOS, not by the length.
    """

    ids: list[int]
    log_prob_nats: float
    is_finished: bool


def beam_search(
    model: NextToken,
    start: Start,
    *,
    width: int,
    best: int,
    max_length: int,
    shortest: int = 0,
    can_end: bool = True,
    allow_unk: bool = False,
) -> list[Hypothesis]:
    """The likeliest continuations that a search over ``width`` unfinished ones finds.

    The search is exact if ``width`` is at least the number of possible unfinished continuations of any one length.
    It ends as soon as no unfinished one can become better than the ``best`` finished ones: a log probability
    only falls.

    Args:
        start: what to continue.
        width: how many unfinished continuations are kept from one length to the next.
        best: how many to return.
        max_length: the most tokens, EOS not counted.
        shortest: the fewest of a continuation that ends.
        can_end: whether EOS may end a continuation; if not, all have ``max_length`` tokens.
        allow_unk: whether a continuation may hold the unknown token.

    Returns:
        At most ``best``, the likeliest first, by total log probability: no normalisation by length. Those that
        ``max_length`` cut short come last, and only where too few are finished.
    """
    finished: list[Hypothesis] = []
    state, log_probs = start.state, start.log_probs
    scores = np.zeros(1)  # of each unfinished continuation, (W,)
    ids: Ids = np.zeros((1, 0), dtype=np.int32)  # (W, tokens so far)
    rows = np.zeros(1, dtype=np.intp)  # which of the last ones each continues, (W,)
    for length in range(max_length + can_end):
        if length:
            state, log_probs = model.step(np.take(state, rows, axis=ROWS), ids[:, -1].copy())
        totals = scores[:, None] + log_probs
        if np.isnan(totals).any():
            raise _not_a_number()
        if can_end and length >= shortest:
            least = finished[-1].log_prob_nats if len(finished) == best else -np.inf
            ends = enumerate(totals[:, EOS_ID].tolist())
            finished += [Hypothesis(ids[row].tolist(), end, True) for row, end in ends if end > least]
            finished = sorted(finished, key=lambda found: -found.log_prob_nats)[:best]
        if length == max_length:
            break
        totals[:, EOS_ID] = -np.inf
        if not allow_unk:
            totals[:, UNK_ID] = -np.inf
        chosen = _largest(totals.reshape(-1), width)
        if len(finished) == best:
            chosen = chosen[totals.reshape(-1)[chosen] > finished[-1].log_prob_nats]
        if not chosen.size:
            return finished
        rows, tokens = np.divmod(chosen, totals.shape[1])
        scores = totals[rows, tokens]
        ids = np.column_stack([ids[rows], tokens]).astype(np.int32)
    seen = [found.ids for found in finished]
    cut_short = zip(ids.tolist(), scores.tolist(), strict=True)
    return (finished + [Hypothesis(row, score, False) for row, score in cut_short if row not in seen])[:best]


def _largest(values: Nats, count: int) -> NDArray[np.intp]:
    """Places of the largest values above -inf, the largest first; of equal ones, the first."""
    least = -np.inf if count >= values.size else np.partition(values, values.size - count)[values.size - count]
    places = np.flatnonzero((values >= least) & (values > -np.inf))
    return places[np.argsort(-values[places], kind="stable")][:count]


def _not_a_number() -> CheckpointError:
    return CheckpointError("the model's probabilities are not numbers (NaN); train it again, with a lower --lr")
