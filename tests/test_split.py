import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text.split import exact_fraction, held_evenly, held_stratified, split_evenly, split_marked
from charlm.text.vocabulary import EOS_ID

fractions = st.floats(0.01, 0.99)


@given(ids=st.lists(st.integers(0, 5), max_size=80), fraction=fractions, seed=st.integers(0, 3))
def test_of_each_label_the_same_share_is_held_out(ids: list[int], fraction: float, seed: int) -> None:
    label_ids = np.array(ids, dtype=np.int32)
    f = exact_fraction(fraction)
    held = held_stratified(label_ids, f, seed)
    assert held.dtype == np.bool_
    assert held.shape == label_ids.shape
    counts = {label: ids.count(label) for label in set(ids)}
    shares = {label: min(int(count * f + exact_fraction(0.5)), count - 1) for label, count in counts.items()}
    wanted = int(len(ids) * f)
    if 2 * sum(shares.values()) < wanted:  # of labels that are all rare, any make up for it, but never the last
        assert held.sum() == min(wanted, len(ids) - len(counts))
        assert all(held[label_ids == label].sum() < count for label, count in counts.items())
        return
    for label, share in shares.items():
        assert held[label_ids == label].sum() == share
    assert np.array_equal(held, held_stratified(label_ids, f, seed))


def test_labels_that_occur_once_stay_in_training() -> None:
    held = held_stratified(np.array([0, 1, 2, 2], dtype=np.int32), exact_fraction(0.9), 0)
    assert held.tolist()[:2] == [False, False]
    assert held.sum() == 1


def test_a_half_rounds_up_and_less_is_nothing() -> None:
    label_ids = np.repeat(np.array([0, 1], dtype=np.int32), [5, 4])
    held = held_stratified(label_ids, exact_fraction(0.1), 0)
    assert held[:5].sum() == 1
    assert held[5:].sum() == 0


def test_seeds_differ_and_labels_do_not_move_each_other() -> None:
    label_ids = np.zeros(100, dtype=np.int32)
    first, second = (held_stratified(label_ids, exact_fraction(0.3), seed) for seed in (0, 1))
    assert first.sum() == second.sum() == 30
    assert not np.array_equal(first, second)
    both = held_stratified(np.append(label_ids, np.ones(50, dtype=np.int32)), exact_fraction(0.3), 0)
    assert np.array_equal(both[:100], first)


def test_what_is_held_out_is_random() -> None:
    """Over 3,000 seeds each of ten is held out 900 times; a standard deviation is sqrt(3000 * 0.3 * 0.7) = 25."""
    label_ids = np.zeros(10, dtype=np.int32)
    counts = sum(held_stratified(label_ids, exact_fraction(0.3), seed).astype(int) for seed in range(3000))
    assert np.abs(np.asarray(counts) - 900).max() < 125


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_marked_sequences_are_taken_out_of_any_blocks(block: int) -> None:
    ids = np.array([2, 3, EOS_ID, EOS_ID, 4, EOS_ID, 5, 6, EOS_ID])
    held = np.array([False, True, True, False])
    blocks = (ids[i : i + block] for i in range(0, ids.size, block))
    train, valid = (np.concatenate(part).tolist() for part in zip(*split_marked(blocks, held), strict=True))
    assert train == [2, 3, EOS_ID, 5, 6, EOS_ID]
    assert valid == [EOS_ID, 4, EOS_ID]


@given(lengths=st.lists(st.integers(0, 4), min_size=1), block=st.integers(1, 9), fraction=fractions)
def test_evenly_is_a_kind_of_marking(lengths: list[int], block: int, fraction: float) -> None:
    ids = np.concatenate([np.append(np.full(length, 2 + i), EOS_ID) for i, length in enumerate(lengths)])
    held = held_evenly(0, len(lengths), exact_fraction(fraction))
    results = []
    for split in (lambda b: split_evenly(b, exact_fraction(fraction)), lambda b: split_marked(b, held)):
        parts = split(ids[i : i + block] for i in range(0, ids.size, block))
        results.append([np.concatenate(part).tolist() for part in zip(*parts, strict=True)])
    assert results[0] == results[1]
