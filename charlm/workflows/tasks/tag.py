"""``--task tag``: a tag for each token of a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from charlm.errors import UsageError
from charlm.evaluation.entities import names_entities, score_entities
from charlm.models.tagger import Tagger, TaggerConfig
from charlm.text.buckets import Buckets
from charlm.text.labels import Labels
from charlm.text.tagged import Lexicon, TaggedCorpus, load_tagged
from charlm.text.tokenizer import Tokenizer
from charlm.training import defaults
from charlm.training.collections import Tagged, TaggedCollection
from charlm.training.options import TrainingOptions
from charlm.training.sequence_task import EVALUATION_ROWS, TagTask, buckets
from charlm.workflows.tasks.material import COMMON_MODEL_OPTIONS, Course, Material, check_activation
from charlm.workflows.tasks.reading import Reading
from charlm.workflows.text_side import lexicon
from charlm.workflows.train_request import Chosen

EXCERPT_CHARACTERS = 60


class TagMaterial(Material):
    """Sentences, a tag for each token."""

    name = "tag"
    own_options = ("bidirectional", "char_features", "token_column", "tag_column")
    model_options = (*COMMON_MODEL_OPTIONS, "bidirectional", "char_features")
    unit, counted = "tag", "tags"
    train: TaggedCorpus
    valid: TaggedCorpus | None

    def __init__(self, reading: Reading) -> None:
        text = reading.request.text
        if text.level not in (None, "word") or text.sequence not in (None, "line"):
            raise UsageError("--task tag reads tokens as they stand in their column; leave out --level, --sequence")
        super().__init__(reading)

    def read(self) -> None:
        """See `Material`."""
        reading, request = self.reading, self.reading.request
        text = request.text.of_level("word") if reading.is_new else request.text
        tokenizer, _, least_count = reading.text_side(text)
        known = reading.known_header()
        columns = {"token_column": reading.option("token_column", 1), "tag_column": reading.option("tag_column", 0)}
        read = partial(
            load_tagged, request.corpus, tokenizer, **columns, min_count=least_count, vocab_size=text.vocab_size,
            lexicon=None if known is None else lexicon(*known), labels=reading.labels(),
        )  # fmt: skip
        self.train, self.valid = reading.split(read, least_count)
        reading.text_record |= columns
        self.labels: Labels = self.train.labels
        self.lexicon: Lexicon = self.train.lexicon
        self.tokenizer: Tokenizer = self.lexicon.tokenizer

    def suggestions(self) -> Chosen:
        """See `Material`."""
        return defaults.choose_whole(self.train.counts.tokens, self.lexicon.words.size, self.name)

    def config(self, values: Mapping[str, Any]) -> TaggerConfig:
        """See `Material`."""
        check_activation(values)
        sizes = dict(values)
        has_characters = sizes.pop("char_features")
        return TaggerConfig(
            vocabulary_size=self.lexicon.words.size,
            labels=self.labels.size,
            char_features=self.lexicon.characters.size if has_characters else 0,
            **sizes,
        )

    def _collection(self, corpus: TaggedCorpus, config: TaggerConfig | None) -> TaggedCollection:
        return TaggedCollection(corpus.tokens, corpus.tags, config.char_features if config else 0)

    def course(self, options: TrainingOptions) -> Course:
        """See `Material`."""
        collection = self._collection(self.train, None)
        return Course(min(options.batch_size, collection.lengths.size), buckets(collection, options).steps_per_epoch)

    def task(self, model: Tagger, options: TrainingOptions) -> TagTask:
        """See `Material`."""
        valid = None if self.valid is None else self._collection(self.valid, model.config)
        return TagTask(model, self._collection(self.train, model.config), options, valid, self.labels.size, self.error)

    def described(self) -> list[str]:
        """See `Material`."""
        counts, valid = self.train.counts, self.valid
        held = ", none held out" if valid is None else f", {valid.counts.sentences:,} held out"
        return [
            f"{counts.sentences:,} sentences of {counts.tokens:,} tokens{held}; {self.labels.size:,} tags, "
            f"{self.lexicon.words.size:,} words, {counts.unknown_rate:.2%} unknown"
        ]

    def glimpse(self, model: Tagger, seed: int) -> str:
        """How well what was held out is tagged."""
        return self.told

    def error(self, model: Tagger) -> float:
        """1 - F1 of the entities of what was held out, or the share of wrong tags if they name none."""
        assert self.valid is not None
        found = tag_sentences(model, self._collection(self.valid, model.config), self.labels)
        true = [sentence.tags for sentence in self.valid.sentences]
        scores = score_entities(zip(true, found, strict=True))
        self.told = f"tags right {scores.token_accuracy:.2%}"
        if not names_entities(self.labels.names):
            return 1 - scores.token_accuracy
        self.told += f", entities: F1 {scores.overall.f1:.1%}"
        return 1 - scores.overall.f1

    def excerpt(self, example: Tagged) -> str:
        """See `Material`."""
        sentence = self.train.sentences[int(example.numbers[0])]
        return repr(" ".join(sentence.tokens)[:EXCERPT_CHARACTERS])

    def own_header(self) -> dict[str, Any]:
        """See `Material`."""
        return {
            "tokenizer": self.tokenizer.to_json(),
            "vocabulary": list(self.lexicon.words.symbols),
            "characters": list(self.lexicon.characters.symbols),
            "labels": list(self.labels.names),
        }


def tag_sentences(model: Tagger, collection: TaggedCollection, labels: Labels) -> list[tuple[str, ...]]:
    """The likeliest tag of each token of each sentence."""
    result: list[tuple[str, ...]] = [()] * int(collection.lengths.size)
    for numbers in Buckets(collection.lengths, batch_size=EVALUATION_ROWS).once():
        example = collection.example(numbers)
        best = model.log_probs(example.sentences).argmax(axis=2)
        for row, number in enumerate(numbers.tolist()):
            ids = best[best.shape[0] - int(collection.lengths[number]) :, row].tolist()
            result[number] = tuple(labels.names[i] for i in ids)
    return result
