"""``--task classify``: the label of a text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from charlm.errors import InputError
from charlm.models.classifier import Classifier, ClassifierConfig
from charlm.text.buckets import Buckets, Rows
from charlm.text.corpus import Corpus, load
from charlm.training import defaults
from charlm.training.collections import Labelled, LabelledCollection
from charlm.training.options import TrainingOptions
from charlm.training.sequence_task import EVALUATION_ROWS, ClassifyTask, buckets
from charlm.workflows.tasks.material import COMMON_MODEL_OPTIONS, Course, Material, check_activation
from charlm.workflows.train_request import Chosen

EXCERPT_CHARACTERS = 60


class ClassifyMaterial(Material):
    """Texts, each with its label."""

    name = "classify"
    own_options = ("bidirectional",)
    model_options = (*COMMON_MODEL_OPTIONS, "bidirectional")
    unit, counted = "label", "labels"
    train: Corpus
    valid: Corpus | None

    def read(self) -> None:
        """See `Material`."""
        reading, request = self.reading, self.reading.request
        tokenizer, vocabulary, least_count = reading.text_side(request.text)
        read = partial(
            load, request.corpus, tokenizer, min_count=least_count, vocab_size=request.text.vocab_size,
            vocabulary=vocabulary, labelled=True, labels=reading.labels(), seed=request.seed or 0,
        )  # fmt: skip
        self.train, self.valid = reading.split(read, least_count)
        assert self.train.labels is not None
        self.labels = self.train.labels
        if self.labels.size == 1:
            raise InputError(f"{self.names[0]}: has one label only, {self.labels.names[0]!r}; give texts of several")
        assert self.train.label_ids is not None
        counts = np.bincount(self.train.label_ids, minlength=self.labels.size)
        once = [self.labels.names[i] for i in np.flatnonzero(counts == 1).tolist()]
        if once:
            reading.remarks.append(f"seen once, which is little to learn from: {', '.join(once)}")
        if self.valid is not None and self.valid.label_ids is not None:
            missing = self.labels.missing(self.valid.label_ids)
            if missing:
                reading.remarks.append(f"not among what is held out: {', '.join(missing)}")

    def suggestions(self) -> Chosen:
        """See `Material`."""
        counts = self.train.counts
        return defaults.choose_whole(counts.sequences, self.train.vocabulary.size, self.name)

    def config(self, values: Mapping[str, Any]) -> ClassifierConfig:
        """See `Material`."""
        check_activation(values)
        return ClassifierConfig(vocabulary_size=self.train.vocabulary.size, labels=self.labels.size, **values)

    def _collection(self, corpus: Corpus) -> LabelledCollection:
        assert corpus.label_ids is not None
        return LabelledCollection(Rows.of_stream(corpus.tokens), corpus.label_ids, corpus.vocabulary.size)

    def course(self, options: TrainingOptions) -> Course:
        """See `Material`."""
        collection = self._collection(self.train)
        return Course(
            min(options.batch_size, collection.lengths.size), buckets(collection, options).steps_per_epoch
        )  # fmt: skip

    def task(self, model: Classifier, options: TrainingOptions) -> ClassifyTask:
        """See `Material`."""
        valid = None if self.valid is None else self._collection(self.valid)
        return ClassifyTask(model, self._collection(self.train), options, valid, self.labels.size, self.error)

    def described(self) -> list[str]:
        """See `Material`."""
        counts, valid = self.train.counts, self.valid
        held = ", none held out" if valid is None else f", {valid.counts.sequences:,} held out"
        share = f", {counts.unknown_rate:.2%} unknown" if counts.unknowns else ""
        return [
            f"{counts.sequences:,} texts of {counts.tokens:,} tokens{held}; {self.labels.size:,} labels, "
            f"{self.train.vocabulary.size:,} symbols{share}"
        ]

    def glimpse(self, model: Classifier, seed: int) -> str:
        """The accuracy on what was held out."""
        return self.told

    def error(self, model: Classifier) -> float:
        """The share of labels that a model gets wrong of what was held out."""
        assert self.valid is not None
        collection = self._collection(self.valid)
        right = total = 0
        for numbers in Buckets(collection.lengths, batch_size=EVALUATION_ROWS).once():
            example = collection.example(numbers)
            right += int(np.count_nonzero(model.log_probs(example.sequences).argmax(axis=1) == example.labels))
            total += example.predicted
        self.told = f"accuracy {right / total:.1%}: {right:,} of {total:,}"
        return 1 - right / total

    def excerpt(self, example: Labelled) -> str:
        """See `Material`."""
        ids = example.sequences.ids[:, 0]
        vocabulary = self.train.vocabulary
        symbols = [vocabulary.symbol(int(i)) for i in ids[ids < vocabulary.size]]
        return repr(self.train.tokenizer.join(symbols[:-1])[:EXCERPT_CHARACTERS])

    def own_header(self) -> dict[str, Any]:
        """See `Material`."""
        assert self.train.label_ids is not None
        counts = np.bincount(self.train.label_ids, minlength=self.labels.size)
        return {
            "tokenizer": self.train.tokenizer.to_json(),
            "vocabulary": list(self.train.vocabulary.symbols),
            "labels": list(self.labels.names),
            "label_counts": counts.tolist(),
        }
