"""What ``charlm train`` does: text in, a model file out, a state to resume from beside it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from charlm import checkpoint, locks
from charlm.engine.threads import Team, available_cores
from charlm.errors import CheckpointError, OutputError, TrainingError, UsageError
from charlm.files import check_writable
from charlm.text.readers import STDIN
from charlm.training.loop import Finished, RolledBack, StepDone, Trainer, Validated
from charlm.training.state import Progress, Window
from charlm.workflows.kept_models import found_steps, refuse_step_paths, step_path
from charlm.workflows.saving import Saver, best_shapes
from charlm.workflows.sessions import sessions
from charlm.workflows.train_plan import Plan
from charlm.workflows.train_request import TrainRequest, resume_path
from charlm.workflows.trained import MODELS
from charlm.workflows.training_log import TrainingLog, may_be_log

STREAMS, MEMORY = ("/dev/", "/proc/"), "/dev/shm/"  # /dev/stdout is the file behind it, but its state would be in /dev
OF_ANOTHER = re.compile(r".*\.(resume|step-\d{9,})(\.npz)?")  # states and kept models, see `beside`


class Observer(Protocol):
    """Whoever is told what happens. Nothing here is printed by the workflow itself."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, plan: Plan, trainer: Trainer) -> None:
        """Training begins."""

    def step(self, event: StepDone, trainer: Trainer) -> None:
        """A step was made."""

    def validated(self, event: Validated, trainer: Trainer, glimpse: str, *, is_saved: bool) -> None:
        """The model was validated; ``is_saved``: the best one is in its file; ``glimpse`` shows what it can do."""

    def stop_requested(self) -> str | None:
        """Why to stop after this step, if so."""


@dataclass(frozen=True)
class TrainResult:
    """How a training ended; units as the names say."""

    model: str
    parameters: int
    epochs: float
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    train_nats: float | None
    best_valid_nats: float | None
    reason: str
    interrupted: bool
    steps_made: int = field(compare=False)  # in this call


def run(request: TrainRequest, observer: Observer) -> TrainResult:
    """Train, or go on training, a model.

    Raises:
        CharlmError: the request, the text or a file is at fault; nothing was written or lost.
    """
    if request.resume and request.init_from:
        raise UsageError("--resume goes on with a training, --init-from begins a new one: leave out one")
    if request.output == STDIN:
        raise UsageError("-o -: a model needs a file, to write the better one over the good one; name it")
    if request.log == STDIN:
        raise UsageError("--log -: a log needs a file, of which --resume reads the end; name one")
    if OF_ANOTHER.fullmatch(os.path.basename(request.output)):
        raise UsageError(f"-o {request.output}: is a name for what belongs to another model; choose another one")
    written = {"-o": request.output, "--resume's state": resume_path(request.output)}
    if request.log:
        written["--log"] = request.log
    for option, path in written.items():
        if os.path.abspath(path).startswith(STREAMS) and not os.path.abspath(path).startswith(MEMORY):
            raise UsageError(f"{option} {path}: stands for a stream or a device, and a file is needed; name one")
        check_writable(path)
    if len({os.path.realpath(path) for path in written.values()}) < len(written):
        raise UsageError(f"--log {request.log}: is where the model or its state is written; choose another name")
    for path in (*request.corpus, *request.valid):
        for option, target in written.items():
            if path != STDIN and os.path.realpath(path) == os.path.realpath(target):
                raise UsageError(f"{path}: is the text itself and would be overwritten ({option}); choose another name")
    if request.log and not may_be_log(request.log, resumed=request.resume):
        raise UsageError(f"--log {request.log}: holds something else, which would be lost; choose another name")
    with contextlib.ExitStack() as stack:
        for option, path in written.items():
            choose = "--log" if option == "--log" else "-o"
            stack.enter_context(locks.only_training(path, f"wait for it, or choose another {choose}"))
        return _Session(request, observer).run()


