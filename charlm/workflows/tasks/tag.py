"""``--task tag``: a tag for each token of a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from charlm.errors import InputError, UsageError
from charlm.evaluation.entities import names_entities, score_entities
from charlm.models.tagger import Tagger, TaggerConfig
from charlm.text.labels import Labels
from charlm.text.readers import display_name
from charlm.text.tagged import Lexicon, TaggedCorpus, load_tagged
from charlm.text.tokenizer import Tokenizer
from charlm.training import defaults
from charlm.training.collections import Tagged, TaggedCollection
from charlm.training.sequence_task import TagTask
from charlm.wording import counted
from charlm.workflows.tasks.material import COMMON_MODEL_OPTIONS, check_activation
from charlm.workflows.tasks.reading import Reading
from charlm.workflows.tasks.whole import WholeMaterial
from charlm.workflows.text_side import lexicon
from charlm.workflows.train_request import Chosen

EXCERPT_CHARACTERS = 60


class TagMaterial(WholeMaterial):
    """Sentences, a tag for each token."""

    name = "tag"
    own_options = ("bidirectional", "char_features", "token_column", "tag_column")
    kind = TagTask
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
        if self.valid is not None and self.valid.size and not (self.valid.tags.ids >= 0).any():
            names = ", ".join(map(display_name, request.valid)) or "what is held out"
            raise InputError(
                f"{names}: the training text has none of its tags; is it another tag set, or another column?"
            )
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

    @property
    def choices(self) -> int:
        """See `WholeMaterial`."""
        return self.labels.size

    def collection(self, corpus: TaggedCorpus, config: Any) -> TaggedCollection:
        """See `WholeMaterial`."""
        return TaggedCollection(corpus.tokens, corpus.tags, 0 if config is None else config.char_features)

    def described(self) -> list[str]:
        """See `Material`."""
        counts, valid = self.train.counts, self.valid
        held = ", none held out" if valid is None else f", {valid.counts.sentences:,} held out"
        return [
            f"{counted(counts.sentences, 'sentence')} of {counted(counts.tokens, 'token')}{held}; "
            f"{counted(self.labels.size, 'tag')}, {counted(self.lexicon.words.size, 'word')}, "
            f"{counts.unknown_rate:.2%} unknown"
        ]

    def error(self, model: Tagger, found: list[list[int]]) -> float:
        """1 - F1 of the entities of what was held out, or the share of wrong tags if they name none."""
        assert self.valid is not None
        names = self.labels.names
        made = [tuple(names[i] for i in ids) for ids in found]
        scores = score_entities(zip([sentence.tags for sentence in self.valid.sentences], made, strict=True))
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
