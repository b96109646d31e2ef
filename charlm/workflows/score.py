"""What ``charlm score`` does: the log probability of each line, of each token, or of a whole text.

Each line is a sequence of its own: the model's state begins anew, so neither the other lines nor their order nor how
many are worked on at once changes a score. A window of the text at a time is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from charlm import units
from charlm.errors import InputError
from charlm.text.readers import display_name, read_blocks
from charlm.text.tokenizer import NEWLINE
from charlm.text.unknown import column, unknown_message
from charlm.text.vocabulary import EOS, EOS_ID
from charlm.workflows.model_files import LoadedModel
from charlm.workflows.scoring_batches import (
    Ids,
    Mask,
    Nats,
    OpenSequence,
    Places,
    Text,
    encode,
    line_windows,
    paragraph_windows,
    score_sequences,
)

UNLEARNT = (
    "the model's training text held no unknown token, so the probability of <unk> was never learnt; "
    "leave unknowns out with --on-unknown skip or --exclude-unk, or train with --min-count 2"
)


@dataclass(frozen=True)
class Sentences:
    """The scores of the lines of a window, in columns: a record a line would take longer than the scoring of it.

    Attributes:
        log_probs_nats: of the tokens counted.
        tokens: how many those are, EOS included; without the unknown ones where they are skipped or excluded.
        unknowns: how many tokens are unknown.
        texts: the lines as they were given.
    """

    log_probs_nats: Nats
    tokens: list[int]
    unknowns: list[int]
    texts: Sequence[str]


@dataclass(frozen=True)
class Tokens:
    """The scores of the tokens of a window, in columns; the end of a line is one of them.

    Attributes:
        lines: in which each stands, from 1.
        positions: of each in its line, from 1.
        symbols: as they stand in the text, known or not.
        log_probs_nats: of each.
        counted: whether its score is; where unknown tokens are excluded, theirs is not. (M,).
        unknown: whether it is.
    """

    lines: list[int]
    positions: list[int]
    symbols: list[str]
    log_probs_nats: Nats
    counted: Mask
    unknown: list[bool]


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
            left out as if it were not in the text. The word ``<unk>`` is in every vocabulary.
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

    def sentences(self, path: str) -> Iterator[Sentences]:
        """Each line of a text with its score, in order, a window at a time.

        Raises:
            InputError: the text is at fault, or holds an unknown token and that is an error; the lines before it
                have been given.
        """
        for text in self._lines(path):
            log_probs, kept = self._score(text)
            counted = kept & ~text.unknown if self._exclude else kept
            begins = _begins(text.sequence_ends)
            sums = np.add.reduceat(np.where(counted, log_probs, 0.0), begins)  # a skipped -inf would make it NaN
            tokens, unknowns = (np.add.reduceat(mask, begins, dtype=np.int64) for mask in (counted, text.unknown))
            yield Sentences(sums, tokens.tolist(), unknowns.tolist(), text.lines)

    def tokens(self, path: str) -> Iterator[Tokens]:
        """Each token of each line, then the line's end, with its score; a window of lines at a time.

        A token that is skipped is not given, but the positions of those after it count it.

        Raises:
            InputError: as for ``sentences``.
        """
        for text in self._lines(path):
            log_probs, kept = self._score(text)
            symbols = list(text.tokens)
            for end in text.line_ends.tolist():
                symbols[end] = EOS
            begins = _begins(text.sequence_ends)
            lengths = text.sequence_ends - begins
            lines = np.repeat(np.array(text.numbers), lengths)
            positions = np.arange(1, text.ids.size + 1) - np.repeat(begins, lengths)
            if not kept.all():
                symbols = list(compress(symbols, kept))
            unknown = text.unknown[kept]
            counted = ~unknown if self._exclude else np.ones_like(unknown)
            places = lines[kept].tolist(), positions[kept].tolist()
            yield Tokens(*places, symbols, log_probs[kept], counted, unknown.tolist())

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
        for text in self._lines(path) if self._tokenizer.sequence == "line" else self._paragraphs(path):
            self._score(text)
            yield len(text.lines)

    def _lines(self, path: str) -> Iterator[Text]:
        """The lines of a text in windows, each line a sequence. Those before an error come before the error."""
        number = 1
        for lines in line_windows(path, self._tokenizer.encoding):
            text = encode(self._vocabulary, self._tokenizer, lines, range(number, number + len(lines)))
            try:
                self._check(path, text)
            except _UnknownError as error:
                if error.line:
                    yield encode(self._vocabulary, self._tokenizer, lines[: error.line], text.numbers[: error.line])
                raise
            yield text
            number += len(lines)

    def _paragraphs(self, path: str) -> Iterator[Text]:
        """The paragraphs of a text in windows, as ``Tokenizer.sequence`` has them."""
        lines = line_windows(path, self._tokenizer.encoding)
        for window in paragraph_windows(lines, lambda line: not self._count_words(line)):
            text = encode(self._vocabulary, self._tokenizer, *window)
            self._check(path, text)
            yield text

    def _one_sequence(self, path: str) -> Iterator[int]:
        """Score a whole text as one sequence, in pieces."""
        sequence = OpenSequence(self._model, self._vocabulary.start_id)
        summary = self.summary
        number, columns, last = 1, 0, ""
        for block in read_blocks(path, encoding=self._tokenizer.encoding, whole_lines=False):
            lines = block.split(NEWLINE)
            numbers, closes = range(number, number + len(lines)), [False] * len(lines)
            text = encode(self._vocabulary, self._tokenizer, lines, numbers, closes)
            text = replace(text, ids=text.ids[:-1])  # what follows the last newline has none of its own
            self._check(path, text, columns)
            self._count(text, *self._score_kept(text, lambda ids, _: sequence.score(ids)))
            summary.characters += len(block)
            # A word of a text of bytes may go on from one piece to the next.
            summary.words += self._count_words(block) - (self._count_words(last) & self._count_words(block[0]))
            columns = len(lines[-1]) + (columns if len(lines) == 1 else 0)
            number += len(lines) - 1
            last = block[-1]
            yield len(lines) - 1
        if last:
            summary.log_prob_nats += float(sequence.score(np.array([EOS_ID], np.int32))[0])
            summary.tokens += 1
            summary.sentences += 1
            summary.characters += last != NEWLINE

    def _score(self, text: Text) -> tuple[Nats, Mask]:
        """Score whole sequences and take them into account; as ``_score_kept``."""
        ends = text.sequence_ends

        def score(ids: Ids, kept: Mask) -> Nats:
            kept_ends: Places = np.cumsum(kept, dtype=np.int64)[ends - 1]
            return score_sequences(self._model, self._vocabulary.start_id, ids, kept_ends)

        log_probs, kept = self._score_kept(text, score)
        self._count(text, log_probs, kept)
        summary = self.summary
        summary.sentences += ends.size
        summary.empty += int(np.count_nonzero(np.diff(ends, prepend=0) == 1))
        summary.characters += sum(map(len, text.lines)) + len(text.lines)
        summary.words += self._count_words(NEWLINE.join(text.lines))
        return log_probs, kept

    def _score_kept(self, text: Text, score: Callable[[Ids, Mask], Nats]) -> tuple[Nats, Mask]:
        """The log probability of each token, 0 if it is skipped; and which are kept.

        Args:
            text: its tokens.
            score: called with the ids that are kept, and which they are.
        """
        kept = ~text.foreign if self._on_unknown == "skip" else np.ones(text.ids.size, bool)
        log_probs = np.zeros(text.ids.size)
        log_probs[kept] = score(text.ids[kept], kept)
        return log_probs, kept

    def _count(self, text: Text, log_probs: Nats, kept: Mask) -> None:
        """Take tokens into account."""
        summary, unknown = self.summary, text.unknown
        summary.unknowns += int(np.count_nonzero(unknown))
        summary.tokens += int(np.count_nonzero(kept))
        summary.log_prob_nats += float(log_probs.sum())
        unknown &= kept
        if unknown.any():
            summary.unknown_tokens += int(np.count_nonzero(unknown))
            summary.unknown_log_prob_nats += float(log_probs[unknown].sum())
            if self._is_unlearnt:
                self._is_unlearnt = False  # once is enough
                self._warn(UNLEARNT)

    def _count_words(self, text: str) -> int:
        # Among bytes only ASCII has white space.
        return len(text.encode("latin-1").split() if self._tokenizer.level == "byte" else text.split())

    def _check(self, path: str, text: Text, columns: int = 0) -> None:
        """Raise an error at the first unknown token, if it is one.

        Args:
            path: the text's.
            text: a part of it.
            columns: of the first line that stood before this part.
        """
        if self._on_unknown != "error" or not (foreign := text.foreign).any():
            return
        place = int(foreign.argmax())
        line, index = text.line_of(place)
        where = column(text.lines[line], index, self._tokenizer) + (0 if line else columns)
        raise _UnknownError(
            unknown_message(display_name(path), text.tokens[place], text.numbers[line], where, self._tokenizer), line
        )


class _UnknownError(InputError):
    """An unknown token is an error.

    Args:
        message: says so.
        line: in which line of its window it stands, from 0.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _begins(ends: Places) -> Places:
    """Where sequences begin that end there, exclusive."""
    return np.concatenate((np.zeros(1, np.int64), ends[:-1]))
