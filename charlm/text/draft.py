"""Reads texts once, into ids in order of first sight, each sequence closed by EOS.

The vocabulary, which must be known to give tokens their final ids, may come from a part of the text alone. So the
text is read, cleaned, cut into sequences and numbered provisionally in one pass (standard input and gzip offer no
second one); counting, splitting and renumbering then work on the spooled ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import InputError, UsageError
from charlm.text.inputs import Inputs, OfInputs, Witness
from charlm.text.label_column import LabelColumn
from charlm.text.pieces import pieces, take
from charlm.text.readers import STDIN, display_name, read_blocks
from charlm.text.spool import Ids, Spool
from charlm.text.tokenizer import NEWLINE, Tokenizer
from charlm.text.vocabulary import CODE_POINTS, EOS, EOS_ID, UNK, code_points
from charlm.wording import counted

NEWLINE_ID = 2
FIRST_SYMBOLS = (UNK, EOS, NEWLINE)

# No text of words holds a NUL (the reader refuses it), so it can stand for the newline, which str.split would drop.
NEWLINE_MARK = "\0"


@dataclass(frozen=True)
class Draft(OfInputs):
    """A text as provisional ids.

    Attributes:
        blocks: gives the stream of ids in blocks, each time anew.
        symbols: each id's token; 1 is EOS.
        tokens: how many, ends of sequences not counted.
        tokenizer: what the tokens are.
        blank_lines: how many were skipped.
        inputs: what was read.
        labels: the label of each sequence, if the texts have them.
    """

    blocks: Callable[[], Iterator[Ids]]
    symbols: list[str]
    tokens: int
    tokenizer: Tokenizer
    blank_lines: int
    inputs: Inputs
    labels: LabelColumn | None = None


def draft_texts(
    paths: Sequence[str],
    tokenizer: Tokenizer,
    on_bytes: Callable[[int], object] | None = None,
    *,
    labelled: bool = False,
    any_level: bool = True,
) -> Draft:
    """Read texts. In ``symbols`` the word ``<unk>`` of a text is a token like any other.

    Args:
        paths: files, ``-`` for standard input; one that ends in ``.gz`` is unpacked.
        tokenizer: how to cut them.
        on_bytes: called with the number of bytes (unpacked) that were read since the last call.
        labelled: the lines are ``label<TAB>text``; a text of nothing is a sequence too.
        any_level: whether ``--level byte`` is a way out of what is not UTF-8.

    Raises:
        InputError: an input is missing, unreadable, not a text, empty, has nothing but blank lines, or lines without a
            label although they should have one.
        UsageError: standard input is named twice, or labels are asked of sequences that are not lines of characters
            or words.
    """
    if labelled and (tokenizer.sequence != "line" or tokenizer.level == "byte"):
        raise UsageError(
            "label<TAB>text is one sequence a line, of characters or words; leave out --sequence, --level byte"
        )
    if list(paths).count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once; name it once")
    numbering: _Numbering = _Words() if tokenizer.level == "word" else _Characters(tokenizer.is_space)
    labels = LabelColumn() if labelled else None
    witness = Witness()
    spool = Spool()
    tokens = 0
    blank_lines = 0

    def observe(raw: bytes) -> None:
        witness.read(raw)
        if on_bytes is not None:
            on_bytes(len(raw))

    for path in paths:
        cutter = _Cutter(tokenizer.sequence, numbering, keeps_blank=labelled)
        for ids in _stream(path, tokenizer, numbering, cutter, observe, labels, any_level and not labelled):
            spool.append(ids, len(numbering.symbols))
            tokens += int(np.count_nonzero(ids != EOS_ID))
        witness.end(path)
        blank_lines += cutter.blank_lines
    if labels is not None:
        blank_lines = labels.blank_lines
    return Draft(spool.blocks, numbering.symbols, tokens, tokenizer, blank_lines, witness.inputs, labels)


def _stream(
    path: str,
    tokenizer: Tokenizer,
    numbering: _Numbering,
    cutter: _Cutter,
    observe: Callable[[bytes], object],
    labels: LabelColumn | None,
    any_level: bool,
) -> Iterator[NDArray[np.int32]]:
    """The ids of one input in blocks, with EOS."""
    by_line = tokenizer.sequence != "file"
    text = ""
    if labels is not None:
        labels.begin(display_name(path))
    blocks = read_blocks(path, encoding=tokenizer.encoding, whole_lines=by_line, observe=observe, any_level=any_level)
    for text in blocks:
        # Every block but the last ends so already.
        whole = text if not by_line or text.endswith(NEWLINE) else text + NEWLINE
        if labels is not None:
            whole = labels.take(whole)
        if whole:
            yield cutter.add(numbering.ids(tokenizer.clean(whole)))
    if not text:
        raise InputError(f"{display_name(path)}: empty; there is nothing to read")
    is_any_file = tokenizer.level == "byte" and not by_line  # of which no byte may be lost, blank or not
    if cutter.all_blank and labels is not None and labels.lines:
        what = f"{counted(labels.lines, 'line')} with a label and no text after the tab"
        raise InputError(f"{display_name(path)}: {what}; write label<TAB>text")
    if cutter.all_blank and not is_any_file:
        raise InputError(f"{display_name(path)}: nothing but blank lines; there is nothing to read")
    yield cutter.finish()


class _Characters:
    """Numbers code points (or bytes, held as such)."""

    def __init__(self, is_space: Callable[[str], bool]) -> None:
        self.symbols = list(FIRST_SYMBOLS)
        self._is_space = is_space
        self._visible = np.array([True, False, False])
        self._table: NDArray[np.int32] = np.zeros(CODE_POINTS, dtype=np.int32)  # 0: not seen yet
        self._table[ord(NEWLINE)] = NEWLINE_ID

    def ids(self, text: str) -> NDArray[np.int32]:
        """Each character's id, (len(text),)."""
        codes = code_points(text)
        ids = take(self._table, codes)
        unseen = ids == 0
        if unseen.any():
            found = [chr(code) for code in np.unique(codes[unseen])]
            for character in found:
                self._table[ord(character)] = len(self.symbols)
                self.symbols.append(character)
            self._visible = np.append(self._visible, [not self._is_space(character) for character in found])
            del ids, unseen
            ids = take(self._table, codes)
        return ids

    def visible(self, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each id is more than white space."""
        visible: NDArray[np.bool_] = take(self._visible, ids)
        return visible


class _Words:
    """Numbers what whitespace separates, and newlines."""

    def __init__(self) -> None:
        self.symbols = list(FIRST_SYMBOLS)
        self._index = _Index(self.symbols)
        self._index[NEWLINE_MARK] = NEWLINE_ID

    def ids(self, text: str) -> NDArray[np.int32]:
        """Each word's and newline's id, 1-D."""
        parts = [self._ids(piece) for piece in pieces(text, whole_words=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _ids(self, text: str) -> NDArray[np.int32]:
        words = text.replace(NEWLINE, f" {NEWLINE_MARK} ").split()
        return np.fromiter(map(self._index.__getitem__, words), dtype=np.int32, count=len(words))

    def visible(self, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each id is a word."""
        visible: NDArray[np.bool_] = ids != NEWLINE_ID
        return visible


class _Index(dict[str, int]):
    """Word to id; a word that is looked up for the first time is numbered and listed."""

    def __init__(self, symbols: list[str]) -> None:
        super().__init__()
        self._symbols = symbols

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self._symbols)
        self._symbols.append(word)
        return number


