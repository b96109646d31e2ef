"""What a training is to be: its corpora, sizes and options, from what was given, what was saved, and defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

from charlm import checkpoint
from charlm.engine import cells
from charlm.errors import CheckpointError, InputError, UsageError
from charlm.models.language_model import LanguageModelConfig
from charlm.text import token_file
from charlm.text.batches import Batches
from charlm.text.corpus import Corpus, load
from charlm.text.readers import STDIN
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import Vocabulary
from charlm.training import defaults
from charlm.training.options import TrainingOptions
from charlm.workflows.model_files import load_model, model_config
from charlm.workflows.text_side import text_side
from charlm.workflows.tokenize import TextOptions

TRAINING_STATE = "training-state"
MODEL_OPTIONS = ("cell", "activation", "hidden_size", "num_layers", "embedding_size", "tie_weights", "softmax")
LEAST_INTERVAL = 100  # steps between validations, where the number of epochs is open and an epoch may be very short
CHANGEABLE = ("epochs", "time_seconds", "patience")  # on --resume

Chosen = dict[str, tuple[Any, str]]  # option -> value and reason


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for; None for what was not given. Field names are those of the options."""

    corpus: Sequence[str]
    output: str
    text: TextOptions = field(default_factory=TextOptions)
    valid: Sequence[str] = ()
    valid_frac: float | None = None
    cell: str | None = None
    activation: str | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    embedding_size: int | None = None
    tie_weights: bool | None = None
    softmax: str | None = None
    bptt: int | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    schedule: str | None = None
    warmup: int | None = None
    clip: float | None = None
    clip_mode: str | None = None
    dropout: float | None = None
    variational: bool | None = None
    weight_decay: float | None = None
    initial_state: str | None = None
    epochs: int | None = None
    time_seconds: float | None = None
    patience: int | None = None
    seed: int | None = None
    threads: int | None = None
    resume: bool = False
    init_from: str | None = None
    log: str | None = None
    command: str = ""


def resume_path(output: str) -> str:
    """Where what resuming needs lies: MODEL.npz -> MODEL.resume.npz."""
    return f"{output.removesuffix('.npz')}.resume.npz"


