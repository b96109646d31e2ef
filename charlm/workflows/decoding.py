"""Sequences from a model: random draws, the likeliest token each time, and beam search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.engine.decode import Rule
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.workflows.beams import Beams, Hypothesis
from charlm.workflows.finite import NotFiniteError

Ids = NDArray[np.int32]
State = NDArray[Any]  # (L, S, N, H): the rows of a batch are its third axis
Nats = NDArray[np.float64]
Counts = NDArray[np.int64]

SIDE_BY_SIDE = 64  # sequences that are drawn together
MANY_TOKENS, FEW_TOKENS = 32, 4  # that each of them gets between two looks at which are finished, at most and at least
SINGLE_TOKENS = 128  # of a single one: so many that a call costs little, so few that a person sees no stutter
ROWS = 2  # the axis of a state along which the sequences lie side by side


class NextToken(Protocol):
    """What decoding needs of a language model; see ``LanguageModel``."""

    def zero_state(self, rows: int) -> State:
        """The state before a sequence."""

    def step(self, state: State, tokens: Ids) -> tuple[State, Nats]:
        """The state after ``tokens`` (N,), and the log probabilities of what comes next (N, V)."""

    def log_probs(self, inputs: Ids, targets: Ids, state: State) -> Nats:
        """The log probability of each target (T, N); ``state`` is replaced by that after the last."""

    def generate(
        self, state: State, log_probs: Nats, uniforms: Nats, rule: Rule, left: Counts, before_end: Counts
    ) -> tuple[tuple[State, Nats], tuple[Ids, Nats]]:
        """Draw up to T tokens for each row, a step after each; the state and log probabilities then, and the tokens."""


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

    def rule(self, *, greedy: bool = False) -> Rule:
        """The same for the engine; ``greedy`` takes the likeliest token instead of a draw."""
        return Rule(
            forbidden=-1 if self.allow_unk else UNK_ID,
            end=EOS_ID,
            temperature=0.0 if greedy else float(self.temperature),
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else float(self.top_p),
        )


class Uniforms:
    """The random numbers of all sequences, from [0, 1): each depends on the seed and its own place alone.

    Places are drawn in blocks of ``SIDE_BY_SIDE`` sequences times ``LENGTH`` tokens: a generator of its own for each
    short sequence would cost more than its tokens.
    """

    LENGTH = 64

    def __init__(self, seed: int) -> None:
        self._block = lru_cache(maxsize=64)(partial(self._draw, seed))

    def _draw(self, seed: int, rows: int, refused: int, tokens: int) -> Nats:
        numbers: Nats = np.random.default_rng([seed, rows, refused, tokens]).random((SIDE_BY_SIDE, self.LENGTH))
        return numbers

    def of(self, index: int, refused: int, first: int, count: int) -> Nats:
        """The numbers of the tokens ``first`` .. ``first + count`` of a sequence, after so many refused ones."""
        rows, row = divmod(index, SIDE_BY_SIDE)
        blocks = range(first // self.LENGTH, (first + count - 1) // self.LENGTH + 1)
        numbers = np.concatenate([self._block(rows, refused, tokens)[row] for tokens in blocks])
        begin = first - blocks[0] * self.LENGTH
        return numbers[begin : begin + count]


@dataclass
class Drawing:
    """A sequence in the making.

    Attributes:
        index: the sample's number.
        refused: how many draws of this sample were refused before, or including this one once it is.
        ids: its tokens so far, without EOS.
        log_prob_nats: of all that was drawn, EOS too, under the unchanged distribution.
        is_ended: by EOS.
    """

    index: int
    refused: int = 0
    ids: list[int] = field(default_factory=list)
    log_prob_nats: float = 0.0
    is_ended: bool = False

    def add(self, tokens: list[int], nats: list[float]) -> None:
        """Take up what was drawn; EOS can only be the last."""
        for token_nats in nats:
            self.log_prob_nats += token_nats
        if not math.isfinite(self.log_prob_nats):
            raise NotFiniteError
        self.is_ended = EOS_ID in tokens[-1:]
        self.ids += tokens[:-1] if self.is_ended else tokens


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
    rule, uniforms = truncation.rule(greedy=seed is None), Uniforms(seed or 0)
    rows = [Drawing(index) for index in range(min(count, SIDE_BY_SIDE))]
    following = len(rows)
    state, log_probs = start.repeat(len(rows))
    while rows:
        lengths = [len(row.ids) for row in rows]
        burst = SINGLE_TOKENS if count == 1 else MANY_TOKENS
        if following < count:
            # A finished row waits for the others, and its place is wanted: half as long as they are now, on average.
            burst = min(max(FEW_TOKENS, sum(lengths) // (2 * len(rows))), MANY_TOKENS)
        numbers = [
            uniforms.of(row.index, row.refused, length, burst) for row, length in zip(rows, lengths, strict=True)
        ]
        done = np.array(lengths)
        (state, log_probs), (tokens, nats) = model.generate(
            state, log_probs, np.stack(numbers, axis=1), rule, max_length - done, shortest - done
        )
        drawn = zip(np.count_nonzero(tokens >= 0, axis=0).tolist(), tokens.T.tolist(), nats.T.tolist(), strict=True)
        staying: list[int] = []
        new: list[Drawing] = []
        for place, (row, (number, ids, ids_nats)) in enumerate(zip(rows, drawn, strict=True)):
            row.add(ids[:number], ids_nats[:number])
            if count == 1:
                yield from row.ids[lengths[place] :]
            if not row.is_ended and len(row.ids) < max_length:
                staying.append(place)
                continue
            if refuse(row.ids):
                row.refused += 1
                if row.refused < attempts:
                    new.append(Drawing(row.index, row.refused))
                    continue
            yield row
            if following < count:
                new.append(Drawing(following))
                following += 1
        if len(staying) < len(rows):
            rows = [rows[place] for place in staying]
            state, log_probs = np.take(state, staying, axis=ROWS), log_probs[staying]
        if new:
            new_state, new_log_probs = start.repeat(len(new))
            state, log_probs = np.concatenate([state, new_state], axis=ROWS), np.concatenate([log_probs, new_log_probs])
            rows += new


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
    beams = Beams(
        1, width=width, best=best, longest=max_length, shortest=shortest, can_end=can_end, allow_unk=allow_unk
    )
    state, log_probs = start.state, start.log_probs
    while True:
        rows, tokens = beams.advance(log_probs)
        if not rows.size:
            return beams.hypotheses()[0]
        state, log_probs = model.step(np.take(state, rows, axis=ROWS), tokens)
