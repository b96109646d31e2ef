import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from charlm.text import batches
from charlm.text.batches import Batches, Chunk, evaluation_chunks
from charlm.text.vocabulary import EOS_ID

V = 9
lengths_of_sequences = st.lists(st.integers(0, 12), min_size=1, max_size=40)
sizes = st.integers(1, 12)


def stream(lengths: list[int], seed: int = 0) -> NDArray[np.uint8]:
    """Sequences of these lengths, closed by EOS."""
    random = np.random.default_rng(seed)
    parts = [np.append(random.integers(2, V, length), EOS_ID) for length in lengths]
    return np.concatenate(parts).astype(np.uint8)


def numbered(lengths: list[int]) -> NDArray[np.int32]:
    """Like ``stream``, but every token with an id of its own, so that it can be followed."""
    tokens = np.arange(10, 10 + sum(lengths) + len(lengths), dtype=np.int32)
    tokens[np.cumsum(np.array(lengths) + 1) - 1] = EOS_ID
    return tokens


def make(tokens: NDArray[np.integer], shuffle: bool, n: int = 4, t: int = 3, seed: int = 0) -> Batches:  # type: ignore[type-arg]
    return Batches(tokens, vocabulary_size=10**6, streams=n, bptt=t, shuffle=shuffle, seed=seed)


def check_form(chunks: list[Chunk], streams: int, bptt: int, start_id: int) -> None:
    for chunk in chunks:
        steps = bptt if chunk is not chunks[-1] else chunk.inputs.shape[0]
        assert chunk.inputs.shape == chunk.targets.shape == (steps, streams)
        assert 1 <= steps <= bptt
        assert chunk.inputs.dtype == chunk.targets.dtype == np.int32
        assert chunk.inputs.flags.c_contiguous
        assert chunk.targets.flags.c_contiguous
        assert chunk.predicted == (chunk.targets >= 0).sum()
        assert (chunk.targets >= 0).any(axis=1).all()  # no step without a target
        assert chunk.targets.min() >= -1
        assert chunk.targets.max() < start_id
        assert chunk.inputs.min() >= 0
        assert not (chunk.inputs == EOS_ID).any()


def columns(chunks: list[Chunk]) -> list[tuple[list[int], list[int]]]:
    """Each stream's inputs and targets over an epoch."""
    inputs = np.concatenate([chunk.inputs for chunk in chunks]).T
    targets = np.concatenate([chunk.targets for chunk in chunks]).T
    return [(i.tolist(), t.tolist()) for i, t in zip(inputs, targets, strict=True)]


def check_inputs(chunks: list[Chunk], start_id: int) -> None:
    """Within a stream, each input is the target before, or the start after EOS."""
    for inputs, targets in columns(chunks):
        for (before, target), fed in zip(itertools.pairwise(targets), inputs[1:], strict=True):
            if target == -1 or before == EOS_ID:
                assert fed == start_id
            else:
                assert fed == before


@settings(deadline=None)
@given(lengths=lengths_of_sequences, n=sizes, t=sizes, shuffle=st.booleans(), epoch=st.integers(0, 3))
def test_each_token_is_a_target_once(lengths: list[int], n: int, t: int, shuffle: bool, epoch: int) -> None:
    tokens = numbered(lengths)
    b = make(tokens, shuffle, n, t)
    chunks = list(b.chunks(epoch))
    assert b.streams == min(n, tokens.size)
    assert len(chunks) == b.steps_per_epoch
    check_form(chunks, b.streams, t, 10**6)
    check_inputs(chunks, 10**6)
    targets = np.concatenate([chunk.targets.ravel() for chunk in chunks])
    assert sorted(targets[targets >= 0].tolist()) == sorted(tokens.tolist())
    # No stream stops and goes on.
    for _, column in columns(chunks):
        assert sorted([target == -1 for target in column]) == [target == -1 for target in column]


@settings(deadline=None)
@given(lengths=lengths_of_sequences, n=sizes, t=sizes)
def test_shuffled_sequences_stay_whole(lengths: list[int], n: int, t: int) -> None:
    tokens = numbered(lengths)
    order = [target for _, column in columns(list(make(tokens, True, n, t).chunks(0))) for target in column]
    flat = [target for target in order if target >= 0]
    text = " ".join(map(str, flat)) + " "
    for sequence in np.split(tokens, np.flatnonzero(tokens == EOS_ID) + 1)[:-1]:
        assert " ".join(map(str, sequence.tolist())) + " " in text


