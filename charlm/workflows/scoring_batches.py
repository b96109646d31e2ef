"""A text becomes windows of lines, as tokens; the sequences of a window go through a model side by side.

Sequences are dealt to at most ``LANES`` lanes, the rows of a batch, the longest first, so that lanes come out about
equally long; in a lane they lie end to end. A sequence's first input resets the state, so nothing of one sequence
reaches the next, and no lane is padded but at its end. Memory is bounded: by a window of the text, by a pass of the
model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from itertools import accumulate
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.text.readers import read_blocks
from charlm.text.tokenizer import NEWLINE, Tokenizer
from charlm.text.vocabulary import EOS_ID, UNK, UNK_ID, Vocabulary, code_points

Encoding = Literal["utf-8", "latin-1"]
Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
Nats = NDArray[np.float64]
Places = NDArray[np.int64]

# Of a window, about. So many that lanes come out equally long: of verses in words the longest lane is 0.5 % longer than
# the mean, with a quarter of the window 2.5 %.
WINDOW_CHARACTERS = 1 << 18

LANES = 64  # sequences side by side
STEPS = 256  # of a pass; a longer lane is continued in the next, with its state
PASS_FLOATS = 1 << 24  # of a pass: its logits, and what the layers keep


@dataclass(frozen=True)
class Text:
    """Lines as tokens, laid end to end; after each line its newline, or EOS where it is the last of its sequence.

    Attributes:
        lines: as they were given.
        numbers: of the lines, from 1.
        tokens: (M,), the cleaned text's; the newline where the id is EOS.
        ids: (M,).
        line_ends: where in these each line's newline stands.
        sequence_ends: where sequences end, exclusive.
    """

    lines: Sequence[str]
    numbers: Sequence[int]
    tokens: Sequence[str]
    ids: Ids
    line_ends: Places
    sequence_ends: Places

    @property
    def unknown(self) -> Mask:
        """Which tokens the model takes for ``<unk>``, (M,)."""
        return np.equal(self.ids, UNK_ID)

    @property
    def foreign(self) -> Mask:
        """Which tokens are not in the vocabulary, (M,); the word ``<unk>`` is."""
        foreign = self.unknown
        if not isinstance(self.tokens, str):  # of characters, none is that word
            for place in np.flatnonzero(foreign).tolist():
                foreign[place] = self.tokens[place] != UNK
        return foreign

    def line_of(self, place: int) -> tuple[int, int]:
        """In which of ``lines`` a token stands, and as which of its tokens; both from 0."""
        line = int(np.searchsorted(self.line_ends, place))
        return line, place - (int(self.line_ends[line - 1]) + 1 if line else 0)


def encode(
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    lines: Sequence[str],
    numbers: Sequence[int],
    closes: Sequence[bool] | None = None,
) -> Text:
    """Clean and tokenize lines.

    Args:
        lines: at least one.
        numbers: of the lines, from 1.
        closes: whether each line is the last of its sequence; None if all are.
    """
    cleaned = tokenizer.clean(NEWLINE.join(lines)) + NEWLINE
    tokens: Sequence[str] = cleaned
    if tokenizer.level == "word":
        words = [[*line.split(), NEWLINE] for line in cleaned[:-1].split(NEWLINE)]
        tokens = [word for line in words for word in line]
        ids = vocabulary.ids(tokens)
        line_ends = np.cumsum([len(line) for line in words]) - 1
    else:
        ids = vocabulary.encode_characters(cleaned)
        line_ends = np.flatnonzero(code_points(cleaned) == ord(NEWLINE))
    last = line_ends if closes is None else line_ends[np.array(closes, dtype=bool)]
    ids[last] = EOS_ID
    return Text(lines, numbers, tokens, ids, line_ends, last + 1)


def line_windows(path: str, encoding: Encoding, characters: int | None = None) -> Iterator[list[str]]:
    """The lines of a text in windows, of which none waits for more of the input than has come.

    Args:
        characters: of a window, about; by default ``WINDOW_CHARACTERS``.

    Raises:
        InputError: the text is at fault; the lines before the fault have been given.
    """
    for block in read_blocks(path, encoding=encoding):
        lines = block.split(NEWLINE)
        if not lines[-1]:
            lines.pop()  # what follows the block's last newline
        del block  # a line may be long
        ends = np.fromiter(accumulate(map(len, lines)), np.int64, len(lines)) + np.arange(1, len(lines) + 1)
        windows = max(1, round(int(ends[-1]) / (characters or WINDOW_CHARACTERS)))
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, windows + 1) // windows) + 1
        first = 0
        for last in np.unique(cuts).tolist():
            yield lines[first:last]
            first = last


def paragraph_windows(
    windows: Iterator[list[str]], is_blank: Callable[[str], bool]
) -> Iterator[tuple[list[str], list[int], list[bool]]]:
    """Lines that are not blank, their numbers, and whether each ends a paragraph; whole paragraphs at a time."""
    lines: list[str] = []
    numbers: list[int] = []
    closes: list[bool] = []
    number = characters = 0
    for window in windows:
        for line in window:
            number += 1
            if not is_blank(line):
                lines.append(line)
                numbers.append(number)
                closes.append(False)
                characters += len(line) + 1
            elif lines:
                closes[-1] = True
                if characters >= WINDOW_CHARACTERS:
                    yield lines, numbers, closes
                    lines, numbers, closes, characters = [], [], [], 0
    if lines:
        closes[-1] = True
        yield lines, numbers, closes


class ScoringModel(Protocol):
    """What scoring asks of a model; ``LanguageModel`` says what the methods do."""

    def zero_state(self, rows: int) -> NDArray[Any]:
        """The state before a sequence, (L, S, rows, H)."""

    def log_probs(self, inputs: Ids, targets: Ids, state: NDArray[Any]) -> Nats:
        """The log probability of each target, (T, N), nats; ``state`` is replaced by that after the last step."""


def score_sequences(
    model: ScoringModel, size: int, targets: Ids, ends: Places, first_inputs: Ids | int | None = None
) -> Nats:
    """The log probability of each token of sequences that are laid end to end.

    Args:
        model: scores them.
        size: V.
        targets: (M,), the tokens of all sequences, none of which is empty.
        ends: where each sequence ends in ``targets``, exclusive; rising, the last is M.
        first_inputs: what each sequence begins with, or all do; by default V.

    Returns:
        (M,), nats.
    """
    if not targets.size:
        return np.zeros(0)
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    inputs = np.empty_like(targets)
    inputs[1:] = targets[:-1]
    inputs[starts] = size if first_inputs is None else first_inputs
    lengths = ends - starts
    lanes = max(1, min(LANES, ends.size, PASS_FLOATS // _floats_per_token(model, size)))
    order, borders = _deal(lengths, lanes)
    # Where each token of the lanes, one lane after another, stands in ``targets``.
    places = np.repeat(starts[order] - (np.cumsum(lengths[order]) - lengths[order]), lengths[order])
    places += np.arange(targets.size)
    result = np.empty(targets.size)
    result[places] = _run(model, size, inputs[places], targets[places], borders, model.zero_state(lanes))
    return result


def _deal(lengths: Places, lanes: int) -> tuple[Places, Places]:
    """Deal sequences to lanes: the longest first, each to the lane that is the shortest so far.

    Args:
        lengths: of the sequences, positive; at least as many as lanes.
        lanes: how many.

    Returns:
        The numbers of the sequences, one lane after another; and (lanes + 1,), where lanes begin and end, in tokens.
    """
    falling = np.argsort(-lengths, kind="stable")
    shortest_first = list(range(lanes))  # a heap of length * lanes + number
    dealt = []
    for length in lengths[falling].tolist():
        shortest = shortest_first[0]
        dealt.append(shortest % lanes)
        heapreplace(shortest_first, shortest + length * lanes)
    order = falling[np.argsort(np.array(dealt), kind="stable")]
    lane_lengths = np.array(sorted(shortest_first, key=lambda entry: entry % lanes)) // lanes
    return order, np.concatenate((np.zeros(1, np.int64), np.cumsum(lane_lengths)))


class OpenSequence:
    """One sequence that comes in pieces.

    Args:
        model: scores it.
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


