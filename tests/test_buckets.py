import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from charlm.errors import InputError
from charlm.text.buckets import LONGEST_SEQUENCE, SPREAD, SPREAD_UNFILLED, Buckets, Rows
from charlm.text.vocabulary import EOS_ID

FILL = 99
some_lengths = st.lists(st.one_of(st.integers(0, 12), st.integers(0, 300)), min_size=1, max_size=80)
sizes = st.integers(1, 12)


def array(lengths: list[int]) -> NDArray[np.int64]:
    return np.array(lengths, dtype=np.int64)


def rows(lengths: list[int]) -> Rows:
    """Sequences of these lengths, every id another."""
    ends = np.cumsum(array(lengths))
    return Rows(np.arange(1000, 1000 + ends[-1], dtype=np.int32), ends)


def cells(lengths: NDArray[np.int64], batch: NDArray[np.int64]) -> int:
    return int(lengths[batch].max()) * batch.size


def test_rows_of_a_stream() -> None:
    stream = np.array([5, 6, EOS_ID, EOS_ID, 7, EOS_ID], dtype=np.uint8)
    sequences = Rows.of_stream(stream)
    assert sequences.lengths.tolist() == [3, 1, 2]
    assert sequences.padded(array([1, 0]), FILL).T.tolist() == [[EOS_ID, FILL, FILL], [5, 6, EOS_ID]]
    assert sequences.padded(array([2, 0]), FILL, backward=True).T.tolist() == [[EOS_ID, 7, FILL], [EOS_ID, 6, 5]]
    assert sequences.padded(array([1]), FILL).dtype == np.int32
    assert Rows.of_stream(stream[:-1]).lengths.tolist() == [3, 1, 1]
    assert Rows.of_stream(stream[:0]).lengths.tolist() == []


def test_rows_of_nothing() -> None:
    sequences = Rows.of_sequences([np.zeros(0, dtype=np.int32)] * 2)
    assert sequences.lengths.tolist() == [0, 0]
    assert sequences.padded(array([0, 1]), FILL).shape == (0, 2)
    assert sequences.padded(array([]), FILL).shape == (0, 0)
    assert Rows.of_sequences([]).lengths.tolist() == []


@given(lengths=some_lengths, backward=st.booleans(), at_end=st.booleans(), data=st.data())
def test_each_row_is_its_sequence_and_fill(
    lengths: list[int], backward: bool, at_end: bool, data: st.DataObject
) -> None:
    singles = [np.arange(7 * n, 7 * n + length, dtype=np.int32) for n, length in enumerate(lengths)]
    numbers = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
    padded = Rows.of_sequences(singles).padded(array(numbers), FILL, backward=backward, at_end=at_end)
    longest = max(lengths[number] for number in numbers)
    assert padded.shape == (longest, len(numbers))
    for row, number in zip(padded.T.tolist(), numbers, strict=True):
        expected = singles[number].tolist()
        expected = expected[::-1] if backward else expected
        rest = [FILL] * (longest - lengths[number])
        assert row == (rest + expected if at_end else expected + rest)


@given(lengths=some_lengths, batch_size=sizes, most_cells=st.integers(1, 400), epoch=st.integers(0, 3))
def test_each_sequence_is_in_one_batch(lengths: list[int], batch_size: int, most_cells: int, epoch: int) -> None:
    of = array(lengths)
    buckets = Buckets(of, batch_size=batch_size, most_cells=most_cells)
    for batches in (list(buckets.batches(epoch)), list(buckets.once())):
        assert len(batches) == buckets.steps_per_epoch
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        for batch in batches:
            assert 1 <= batch.size <= batch_size
            assert batch.size == 1 or cells(of, batch) <= most_cells
            assert of[batch].max() - of[batch].min() <= of[batch].max() - of[batch].max() // SPREAD_UNFILLED


@given(lengths=some_lengths, batch_size=sizes, epoch=st.integers(0, 3))
def test_resuming_gives_the_same_batches(lengths: list[int], batch_size: int, epoch: int) -> None:
    whole = [batch.tolist() for batch in Buckets(array(lengths), batch_size=batch_size, seed=5).batches(epoch)]
    for first in range(len(whole) + 2):
        again = Buckets(array(lengths), batch_size=batch_size, seed=5).batches(epoch, first)
        assert [batch.tolist() for batch in again] == whole[first:]


