"""``--task transduce``: a text from another, of another length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from charlm.errors import UsageError
from charlm.evaluation.edits import score_edits
from charlm.models.transducer import Transducer, TransducerConfig
from charlm.text.buckets import Buckets
from charlm.text.pairs import PairCorpus, Side, load_pairs
from charlm.training import defaults
from charlm.training.collections import PairCollection, Paired
from charlm.training.sequence_task import EVALUATION_ROWS, TransduceTask
from charlm.wording import counted
from charlm.workflows.tasks.material import COMMON_MODEL_OPTIONS, check_activation
from charlm.workflows.tasks.whole import WholeMaterial
from charlm.workflows.train_request import Chosen
from charlm.workflows.transduction import greedy

EXCERPT_CHARACTERS = 60
JUDGED_PAIRS = 500  # of what was held out


class TransduceMaterial(WholeMaterial):
    """Pairs of texts."""

    name = "transduce"
    own_options = ("bidirectional", "attention", "target_level")
    kind = TransduceTask
    model_options = (*COMMON_MODEL_OPTIONS, "bidirectional", "attention")
    unit = "token"
    train: PairCorpus
    valid: PairCorpus | None

    def read(self) -> None:
        """See `Material`."""
        reading, request = self.reading, self.reading.request
        text = request.text
        if text.sequence not in (None, "line") or text.level == "byte":
            raise UsageError(
                "--task transduce reads lines of source<TAB>target, of characters or words; leave out --sequence, "
                "--level byte"
            )
        source_tokenizer, source_vocabulary, least_count = reading.text_side(text)
        target_text = text.of_level(request.target_level or (text.level if reading.is_new else None))
        if target_text.min_count is None and reading.is_new:
            target_text = replace(target_text, min_count=1)  # no target holds <unk>, so there is none to learn
        target_tokenizer, target_vocabulary, target_least_count = reading.text_side(target_text, "target_")
        sides = None
        if source_vocabulary is not None and target_vocabulary is not None:
            sides = Side(source_tokenizer, source_vocabulary), Side(target_tokenizer, target_vocabulary)
        read = partial(
            load_pairs, request.corpus, source_tokenizer, target_tokenizer,
            min_counts=(least_count, target_least_count), vocab_size=text.vocab_size, sides=sides,
        )  # fmt: skip
        self.train, self.valid = reading.split(read, least_count)

    def suggestions(self) -> Chosen:
        """See `Material`."""
        return defaults.choose_whole(self.train.counts.pairs, self.train.target.vocabulary.size, self.name)

    def config(self, values: Mapping[str, Any]) -> TransducerConfig:
        """See `Material`."""
        check_activation(values)
        if values["bidirectional"] and values["hidden_size"] % 2:
            raise UsageError(
                f"--hidden-size {values['hidden_size']}: each direction of the encoder has half; give an even number, "
                "or --no-bidirectional"
            )
        return TransducerConfig(
            source_size=self.train.source.vocabulary.size, target_size=self.train.target.vocabulary.size, **values
        )

    @property
    def choices(self) -> int:
        """See `WholeMaterial`."""
        return self.train.target.vocabulary.size

    def collection(self, corpus: PairCorpus, config: Any) -> PairCollection:
        """See `WholeMaterial`."""
        return PairCollection(
            corpus.sources, corpus.targets, corpus.source.vocabulary.size, corpus.target.vocabulary.size
        )

    def described(self) -> list[str]:
        """See `Material`."""
        counts, valid = self.train.counts, self.valid
        held = ", none held out" if valid is None else f", {valid.counts.pairs:,} held out"
        source, target = self.train.source.vocabulary.size, self.train.target.vocabulary.size
        return [
            f"{counted(counts.pairs, 'pair')}{held}; "
            f"sources of {counts.source_tokens / counts.pairs:.1f} tokens, {counted(source, 'symbol')}; "
            f"targets of {counts.target_tokens / counts.pairs:.1f}, {counted(target, 'symbol')}"
        ]

    def error(self, model: Transducer, found: list[None]) -> float:
        """The share of wrong targets among some of what was held out."""
        assert self.valid is not None
        collection = self.collection(self.valid, model.config)
        some = np.arange(min(JUDGED_PAIRS, collection.lengths.size))
        pairs = []
        for batch in Buckets(collection.lengths[some], batch_size=EVALUATION_ROWS).once():
            for number, (made, _) in zip(batch, greedy(model, collection.example(batch).sources), strict=True):
                end = int(collection.targets.ends[number])
                wanted = collection.targets.ids[end - int(collection.targets.lengths[number]) : end - 1].tolist()
                pairs.append((made, wanted))
        scores = score_edits(pairs)
        self.told = f"right {scores.sequence_accuracy:.1%}, wrong tokens {scores.token_error_rate:.1%}"
        return scores.sequence_error_rate

    def excerpt(self, example: Paired) -> str:
        """See `Material`."""
        pair = self.train.pairs[int(example.numbers[0])]
        return repr(f"{pair.source}\t{pair.target}"[:EXCERPT_CHARACTERS])

    def own_header(self) -> dict[str, Any]:
        """See `Material`."""
        header: dict[str, Any] = {}
        for key, side in (("", self.train.source), ("target_", self.train.target)):
            header[f"{key}tokenizer"] = side.tokenizer.to_json()
            header[f"{key}vocabulary"] = list(side.vocabulary.symbols)
        return header
