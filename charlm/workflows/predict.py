"""What ``charlm predict`` does: the labels of texts, the tags of tokens, the targets of sources; or how good they are.

A window of the input at a time is in memory; output is in the order of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError, UsageError
from charlm.evaluation.classes import (
    accuracy,
    confusion_matrix,
    label_matches,
    render_confusion,
    render_scores,
)
from charlm.evaluation.edits import score_edits
from charlm.evaluation.entities import names_entities, render_entities, score_entities
from charlm.text.buckets import Buckets, Rows
from charlm.text.examples import Sentence, read_labelled, read_pairs, read_sentences
from charlm.text.pairs import Side
from charlm.text.readers import display_name
from charlm.text.tagged import number_tokens
from charlm.training.collections import sentences as sentence_batch
from charlm.training.collections import sequences as sequence_batch
from charlm.workflows.beams import Hypothesis
from charlm.workflows.scoring_batches import line_windows
from charlm.workflows.task_names import NOUNS, REMEDIES
from charlm.workflows.text_side import lexicon, saved_labels, text_side
from charlm.workflows.trained import Trained
from charlm.workflows.transduction import beam

WINDOW = 512  # examples at a time, of those that are evaluated and of sentences
BATCH_ROWS = 64

T = TypeVar("T")


@dataclass(frozen=True)
class Labelling:
    """Labels of a text, the likeliest first, and their probabilities."""

    text: str
    labels: list[str]
    probabilities: list[float]


@dataclass(frozen=True)
class Tagging:
    """A sentence and the likeliest tag of each of its tokens."""

    sentence: Sentence
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Transduction:
    """Targets of a source, the likeliest first, and their log probabilities, EOS included."""

    source: str
    targets: list[str]
    log_probs_nats: list[float]


@dataclass(frozen=True)
class Evaluation:
    """How good predictions are: ``text`` to read, ``figures`` for a program."""

    text: str
    figures: dict[str, Any]


def windows(examples: Iterable[T], size: int = WINDOW) -> Iterator[list[T]]:
    """Some examples at a time."""
    rest = iter(examples)
    while window := list(islice(rest, size)):
        yield window


class Predictor:
    """What the three kinds have in common."""

    def __init__(self, trained: Trained) -> None:
        self.model, self.header, self.path = trained.model, trained.header, trained.path

    def side(self, key: str = "") -> Side:
        """How a side's texts become ids; ``key`` is what its names in the header begin with."""
        vocabulary, tokenizer = text_side(self.header, self.path, key)
        return Side(tokenizer, vocabulary)


