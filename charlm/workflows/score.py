"""What ``charlm score`` does: the log probability of each line, of each token, or of a whole text.

Each line is a sequence of its own: the model's state begins anew, so neither the other lines nor their order nor how
many are worked on at once changes a score. A window of the text at a time is in memory; of a very long line its text,
and the tokens of a piece of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, compress

import numpy as np

from charlm.errors import InputError, UsageError
from charlm.text.readers import display_name, read_blocks
from charlm.text.tokenizer import NEWLINE
from charlm.text.unknown import column, unknown_message
from charlm.text.vocabulary import EOS, EOS_ID
from charlm.workflows.finite import naming, require_finite
from charlm.workflows.label_scoring import EVERY_LABEL, Mixture, PriorName
from charlm.workflows.label_side import first_input
from charlm.workflows.long_lines import LongLine, is_long, long_ones_apart
from charlm.workflows.model_files import LoadedModel
from charlm.workflows.score_results import LabelScores, Mask, Nats, Sentences, Summary, Tokens
from charlm.workflows.scoring_batches import (
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


class Scorer:
    """Scores texts with a model, and keeps the account.

    Args:
        loaded: the model, its vocabulary and its tokenizer.
        on_unknown: what a token that is not in the vocabulary is: "unk", scored as ``<unk>``; "error"; or "skip",
            left out as if it were not in the text. The word ``<unk>`` is in every vocabulary.
        exclude_unknowns: leave what ``<unk>`` costs out of the scores of sentences and tokens. The summary does
            without it: it has both.
        warn: called with a message, once, if the probability of ``<unk>`` is scored and was never learnt.
        label: the one that the model is given; or "all", whatever its labels are called: then every score is that of
            the text whatever its label, P(text) = sum over the labels of P(label) P(text | label).
        prior: P(label) for the latter, as for ``Mixture``; "training" by default.

    Raises:
        InputError: the model does not know the label.
        CheckpointError: what the model gives is no number; raised where it is asked.
        UsageError: a label is missing, or not for this model; or a prior is not for this label.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        on_unknown: str = "unk",
        exclude_unknowns: bool = False,
        warn: Callable[[str], object] = lambda message: None,
        label: str | None = None,
        prior: PriorName | None = None,
    ) -> None:
        self.summary = Summary()
        self._model, self._vocabulary, self._tokenizer = loaded.model, loaded.vocabulary, loaded.tokenizer
        self._path = loaded.path
        self._set_label(loaded, label, prior)
        self._on_unknown, self._exclude = on_unknown, exclude_unknowns
        corpus = loaded.header.get("corpus")
        self._is_unlearnt = isinstance(corpus, dict) and corpus.get("unknowns") == 0
        self._warn = warn

    def _set_label(self, loaded: LoadedModel, label: str | None, prior: PriorName | None) -> None:
        """Settle what sequences begin with."""
        self._mixture, self._first_id = None, self._vocabulary.start_id
        side = loaded.label_side
        if label != EVERY_LABEL and prior is not None:
            raise UsageError(f"--prior {prior}: weighs the labels of --label {EVERY_LABEL}; leave it out")
        if label != EVERY_LABEL or side is None:
            self._first_id = first_input(label, loaded.labels, self._vocabulary)
            if side is not None:
                self.summary.label = side.labels.names[self._first_id - self._vocabulary.start_id - 1]
            return
        name = prior or "training"
        self._mixture = Mixture(self._model, self._vocabulary.size, side, name)
        self.summary.label, self.summary.prior_name = EVERY_LABEL, name
        self.summary.prior = dict(zip(side.labels.names, self._mixture.prior.tolist(), strict=True))

    def sentences(self, path: str) -> Iterator[Sentences]:
        """Each line of a text with its score, in order, a window at a time.

        Raises:
            InputError: the text is at fault, or holds an unknown token and that is an error; the lines before it
                have been given.
        """
        for text in self._lines(path):
            if isinstance(text, LongLine):
                yield self._long_sentence(path, text)
                continue
            scores = self._score(text)
            counted = scores.kept & ~text.unknown if self._exclude else scores.kept
            begins = _begins(text.sequence_ends)

            def total(nats: Nats, counted: Mask = counted, begins: Places = begins) -> Nats:
                return np.add.reduceat(np.where(counted, nats, 0.0), begins)  # a skipped -inf would make it NaN

            labels = None
            if scores.label_nats is not None and scores.posteriors is not None:
                by_label = [total(_spread(nats, scores.kept)) for nats in scores.label_nats]
                labels = LabelScores(np.stack(by_label, axis=1), scores.posteriors)
            tokens, unknowns = (np.add.reduceat(mask, begins, dtype=np.int64) for mask in (counted, text.unknown))
            yield Sentences(total(scores.log_probs), tokens.tolist(), unknowns.tolist(), text.lines, labels)

    def tokens(self, path: str) -> Iterator[Tokens]:
        """Each token of each line, then the line's end, with its score; a window of lines at a time.

        A token that is skipped is not given, but the positions of those after it count it.

        Raises:
            InputError: as for ``sentences``.
        """
        for text in self._lines(path):
            if isinstance(text, LongLine):
                yield from self._long_tokens(path, text)
                continue
            scores = self._score(text)
            log_probs, kept = scores.log_probs, scores.kept
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
            if isinstance(text, LongLine):
                for _ in self._pieces(path, text):
                    pass
                yield 1
                continue
            self._score(text)
            yield len(text.lines)

    def _lines(self, path: str) -> Iterator[Text | LongLine]:
        """The lines of a text in windows, each line a sequence. Those before an error come before the error."""
        number = 1
        characters = None if self._mixture is None else self._mixture.window_characters
        windows = line_windows(path, self._tokenizer.encoding, characters)
        if self._mixture is None:  # which needs all tokens of a line at once
            windows = chain.from_iterable(map(long_ones_apart, windows))
        for lines in windows:
            if self._mixture is None and is_long(lines[0]):
                yield LongLine(lines[0], number)
                number += 1
                continue
            text = encode(self._vocabulary, self._tokenizer, lines, range(number, number + len(lines)))
            try:
                self._check(path, text)
            except _UnknownError as error:
                if error.line:
                    yield encode(self._vocabulary, self._tokenizer, lines[: error.line], text.numbers[: error.line])
                raise
            yield text
            number += len(lines)

    def _pieces(self, path: str, long: LongLine) -> Iterator[tuple[Text, _Scores, int]]:
        """The tokens of a long line piece by piece, with their scores, and how many came before; the last has its end.

        Raises:
            InputError: it holds an unknown token and that is an error.
        """
        sequence, before = OpenSequence(self._model, self._first_id), 0
        for piece, is_last in long.pieces(self._tokenizer):
            text = encode(self._vocabulary, self._tokenizer, [piece], [long.number], [is_last])
            if not is_last:
                text = replace(text, ids=text.ids[:-1], tokens=text.tokens[:-1])
            if self._on_unknown == "error" and (foreign := text.foreign).any():
                place = int(foreign.argmax())
                where = column(long.text, before + place, self._tokenizer)
                message = unknown_message(display_name(path), text.tokens[place], long.number, where, self._tokenizer)
                raise _UnknownError(message, 0)
            kept = self._kept(text)
            scores = _Scores(_spread(sequence.score(text.ids[kept]), kept), kept, None, None)
            self._count(text, scores.log_probs, kept)
            yield text, scores, before
            before += text.ids.size
        self.summary.sentences += 1
        self.summary.characters += len(long.text) + 1
        flags = re.ASCII if self._tokenizer.level == "byte" else 0
        self.summary.words += sum(1 for _ in re.finditer(r"\S+", long.text, flags))  # no list of them all

    def _long_sentence(self, path: str, long: LongLine) -> Sentences:
        """A long line with its score."""
        nats, tokens, unknowns = 0.0, 0, 0
        for text, scores, _ in self._pieces(path, long):
            counted = scores.kept & ~text.unknown if self._exclude else scores.kept
            nats += float(scores.log_probs[counted].sum())
            tokens += int(np.count_nonzero(counted))
            unknowns += int(np.count_nonzero(text.unknown))
        return Sentences(np.array([nats]), [tokens], [unknowns], [long.text])

    def _long_tokens(self, path: str, long: LongLine) -> Iterator[Tokens]:
        """The tokens of a long line, a piece of it at a time."""
        for text, scores, before in self._pieces(path, long):
            symbols = [EOS if i == EOS_ID else token for i, token in zip(text.ids.tolist(), text.tokens, strict=True)]
            places = np.flatnonzero(scores.kept)
            unknown = text.unknown[scores.kept]
            counted = ~unknown if self._exclude else np.ones_like(unknown)
            yield Tokens(
                [long.number] * places.size, (places + before + 1).tolist(), list(compress(symbols, scores.kept)),
                scores.log_probs[scores.kept], counted, unknown.tolist(),
            )  # fmt: skip

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
            kept = self._kept(text)
            nats = sequence.score(text.ids[kept])
            self._require_finite(nats)
            self._count(text, _spread(nats, kept), kept)
            summary.characters += len(block)
            # A word of a text of bytes may go on from one piece to the next.
            summary.words += self._count_words(block) - (self._count_words(last) & self._count_words(block[0]))
            columns = len(lines[-1]) + (columns if len(lines) == 1 else 0)
            number += len(lines) - 1
            last = block[-1]
            yield len(lines) - 1
        if last:
            nats = sequence.score(np.array([EOS_ID], np.int32))
            self._require_finite(nats)
            summary.log_prob.add(float(nats[0]))
            summary.tokens += 1
            summary.sentences += 1
            summary.characters += last != NEWLINE

    def _score(self, text: Text) -> _Scores:
        """Score whole sequences and take them into account."""
        ends, kept = text.sequence_ends, self._kept(text)
        ids = text.ids[kept]
        kept_ends: Places = np.cumsum(kept, dtype=np.int64)[ends - 1]
        label_nats = posteriors = None
        if self._mixture is None:
            nats = score_sequences(self._model, self._vocabulary.size, ids, kept_ends, self._first_id)
        else:
            nats, label_nats, posteriors = self._mixture.score(ids, kept_ends)
        self._require_finite(nats)
        log_probs = _spread(nats, kept)
        self._count(text, log_probs, kept)
        summary = self.summary
        summary.sentences += ends.size
        summary.empty += int(np.count_nonzero(np.diff(ends, prepend=0) == 1))
        summary.characters += sum(map(len, text.lines)) + len(text.lines)
        summary.words += self._count_words(NEWLINE.join(text.lines))
        return _Scores(log_probs, kept, label_nats, posteriors)

    def _require_finite(self, nats: Nats) -> None:
        with naming(self._path):
            require_finite(nats)

    def _kept(self, text: Text) -> Mask:
        """Which tokens are not skipped, (M,)."""
        return ~text.foreign if self._on_unknown == "skip" else np.ones(text.ids.size, bool)

    def _count(self, text: Text, log_probs: Nats, kept: Mask) -> None:
        """Take tokens into account."""
        summary, unknown = self.summary, text.unknown
        summary.unknowns += int(np.count_nonzero(unknown))
        summary.tokens += int(np.count_nonzero(kept))
        summary.log_prob.add(float(log_probs.sum()))
        unknown &= kept
        if unknown.any():
            summary.unknown_tokens += int(np.count_nonzero(unknown))
            summary.unknown_log_prob.add(float(log_probs[unknown].sum()))
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


@dataclass(frozen=True)
class _Scores:
    """The scores of the M tokens of a window.

    Attributes:
        log_probs: (M,), nats; 0 of those that are skipped.
        kept: (M,), which are not.
        label_nats: given each label, (K, how many are kept), if the text was scored under every one.
        posteriors: (sequences, K), likewise.
    """

    log_probs: Nats
    kept: Mask
    label_nats: Nats | None
    posteriors: Nats | None


class _UnknownError(InputError):
    """An unknown token is an error.

    Args:
        message: says so.
        line: in which line of its window it stands, from 0.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _spread(nats: Nats, kept: Mask) -> Nats:
    """The scores of the tokens kept among all, (M,); those of the others are 0."""
    result = np.zeros(kept.size)
    result[kept] = nats
    return result


def _begins(ends: Places) -> Places:
    """Where sequences begin that end there, exclusive."""
    return np.concatenate((np.zeros(1, np.int64), ends[:-1]))
