"""What ``charlm score`` does: the log probability of each line, of each token, or of a whole text.

Each line is a sequence of its own: the model's state begins anew, so neither the other lines nor their order nor how
many are worked on at once changes a score. A window of the text at a time is in memory.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm import units
from charlm.errors import InputError
from charlm.text.readers import BYTE_ORDER_MARK, display_name, read_blocks
from charlm.text.tokenizer import NEWLINE, Tokenizer
from charlm.text.vocabulary import EOS, EOS_ID, UNK_ID, Vocabulary, code_points
from charlm.workflows.model_files import LoadedModel
from charlm.workflows.scoring_batches import Ids, Nats, OpenSequence, score_sequences
from charlm.workflows.tokenize import visible

Encoding = Literal["utf-8", "latin-1"]
Places = NDArray[np.int64]
ON_UNKNOWN = ("unk", "error", "skip")

# Of a window. More tokens than a pass takes, so that the lanes of its batches are full.
WINDOW_LINES = 4096
WINDOW_CHARACTERS = 1 << 18

UNLEARNT = (
    "the model's training text held no unknown token, so the probability of <unk> was never learnt; "
    "leave unknowns out with --on-unknown skip or --exclude-unk, or train with --min-count 2"
)


class Sentence(NamedTuple):
    """The score of a line."""

    log_prob_nats: float  # of the tokens counted
    tokens: int  # counted, EOS included; without the unknown ones where they are skipped or excluded
    unknowns: int
    text: str  # the line as it was given


class Token(NamedTuple):
    """The score of a token of a line, or of the end of it."""

    line: int  # from 1
    position: int  # of the token in its line, from 1
    symbol: str  # as it stands in the text, known or not
    log_prob_nats: float | None  # None where unknown tokens are excluded and this is one
    unknown: bool


@dataclass
class Summary:
    """What was scored in all.

    Attributes:
        sentences: sequences: lines, or as the model was trained on them.
        empty: how many of these hold nothing.
        tokens: those scored, the end of each sequence included.
        unknowns: tokens of the text that are not in the vocabulary, scored or skipped.
        characters: code points of the text, one for each line's end included; bytes at byte level.
        words: what whitespace separates.
        log_prob_nats: of all ``tokens``.
        unknown_tokens: those of the ``tokens`` that are unknown.
        unknown_log_prob_nats: of these.
    """

    sentences: int = 0
    empty: int = 0
    tokens: int = 0
    unknowns: int = 0
    characters: int = 0
    words: int = 0
    log_prob_nats: float = 0.0
    unknown_tokens: int = 0
    unknown_log_prob_nats: float = 0.0

    def nats_per(self, count: int) -> float | None:
        """The cross entropy, shared out; None if there is nothing to share it among."""
        return -self.log_prob_nats / count if count else None

    def bits_per(self, count: int) -> float | None:
        """As ``nats_per``, in bits."""
        nats = self.nats_per(count)
        return None if nats is None else units.nats_to_bits(nats)

    @property
    def perplexity(self) -> float | None:
        """Over all tokens; None if there are none."""
        nats = self.nats_per(self.tokens)
        return None if nats is None else units.perplexity(nats)

    @property
    def perplexity_excluding_unknowns(self) -> float | None:
        """Over the known tokens: the unknown ones are in neither the sum nor the count. None if there are none."""
        known = self.tokens - self.unknown_tokens
        return units.perplexity((self.unknown_log_prob_nats - self.log_prob_nats) / known) if known else None

    def to_json(self) -> dict[str, int | float | None]:
        """For a program to read."""
        return {
            "sentences": self.sentences,
            "tokens": self.tokens,
            "unknowns": self.unknowns,
            "characters": self.characters,
            "words": self.words,
            "log_prob_nats": self.log_prob_nats,
            "nats_per_token": self.nats_per(self.tokens),
            "bits_per_token": self.bits_per(self.tokens),
            "bits_per_character": self.bits_per(self.characters),
            "bits_per_word": self.bits_per(self.words),
            "perplexity": self.perplexity,
            "perplexity_excluding_unknowns": self.perplexity_excluding_unknowns,
        }


class Scorer:
    """Scores texts with a model, and keeps the account.

    Args:
        loaded: the model, its vocabulary and its tokenizer.
        on_unknown: what a token that is not in the vocabulary is: "unk", scored as ``<unk>``; "error"; or "skip",
            left out as if it were not in the text.
        exclude_unknowns: leave what ``<unk>`` costs out of the scores of sentences and tokens. The summary does
            without it: it has both.
        warn: called with a message, once, if the probability of ``<unk>`` is scored and was never learnt.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        on_unknown: str = "unk",
        exclude_unknowns: bool = False,
        warn: Callable[[str], object] = lambda message: None,
    ) -> None:
        self.summary = Summary()
        self._model, self._vocabulary, self._tokenizer = loaded.model, loaded.vocabulary, loaded.tokenizer
        self._on_unknown, self._exclude = on_unknown, exclude_unknowns
        corpus = loaded.header.get("corpus")
        self._is_unlearnt = isinstance(corpus, dict) and corpus.get("unknowns") == 0
        self._warn = warn

    def sentences(self, path: str) -> Iterator[list[Sentence]]:
        """Each line of a text with its score, in order, a window at a time.

        Raises:
            InputError: the text is at fault, or holds an unknown token and that is an error; the lines before it
                have been given.
        """
        for text in self._lines(path):
            scored = self._score(text)
            yield list(
                map(
                    Sentence,
                    scored.sums(scored.log_probs * scored.counted).tolist(),
                    scored.sums(scored.counted).tolist(),
                    scored.sums(scored.unknown).tolist(),
                    text.lines,
                )
            )

    def tokens(self, path: str) -> Iterator[list[Token]]:
        """Each token of each line, then the line's end, with its score; a line's tokens are never apart.

        A token that is skipped is not given, but the positions of those after it count it.

        Raises:
            InputError: as for ``sentences``.
        """
        for text in self._lines(path):
            scored = self._score(text)
            symbols = list(text.tokens)
            for end in text.ends:
                symbols[end] = EOS
            lengths = scored.sums(np.ones_like(text.ids))
            lines = np.repeat(np.arange(len(lengths)) + text.numbers[0], lengths)
            positions = np.arange(text.ids.size) - np.repeat(scored.begins, lengths) + 1
            log_probs: list[float | None] = scored.log_probs.tolist()
            if self._exclude:
                for place in np.flatnonzero(scored.unknown):
                    log_probs[place] = None
            tokens = map(Token, lines.tolist(), positions.tolist(), symbols, log_probs, scored.unknown.tolist())
            if self._on_unknown == "skip":
                yield [token for token in tokens if not token.unknown]
            else:
                yield list(tokens)

    def corpus(self, path: str) -> Iterator[int]:
        """Score a text cut into sequences as the model's training text was; ``summary`` is the result.

        Of lines, empty ones count too; what lies between paragraphs does not. A paragraph is held in memory whole.

        Yields:
            How many more lines have been scored.

        Raises:
            InputError: the text is at fault, or holds an unknown token and that is an error.
        """
        if self._tokenizer.sequence == "file":
            yield from self._one_sequence(path)
            return
        if self._tokenizer.sequence == "line":
            texts = self._lines(path)
        else:
            texts = self._paragraphs(path)
        for text in texts:
            self._score(text)
            yield len(text.lines)

    def _lines(self, path: str) -> Iterator[_Text]:
        """The lines of a text in windows, each line a sequence. Those before an unknown token come before the error."""
        number = 1
        for lines in _windows(path, self._tokenizer.encoding):
            text = _encode(self._vocabulary, self._tokenizer, lines, range(number, number + len(lines)))
            text.close(np.ones(len(lines), bool))
            place = self._first_error(text)
            if place is not None:
                before = int(np.searchsorted(text.ends, place))
                if before:
                    yield text.head(before)
                raise self._unknown_error(path, text, place)
            yield text
            number += len(lines)

    def _paragraphs(self, path: str) -> Iterator[_Text]:
        """The paragraphs of a text in windows, as ``Tokenizer.sequence`` has them."""
        windows = _windows(path, self._tokenizer.encoding)
        for lines, numbers, closes in _paragraph_windows(windows, self._count_words):
            text = _encode(self._vocabulary, self._tokenizer, lines, numbers)
            text.close(np.array(closes))
            place = self._first_error(text)
            if place is not None:
                raise self._unknown_error(path, text, place)
            yield text

    def _one_sequence(self, path: str) -> Iterator[int]:
        """Score a whole text as one sequence, in pieces."""
        sequence = OpenSequence(self._model, self._vocabulary.start_id)
        summary = self.summary
        number, column, block = 1, 0, ""
        for following in read_blocks(path, encoding=self._tokenizer.encoding, whole_lines=False):
            # A word, in a text of bytes, may lie across the border.
            summary.words -= self._count_words(block[-1:]) & self._count_words(following[:1])
            block = following
            lines = block.split(NEWLINE)
            text = _encode(self._vocabulary, self._tokenizer, lines, range(number, number + len(lines)))
            text.drop_last()  # what follows the last newline has no newline of its own
            place = self._first_error(text)
            if place is not None:
                raise self._unknown_error(path, text, place, column)
            self._count(text.ids, *self._kept(text.ids, sequence.score))
            summary.characters += len(block)
            summary.words += self._count_words(block)
            column = len(lines[-1]) + (column if len(lines) == 1 else 0)
            number += len(lines) - 1
            yield len(lines) - 1
        if block:
            ids = np.array([EOS_ID], np.int32)
            self._count(ids, sequence.score(ids), ids == UNK_ID)
            summary.characters += not block.endswith(NEWLINE)
            summary.sentences += 1

    def _kept(self, ids: Ids, score: Callable[[Ids], Nats]) -> tuple[Nats, NDArray[np.bool_]]:
        """The log probabilities of ids, 0 of those to be skipped; and which of them are unknown."""
        unknown = ids == UNK_ID
        if self._on_unknown != "skip" or not unknown.any():
            return score(ids), unknown
        log_probs = np.zeros(ids.size)
        log_probs[~unknown] = score(ids[~unknown])
        return log_probs, unknown

    def _score(self, text: _Text) -> _Scored:
        """Score a window of whole sequences and take it into account."""
        ends = text.ends[text.closes] + 1
        kept = np.cumsum(text.ids != UNK_ID) if self._on_unknown == "skip" else np.arange(1, text.ids.size + 1)
        log_probs, unknown = self._kept(
            text.ids, lambda ids: score_sequences(self._model, self._vocabulary.start_id, ids, kept[ends - 1])
        )
        summary = self.summary
        self._count(text.ids, log_probs, unknown)
        summary.sentences += ends.size
        summary.empty += int(np.count_nonzero(np.diff(ends, prepend=0) == 1))
        summary.characters += sum(map(len, text.lines)) + len(text.lines)
        summary.words += sum(map(self._count_words, text.lines))
        leave_out = self._exclude or self._on_unknown == "skip"
        return _Scored(log_probs, unknown, ~unknown if leave_out else np.ones_like(unknown), ends)

    def _count(self, ids: Ids, log_probs: Nats, unknown: NDArray[np.bool_]) -> None:
        """Take tokens into account."""
        summary = self.summary
        unknowns = int(np.count_nonzero(unknown))
        summary.unknowns += unknowns
        summary.tokens += ids.size
        summary.log_prob_nats += float(log_probs.sum())
        if self._on_unknown == "skip":
            summary.tokens -= unknowns
        elif unknowns:
            summary.unknown_tokens += unknowns
            summary.unknown_log_prob_nats += float(log_probs[unknown].sum())
            if self._is_unlearnt:
                self._is_unlearnt = False  # once is enough
                self._warn(UNLEARNT)

    def _count_words(self, text: str) -> int:
        # Among bytes only ASCII has white space.
        return len(text.encode("latin-1").split() if self._tokenizer.level == "byte" else text.split())

    def _first_error(self, text: _Text) -> int | None:
        """The place of the first unknown token, if that is an error."""
        if self._on_unknown != "error":
            return None
        unknown = text.ids == UNK_ID
        return int(unknown.argmax()) if unknown.any() else None

    def _unknown_error(self, path: str, text: _Text, place: int, first_column: int = 0) -> InputError:
        """What is unknown, and where it stands in the text as it was given."""
        line = int(np.searchsorted(text.ends, place))
        index = place - (int(text.ends[line - 1]) + 1 if line else 0)
        column = _column(text.lines[line], index, self._tokenizer) + (first_column if line == 0 else 0)
        symbol = text.tokens[place]
        if self._tokenizer.level == "word" and symbol != NEWLINE:
            what = f"word {symbol!r}"
        elif self._tokenizer.level == "byte":
            what = f"byte 0x{ord(symbol):02x}"
        else:
            shown = visible(symbol)
            code_point = f"U+{ord(symbol):04X}"
            what = f"symbol {code_point}" if shown == code_point else f"symbol {shown} ({code_point})"
        return InputError(
            f"{display_name(path)}: line {text.numbers[line]}, column {column}: the {what} is not in the model's "
            "vocabulary; score it as <unk> with --on-unknown unk, or leave it out with --on-unknown skip"
        )


