"""The tags of tokens, by a tagger."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlm.evaluation.entities import names_entities, render_entities, score_entities
from charlm.text.buckets import Buckets
from charlm.text.examples import Sentence, read_sentences
from charlm.text.tagged import number_tokens
from charlm.text.vocabulary import UNK_ID
from charlm.training.collections import best_tags
from charlm.training.collections import sentences as sentence_batch
from charlm.training.sequence_task import EVALUATION_ROWS
from charlm.workflows.finite import naming, require_finite
from charlm.workflows.predictors.predictor import Evaluation, Predictor, nothing_to_evaluate, windows
from charlm.workflows.text_side import lexicon, saved_labels, text_record
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
        known = text_record(self.header, self.path) if "text" in self.header else {}
        self._token_column = known.get("token_column", 1) if token_column is None else token_column
        self._tag_column = known.get("tag_column", 0) if tag_column is None else tag_column

    def tags(self, sentences: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """The likeliest tag of each token."""
        tokens = number_tokens(sentences, self._lexicon)
        word_ids = tokens.word_ids[tokens.rows.ids]
        self.tokens += int(word_ids.size)
        self.unknowns += int(np.count_nonzero(word_ids == UNK_ID))
        result: list[tuple[str, ...]] = [()] * len(sentences)
        lengths, names = tokens.rows.lengths, self._labels.names
        for numbers in Buckets(lengths, batch_size=EVALUATION_ROWS).once():
            batch = sentence_batch(tokens, numbers, self.model.config.char_features)
            log_probs = self.model.log_probs(batch)
            with naming(self.path):  # where there is no token they mean nothing
                for row, length in enumerate(batch.lengths.tolist()):
                    require_finite(log_probs[log_probs.shape[0] - length :, row])
            for number, ids in zip(numbers.tolist(), best_tags(log_probs, batch), strict=True):
                result[number] = tuple(names[i] for i in ids)
        return result

    def predict(self, path: str) -> Iterator[list[Tagging]]:
        """The tags of each sentence, a window at a time.

        Raises:
            InputError: the text is at fault; the sentences before it have been given.
        """
        lines = last = 0

        def on_line(number: int) -> None:
            nonlocal lines
            lines = number

        for window in windows(
            read_sentences(path, token_column=self._token_column, tag_column=None, on_line=on_line)
        ):  # fmt: skip
            if not last:
                self._tell_columns(window[0])
            tags = self.tags([sentence.tokens for sentence in window])
            taggings = []
            for sentence, found in zip(window, tags, strict=True):
                taggings.append(Tagging(sentence, found, sentence.line - last - 1))
                last = sentence.line + len(sentence.tokens) - 1
            yield taggings
        if lines > last:
            yield [Tagging(Sentence(0, (), ()), (), lines - last)]

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