_Numbering = _Characters | _Words


class _Cutter:
    """Puts EOS where the sequences of one input end, and drops blank lines that only separate.

    Args:
        sequence: what a sequence is; see ``Tokenizer``.
        numbering: knows what its ids are.
        keeps_blank: a blank line is a sequence too.

    Attributes:
        all_blank: nothing but white space was added so far.
        blank_lines: how many lines were dropped.
    """

    def __init__(self, sequence: str, numbering: _Numbering, *, keeps_blank: bool) -> None:
        self._sequence = sequence
        self._numbering = numbering
        self._keeps_blank = keeps_blank
        self._is_open = False  # a paragraph whose last line's end is not out yet: newline or EOS?
        self.all_blank = True
        self.blank_lines = 0

    def add(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """The stream's next ids, 1-D. But for files, ``ids`` are whole lines; they are overwritten."""
        if self._sequence == "file":
            if self.all_blank:
                self.all_blank = not self._numbering.visible(ids).any()
            return ids
        ends = np.flatnonzero(ids == NEWLINE_ID)
        lengths = np.diff(ends, prepend=-1)
        filled = np.logical_or.reduceat(self._numbering.visible(ids), ends - lengths + 1)
        self.all_blank = self.all_blank and not filled.any()
        self.blank_lines += int(np.count_nonzero(~filled))
        if self._sequence == "line":
            ids[ends] = EOS_ID
            return ids if self._keeps_blank or filled.all() else ids[np.repeat(filled, lengths)]

        ids[ends[:-1][filled[:-1] & ~filled[1:]]] = EOS_ID
        keep = np.repeat(filled, lengths)
        keep[-1] = False  # blank, or the end of a line of which the next block decides what it is
        head = [NEWLINE_ID if filled[0] else EOS_ID] if self._is_open else []
        self._is_open = bool(filled[-1])
        return np.concatenate([np.array(head, dtype=np.int32), ids[keep]])

    def finish(self) -> NDArray[np.int32]:
        """What closes the stream at the end of the input."""
        is_open = self._is_open or self._sequence == "file"
        return np.array([EOS_ID] if is_open else [], dtype=np.int32)