@dataclass
class _Scored:
    """The scores of a window of whole sequences."""

    log_probs: Nats  # (M,)
    unknown: NDArray[np.bool_]  # (M,)
    counted: NDArray[np.bool_]  # (M,), whether a token counts for its sentence
    ends: Places  # of sequences, exclusive

    @property
    def begins(self) -> Places:
        """Where each sequence begins."""
        return np.concatenate((np.zeros(1, np.int64), self.ends[:-1]))

    def sums(self, values: NDArray[np.float64] | NDArray[np.bool_] | Ids) -> NDArray[np.float64] | NDArray[np.int64]:
        """The sum of each sequence's values; of truth values, how many are true."""
        dtype = np.float64 if values.dtype == np.float64 else np.int64
        sums: NDArray[np.float64] | NDArray[np.int64] = np.add.reduceat(values, self.begins, dtype=dtype)
        return sums


@dataclass
class _Text:
    """Lines as tokens, laid end to end; after each line its newline."""

    lines: list[str]
    numbers: Sequence[int]  # of the lines, from 1
    tokens: Sequence[str]  # (M,)
    ids: Ids  # (M,)
    ends: Places  # of the lines' newlines
    closes: NDArray[np.bool_]  # whether a line is the last of its sequence; its newline is then EOS

    def close(self, closes: NDArray[np.bool_]) -> None:
        """Say where sequences end."""
        self.closes = closes
        self.ids[self.ends[closes]] = EOS_ID

    def drop_last(self) -> None:
        """Take the newline of the last line away."""
        self.ids = self.ids[:-1]

    def head(self, count: int) -> _Text:
        """The first ``count`` lines."""
        size = int(self.ends[count - 1]) + 1
        return _Text(
            self.lines[:count], self.numbers, self.tokens[:size], self.ids[:size], self.ends[:count],
            self.closes[:count],
        )  # fmt: skip