class _Session:
    """One call of ``charlm train``, from its plan to its result."""

    def __init__(self, request: TrainRequest, observer: Observer) -> None:
        self.request, self.observer = request, observer
        self.plan = Plan(request)
        self.options, self.material = self.plan.options, self.plan.material
        for remark in self.plan.remarks:
            observer.message(remark)
        self.model = MODELS[self.material.name](self.plan.config, Team(request.threads or available_cores()))
        self.trainer = Trainer(self.material.task(self.model, self.options), self.options)
        saved = self.plan.saved
        self._initialise()
        self.known_line = None if saved is None else saved.header.get("log")
        self.saver = Saver(
            request.output,
            self.trainer,
            header=self._header,
            state_header=lambda: {"log": self.log.last},
            tell=observer.message,
            resumed=saved,
            keep=request.keep,
        )
        if self.saver.keeps:
            self._check_step_paths()

    def _initialise(self) -> None:
        state = self.trainer.state
        saved, origin = self.plan.saved, self.plan.origin
        if saved is not None:
            path = resume_path(self.request.output)
            shapes = state.array_shapes()
            is_safe = saved.header.get("safe") is None
            others = {} if is_safe else {f"safe/{name}": shape for name, shape in shapes.items()}
            others |= best_shapes(saved, self.model.parameters.shapes)
            checkpoint.check_arrays(saved.arrays, shapes | others, path)
            state.restore(saved.arrays, self._saved_progress(saved, "progress"))
            if not is_safe:
                arrays = {name: saved.arrays[f"safe/{name}"] for name in shapes}
                self.trainer.safe = arrays, self._saved_progress(saved, "safe").to_json()
        elif origin is not None:
            self.model.parameters.assign(dict(origin.model.parameters))
        else:
            self.model.initialise(np.random.default_rng(self.options.seed))
        header = None if saved is None else saved.header
        self.sessions = sessions(header, self.request.command, state.progress.step, self.model.team.threads)
        self.plan.saved = self.plan.origin = None  # copied; their arrays would be held to the end
        self.model.changed()

    def _check_step_paths(self) -> None:
        """Nothing is written over by ``--keep`` but what it wrote itself."""
        request = self.request
        given = {path: "the text itself" for path in (*request.corpus, *request.valid) if path != STDIN}
        given |= {request.log: "the log"} if request.log else {}
        given |= {request.init_from: "the model to begin with"} if request.init_from else {}
        refuse_step_paths(request.output, given)
        check_writable(step_path(request.output, 0))
        others = [] if request.resume else found_steps(request.output)
        if others:
            more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
            first = step_path(request.output, others[0])
            self.observer.message(f"{first}{more}: of an earlier training, which --keep does not remove")

    def _saved_progress(self, saved: checkpoint.Checkpoint, key: str) -> Progress:
        path = resume_path(self.request.output)
        numbers = checkpoint.require(saved.header, key, dict, path)
        try:
            progress = Progress.from_json(numbers)
            place = (progress.epoch, progress.chunk)
            if min(place) < 0 or divmod(progress.step, self.trainer.task.steps_per_epoch) != place:
                raise ValueError("its place in the text is impossible")
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}; begin a new training without --resume") from error
        return progress

    def run(self) -> TrainResult:
        trainer, request = self.trainer, self.request
        self.log = TrainingLog(request.log, self.observer.message, resumed=request.resume, last=self.known_line)
        with contextlib.closing(self.log), contextlib.closing(self.model.team):
            began_at = trainer.state.progress.step
            self.observer.begin(self.plan, trainer)
            self.saver.begin()
            try:
                reason, interrupted = self._follow()
            except TrainingError:
                try:
                    self.saver.finish(finished=True)  # nothing to go on with: a new training may take its place
                except OutputError as error:
                    self.observer.message(str(error))
                raise
            self.saver.finish(finished=not interrupted)
        progress = trainer.state.progress
        history = progress.history
        return TrainResult(
            model=request.output,
            parameters=self.model.parameters.count,
            epochs=round(trainer.epoch, 4),
            steps=progress.step,
            tokens=progress.tokens,
            seconds=round(progress.seconds, 3),
            tokens_per_second=round(progress.tokens / progress.seconds, 1) if progress.seconds else 0.0,
            train_nats=history[-1].get("train_nats") if history else progress.smoothed_nats,
            best_valid_nats=progress.best_nats if self.material.valid is not None else None,
            reason=reason,
            interrupted=interrupted,
            steps_made=progress.step - began_at,
        )

    def _follow(self) -> tuple[str, bool]:
        """Drive the trainer to its end, or until a stop is asked for; returns why it ended."""
        log_interval = max(1, self.options.valid_interval // 10)
        for event in self.trainer.run():
            progress = self.trainer.state.progress
            if isinstance(event, StepDone):
                self.observer.step(event, self.trainer)
                if progress.step % log_interval == 0:
                    self._write_line("step", loss_nats=progress.log.nats_per_token if progress.log.tokens else None)
                    progress.log = Window()
                self.saver.stepped()
            elif isinstance(event, Validated):
                self._write_line("validation", loss_nats=event.train_nats, valid_nats=event.valid_nats)
                self.saver.validated(improved=event.improved)
                glimpse = self.material.glimpse(self.model, self._sample_seed())
                self.observer.validated(event, self.trainer, glimpse, is_saved=self.saver.is_best_written)
            elif isinstance(event, RolledBack):
                self._write_line("rollback")
                near = "" if event.example is None else f", near {self.material.excerpt(event.example)}"
                self.observer.message(
                    f"step {event.step}: {event.reason}{near}; back to step {event.back_to_step}, "
                    f"rate lowered to {event.lr:.2g}"
                )
            elif isinstance(event, Finished):
                self._write_line("end")
                return event.reason, False
            stop = self.observer.stop_requested()
            if stop:
                return stop, True
        raise AssertionError("a trainer's last event is Finished")

    def _write_line(self, event: str, *, loss_nats: float | None = None, valid_nats: float | None = None) -> None:
        progress = self.trainer.state.progress
        window = progress.log
        line = {
            "event": event,
            "step": progress.step,
            "epoch": round(self.trainer.epoch, 4),
            "seconds": round(progress.seconds, 3),
            "tokens": progress.tokens,
            "loss_nats": loss_nats,
            "valid_nats": valid_nats,
            "lr": progress.lr,
            "grad_norm": progress.grad_norm,
            "clipped": round(window.clipped / window.steps, 4) if window.steps else None,
        }
        self.log.write(line)

    def _header(self) -> dict[str, Any]:
        return {
            **self.material.header(),
            "model": self.model.config.to_json(),
            "training": asdict(self.options),
            "command": self.request.command,
            "sessions": self.sessions,
            "history": self.trainer.state.progress.history,
        }

    def _sample_seed(self) -> int:
        """Another one at each validation, the same in each run."""
        return (self.options.seed << 32) + self.trainer.state.progress.step
