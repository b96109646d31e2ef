"""``--task classify``: the label of a text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from charlm.errors import InputError
from charlm.models.classifier import Classifier, ClassifierConfig
from charlm.text.buckets import Rows
from charlm.text.corpus import Corpus, load
from charlm.text.labels import SOME, some_of
from charlm.training import defaults
from charlm.training.collections import Labelled, LabelledCollection
from charlm.training.sequence_task import ClassifyTask
from charlm.wording import counted
from charlm.workflows.tasks.material import COMMON_MODEL_OPTIONS, check_activation
from charlm.workflows.tasks.whole import WholeMaterial
from charlm.workflows.train_request import Chosen

EXCERPT_CHARACTERS = 60


class ClassifyMaterial(WholeMaterial):
    """Texts, each with its label."""

    name = "classify"
    own_options = ("bidirectional",)
    kind = ClassifyTask
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
            vocabulary=vocabulary, labelled=True, labels=reading.labels(), seed=reading.seed,
        )  # fmt: skip
        self.train, self.valid = reading.split(read, least_count)
        assert self.train.labels is not None
        self.labels = self.train.labels
        if self.labels.size == 1:
            raise InputError(f"{self.names[0]}: has one label only, {self.labels.names[0]!r}; give texts of several")
        once = [name for name, count in zip(self.labels.names, self.train.label_counts, strict=True) if count == 1]
        if once:
            reading.remarks.append(f"seen once, which is little to learn from: {self._told_of(once)}")
        if self.valid is not None and self.valid.label_ids is not None:
            missing = self.labels.missing(self.valid.label_ids)
            if missing:
                reading.remarks.append(f"not among what is held out: {self._told_of(missing)}")

    def _told_of(self, names: list[str]) -> str:
        """Some labels, and how many of all if there are more: perhaps they are none."""
        more = f", {len(names):,} of {self.labels.size:,} labels (lines are label<TAB>text)"
        return some_of(names) + (more if len(names) > SOME else "")

    def suggestions(self) -> Chosen:
        """See `Material`."""
        counts = self.train.counts
        return defaults.choose_whole(counts.sequences, self.train.vocabulary.size, self.name)

    def config(self, values: Mapping[str, Any]) -> ClassifierConfig:
        """See `Material`."""
        check_activation(values)
        return ClassifierConfig(vocabulary_size=self.train.vocabulary.size, labels=self.labels.size, **values)

    @property
    def choices(self) -> int:
        """See `WholeMaterial`."""
        return self.labels.size

    def collection(self, corpus: Corpus, config: Any) -> LabelledCollection:
        """See `WholeMaterial`."""
        assert corpus.label_ids is not None
        return LabelledCollection(Rows.of_stream(corpus.tokens), corpus.label_ids, corpus.vocabulary.size)

    def described(self) -> list[str]:
        """See `Material`."""
        counts, valid = self.train.counts, self.valid
        held = ", none held out" if valid is None else f", {valid.counts.sequences:,} held out"
        share = f", {counts.unknown_rate:.2%} unknown" if counts.unknowns else ""
        return [
            f"{counted(counts.sequences, 'text')} of {counted(counts.tokens, 'token')}{held}; "
            f"{counted(self.labels.size, 'label')}, {counted(self.train.vocabulary.size, 'symbol')}{share}"
        ]

    def error(self, model: Classifier, found: list[int]) -> float:
        """The share of labels that a model gets wrong of what was held out."""
        assert self.valid is not None
        assert self.valid.label_ids is not None
        right, total = int(np.count_nonzero(self.valid.label_ids == found)), len(found)
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
        return {
            "tokenizer": self.train.tokenizer.to_json(),
            "vocabulary": list(self.train.vocabulary.symbols),
            "labels": list(self.labels.names),
        }