def _encode(vocabulary: Vocabulary, tokenizer: Tokenizer, lines: list[str], numbers: Sequence[int]) -> _Text:
    """Clean and tokenize lines; no sequence ends yet."""
    cleaned = tokenizer.clean(NEWLINE.join(lines)) + NEWLINE
    tokens: Sequence[str] = cleaned
    if tokenizer.level == "word":
        words = [[*line.split(), NEWLINE] for line in cleaned[:-1].split(NEWLINE)]
        tokens = [word for line in words for word in line]
        ids = vocabulary.ids(tokens)
        ends = np.cumsum([len(line) for line in words]) - 1
    else:
        ids = vocabulary.encode_characters(cleaned)
        ends = np.flatnonzero(code_points(cleaned) == ord(NEWLINE))
    return _Text(lines, numbers, tokens, ids, ends, np.zeros(len(lines), bool))


def _column(line: str, index: int, tokenizer: Tokenizer) -> int:
    """Where a line's token number ``index`` begins in the line as it was given, in characters from 1."""
    cleaned = tokenizer.clean(line)
    if tokenizer.level == "word":
        starts = [match.start() for match in re.finditer(r"\S+", cleaned)]
        index = starts[index] if index < len(starts) else len(cleaned)
    if cleaned == line:
        return index + 1
    # The shortest beginning of the line that holds the token, cleaned.
    lengths = range(1, len(line) + 1)
    return bisect.bisect_right(lengths, index, key=lambda length: len(tokenizer.clean(line[:length]))) + 1


