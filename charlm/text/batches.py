"""Cuts a stream of ids into chunks of T steps of N streams side by side, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.text.spool import Ids, array_blocks, release_pages
from charlm.text.vocabulary import EOS_ID

FirstInputs = NDArray[np.int32]

NO_TARGET = -1
SHUFFLE_BYTES = 1 << 23  # sequences are shuffled in blocks of about this size, each a copy in memory
REACH_TOKENS = 4096  # how far from its fair place a stream's start may be moved to begin with a sequence
STRETCH_TOKENS = 1 << 20  # of all streams, copied at a time


@dataclass(frozen=True)
class Chunk:
    """T steps of N streams.

    Attributes:
        inputs: (T, N) int32, the token before each target; ``start_id`` (V) or the sequence's own first input
            (above V) where a sequence begins, which means that the state is reset before this step; ``start_id``
            where there is no target at a stream's end.
        targets: (T, N) int32, -1 where there is none.
        predicted: the number of targets that are not -1.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    predicted: int


class Batches:
    """Chunks of a corpus for training; everything follows from the seed and the number of the epoch.

    Each token is a target once in an epoch. A stream's state carries on from chunk to chunk within the epoch.

    With ``shuffle`` the sequences are permuted anew in each epoch and packed one after another; a stream begins
    with a sequence where one begins near its fair place. Without, each stream is a contiguous piece of the text.

    Args:
        tokens: the corpus's stream, 1-D, each sequence closed by EOS.
        vocabulary_size: V.
        streams: N; fewer if there are fewer tokens.
        bptt: T; the last chunk of an epoch may have fewer steps.
        shuffle: for corpora of many sequences; False for a text of one piece.
        seed: not negative.
        first_inputs: (sequences,), what each sequence begins with, V or more; None for V everywhere.

    Attributes:
        streams: N as it is.
        steps_per_epoch: the number of chunks in each epoch.
    """

    def __init__(
        self,
        tokens: Ids,
        *,
        vocabulary_size: int,
        streams: int,
        bptt: int,
        shuffle: bool,
        seed: int,
        first_inputs: FirstInputs | None = None,
    ) -> None:
        if tokens.size == 0 or streams < 1 or bptt < 1:
            raise ValueError("no tokens, no streams or no steps")
        self._tokens = tokens
        self._first_inputs = first_inputs
        self._start_id = vocabulary_size
        self._bptt = bptt
        self._shuffle = shuffle
        self._seed = seed
        self._borders = _shuffle_blocks(tokens) if shuffle else np.array([0, tokens.size])
        if first_inputs is not None:
            self._blocks_first_sequences = _sequences_before(tokens, self._borders)
        self.streams = min(streams, tokens.size)
        lengths = -(-np.diff(self._borders) // self.streams)
        self._block_steps = -(-lengths // bptt)
        self.steps_per_epoch = int(self._block_steps.sum())

    def chunks(self, epoch: int, first: int = 0) -> Iterator[Chunk]:
        """The chunks of one epoch from number ``first`` on, the same whichever is the first."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(self._block_steps.size)
        for block in order:
            steps = int(self._block_steps[block])
            if first < steps:
                yield from self._block_chunks(epoch, int(block), first)
            first = max(first - steps, 0)

    def _block_chunks(self, epoch: int, block: int, first: int) -> Iterator[Chunk]:
        tokens = self._tokens[self._borders[block] : self._borders[block + 1]]
        first_inputs = self._first_inputs
        if first_inputs is not None:
            first_inputs = first_inputs[slice(*self._blocks_first_sequences[block : block + 2])]
        if self._shuffle:
            tokens, order = _permuted(tokens, np.random.default_rng([self._seed, epoch, block]))
            first_inputs = None if first_inputs is None else first_inputs[order]
            release_pages(self._tokens)
            # No stream may outlast the block's steps, whose number is the same in every epoch.
            spare = int(self._block_steps[block]) * self._bptt - -(-tokens.size // self.streams)
            starts = _sequence_starts(tokens, self.streams, spare // 2)
        else:
            starts = _fair_starts(tokens.size, self.streams)
        begins = _Begins(tokens, self._start_id, first_inputs)
        yield from _chunks(tokens, starts, starts[:-1], begins, self._bptt, first)


def evaluation_chunks(
    tokens: Ids,
    vocabulary_size: int,
    streams: int,
    bptt: int,
    warmup: int,
    first_inputs: FirstInputs | None = None,
) -> Iterator[Chunk]:
    """The chunks in which each token of a corpus is a target exactly once, in streams side by side.

    A stream begins with a sequence where one begins near its fair place. One that begins within a sequence starts
    up to ``warmup`` tokens early, but not before that sequence, without targets there, so that its state is warm.

    Args:
        tokens: the corpus's stream, 1-D, each sequence closed by EOS.
        vocabulary_size: V.
        streams: N; fewer if there are fewer tokens.
        bptt: T; the last chunk may have fewer steps.
        warmup: tokens.
        first_inputs: as for ``Batches``.
    """
    if tokens.size == 0 or streams < 1 or bptt < 1 or warmup < 0:
        raise ValueError("no tokens, no streams, no steps or a negative warm-up")
    starts = _sequence_starts(tokens, min(streams, tokens.size), REACH_TOKENS)
    first_reads = starts[:-1].copy()
    for stream, start in enumerate(starts[:-1].tolist()):
        earliest = max(start - warmup, 0)
        ends = np.flatnonzero(tokens[earliest:start] == EOS_ID)
        first_reads[stream] = earliest + int(ends[-1]) + 1 if ends.size else earliest
    release_pages(tokens)
    yield from _chunks(tokens, starts, first_reads, _Begins(tokens, vocabulary_size, first_inputs), bptt, 0)


class _Begins:
    """What the sequences of a stream begin with.

    Args:
        tokens: the stream.
        start_id: V.
        first_inputs: (sequences,), for each; None for V everywhere.

    Raises:
        ValueError: not as many first inputs as sequences.
    """

    def __init__(self, tokens: Ids, start_id: int, first_inputs: FirstInputs | None) -> None:
        self.start_id = np.int32(start_id)
        self._first_inputs = first_inputs
        if first_inputs is not None:
            self._ends = _places_of_eos(tokens)
            if first_inputs.size != self._ends.size + (int(tokens[-1]) != EOS_ID):
                raise ValueError("not as many first inputs as sequences")

    def inputs(
        self, before: NDArray[np.int32], places: NDArray[np.int64], begins: NDArray[np.bool_]
    ) -> NDArray[np.int32]:
        """The inputs of a chunk, (T, N).

        Args:
            before: (T, N), the token before each target.
            places: (T, N), where each target stands in the stream.
            begins: (T, N), whether a sequence begins with it.
        """
        inputs = np.where(begins, self.start_id, before)
        if self._first_inputs is not None:
            # As many sequences as end before it come before it; the clip is for places past the stream's end.
            sequences = np.searchsorted(self._ends, places[begins])
            inputs[begins] = self._first_inputs.take(sequences, mode="clip")
        return inputs


def _chunks(
    tokens: Ids,
    borders: NDArray[np.int64],
    first_reads: NDArray[np.int64],
    sequence_begins: _Begins,
    bptt: int,
    first: int,
) -> Iterator[Chunk]:
    """The chunks of streams that lie between neighbouring borders.

    Args:
        tokens: the stream of which ``borders`` speak.
        borders: (N + 1,); stream n predicts tokens[borders[n]:borders[n + 1]].
        first_reads: (N,), the place at which each stream begins, at its border or before.
        sequence_begins: the inputs where there is no token before.
        bptt: T.
        first: the number of the first chunk to give.
    """
    starts, stops = borders[:-1], borders[1:]
    lengths = stops - first_reads
    steps = int(lengths.max())
    stretch_steps = bptt * max(1, STRETCH_TOKENS // (bptt * starts.size))
    for stretch in range(first * bptt, steps, stretch_steps):
        end = min(stretch + stretch_steps, steps)
        # One more: the token before the first target.
        read = _side_by_side(tokens, first_reads + stretch - 1, end - stretch + 1)
        for step in range(stretch, end, bptt):
            count = min(bptt, end - step)
            window = read[:, step - stretch : step - stretch + count + 1].T.astype(np.int32, order="C")  # (T + 1, N)
            places = first_reads + np.arange(step, step + count)[:, np.newaxis]
            targets = window[1:]
            inputs = sequence_begins.inputs(window[:-1], places, window[:-1] == EOS_ID)
            if step + count > lengths.min():
                past = places >= stops
                targets[past] = NO_TARGET
                inputs[past] = sequence_begins.start_id
            if (first_reads + step < starts).any():
                targets[places < starts] = NO_TARGET
            yield Chunk(inputs, targets, int(np.count_nonzero(targets != NO_TARGET)))


def _side_by_side(tokens: Ids, places: NDArray[np.int64], count: int) -> Ids:
    """A copy of ``count`` tokens from each place on, (N, count); EOS before the stream and after it.

    Of a mapped stream the pages of one piece at a time are in memory: for one token a system may map a megabyte.
    """
    copy = np.full((places.size, count), EOS_ID, tokens.dtype)
    for row, place in zip(copy, places.tolist(), strict=True):
        low, high = max(place, 0), min(place + count, tokens.size)
        if low < high:
            row[low - place : high - place] = tokens[low:high]
            release_pages(tokens)
    return copy


def _fair_starts(count: int, streams: int) -> NDArray[np.int64]:
    """Where N pieces begin whose lengths differ by at most one, and the end: (N + 1,)."""
    return np.arange(streams + 1, dtype=np.int64) * count // streams


def _sequence_starts(tokens: Ids, streams: int, reach: int) -> NDArray[np.int64]:
    """Like ``_fair_starts``, each moved to the nearest beginning of a sequence that is at most ``reach`` away.

    Never so far that a piece would be empty, or much longer than the others.
    """
    starts = _fair_starts(tokens.size, streams)
    reach = min(reach, REACH_TOKENS, (tokens.size // streams - 1) // 8)
    if reach > 0:
        for stream in range(1, streams):
            low = int(starts[stream]) - reach
            begins = np.flatnonzero(tokens[low - 1 : low + 2 * reach] == EOS_ID)  # ... at low + begins
            if begins.size:
                starts[stream] = low + begins[np.argmin(np.abs(begins - reach))]
    return starts


def _shuffle_blocks(tokens: Ids) -> NDArray[np.int64]:
    """The borders of blocks of whole sequences, of about ``SHUFFLE_BYTES`` each: (blocks + 1,)."""
    size = max(1, SHUFFLE_BYTES // tokens.itemsize)
    borders = [0]
    while tokens.size - borders[-1] > size * 3 // 2:
        place = borders[-1] + size
        while place < tokens.size and tokens[place - 1] != EOS_ID:
            ends = np.flatnonzero(tokens[place : place + REACH_TOKENS] == EOS_ID)
            place = min(place + (int(ends[0]) + 1 if ends.size else REACH_TOKENS), tokens.size)
        release_pages(tokens)  # a megabyte may have been mapped for each border
        if place == tokens.size:
            break
        borders.append(place)
    return np.array([*borders, tokens.size], dtype=np.int64)


def _places_of_eos(tokens: Ids) -> NDArray[np.int64]:
    """Where sequences end, 1-D; of a mapped stream, no more than a block is in memory at a time."""
    first, places = 0, [np.zeros(0, dtype=np.int64)]
    for block in array_blocks(tokens):
        places.append(np.flatnonzero(block == EOS_ID) + first)
        first += block.size
    return np.concatenate(places)


def _sequences_before(tokens: Ids, borders: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many sequences begin before each border, at which one begins; or, before the last border, in all."""
    counts = np.searchsorted(_places_of_eos(tokens), borders)
    counts[-1] += int(tokens[-1]) != EOS_ID
    return counts


def _permuted(tokens: Ids, generator: np.random.Generator) -> tuple[Ids, NDArray[np.int64]]:
    """A copy of the stream with its sequences in random order, and the number of each as it was before."""
    stops = _places_of_eos(tokens) + 1
    tokens = np.asarray(tokens)  # a memmap's slices are slow
    if not stops.size or stops[-1] != tokens.size:
        stops = np.append(stops, tokens.size)
    starts = np.concatenate([[0], stops[:-1]])
    order = generator.permutation(stops.size)
    starts, lengths = starts[order], (stops - starts)[order]
    places = np.concatenate([[0], np.cumsum(lengths)])
    shuffled = np.empty_like(tokens)
    # In parts, because the index takes eight bytes a token.
    parts = max(1, tokens.size >> 18)
    for part in np.array_split(np.arange(order.size), parts):
        if part.size:
            low, high = places[part[0]], places[part[-1] + 1]
            index = np.repeat(starts[part] - places[part], lengths[part]) + np.arange(low, high)
            shuffled[low:high] = tokens[index]
    return shuffled, order