class Plan:
    """Everything settled before the first step.

    Attributes:
        train, valid: the corpora.
        options, config: how to train what.
        chosen: the options that were chosen for the user, each with its reason.
        text_record: limits of the vocabulary and the fraction held out, for resuming.
        saved: the state to go on from, if any.
        origin: the model whose weights to begin with, if any.
        remarks: what the user should know besides.
    """

    def __init__(self, request: TrainRequest) -> None:
        self.request = request
        self.remarks: list[str] = []
        self.chosen: Chosen = {}
        self.text_record: dict[str, Any] = {}
        self.saved = self._load_saved() if request.resume else None
        self.origin = load_model(request.init_from, 1) if request.init_from else None
        if not request.resume:
            self._guard_unfinished()
        self.train, self.valid = self._load_corpora()
        self.options, self.config = self._settle()

    def batches(self, options: TrainingOptions) -> Batches:
        """The training text cut into chunks."""
        return Batches(
            self.train.tokens,
            vocabulary_size=self.train.vocabulary.size,
            streams=options.batch_size,
            bptt=options.bptt,
            shuffle=self.train.tokenizer.sequence != "file",
            seed=options.seed,
        )

    def _load_saved(self) -> checkpoint.Checkpoint:
        path = resume_path(self.request.output)
        if not os.path.exists(path):
            raise CheckpointError(f"{path}: there is no training to resume; leave out --resume to begin one")
        return checkpoint.load(path, kind=TRAINING_STATE)

    def _guard_unfinished(self) -> None:
        """An interrupted training must not be lost to a forgotten --resume."""
        path = resume_path(self.request.output)
        try:
            header = checkpoint.load(path, kind=TRAINING_STATE).header
        except CheckpointError:
            return  # there is none, or nothing that could be resumed
        if not header.get("finished", False):
            raise UsageError(
                f"{path}: holds an unfinished training; go on with --resume, or delete it, or choose another -o"
            )

    def _load_corpora(self) -> tuple[Corpus, Corpus | None]:
        request, chosen, text = self.request, self.chosen, self.request.text
        if request.valid and request.valid_frac:
            raise UsageError("--valid and --valid-frac exclude each other; leave out one")
        for path in filter(token_file.is_token_file, request.corpus):
            _refuse_others(text.given(), f"{path} is tokenized already")
        tokenizer, vocabulary, min_count = text.tokenizer(), None, text.min_count
        if self.saved is not None:
            tokenizer, vocabulary = self._saved_text_side(text)
        elif self.origin is not None:
            _refuse_others(text.given(), "--init-from brings its own vocabulary")
            tokenizer, vocabulary = self.origin.tokenizer, self.origin.vocabulary
        else:
            min_count = text.least_count()
            if text.min_count is None and min_count > 1:
                chosen["min_count"] = (min_count, "words seen once teach the model <unk>")
        fraction = request.valid_frac
        if self.saved is not None:
            fraction = self._saved_value("valid_frac", fraction)
        elif fraction is None and not request.valid:
            size = sum(os.path.getsize(p) for p in request.corpus if os.path.isfile(p))
            fraction, reason = defaults.valid_fraction(size)
            chosen["valid_frac"] = (fraction, reason)
        read = partial(
            load, request.corpus, tokenizer, min_count=min_count or 1, vocab_size=text.vocab_size,
            vocabulary=vocabulary,
        )  # fmt: skip
        if request.valid:
            train, valid = read(valid_paths=request.valid)
        else:
            try:
                train, valid = read(valid_frac=fraction or 0.0)
            except InputError as error:
                if "valid_frac" not in chosen:
                    raise
                if STDIN in request.corpus:  # which cannot be read again
                    raise InputError(f"{error}; --valid-frac 0 holds nothing out") from None
                train, valid = read()  # or the true fault, without the part held out
                chosen["valid_frac"] = (0.0, "too few sequences to hold any out")
                fraction = 0.0
        self.text_record = {"min_count": min_count, "vocab_size": text.vocab_size, "valid_frac": fraction}
        if self.saved is not None:
            self.text_record = checkpoint.require(self.saved.header, "text", dict, resume_path(request.output))
            self._compare_corpora(train, valid)
        if valid is not None and valid.tokens.size > train.tokens.size:
            self.remarks.append(
                f"the validation text ({valid.tokens.size:,} tokens) is longer than the training text "
                f"({train.tokens.size:,})"
            )
        return train, valid

    def _saved_text_side(self, text: TextOptions) -> tuple[Tokenizer, Vocabulary]:
        assert self.saved is not None
        vocabulary, tokenizer = text_side(self.saved.header, resume_path(self.request.output))
        for name in ("level", "sequence", "normalize", "lowercase"):
            value = getattr(text, name)
            if value is not None and value != getattr(tokenizer, name):
                raise _changed(name, getattr(tokenizer, name), value)
        for name in ("min_count", "vocab_size"):
            self._saved_value(name, getattr(text, name))
        return tokenizer, vocabulary

    def _saved_value(self, name: str, given: Any) -> Any:
        """An option that the training began with; UsageError if another value is given now."""
        assert self.saved is not None
        values = checkpoint.require(self.saved.header, "text", dict, resume_path(self.request.output))
        if given is not None and given != values.get(name):
            raise _changed(name, values.get(name), given)
        return values.get(name)

    def _compare_corpora(self, train: Corpus, valid: Corpus | None) -> None:
        assert self.saved is not None
        path = resume_path(self.request.output)
        known = checkpoint.require(self.saved.header, "corpus", dict, path)
        now = fingerprint(train, valid)
        for part, what in (("sha256", "the corpus"), ("valid_sha256", "the validation text")):
            if known.get(part) != now[part]:
                raise InputError(
                    f"{', '.join(train.names)}: {what} is not the one this training began with (SHA-256 "
                    f"{str(known.get(part))[:12]}, now {str(now[part])[:12]}); to train on another, use --init-from"
                )

    def _settle(self) -> tuple[TrainingOptions, LanguageModelConfig]:
        """What was given, what the training began with, and defaults for the rest."""
        request = self.request
        given = {f.name: getattr(request, f.name) for f in fields(request) if getattr(request, f.name) is not None}
        if self.saved is not None:
            return self._settle_resumed(given)
        train = self.train
        suggested = defaults.choose(train.tokens.size, train.vocabulary.size, train.tokenizer.level)
        if self.origin is not None:
            config = self.origin.model.config
            _refuse_others(
                [name for name in MODEL_OPTIONS if name in given and given[name] != getattr(config, name)],
                "--init-from brings its own sizes",
            )
            suggested |= {name: (getattr(config, name), "as in --init-from") for name in MODEL_OPTIONS}
        if given.get("tie_weights"):
            size = given.get("hidden_size") or given.get("embedding_size") or suggested["hidden_size"][0]
            suggested["hidden_size"] = suggested["embedding_size"] = (size, "equal, for --tie-weights")
        hidden = given.get("hidden_size", suggested["hidden_size"][0])
        if "hidden_size" in given and "embedding_size" not in given and not given.get("tie_weights"):
            suggested["embedding_size"] = (min(suggested["embedding_size"][0], hidden), "at most the hidden size")
        suggested["lr"] = defaults.learning_rate(given.get("optimizer", defaults.FIXED["optimizer"]), hidden)
        if "epochs" in given or "time_seconds" in given:  # the user knows how long to train
            del suggested["patience"]
        if "time_seconds" in given:
            del suggested["epochs"]
        self.chosen |= {name: choice for name, choice in suggested.items() if name not in given}
        derived = {name: value for name, (value, _) in suggested.items()}
        values: dict[str, Any] = {"epochs": None, **defaults.FIXED, **derived, **given}
        config = self._config({name: values[name] for name in MODEL_OPTIONS})
        names = {f.name for f in fields(TrainingOptions)}
        options = TrainingOptions(**{k: v for k, v in values.items() if k in names})
        return self._count_steps(options, given), config

    def _count_steps(self, options: TrainingOptions, given: Mapping[str, Any]) -> TrainingOptions:
        """Options that follow from the number of steps."""
        batches = self.batches(options)
        if batches.streams < options.batch_size:
            self.remarks.append(
                f"the text is shorter than a batch: {batches.streams} rows instead of {options.batch_size}"
            )
            self.chosen["batch_size"] = (batches.streams, "the text has no more")
            options = replace(options, batch_size=batches.streams)
        total = None
        if options.schedule == "cosine" and options.epochs is not None:
            total = options.epochs * batches.steps_per_epoch
        # The other schedules know no end: what follows must not depend on it, so that more epochs can be added.
        if "warmup" not in given:
            warmup = min(defaults.warmup_steps(total), batches.steps_per_epoch if total is None else total)
            options = replace(options, warmup=warmup)
            self.chosen["warmup"] = (options.warmup, "steps; Adam's averages settle first")
        interval = defaults.valid_interval(batches.steps_per_epoch, total)
        if options.epochs is None:
            interval = max(interval, LEAST_INTERVAL)
        return replace(options, valid_interval=interval)

    def _settle_resumed(self, given: Mapping[str, Any]) -> tuple[TrainingOptions, LanguageModelConfig]:
        assert self.saved is not None
        path = resume_path(self.request.output)
        config = model_config(self.saved.header, self.train.vocabulary, path)
        parameters = {name: array for name, array in self.saved.arrays.items() if name.startswith("parameters/")}
        checkpoint.check_arrays(parameters, {f"parameters/{name}": s for name, s in config.shapes().items()}, path)
        try:
            options = TrainingOptions.from_json(checkpoint.require(self.saved.header, "training", dict, path))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}; begin a new training without --resume") from None
        began = asdict(options) | config.to_json()
        for name, value in given.items():
            if name == "batch_size":
                value = min(value, self.train.tokens.size)  # as when it began: a short text has fewer rows
            if name in began and name not in CHANGEABLE and value != began[name]:
                raise _changed(name, began[name], value)
        return replace(options, **{name: given[name] for name in CHANGEABLE if name in given}), config

    def _config(self, values: Mapping[str, Any]) -> LanguageModelConfig:
        cell = cells.find(values["cell"])
        if values["activation"] not in cell.activations:
            raise UsageError(
                f"--activation {values['activation']}: --cell {values['cell']} has {', '.join(cell.activations)} only"
            )
        config = LanguageModelConfig(vocabulary_size=self.train.vocabulary.size, **values)
        if config.tie_weights and config.softmax == "adaptive":
            raise UsageError("--softmax adaptive has no matrix as large as the embedding: leave out --tie-weights")
        if config.tie_weights and config.embedding_size != config.hidden_size:
            raise UsageError(
                f"--tie-weights needs --embedding-size equal to --hidden-size "
                f"({config.embedding_size} and {config.hidden_size}); leave one out"
            )
        return config


def fingerprint(train: Corpus, valid: Corpus | None) -> dict[str, str | None]:
    """What the corpora are known by."""
    return {"sha256": train.sha256, "valid_sha256": None if valid is None else valid.sha256}


def _changed(name: str, before: Any, now: Any) -> UsageError:
    option = {"time_seconds": "time"}.get(name, name).replace("_", "-")
    return UsageError(
        f"--{option} {now}: this training began with {before}; resume without it, or begin anew with --init-from"
    )


def _refuse_others(given: Sequence[str], reason: str) -> None:
    if given:
        options = ", ".join(name if name.startswith("--") else f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{reason}: leave out {options}")