@settings(deadline=None)
@given(lengths=lengths_of_sequences, n=sizes, t=sizes)
def test_pieces_of_a_file(lengths: list[int], n: int, t: int) -> None:
    tokens = numbered(lengths)
    chunks = list(make(tokens, False, n, t).chunks(0))
    place = 0
    for inputs, targets in columns(chunks):
        piece = [target for target in targets if target >= 0]
        assert piece == tokens[place : place + len(piece)].tolist()
        assert len(piece) in (tokens.size // len(columns(chunks)), -(-tokens.size // len(columns(chunks))))
        before = tokens[place - 1] if place else EOS_ID
        assert inputs[0] == (10**6 if before == EOS_ID else before)
        place += len(piece)
    assert place == tokens.size


@settings(deadline=None)
@given(lengths=lengths_of_sequences, n=sizes, t=sizes, shuffle=st.booleans(), block=st.sampled_from([20, 1 << 24]))
def test_resuming_gives_the_same_chunks(lengths: list[int], n: int, t: int, shuffle: bool, block: int) -> None:
    tokens = numbered(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "SHUFFLE_BYTES", block * tokens.itemsize)
        whole = list(make(tokens, shuffle, n, t).chunks(2))
        for first in range(len(whole) + 2):
            rest = list(make(tokens, shuffle, n, t).chunks(2, first))
            assert len(rest) == max(len(whole) - first, 0)
            for chunk, expected in zip(rest, whole[first:], strict=True):
                assert np.array_equal(chunk.inputs, expected.inputs)
                assert np.array_equal(chunk.targets, expected.targets)


@settings(deadline=None)
@given(lengths=lengths_of_sequences, n=sizes, t=sizes, block=st.integers(1, 60))
def test_large_corpora_are_shuffled_in_blocks(lengths: list[int], n: int, t: int, block: int) -> None:
    tokens = numbered(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "SHUFFLE_BYTES", block * tokens.itemsize)
        patch.setattr(batches, "REACH_TOKENS", 3)
        b = make(tokens, True, n, t)
        for epoch in range(3):
            chunks = list(b.chunks(epoch))
            assert len(chunks) == b.steps_per_epoch
            targets = np.concatenate([chunk.targets.ravel() for chunk in chunks])
            assert sorted(targets[targets >= 0].tolist()) == sorted(tokens.tolist())
            for chunk in chunks:
                assert (chunk.targets >= 0).any(axis=1).all()
                assert chunk.inputs.shape[1] == b.streams


def test_blocks_hold_whole_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = numbered([9] * 100)
    monkeypatch.setattr(batches, "SHUFFLE_BYTES", 95 * tokens.itemsize)
    b = make(tokens, True, 1, 100)
    chunks = list(b.chunks(0))
    assert len(chunks) == 10  # of 100 tokens each, as sequences are of 10
    firsts = np.array([chunk.targets[::10, 0] for chunk in chunks])  # each sequence's first token
    blocks = (firsts - 10) // 100
    assert (blocks == blocks[:, :1]).all()
    assert sorted(blocks[:, 0].tolist()) == list(range(10))
    assert blocks[:, 0].tolist() != list(range(10))  # the blocks too are in random order
    assert len({tuple(order) for order in (firsts % 100).tolist()}) == 10  # each block in an order of its own
    assert all(chunk.inputs[0, 0] == 10**6 for chunk in chunks)


def test_epochs_and_seeds_differ() -> None:
    tokens = numbered([5] * 50)

    def first(seed: int, epoch: int) -> list[int]:
        chunk = next(iter(make(tokens, True, seed=seed).chunks(epoch)))
        return [int(number) for number in chunk.targets.ravel()]

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(1, 1)
    assert first(1, 0) != first(2, 0)


def test_order_is_random() -> None:
    """Over many epochs each of four sequences comes first equally often (chi-squared, 3 degrees)."""
    tokens = numbered([1] * 4)
    firsts = [int(next(iter(make(tokens, True, 1, 1).chunks(epoch))).targets[0, 0]) for epoch in range(2000)]
    counts = np.array([firsts.count(number) for number in (10, 12, 14, 16)])
    assert counts.sum() == 2000
    assert ((counts - 500) ** 2 / 500).sum() < 16.3  # p = 0.001


def test_streams_begin_with_sequences() -> None:
    tokens = numbered([6] * 1000)
    for epoch in range(5):
        first = next(iter(make(tokens, True, 10, 48).chunks(epoch)))
        assert (first.inputs[0] == 10**6).all()
    first = next(evaluation_chunks(tokens, 10**6, 10, 48, 20))
    assert (first.inputs[0] == 10**6).all()
    assert first.predicted == first.targets.size


def test_streams_begin_at_the_nearest_sequence() -> None:
    lengths = np.random.default_rng(3).integers(0, 30, 400).tolist()
    tokens = numbered(lengths)
    begins = np.flatnonzero(tokens == EOS_ID) + 1
    first = next(evaluation_chunks(tokens, 10**6, 7, 5, 0))
    for stream in range(1, 7):
        place = int(np.flatnonzero(tokens == first.targets[:, stream].max())[0]) - int(
            first.targets[:, stream].argmax()
        )
        assert abs(place - stream * tokens.size // 7) == np.abs(begins - stream * tokens.size // 7).min()


def test_streams_are_of_similar_length() -> None:
    tokens = stream([int(n) for n in np.random.default_rng(0).integers(0, 200, 3000)])
    b = make(tokens, True, 32, 50)
    wasted = sum(chunk.targets.size - chunk.predicted for chunk in b.chunks(0))
    assert wasted < 50 * 32


@pytest.mark.parametrize("shuffle", [False, True])
def test_shorter_than_its_streams(shuffle: bool) -> None:
    b = make(numbered([2]), shuffle, 50, 50)
    assert (b.streams, b.steps_per_epoch) == (3, 1)
    (chunk,) = b.chunks(0)
    assert chunk.targets.tolist() == [[10, 11, EOS_ID]]
    assert chunk.inputs.tolist() == [[10**6, 10, 11]]


@pytest.mark.parametrize("arguments", [(0, 3, 3), (9, 0, 3), (9, 3, 0)])
def test_impossible_sizes(arguments: tuple[int, int, int]) -> None:
    size, n, t = arguments
    tokens = numbered([9])[:size]
    with pytest.raises(ValueError, match="no tokens, no streams"):
        make(tokens, True, n, t)
    with pytest.raises(ValueError, match="no tokens, no streams"):
        list(evaluation_chunks(tokens, V, n, t, 0))


@settings(deadline=None)
@given(lengths=lengths_of_sequences, n=sizes, t=sizes, warmup=st.integers(0, 20))
def test_evaluation(lengths: list[int], n: int, t: int, warmup: int) -> None:
    tokens = numbered(lengths)
    chunks = list(evaluation_chunks(tokens, 10**6, n, t, warmup))
    streams = min(n, tokens.size)
    for chunk in chunks:
        assert chunk.inputs.shape[1] == streams
        assert chunk.predicted == (chunk.targets >= 0).sum()
    targets = np.concatenate([chunk.targets.ravel() for chunk in chunks])
    assert sorted(targets[targets >= 0].tolist()) == sorted(tokens.tolist())
    place = 0
    for inputs, column in columns(chunks):
        warm = next(i for i, target in enumerate(column) if target >= 0)
        piece = [target for target in column if target >= 0]
        assert piece == tokens[place : place + len(piece)].tolist()
        # Warm from the sequence's start or for the whole warm-up, whichever is less.
        border = max((i + 1 for i in range(place) if tokens[i] == EOS_ID), default=0)
        assert warm == min(warmup, place - border)
        read = np.concatenate([[EOS_ID], tokens])[place - warm : place + len(piece)]
        fed = np.where(read == EOS_ID, 10**6, read).tolist()
        assert inputs == fed + [10**6] * (len(inputs) - len(fed))
        place += len(piece)
    assert place == tokens.size


def labelled(lengths: list[int]) -> tuple[NDArray[np.int32], NDArray[np.int32], dict[int, int]]:
    """A numbered stream, a first input of its own for each sequence, and the token that each must come before."""
    tokens = numbered(lengths)
    first_inputs = np.arange(2 * 10**6, 2 * 10**6 + len(lengths), dtype=np.int32)
    # A sequence of nothing is its EOS, which cannot be followed: those share a target.
    firsts = tokens[np.concatenate([[0], np.flatnonzero(tokens == EOS_ID)[:-1] + 1])]
    return tokens, first_inputs, dict(zip(first_inputs.tolist(), firsts.tolist(), strict=True))


def check_first_inputs(chunks: list[Chunk], plain: list[Chunk], expected: dict[int, int]) -> None:
    """The chunks are the plain ones, but where a sequence begins: there it is its own input, once for each."""
    found = []
    for chunk, other in zip(chunks, plain, strict=True):
        assert np.array_equal(chunk.targets, other.targets)
        begins = chunk.inputs != other.inputs
        assert np.array_equal(begins, (other.inputs == 10**6) & (other.targets >= 0))
        found += list(zip(chunk.inputs[begins].tolist(), chunk.targets[begins].tolist(), strict=True))
    assert sorted(found) == sorted(expected.items())


@given(lengths=lengths_of_sequences, n=sizes, t=sizes, shuffle=st.booleans(), block=st.sampled_from([7, 20, 1 << 24]))
def test_each_sequence_begins_with_its_own_input(lengths: list[int], n: int, t: int, shuffle: bool, block: int) -> None:
    tokens, first_inputs, expected = labelled(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "SHUFFLE_BYTES", block * tokens.itemsize)
        patch.setattr(batches, "REACH_TOKENS", 3)
        b = Batches(
            tokens, vocabulary_size=10**6, streams=n, bptt=t, shuffle=shuffle, seed=0, first_inputs=first_inputs
        )
        plain = make(tokens, shuffle, n, t)
        for epoch in range(3):
            chunks = list(b.chunks(epoch))
            check_first_inputs(chunks, list(plain.chunks(epoch)), expected)
            for first in range(1, len(chunks)):
                for chunk, again in zip(chunks[first:], b.chunks(epoch, first), strict=True):
                    assert np.array_equal(chunk.inputs, again.inputs)


@given(lengths=lengths_of_sequences, n=sizes, t=sizes)
def test_each_sequence_is_evaluated_with_its_own_input(lengths: list[int], n: int, t: int) -> None:
    tokens, first_inputs, expected = labelled(lengths)
    chunks = list(evaluation_chunks(tokens, 10**6, n, t, 0, first_inputs))
    check_first_inputs(chunks, list(evaluation_chunks(tokens, 10**6, n, t, 0)), expected)


def test_first_inputs_of_a_warmed_up_stream() -> None:
    """The second stream begins within the second sequence and reads that from its start."""
    tokens = np.array([3, EOS_ID, 4, 5, 6, EOS_ID, 7, EOS_ID], dtype=np.int32)
    first_inputs = np.array([21, 22, 23], dtype=np.int32)
    (chunk,) = evaluation_chunks(tokens, 9, 2, 6, 10, first_inputs)
    assert chunk.inputs.T.tolist() == [[21, 3, 22, 4, 9, 9], [22, 4, 5, 6, 23, 7]]
    assert chunk.targets.T.tolist() == [[3, 1, 4, 5, -1, -1], [-1, -1, 6, 1, 7, 1]]


def test_a_last_sequence_without_its_end_has_its_own_input() -> None:
    tokens = np.array([3, EOS_ID, 4], dtype=np.int32)
    for shuffle in (False, True):
        b = Batches(
            tokens, vocabulary_size=9, streams=1, bptt=9, shuffle=shuffle, seed=0,
            first_inputs=np.array([21, 22], dtype=np.int32),
        )  # fmt: skip
        (chunk,) = b.chunks(0)
        assert dict(zip(chunk.targets[:, 0].tolist(), chunk.inputs[:, 0].tolist(), strict=True))[4] == 22


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_first_inputs_as_sequences(count: int) -> None:
    tokens = numbered([2, 3])
    with pytest.raises(ValueError, match="not as many first inputs as sequences"):
        list(evaluation_chunks(tokens, 10**6, 1, 9, 0, np.full(count, 10**6, dtype=np.int32)))


@settings(deadline=None)
@given(lengths=lengths_of_sequences, n=sizes, t=sizes, shuffle=st.booleans(), stretch=st.integers(1, 60))
def test_how_much_is_copied_at_a_time_does_not_show(
    lengths: list[int], n: int, t: int, shuffle: bool, stretch: int
) -> None:
    tokens = numbered(lengths)

    def all_chunks() -> list[Chunk]:
        return [*make(tokens, shuffle, n, t).chunks(1, 1), *evaluation_chunks(tokens, 10**6, n, t, 5)]

    expected = all_chunks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "STRETCH_TOKENS", stretch)
        for chunk, other in zip(all_chunks(), expected, strict=True):
            assert np.array_equal(chunk.inputs, other.inputs)
            assert np.array_equal(chunk.targets, other.targets)


def test_mapped_corpora_leave_memory(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = stream([11] * 400)
    mapped = np.memmap(f"{tmp_path}/ids", dtype=np.uint8, mode="w+", shape=tokens.shape)
    mapped[:] = tokens
    released = []
    monkeypatch.setattr(batches, "STRETCH_TOKENS", 1000)
    monkeypatch.setattr(batches, "release_pages", released.append)
    for shuffle in (False, True):
        for chunk, expected in zip(make(mapped, shuffle).chunks(0), make(tokens, shuffle).chunks(0), strict=True):
            assert np.array_equal(chunk.targets, expected.targets)
            assert np.array_equal(chunk.inputs, expected.inputs)
    assert len(released) > 4
