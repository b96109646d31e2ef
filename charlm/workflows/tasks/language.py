"""``--task lm``: the next token of a text, perhaps of a text whose label is known."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from charlm.errors import UsageError
from charlm.models.language_model import LEAST_SYMBOLS, LanguageModel, LanguageModelConfig
from charlm.text.batches import Batches, Chunk, evaluation_chunks
from charlm.text.corpus import Corpus, load
from charlm.training import defaults
from charlm.training.language_task import LanguageTask
from charlm.training.options import TrainingOptions
from charlm.wording import counted
from charlm.workflows.label_side import LabelSide
from charlm.workflows.sample import Sample, SampleOptions, sample
from charlm.workflows.tasks.material import COMMON_MODEL_OPTIONS, Course, Material, check_activation
from charlm.workflows.train_request import Chosen

EVALUATION_STREAMS, EVALUATION_STEPS, EVALUATION_WARMUP = 32, 64, 128
EXCERPT_CHARACTERS = 60
GLIMPSE_LABELS = 4
MANY_SYMBOLS = 10_000  # from here on the adaptive softmax trains more than twice as fast
SAMPLE_TOKENS = {"char": 200, "byte": 200, "word": 40}


class LanguageMaterial(Material):
    """A text, as one stream of tokens."""

    name = "lm"
    own_options = ("condition", "tie_weights", "softmax", "bptt", "initial_state")
    model_options = (*COMMON_MODEL_OPTIONS, "tie_weights", "softmax")
    train: Corpus
    valid: Corpus | None
    side: LabelSide | None

    def next_command(self, model: str) -> str:
        """See `Material`."""
        label = "" if self.side is None else f" --label {shlex.quote(self.side.labels.names[0])}"
        return f"sample {model}{label}"

    def why_not(self, name: str) -> str:
        """See `Material`."""
        if name == "bidirectional":
            return "a language model may not see the future, which is what it is to predict"
        return super().why_not(name)

    def read(self) -> None:
        """See `Material`."""
        reading, request = self.reading, self.reading.request
        tokenizer, vocabulary, least_count = reading.text_side(request.text)
        known = reading.known_header()
        side = None if known is None else LabelSide.from_header(*known)
        is_labelled = self._is_conditioned(side)
        read = partial(
            load, request.corpus, tokenizer, min_count=least_count, vocab_size=request.text.vocab_size,
            vocabulary=vocabulary, labelled=is_labelled, labels=None if side is None else side.labels,
            seed=reading.seed,
        )  # fmt: skip
        self.train, self.valid = reading.split(read, least_count)
        self.unit = self.train.tokenizer.level
        self.side = None
        if self.train.labels is not None:
            self.side = LabelSide(self.train.labels, self.train.label_counts)
        symbols = self.train.vocabulary.size
        if reading.is_new and symbols >= MANY_SYMBOLS and request.softmax is None and not request.tie_weights:
            told = f"a softmax over {symbols:,} symbols takes most of the time"
            reading.remarks.append(f"{told}; --softmax adaptive is several times as fast")

    def _is_conditioned(self, side: LabelSide | None) -> bool:
        """Whether the lines begin with a label."""
        given = self.reading.request.condition
        if self.reading.is_new:
            return given is not None
        if given is not None and side is None:
            raise UsageError(f"--condition {given}: the model that there is was trained without labels; leave it out")
        return side is not None

    def suggestions(self) -> Chosen:
        """See `Material`."""
        train = self.train
        return defaults.choose(train.tokens.size, train.vocabulary.size, train.tokenizer.level)

    def config(self, values: Mapping[str, Any]) -> LanguageModelConfig:
        """See `Material`."""
        check_activation(values)
        labels = 0 if self.side is None else self.side.labels.size
        config = LanguageModelConfig(vocabulary_size=self.train.vocabulary.size, labels=labels, **values)
        if config.vocabulary_size < LEAST_SYMBOLS[config.softmax]:
            raise UsageError(
                f"--softmax {config.softmax} needs {LEAST_SYMBOLS[config.softmax]} symbols, and the text has "
                f"{config.vocabulary_size}; leave it out"
            )
        if config.tie_weights and config.softmax == "adaptive":
            raise UsageError("--softmax adaptive has no matrix as large as the embedding: leave out --tie-weights")
        if config.tie_weights and config.embedding_size != config.hidden_size:
            raise UsageError(
                f"--tie-weights needs --embedding-size equal to --hidden-size "
                f"({config.embedding_size} and {config.hidden_size}); leave one out"
            )
        return config

    def _batches(self, options: TrainingOptions) -> Batches:
        assert options.bptt is not None
        return Batches(
            self.train.tokens,
            vocabulary_size=self.train.vocabulary.size,
            streams=options.batch_size,
            bptt=options.bptt,
            shuffle=self.train.tokenizer.sequence != "file",
            seed=options.seed,
            first_inputs=self.train.first_inputs,
        )

    def course(self, options: TrainingOptions) -> Course:
        """See `Material`."""
        batches = self._batches(options)
        return Course(batches.streams, batches.steps_per_epoch)

    def task(self, model: LanguageModel, options: TrainingOptions) -> LanguageTask:
        """See `Material`."""
        validation = None
        if self.valid is not None:
            validation = partial(
                evaluation_chunks, self.valid.tokens, self.valid.vocabulary.size, EVALUATION_STREAMS,
                EVALUATION_STEPS, EVALUATION_WARMUP, self.valid.first_inputs,
            )  # fmt: skip
        is_one_piece = self.train.tokenizer.sequence == "file"
        return LanguageTask(model, self._batches(options), options, validation, begins_anew=is_one_piece)

    def described(self) -> list[str]:
        """See `Material`."""
        train, counts = self.train, self.train.counts
        held = ", none held out" if self.valid is None else f", {self.valid.tokens.size:,} held out"
        share = f", {counts.unknown_rate:.2%} unknown" if counts.unknowns else ""
        lines = [
            f"{counted(train.tokens.size, 'token')} in {counted(counts.sequences, 'sequence')}{held}; "
            f"{counted(train.vocabulary.size, 'symbol')}{share}"
        ]
        if self.side is not None:
            lines.append(counted(self.side.labels.size, "label"))
        return [*lines, f"{counted(counts.blank_lines, 'blank line')} skipped"] if counts.blank_lines else lines

    def glimpse(self, model: LanguageModel, seed: int) -> str:
        """A little text of the model's; of one that is given a label, a text of each of a few labels."""
        labels = None if self.side is None else self.side.labels
        texts = []
        for label in [None] if labels is None else labels.names[:GLIMPSE_LABELS]:
            options = SampleOptions(
                max_length=SAMPLE_TOKENS[self.train.tokenizer.level], seed=seed, label=label
            )  # fmt: skip
            events = sample(model, self.train.vocabulary, self.train.tokenizer, options, labels)
            text = next(event.text for event in events if isinstance(event, Sample))
            texts.append(text if label is None else f"{label}: {text}")
        return "\n".join(texts)

    def excerpt(self, example: Chunk) -> str:
        """The text of the first row of a chunk that has any, shortened."""
        text = ""
        for ids in example.targets.T:
            symbols = [self.train.vocabulary.symbol(int(i)) for i in ids[np.greater_equal(ids, 0)]]
            text = self.train.tokenizer.join(symbols)
            if text.strip():
                break
        return repr(text[:EXCERPT_CHARACTERS])

    def own_header(self) -> dict[str, Any]:
        """See `Material`."""
        return {
            "tokenizer": self.train.tokenizer.to_json(),
            "vocabulary": list(self.train.vocabulary.symbols),
            **({} if self.side is None else self.side.to_header()),
        }