def _run(model: ScoringModel, size: int, inputs: Ids, targets: Ids, borders: Places, state: NDArray[Any]) -> Nats:
    """Take all lanes through the model, a pass after the other; those at their end drop out.

    Args:
        model: scores them.
        size: V.
        inputs: (M,).
        targets: (M,).
        borders: (N + 1,), where lanes begin and end.
        state: (L, S, N, H) before the first step; that of a single lane is replaced.
    """
    lengths = np.diff(borders)
    longest_first = np.argsort(-lengths, kind="stable")
    starts, lengths = borders[:-1][longest_first], lengths[longest_first]
    budget = PASS_FLOATS // _floats_per_token(model, size)
    result = np.empty(targets.size)
    done = 0
    while lanes := int(np.count_nonzero(lengths > done)):
        if lanes < state.shape[2]:
            state = np.ascontiguousarray(state[:, :, :lanes])
        # Not far beyond the end of half of them.
        steps = min(STEPS, max(1, budget // lanes), int(lengths[lanes // 2]) - done)
        step = np.arange(done, done + steps)[:, None]  # (T, 1)
        is_token = step < lengths[:lanes]  # (T, N)
        place = np.where(is_token, starts[:lanes] + step, 0)
        wanted = np.where(is_token, targets[place], np.int32(-1))
        log_probs = model.log_probs(inputs[place], wanted, state)
        result[place[is_token]] = log_probs[is_token]
        done += steps
    return result
