"""Readers of labelled texts, pairs of texts, and CoNLL columns: one example after another, each with its line.

A stream, not a list: an example from a pipe is given as soon as it has come. Inputs as for ``readers``. Blank lines
(nothing, or white space alone) hold no example; they count as lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from charlm.errors import InputError
from charlm.text.labels import LONGEST_LABEL
from charlm.text.normal_form import normalize
from charlm.text.readers import display_name, read_lines

TAB = "\t"
DOCUMENT_START = "-DOCSTART-"
LAST = 0  # the number of the last column

Observe = Callable[[bytes], object]


@dataclass(frozen=True)
class LabelledText:
    """A line ``label<TAB>text``.

    Attributes:
        line: its number, from 1.
        label: what stands before the first tab, without blanks around it, in NFC.
        text: all that follows that tab; may be empty.
    """

    line: int
    label: str
    text: str


@dataclass(frozen=True)
class Pair:
    """A line ``source<TAB>target``; either side may be empty, not both. ``line`` from 1."""

    line: int
    source: str
    target: str


@dataclass(frozen=True)
class Sentence:
    """The rows between two blank lines, or of a document's start, in a file of columns.

    Attributes:
        line: of the first token, from 1; the others follow line by line.
        tokens: at least one.
        tags: as many; none if no tags were asked for.
        rows: the lines as they stand in the file.
    """

    line: int
    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    rows: tuple[str, ...] = field(default=(), compare=False)


def read_labelled(path: str, *, observe: Observe | None = None) -> Iterator[LabelledText]:
    """The examples of a file of ``label<TAB>text`` lines.

    Args:
        path: a file's path, ``-`` for standard input; a name that ends in ``.gz`` is unpacked.
        observe: called with all bytes, unpacked, in order.

    Raises:
        InputError: a line has no tab or no label, or the file is at fault; the examples before have been given.
    """
    name = display_name(path)
    for number, line in _filled_lines(path, observe):
        yield LabelledText(number, *split_label(line, name, number))


def split_label(line: str, name: str, number: int) -> tuple[str, str]:
    """The label and the text of a line that is not blank.

    A text may hold tabs of its own (a line of code, say), so only the first one separates.

    Args:
        line: without its end.
        name: what a message calls the file.
        number: the line's, from 1.

    Raises:
        InputError: no tab, or no label before it, or one that is far too long.
    """
    label, tab, text = line.partition(TAB)
    if not tab:
        raise InputError(f"{name}: line {number} has no tab; write label<TAB>text")
    label = normalize("NFC", label.strip())
    if not label:
        raise InputError(f"{name}: line {number} has no label before its tab; write label<TAB>text")
    if len(label) > LONGEST_LABEL:
        size = f"{len(label):,} characters before its tab, a label has {LONGEST_LABEL:,} at the most"
        raise InputError(f"{name}: line {number} has {size}; write label<TAB>text")
    return label, text


def read_pairs(path: str, *, observe: Observe | None = None) -> Iterator[Pair]:
    """The examples of a file of ``source<TAB>target`` lines.

    Args:
        path: a file's path, ``-`` for standard input; a name that ends in ``.gz`` is unpacked.
        observe: called with all bytes, unpacked, in order.

    Raises:
        InputError: a line has not exactly one tab, or the file is at fault; the examples before have been given.
    """
    name = display_name(path)
    for number, line in _filled_lines(path, observe):
        fields = line.split(TAB)
        if len(fields) != 2:
            tabs = f"{len(fields) - 1} tabs" if len(fields) > 1 else "no tab"
            raise InputError(f"{name}: line {number} has {tabs}; write source<TAB>target")
        yield Pair(number, *fields)


def read_sentences(
    path: str,
    *,
    token_column: int = 1,
    tag_column: int | None = LAST,
    observe: Observe | None = None,
    on_line: Callable[[int], object] = lambda number: None,
) -> Iterator[Sentence]:
    """The sentences of a file of CoNLL columns: a token a line, a blank line after each sentence.

    A line that holds a tab is split at each tab, any other at each run of blanks. All have as many columns as the
    first. A line that begins with ``-DOCSTART-`` holds no token; it ends a sentence.

    Args:
        path: a file's path, ``-`` for standard input; a name that ends in ``.gz`` is unpacked.
        token_column: its number, from 1; ``LAST`` (0) for the last.
        tag_column: likewise; None to read tokens alone.
        observe: called with all bytes, unpacked, in order.
        on_line: called with the number of each line, blank or not, when it is read.

    Raises:
        InputError: a line has another number of columns than the first or lacks the token or the tag, or the file
            is at fault; the sentences before have been given.
    """
    columns = _Columns(display_name(path), token_column, tag_column)
    tokens: list[str] = []
    tags: list[str] = []
    rows: list[str] = []
    first = 0

    def sentence() -> Sentence:
        return Sentence(first, tuple(tokens), tuple(tags), tuple(rows))

    for number, line in enumerate(read_lines(path, observe=observe), start=1):
        on_line(number)
        if line.strip() and not line.startswith(DOCUMENT_START):
            token, tag = columns.split(line, number)
            first = first if tokens else number
            tokens.append(token)
            rows.append(line)
            if tag_column is not None:
                tags.append(tag)
        elif tokens:
            yield sentence()
            tokens, tags, rows = [], [], []
    if tokens:
        yield sentence()


class _Columns:
    """Finds token and tag in the rows of one file."""

    def __init__(self, name: str, token_column: int, tag_column: int | None) -> None:
        self._name, self._token, self._tag = name, token_column, tag_column
        self._count = self._first = 0

    def split(self, line: str, number: int) -> tuple[str, str]:
        """A row's token, and its tag or nothing."""
        fields = [field.strip(" ") for field in line.split(TAB)] if TAB in line else re.findall("[^ ]+", line)
        if not self._count:
            self._begin(len(fields), number)
        if len(fields) != self._count:
            count = f"{len(fields)} column" + "s" * (len(fields) != 1)
            raise InputError(
                f"{self._name}: line {number} has {count}, but line {self._first} has {self._count}; every token "
                "needs as many, and each sentence a blank line after it"
            )
        token = fields[self._token - 1]
        tag = "" if self._tag is None else fields[self._tag - 1]
        if not token:
            raise InputError(f"{self._name}: line {number} has a tag without a token; write the token before it")
        if not tag and self._tag is not None:
            raise InputError(f"{self._name}: line {number} has a token without a tag; write O for none")
        if len(tag) > LONGEST_LABEL:
            size = f"a tag of {len(tag):,} characters, {LONGEST_LABEL:,} are allowed"
            raise InputError(f"{self._name}: line {number} has {size}; choose another column")
        return token, tag

    def _begin(self, count: int, number: int) -> None:
        """The file's first row says how many columns there are."""
        wanted = [self._token] if self._tag is None else [self._token, self._tag]
        if max(wanted) > count:
            columns = "only one column" if count == 1 else f"only {count} columns"
            raise InputError(f"{self._name}: line {number} has {columns}, so no column {max(wanted)}; choose another")
        if len({(column - 1) % count for column in wanted}) < len(wanted):
            raise InputError(
                f"{self._name}: line {number} has its token and its tag both in column {wanted[0] or count}; "
                "give a file of token and tag, or choose two columns"
            )
        self._count, self._first = count, number


def _filled_lines(path: str, observe: Observe | None) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number."""
    lines = read_lines(path, observe=observe)
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