def _windows(path: str, encoding: Encoding) -> Iterator[list[str]]:
    """The lines of a text in windows, of which none waits for more of the input than has come."""
    for lines in _line_blocks(path, encoding):
        first = characters = 0
        for last, line in enumerate(lines, start=1):
            characters += len(line) + 1
            if characters >= WINDOW_CHARACTERS or last - first >= WINDOW_LINES:
                yield lines[first:last]
                first, characters = last, 0
        if first < len(lines):
            yield lines[first:]


def _line_blocks(path: str, encoding: Encoding) -> Iterator[list[str]]:
    """The lines of a text, as many at once as come; where it is damaged, first those before the damage."""
    line_ends = (b"\n", b"\r") if encoding == "utf-8" else (b"\n",)
    unread = bytearray()  # bytes whose lines have not been given yet
    try:
        for block in read_blocks(path, encoding=encoding, observe=unread.extend):
            # A block ends with the last line end; but of CR LF, which may be cut in two, with both.
            del unread[: 1 + max(unread.rfind(end, 0, len(unread) - (end == b"\r")) for end in line_ends)]
            yield block.removesuffix(NEWLINE).split(NEWLINE)
    except InputError:
        sound = _sound_text(bytes(unread), encoding)
        if sound:
            yield sound.removesuffix(NEWLINE).split(NEWLINE)
        raise