@given(lengths=some_lengths, batch_size=sizes, epoch=st.integers(0, 3))
def test_no_result_depends_on_the_batch(lengths: list[int], batch_size: int, epoch: int) -> None:
    """A recurrence over padded batches, which stops at each row's end, gives what each sequence alone gives."""
    sequences = rows(lengths)

    def last_states(ids: NDArray[np.int32]) -> list[int]:
        states = [0] * ids.shape[1]
        for step in ids:
            states = [s if i == FILL else (31 * s + int(i)) % 10007 for s, i in zip(states, step, strict=True)]
        return states

    singles = [last_states(sequences.padded(array([number]), FILL))[0] for number in range(len(lengths))]
    found: dict[int, int] = {}
    for batch in Buckets(sequences.lengths, batch_size=batch_size).batches(epoch):
        found |= dict(zip(batch.tolist(), last_states(sequences.padded(batch, FILL)), strict=True))
    assert [found[number] for number in range(len(lengths))] == singles


def test_little_padding() -> None:
    """Names and sentences: 4,000 lengths of a wide distribution, batches of 32."""
    lengths = np.random.default_rng(0).geometric(0.05, 4000).astype(np.int64)
    for batches in (list(Buckets(lengths, batch_size=32).batches(0)), list(Buckets(lengths, batch_size=32).once())):
        padded = sum(cells(lengths, batch) for batch in batches)
        assert 1 - lengths.sum() / padded < 1 / SPREAD / 2 + 0.01
        assert len(batches) <= 4000 / 32 * 1.15


def test_far_apart_lengths_do_not_share_a_batch() -> None:
    batches = list(Buckets(array([5000, 9, 9, 9, 10]), batch_size=32).once())
    assert [batch.tolist() for batch in batches] == [[0], [4, 1, 2, 3]]


def test_batches_of_a_bucket_are_of_one_size() -> None:
    assert [batch.size for batch in Buckets(array([7] * 33), batch_size=32).once()] == [17, 16]


def test_a_long_sequence_is_alone() -> None:
    sizes = [batch.size for batch in Buckets(array([600] * 8), batch_size=8, most_cells=1200).once()]
    assert sizes == [2, 2, 2, 2]
    assert [b.size for b in Buckets(array([5000] * 3), batch_size=8, most_cells=1200).once()] == [1, 1, 1]


def test_epochs_and_seeds_differ() -> None:
    lengths = array([5] * 50 + [9] * 50)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in Buckets(lengths, batch_size=8, seed=seed).batches(epoch)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    # Not only in another order, but dealt anew.
    assert {tuple(sorted(batch)) for batch in order(1, 0)} != {tuple(sorted(batch)) for batch in order(1, 1)}
    longest = [max(lengths[batch]) for batch in order(1, 0)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_companions_are_random() -> None:
    """Eight of one length in batches of four: over 4,000 epochs each is with the first in 3/7 of them."""
    buckets = Buckets(array([5] * 8), batch_size=4)
    counts = np.zeros(8)
    for epoch in range(4000):
        (companions,) = [batch for batch in buckets.batches(epoch) if 0 in batch]
        counts[companions] += 1
    assert counts[0] == 4000
    expected = 4000 * 3 / 7
    assert np.abs(counts[1:] - expected).max() < 5 * (expected * 4 / 7) ** 0.5


@pytest.mark.parametrize("arguments", [([], 3, 9), ([1], 0, 9), ([1], 3, 0)])
def test_impossible_sizes(arguments: tuple[list[int], int, int]) -> None:
    lengths, batch_size, most_cells = arguments
    with pytest.raises(ValueError, match="no sequences, or batches of none"):
        Buckets(array(lengths), batch_size=batch_size, most_cells=most_cells)


def test_what_is_too_long_to_be_read_as_a_whole() -> None:
    assert Buckets(array([3, LONGEST_SEQUENCE]), batch_size=4).steps_per_epoch == 2
    with pytest.raises(
        InputError, match=r"^a text of 262,145 tokens: at most 262,144 can be read as a whole; cut it into pieces"
    ):
        Buckets(array([3, LONGEST_SEQUENCE + 1]), batch_size=4)
