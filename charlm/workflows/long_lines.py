"""Lines too long to be tokenized at once: they are set apart, and cut into pieces that are scored one after another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charlm.text.tokenizer import Tokenizer

LONG_LINE = 1 << 20  # characters; the tokens of a shorter one are in memory together
PIECE = 1 << 18  # characters, about


@dataclass(frozen=True)
class LongLine:
    """A line of more than ``LONG_LINE`` characters, and its number, from 1."""

    text: str
    number: int

    def pieces(self, tokenizer: Tokenizer) -> Iterator[tuple[str, bool]]:
        """The cleaned line in pieces, none of which cuts a token, and whether each is the last."""
        cleaned = tokenizer.clean(self.text)
        space = re.compile(r"\s")
        begin = 0
        while begin < len(cleaned):
            end = min(begin + PIECE, len(cleaned))
            if tokenizer.level == "word":
                found = space.search(cleaned, end)
                end = found.start() if found else len(cleaned)
            yield cleaned[begin:end], end == len(cleaned)
            begin = end


def is_long(line: str) -> bool:
    """Whether a line is to be a `LongLine`."""
    return len(line) > LONG_LINE


def long_ones_apart(lines: Sequence[str]) -> Iterator[list[str]]:
    """Lines in lists in their order, each long one alone in a list."""
    first = 0
    for number, line in enumerate(lines):
        if is_long(line):
            if first < number:
                yield list(lines[first:number])
            yield [line]
            first = number + 1
    if first < len(lines):
        yield list(lines[first:])