def _sound_text(data: bytes, encoding: Encoding) -> str:
    """The whole lines of a text before what is wrong with it; empty if there are none."""
    if encoding == "latin-1":
        return data[: data.rfind(b"\n") + 1].decode(encoding)
    data = data.split(b"\0")[0]
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        data = data[: error.start]
    data = data[: 1 + max(data.rfind(b"\n"), data.rfind(b"\r"))]
    text = data.decode(encoding).removeprefix(BYTE_ORDER_MARK)
    return text.replace("\r\n", NEWLINE).replace("\r", NEWLINE)


def _paragraph_windows(
    windows: Iterator[list[str]], count_words: Callable[[str], int]
) -> Iterator[tuple[list[str], list[int], list[bool]]]:
    """Lines that are not blank, their numbers, and whether each ends a paragraph; whole paragraphs at a time."""
    lines: list[str] = []
    numbers: list[int] = []
    closes: list[bool] = []
    number = characters = 0
    for window in windows:
        for line in window:
            number += 1
            if count_words(line):
                lines.append(line)
                numbers.append(number)
                closes.append(False)
                characters += len(line)
            elif lines:
                closes[-1] = True
                if characters >= WINDOW_CHARACTERS or len(lines) >= WINDOW_LINES:
                    yield lines, numbers, closes
                    lines, numbers, closes, characters = [], [], [], 0
    if lines:
        closes[-1] = True
        yield lines, numbers, closes
