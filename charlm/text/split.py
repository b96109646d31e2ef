"""Which part of a corpus is held out for validation."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

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


def split_sequences(blocks: Iterator[Ids], fraction: Fraction) -> Parts:
    """Hold out every so manieth sequence, because lists are often sorted.

    Sequence i is held out if floor((i + 1) f) > floor(i f).
    """
    first = 0
    for block in blocks:
        ends = np.flatnonzero(block == EOS_ID) + 1
        lengths = np.diff(ends, prepend=0, append=block.size)
        number = np.arange(first, first + lengths.size + 1)
        is_held = np.diff(number * fraction.numerator // fraction.denominator) > 0
        first += ends.size  # the last one here, perhaps empty, goes on in the next block
        held = np.repeat(is_held, lengths)
        yield block[~held], block[held]


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
