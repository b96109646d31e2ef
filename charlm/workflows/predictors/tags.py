"""The tags of tokens, by a tagger."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from charlm.errors import CheckpointError
from charlm.evaluation.entities import names_entities, render_entities, score_entities
from charlm.text.buckets import Buckets
from charlm.text.examples import Sentence, read_sentences
from charlm.text.tagged import number_tokens
from charlm.training.collections import best_tags
from charlm.training.collections import sentences as sentence_batch
from charlm.training.sequence_task import EVALUATION_ROWS
from charlm.workflows.numbers import refuse_nan
from charlm.workflows.predictors.predictor import Evaluation, Predictor, nothing_to_evaluate, windows
from charlm.workflows.text_side import lexicon, saved_labels
from charlm.workflows.trained import Trained


@dataclass(frozen=True)
class Tagging:
    """A sentence and the likeliest tag of each of its tokens; ``blank_before``: lines without a token before it.

    The last has no tokens, and the lines after the last token.
    """

    sentence: Sentence
    tags: tuple[str, ...]
    blank_before: int


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
        for numbers in Buckets(lengths, batch_size=EVALUATION_ROWS).once():
            batch = sentence_batch(tokens, numbers, self.model.config.char_features)
            log_probs = self.model.log_probs(batch)
            refuse_nan(log_probs[batch.is_token])
            for number, ids in zip(numbers.tolist(), best_tags(log_probs, batch), strict=True):
                result[number] = tuple(names[i] for i in ids)
        return result

    def predict(self, path: str) -> Iterator[list[Tagging]]:
        """The tags of each sentence, a window at a time.

        Raises:
            InputError: the text is at fault; the sentences before it have been given.
        """
        lines, last, is_open = 0, 0, False

        def observe(raw: bytes) -> None:
            nonlocal lines, is_open
            lines += raw.count(b"\n")
            is_open = not raw.endswith(b"\n") if raw else is_open

        for window in windows(
            read_sentences(path, token_column=self._token_column, tag_column=None, observe=observe)
        ):  # fmt: skip
            if not last:
                self._tell_columns(window[0])
            tags = self.tags([sentence.tokens for sentence in window])
            taggings = []
            for sentence, found in zip(window, tags, strict=True):
                taggings.append(Tagging(sentence, found, sentence.line - last - 1))
                last = sentence.line + len(sentence.tokens) - 1
            yield taggings
        if lines + is_open > last:
            yield [Tagging(Sentence(0, (), ()), (), lines + is_open - last)]

    def _tell_columns(self, sentence: Sentence) -> None:
        """Say which column is read if there are several: a plain sentence a line would be taken for columns."""
        columns = len(re.split(r"\t| +", sentence.rows[0].strip()))
        if columns > 1:
            column = self._token_column or columns
            self.warn(f"tokens are taken from column {column} of {columns}; one a line, a blank line between sentences")

    def evaluate(self, path: str) -> Evaluation:
        """Compare with the tags of a text; a tag that the model does not know is one that it does not find.

        Raises:
            InputError: the text is at fault.
        """
        pairs: list[tuple[Sequence[str], Sequence[str]]] = []
        for window in windows(read_sentences(path, token_column=self._token_column, tag_column=self._tag_column)):
            found = self.tags([sentence.tokens for sentence in window])
            pairs += zip([sentence.tags for sentence in window], found, strict=True)
        if not pairs:
            raise nothing_to_evaluate(path)
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