class LabelPredictor(Predictor):
    """Of a classifier.

    Args:
        top: how many labels to tell.
    """

    def __init__(self, trained: Trained, top: int = 1) -> None:
        super().__init__(trained)
        self._text = self.side()
        self._labels = saved_labels(self.header, self.path)
        self._top = min(top, self._labels.size)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Of each label for each text, (M, L)."""
        rows = self._text.rows(texts)
        result = np.empty((len(texts), self._labels.size))
        for numbers in Buckets(rows.lengths, batch_size=BATCH_ROWS).once():
            result[numbers] = np.exp(self.model.log_probs(sequence_batch(rows, numbers, self._text.vocabulary.size)))
        return result

    def predict(self, path: str) -> Iterator[list[Labelling]]:
        """The labels of each line of a text, a window at a time.

        Raises:
            InputError: the text is at fault; the lines before it have been given.
        """
        for texts in line_windows(path, self._text.tokenizer.encoding):
            found = self.probabilities(texts)
            order = np.argsort(-found, axis=1, kind="stable")[:, : self._top]
            yield [
                Labelling(text, [self._labels.names[i] for i in best], found[row, best].tolist())
                for row, (text, best) in enumerate(zip(texts, order.tolist(), strict=True))
            ]

    def evaluate(self, path: str) -> Evaluation:
        """Compare with the labels of a text of ``label<TAB>text`` lines.

        Raises:
            InputError: the text is at fault, or has a label that the model does not know.
        """
        name, names, size = display_name(path), self._labels.names, self._labels.size
        matrix = np.zeros((size, size), np.int64)
        for window in windows(read_labelled(path)):
            gold = [self._labels.require(example.label, f"{name}: line {example.line}") for example in window]
            found = self.probabilities([example.text for example in window]).argmax(axis=1)
            matrix += confusion_matrix(np.array(gold), found, size)
        matches = label_matches(matrix)
        return Evaluation(
            f"{render_scores(matrix, names)}\n{render_confusion(matrix, names)}",
            {
                "items": int(matrix.sum()),
                "accuracy": accuracy(matrix),
                "labels": {
                    label: {"precision": m.precision, "recall": m.recall, "f1": m.f1, "items": m.gold}
                    for label, m in zip(names, matches, strict=True)
                },
                "confusion": matrix.tolist(),
            },
        )


class TagPredictor(Predictor):
    """Of a tagger.

    Args:
        token_column, tag_column: of the input, from 1, 0 for the last; None for those of the training text.
    """

    def __init__(self, trained: Trained, token_column: int | None = None, tag_column: int | None = None) -> None:
        super().__init__(trained)
        self._lexicon = lexicon(self.header, self.path)
        self._labels = saved_labels(self.header, self.path)
        record = self.header.get("text")
        known = record if isinstance(record, dict) else {}
        self._token_column = self._column(known, "token_column", token_column, 1)
        self._tag_column = self._column(known, "tag_column", tag_column, 0)

    def _column(self, known: dict[str, Any], name: str, given: int | None, default: int) -> int:
        column = known.get(name, default) if given is None else given
        if type(column) is not int or column < 0:
            raise CheckpointError(f"{self.path}: its {name} is {column!r:.40}; use another copy")
        return column

    def tags(self, sentences: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """The likeliest tag of each token."""
        tokens = number_tokens(sentences, self._lexicon)
        result: list[tuple[str, ...]] = [()] * len(sentences)
        lengths, names = tokens.rows.lengths, self._labels.names
        for numbers in Buckets(lengths, batch_size=BATCH_ROWS).once():
            batch = sentence_batch(tokens, numbers, self.model.config.char_features)
            best = self.model.log_probs(batch).argmax(axis=2)
            for row, number in enumerate(numbers.tolist()):
                ids = best[best.shape[0] - int(lengths[number]) :, row].tolist()
                result[number] = tuple(names[i] for i in ids)
        return result

    def predict(self, path: str) -> Iterator[list[Tagging]]:
        """The tags of each sentence, a window at a time.

        Raises:
            InputError: the text is at fault; the sentences before it have been given.
        """
        for window in windows(read_sentences(path, token_column=self._token_column, tag_column=None)):
            tags = self.tags([sentence.tokens for sentence in window])
            yield [Tagging(sentence, found) for sentence, found in zip(window, tags, strict=True)]

    def evaluate(self, path: str) -> Evaluation:
        """Compare with the tags of a text; a tag that the model does not know is one that it does not find.

        Raises:
            InputError: the text is at fault.
        """
        pairs: list[tuple[Sequence[str], Sequence[str]]] = []
        for window in windows(read_sentences(path, token_column=self._token_column, tag_column=self._tag_column)):
            found = self.tags([sentence.tokens for sentence in window])
            pairs += zip([sentence.tags for sentence in window], found, strict=True)
        scores = score_entities(pairs)
        text = f"sentences {len(pairs):,}, tokens {scores.tokens:,}, tags right {scores.token_accuracy:.2%}\n"
        figures: dict[str, Any] = {
            "sentences": len(pairs), "tokens": scores.tokens, "token_accuracy": scores.token_accuracy,
        }  # fmt: skip
        if names_entities(self._labels.names):
            text += f"\n{render_entities(scores)}"
            kinds = {**scores.by_kind, "all": scores.overall}
            figures["entities"] = {
                kind: {
                    "precision": m.precision, "recall": m.recall, "f1": m.f1, "there": m.gold, "found": m.found,
                    "correct": m.correct,
                }
                for kind, m in kinds.items()
            }  # fmt: skip
        return Evaluation(text, figures)


class TransducePredictor(Predictor):
    """Of a transducer.

    Args:
        beam: its width; 1 to take the likeliest token each time.
        n_best: how many targets to tell, at most the width.
    """

    def __init__(self, trained: Trained, beam: int | None = None, n_best: int = 1) -> None:
        super().__init__(trained)
        if beam is not None and n_best > beam:
            raise UsageError(f"--beam {beam} cannot give {n_best} targets; use --beam {n_best}")
        self._width, self._best = beam or n_best, n_best
        self._source = self.side()
        self._target = self.side("target_")

    def _hypotheses(self, rows: Rows) -> list[list[Hypothesis]]:
        """Targets of each source, the likeliest first."""
        result: list[list[Hypothesis]] = [[]] * int(rows.lengths.size)
        for numbers in Buckets(rows.lengths, batch_size=BATCH_ROWS).once():
            sources = sequence_batch(rows, numbers, self._source.vocabulary.size)
            found = beam(self.model, sources, width=self._width, best=self._best)
            for number, hypotheses in zip(numbers.tolist(), found, strict=True):
                result[number] = hypotheses
        return result

    def predict(self, path: str) -> Iterator[list[Transduction]]:
        """The targets of each line of a text, a window at a time.

        Raises:
            InputError: the text is at fault; the lines before it have been given.
        """
        symbols, join = self._target.vocabulary.symbols, self._target.tokenizer.join
        for texts in line_windows(path, self._source.tokenizer.encoding):
            found = self._hypotheses(self._source.rows(texts))
            yield [
                Transduction(
                    text,
                    [join([symbols[i] for i in one.ids]) for one in hypotheses],
                    [one.log_prob_nats for one in hypotheses],
                )
                for text, hypotheses in zip(texts, found, strict=True)
            ]

    def evaluate(self, path: str) -> Evaluation:
        """Compare the likeliest targets with those of a text of ``source<TAB>target`` lines.

        Raises:
            InputError: the text is at fault.
        """
        pairs: list[tuple[Sequence[str], Sequence[str]]] = []
        symbols, tokens = self._target.vocabulary.symbols, self._target.tokenizer.tokens
        for window in windows(read_pairs(path)):
            found = self._hypotheses(self._source.rows(pair.source for pair in window))
            made = [[symbols[i] for i in hypotheses[0].ids] for hypotheses in found]
            pairs += zip(made, [tokens(pair.target) for pair in window], strict=True)
        scores = score_edits(pairs)
        return Evaluation(
            f"pairs {scores.sequences:,}\n"
            f"right {scores.exact:,}  {scores.sequence_accuracy:.2%}\n"
            f"wrong {scores.sequences - scores.exact:,}  {scores.sequence_error_rate:.2%}  "
            "(for pronunciations: word error rate)\n"
            f"edits {scores.edits:,} of {scores.tokens:,} tokens  {scores.token_error_rate:.2%}  "
            "(for pronunciations: phone error rate)\n",
            {
                "pairs": scores.sequences,
                "right": scores.exact,
                "sequence_accuracy": scores.sequence_accuracy,
                "edits": scores.edits,
                "tokens": scores.tokens,
                "token_error_rate": scores.token_error_rate,
            },
        )


PREDICTORS: dict[str, Callable[..., Predictor]] = {
    "classify": LabelPredictor,
    "tag": TagPredictor,
    "transduce": TransducePredictor,
}
OPTIONS = {"classify": ("top",), "tag": ("token_column", "tag_column"), "transduce": ("beam", "n_best")}


def new_predictor(trained: Trained, given: Mapping[str, int | None]) -> Any:
    """What predicts with a model.

    Args:
        given: the options of the command by their names, None for those that were not given.

    Raises:
        CheckpointError: the model is a language model.
        UsageError: an option is not for this kind of model.
    """
    if trained.task not in PREDICTORS:
        raise CheckpointError(f"{trained.path}: this is {NOUNS[trained.task]}: {REMEDIES[trained.task]}")
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in chosen:
        if name not in OPTIONS[trained.task]:
            raise UsageError(f"--{name.replace('_', '-')}: {trained.path} is {NOUNS[trained.task]}; leave it out")
    return PREDICTORS[trained.task](trained, **chosen)
