"""What a training is to be: its texts, sizes and options, from what was given, what was saved, and defaults."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from charlm import checkpoint
from charlm.errors import CheckpointError, UsageError
from charlm.training import defaults
from charlm.training.options import RANGES, TrainingOptions
from charlm.wording import counted
from charlm.workflows.model_files import check_weights
from charlm.workflows.task_names import NOUNS, task_of
from charlm.workflows.tasks.find import MATERIALS
from charlm.workflows.tasks.material import Material
from charlm.workflows.tasks.reading import Reading
from charlm.workflows.train_request import TrainRequest, changed, option_name, refuse_others, resume_path
from charlm.workflows.trained import CONFIGS, load_trained

TRAINING_STATE = "training-state"
LEAST_INTERVAL = 100  # steps between validations, where the number of epochs is open and an epoch may be very short
CHANGEABLE = ("epochs", "time_seconds", "patience")  # on --resume


class Plan:
    """Everything settled before the first step.

    Attributes:
        material: the texts, and what suits them.
        options, config: how to train what.
        chosen: the options that were chosen for the user, each with its reason.
        saved: the state to go on from, if any.
        origin: the model whose weights to begin with, if any.
        replaces: whether a model stands where the new one will.
        remarks: what the user should know besides.
    """

    def __init__(self, request: TrainRequest) -> None:
        self.request = request
        self.saved = self._load_saved() if request.resume else None
        self.origin = load_trained(request.init_from, 1) if request.init_from else None
        self.replaces = not request.resume and os.path.exists(request.output)
        if not request.resume:
            self._guard_unfinished()
        reading = Reading(request, self.saved, self.origin)
        self.chosen, self.remarks = reading.chosen, reading.remarks
        self.material: Material = MATERIALS[self._task_name()](reading)
        self.options, self.config = self._settle()

    def _load_saved(self) -> checkpoint.Checkpoint:
        path = resume_path(self.request.output)
        if not os.path.exists(path):
            raise CheckpointError(f"{path}: there is no training to resume; leave out --resume to begin one")
        try:
            return checkpoint.load(path, kind=TRAINING_STATE)
        except CheckpointError as error:
            if not os.path.exists(self.request.output):
                raise
            begin = f"--init-from {self.request.output} and another -o begin anew with the model's weights"
            raise CheckpointError(f"{error}; or {begin}") from None

    def _guard_unfinished(self) -> None:
        """An interrupted training must not be lost to a forgotten --resume."""
        path = resume_path(self.request.output)
        if not os.path.lexists(path):
            return
        try:
            header = checkpoint.load(path, kind=TRAINING_STATE).header
        except CheckpointError as error:  # of a newer charlm, perhaps
            raise CheckpointError(f"{error}; it would be replaced: move it away, or choose another -o") from None
        if not header.get("finished", False):
            raise UsageError(
                f"{path}: holds an unfinished training; go on with --resume, or delete it, or choose another -o"
            )

    def _task_name(self) -> str:
        """The task: given, or that of the training or the model to go on from."""
        given = self.request.task
        if self.saved is not None:
            before = task_of(self.saved.header, resume_path(self.request.output))
            if given not in (None, before):
                raise changed("task", before, given)
            return before
        if self.origin is not None:
            if given not in (None, self.origin.task):
                raise UsageError(f"--task {given}: {self.origin.path} is {NOUNS[self.origin.task]}; leave it out")
            return self.origin.task
        return given or "lm"

    def _settle(self) -> tuple[TrainingOptions, Any]:
        """What was given, what the training began with, and defaults for the rest."""
        request, material = self.request, self.material
        given = {f.name: getattr(request, f.name) for f in fields(request) if getattr(request, f.name) is not None}
        if self.saved is not None:
            return self._settle_resumed(given)
        suggested = material.suggestions()
        if self.origin is not None:
            config = self.origin.model.config
            refuse_others(
                [n for n in material.model_options if n in given and given[n] != _as_given(n, getattr(config, n))],
                "--init-from brings its own sizes",
            )
            suggested |= {n: (_as_given(n, getattr(config, n)), "as in --init-from") for n in material.model_options}
        if given.get("tie_weights"):
            size = given.get("hidden_size") or given.get("embedding_size") or suggested["hidden_size"][0]
            suggested["hidden_size"] = suggested["embedding_size"] = (size, "equal, for --tie-weights")
        hidden = int(given.get("hidden_size") or suggested["hidden_size"][0])
        if "hidden_size" in given and "embedding_size" not in given and not given.get("tie_weights"):
            suggested["embedding_size"] = (min(suggested["embedding_size"][0], hidden), "at most the hidden size")
        if "lr" not in suggested:
            suggested["lr"] = defaults.learning_rate(given.get("optimizer", defaults.FIXED["optimizer"]), hidden)
        if "epochs" in given or "time_seconds" in given:  # the user knows how long to train
            suggested.pop("patience", None)
        if "time_seconds" in given:
            suggested.pop("epochs", None)
        self.chosen |= {name: choice for name, choice in suggested.items() if name not in given}
        derived = {name: value for name, (value, _) in suggested.items()}
        values: dict[str, Any] = {"epochs": None, "bptt": None, **defaults.FIXED, **derived, **given}
        if self.origin is not None:
            config = self.origin.model.config  # also what no option says
        else:
            config = material.config({name: values[name] for name in material.model_options})
        names = {f.name for f in fields(TrainingOptions)}
        options = _within_range(TrainingOptions(**{k: v for k, v in values.items() if k in names}))
        return self._count_steps(options, given), config

    def _count_steps(self, options: TrainingOptions, given: Mapping[str, Any]) -> TrainingOptions:
        """Options that follow from the number of steps."""
        course = self.material.course(options)
        if course.rows < options.batch_size:
            rows = counted(course.rows, "row")
            self.remarks.append(f"the text is shorter than a batch: {rows} instead of {options.batch_size}")
            self.chosen["batch_size"] = (course.rows, "the text has no more")
            options = replace(options, batch_size=course.rows)
        total = None
        if options.schedule == "cosine" and options.epochs is not None:
            total = options.epochs * course.steps_per_epoch
        # The other schedules know no end: what follows must not depend on it, so that more epochs can be added.
        if "warmup" not in given:
            warmup = min(defaults.warmup_steps(total), course.steps_per_epoch if total is None else total)
            options = replace(options, warmup=warmup)
            reason = "Adam's averages settle first" if options.optimizer == "adamw" else "at once it might diverge"
            self.chosen["warmup"] = (options.warmup, f"steps; {reason}")
        interval = defaults.valid_interval(course.steps_per_epoch, total)
        if options.epochs is None:
            interval = max(interval, LEAST_INTERVAL)
        return replace(options, valid_interval=interval)

    def _refuse_earlier_end(self, given: Mapping[str, Any], path: str) -> None:
        """UsageError for an end that lies behind the training."""
        assert self.saved is not None
        progress = checkpoint.require(self.saved.header, "progress", dict, path)
        epochs, done, is_within = given.get("epochs"), progress.get("epoch"), progress.get("chunk")
        if epochs is not None and isinstance(done, int) and (epochs, 0) < (done, bool(is_within)):
            raise UsageError(
                f"--epochs {epochs}: {done}{' and a part' if is_within else ''} are done already; give more"
            )
        seconds, past = given.get("time_seconds"), progress.get("seconds")
        if seconds is not None and isinstance(past, (int, float)) and seconds < past:
            raise UsageError(f"--time {seconds:g}s: {past:.1f} seconds are over already; give more")

    def _settle_resumed(self, given: Mapping[str, Any]) -> tuple[TrainingOptions, Any]:
        assert self.saved is not None
        path = resume_path(self.request.output)
        config = CONFIGS[self.material.name](self.saved.header, path)
        check_weights(self.saved.arrays, path)
        parameters = {name: array for name, array in self.saved.arrays.items() if name.startswith("parameters/")}
        checkpoint.check_arrays(parameters, {f"parameters/{name}": s for name, s in config.shapes().items()}, path)
        try:
            options = TrainingOptions.from_json(checkpoint.require(self.saved.header, "training", dict, path))
            if (options.bptt is None) == ("bptt" in self.material.own_options):
                raise ValueError("its training options are malformed (bptt)")
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}; begin a new training without --resume") from None
        self._refuse_earlier_end(given, path)
        began = asdict(options) | config.to_json()
        for name, value in given.items():
            if name == "batch_size":
                value = min(value, self.material.course(replace(options, batch_size=value)).rows)  # as when it began
            if name in began and name not in CHANGEABLE and value != _as_given(name, began[name]):
                raise changed(name, _as_given(name, began[name]), value)
        return _within_range(replace(options, **{name: given[name] for name in CHANGEABLE if name in given})), config


def _as_given(name: str, value: Any) -> Any:
    """A number of a configuration as its option is: ``--char-features`` asks for what a model has many of."""
    return bool(value) if name == "char_features" else value


def _within_range(options: TrainingOptions) -> TrainingOptions:
    """The options; UsageError for one so large that a state with it could not be read."""
    for name, (_, most) in RANGES.items():
        value = getattr(options, name)
        if value is not None and not (value <= most and math.isfinite(value)):
            remedy = "leave it out" if math.isinf(most) else f"give {most:,} or less"
            raise UsageError(f"{option_name(name)} {value}: is too large; {remedy}")
    return options
