"""Lines too long to be tokenized at once: they are set apart, and cut into pieces that are scored one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charlm.text.pieces import pieces
from charlm.text.tokenizer import Tokenizer

LONG_LINE = 1 << 20  # characters; the tokens of a shorter one are in memory together


@dataclass(frozen=True)
class LongLine:
    """A line of more than ``LONG_LINE`` characters, and its number, from 1."""

    text: str
    number: int

    def pieces(self, tokenizer: Tokenizer) -> Iterator[tuple[str, bool]]:
        """The cleaned line in pieces, none of which cuts a token, and whether each is the last."""
        cleaned = tokenizer.clean(self.text)
        done = 0
        for piece in pieces(cleaned, whole_words=tokenizer.level == "word"):
            done += len(piece)
            yield piece, done == len(cleaned)


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
