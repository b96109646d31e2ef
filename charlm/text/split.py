"""Which part of a corpus is held out for validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from charlm.errors import InputError, UsageError
from charlm.text.spool import Ids
from charlm.text.vocabulary import EOS_ID

Parts = Iterator[tuple[Ids, Ids]]  # (training, validation), each in the order of the stream


def exact_fraction(fraction: float) -> Fraction:
    """The fraction as it was written: 0.1 is one tenth, which the float is not.

    Raises:
        UsageError: neither 0 nor between a millionth and a millionth less than 1.
    """
    if fraction and not 1e-6 <= fraction <= 1 - 1e-6:
        raise UsageError(f"--valid-frac {fraction}: give 0, or a number between 0 and 1 such as 0.1")
    # A denominator of this size keeps the products below in 64 bits.
    return Fraction(repr(float(fraction))).limit_denominator(10**6)


def held_evenly(first: int, count: int, fraction: Fraction) -> NDArray[np.bool_]:
    """Whether each of ``count`` sequences from number ``first`` on is held out: every so manieth, as lists are sorted.

    Sequence i is held out if floor((i + 1) f) > floor(i f).
    """
    number = np.arange(first, first + count + 1)
    return np.diff(number * fraction.numerator // fraction.denominator) > 0


def held_stratified(label_ids: NDArray[np.int32], fraction: Fraction, seed: int) -> NDArray[np.bool_]:
    """Whether each of the sequences with these labels is held out: of every label about the same share, at random.

    Of n sequences of a label floor(n f + 1/2) are held out, but at least one stays: a label that occurs once is learnt
    from, and a rare one may be missing from what is held out. Where all labels are rare, so that this is less than half
    of what was asked for, sequences of any label make up for it.

    Args:
        label_ids: (n,), not negative.
        fraction: 0 to below 1.
        seed: not negative; with the labels it decides which ones.
    """
    held = np.zeros(label_ids.size, dtype=np.bool_)
    for label in np.unique(label_ids).tolist():
        places = np.flatnonzero(label_ids == label)
        count = (2 * places.size * fraction.numerator + fraction.denominator) // (2 * fraction.denominator)
        order = np.random.default_rng([seed, label]).permutation(places.size)
        held[places[order[: min(count, places.size - 1)]]] = True
    wanted = label_ids.size * fraction.numerator // fraction.denominator
    missing = wanted - int(held.sum())
    if 2 * missing > wanted:
        order = np.random.default_rng(seed).permutation(np.flatnonzero(~held))
        stays = np.unique(label_ids[order], return_index=True)[1]  # one of each label
        held[np.delete(order, stays)[:missing]] = True
    return held


def split_evenly(blocks: Iterator[Ids], fraction: Fraction) -> Parts:
    """Hold out sequences as ``held_evenly`` says."""
    return _split_sequences(blocks, partial(held_evenly, fraction=fraction))


def split_marked(blocks: Iterator[Ids], held: NDArray[np.bool_]) -> Parts:
    """Hold out the sequences that are marked, (sequences,)."""
    marks = np.append(held, False)  # what follows the last EOS, which is nothing
    return _split_sequences(blocks, lambda first, count: marks[first : first + count])


def _split_sequences(blocks: Iterator[Ids], held: Callable[[int, int], NDArray[np.bool_]]) -> Parts:
    """Divide a stream sequence by sequence; ``held`` tells which of so many from a number on are held out."""
    first = 0
    for block in blocks:
        ends = np.flatnonzero(block == EOS_ID) + 1
        lengths = np.diff(ends, prepend=0, append=block.size)
        is_held = np.repeat(held(first, lengths.size), lengths)
        first += ends.size  # the last one here, perhaps empty, goes on in the next block
        yield block[~is_held], block[is_held]


def split_tail(blocks: Iterator[Ids], train_tokens: int) -> Parts:
    """Hold out all that follows the first ``train_tokens`` tokens, ends of sequences not counted.

    The end of a sequence belongs to the part that holds its last token.
    """
    before = 0
    for block in blocks:
        count = np.cumsum(block != EOS_ID)
        cut = int(np.searchsorted(count, train_tokens - before + 1)) if before <= train_tokens else 0
        before += int(count[-1])
        yield block[:cut], block[cut:]


def tail_train_tokens(tokens: int, fraction: Fraction) -> int:
    """How many of a text's tokens train: floor(n (1 - f)).

    Raises:
        InputError: one of the two parts would be empty.
    """
    train = tokens * (fraction.denominator - fraction.numerator) // fraction.denominator
    if train == 0 or train == tokens:
        raise InputError(f"a text of {tokens} tokens is too short to hold out {float(fraction):g} of it")
    return train
