"""The training loop: examples in, events out.

It writes no file and prints nothing: whoever drives it does so between two events, and may stop there. What it then
finds in ``trainer.state`` and ``trainer.safe`` goes on to the same bits as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlm.engine.jit import compilation_seconds
from charlm.errors import TrainingError
from charlm.models.parameters import Array
from charlm.training.history import thinned
from charlm.training.optimiser import Clipper, Optimiser, gradient_norm
from charlm.training.options import TrainingOptions
from charlm.training.schedule import PLATEAU_FACTOR, rate_factor
from charlm.training.state import Progress, TrainingState, Window
from charlm.training.task import Example, TrainingTask
from charlm.wording import counted

SNAPSHOT_STEPS = 200  # between the states in memory to which a divergence goes back
EXPLODED = 2.0  # times the loss of guessing or the first loss, plus 1 nat: above it is a divergence
ROLLBACKS = 8  # then give up
SMOOTHING = 0.98


@dataclass(frozen=True)
class StepDone:
    """After each step; means over the window since the last event of the kind are in ``trainer.state``."""

    loss_nats: float  # per prediction: a token, a tag, a label
    tokens: int  # as many predictions
    grad_norm: float
    clipped: bool
    lr: float


@dataclass(frozen=True)
class Validated:
    """After each validation; ``valid_nats`` is None if nothing was held out."""

    train_nats: float  # per prediction, since the last validation
    valid_nats: float | None
    improved: bool
    valid_error: float | None = None  # 0 to 1; None where the loss alone judges


@dataclass(frozen=True)
class RolledBack:
    """After a divergence: the state is an older one, and the rate lower."""

    reason: str
    example: Any  # at fault, one of the task's; None if a validation found the fault
    step: int
    back_to_step: int
    lr: float


@dataclass(frozen=True)
class Finished:
    """The last event."""

    reason: str


Event = StepDone | Validated | RolledBack | Finished
Record = tuple[dict[str, Array], dict[str, Any]]  # what `TrainingState.restore` takes, the numbers as JSON


class Trainer:
    """Trains the model of a task.

    Attributes:
        state: where it stands.
        safe: the last state whose weights are known to be good, to which a divergence goes back.
    """

    def __init__(self, task: TrainingTask, options: TrainingOptions) -> None:
        self.task, self.options = task, options
        parameters = task.model.parameters
        optimiser = Optimiser(options.optimizer, parameters, options.weight_decay)
        self.state = TrainingState(parameters, optimiser, task.carried)
        self.safe: Record | None = None
        self._clip = Clipper(options.clip_mode, options.clip)

    @property
    def total_steps(self) -> int | None:
        """Steps in all epochs; None if only time ends the training."""
        epochs = self.options.epochs
        return None if epochs is None else epochs * self.task.steps_per_epoch

    @property
    def epoch(self) -> float:
        """Epochs done, with the part of the one that is being made."""
        progress = self.state.progress
        return progress.epoch + progress.chunk / self.task.steps_per_epoch

    def done(self) -> float:
        """How much of the training is over, 0 to 1, by the nearer of its two ends."""
        progress, parts = self.state.progress, [0.0]
        if self.total_steps is not None:
            parts.append(progress.step / max(1, self.total_steps))
        if self.options.time_seconds is not None:
            parts.append(progress.seconds / self.options.time_seconds)
        return min(1.0, max(parts))

    def run(self) -> Iterator[Event]:
        """Train until an end is reached; resumable after any event but `Finished`.

        Raises:
            TrainingError: it diverged again and again.
        """
        if self.safe is None:
            self._record()
        clock = _clock()
        examples = self._examples()
        while True:
            reason = self._end()
            example: Example | None = None
            event: Event
            if self._validation_due(reason):
                fault, event = self._validate()
                if not fault:
                    if event.valid_nats is not None and not self._exploded(event.valid_nats):
                        self._record()
                    yield event
                    continue
            elif reason:
                yield Finished(reason)
                return
            else:
                example = next(examples)
                fault, event = self._step(example)
                now = _clock()
                self.state.progress.seconds += now - clock
                clock = now
                if not fault:
                    yield event
                    continue
            yield from self._roll_back(fault, example)
            examples = self._examples()

    def _validation_due(self, end: str | None) -> bool:
        """Whether to validate before anything else: at the end, at intervals within an epoch, and after each epoch.

        If an interval is longer than an epoch, only where an interval ends. So an epoch that ends a training is
        validated as it would be in the middle of a longer one.
        """
        progress, interval = self.state.progress, self.options.valid_interval
        if not progress.interval.steps:
            return False
        place = progress.chunk if interval < self.task.steps_per_epoch else progress.step
        return end is not None or place % interval == 0

    def _end(self) -> str | None:
        """Why the training is over, if it is."""
        progress, options = self.state.progress, self.options
        if self.total_steps is not None and progress.step >= self.total_steps:
            return f"{counted(progress.epoch, 'epoch')} done"
        if options.time_seconds is not None and progress.seconds >= options.time_seconds:
            unit = "second is" if options.time_seconds == 1 else "seconds are"
            return f"{options.time_seconds:g} {unit} over"
        if options.patience is not None and progress.unimproved >= options.patience:
            return f"no improvement in {counted(progress.unimproved, 'validation')}"
        return None

    def _examples(self) -> Iterator[Example]:
        """The examples from the state's place on, epoch after epoch."""
        progress = self.state.progress
        while True:
            yield from self.task.examples(progress.epoch, progress.chunk)

    def _draws(self, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.options.seed, self.state.progress.step, stream]))

    def _step(self, example: Example) -> tuple[str, StepDone]:
        """One step; a reason if it diverged, and then the parameters are as they were."""
        model, progress, options = self.task.model, self.state.progress, self.options
        factor = rate_factor(options.schedule, progress.step, options.warmup, self.done())
        rate = options.lr * factor * progress.rollback_factor * PLATEAU_FACTOR**progress.halvings
        carried = self.state.carried.copy() if self._record_due() else None
        loss_nats = self.task.loss_and_gradients(example, progress.chunk, self._draws)
        norm = gradient_norm(model.gradients.flat, model.team)
        mean_nats = loss_nats / max(1, example.predicted)
        if progress.first_nats is None and math.isfinite(mean_nats):
            progress.first_nats = mean_nats
        fault = self._fault(mean_nats, norm)
        scale, clipped = 1.0, False
        if not fault:
            if carried is not None:  # only this step's loss has shown that the weights were good
                self._record(carried)
            scale, clipped = self._clip(model.gradients.flat, norm, model.team)
            self.state.optimiser.step(model.gradients.flat, rate, scale, model.team)
            model.changed()
            progress.step += 1
            progress.chunk += 1
            if progress.chunk == self.task.steps_per_epoch:
                progress.epoch, progress.chunk = progress.epoch + 1, 0
            progress.tokens += example.predicted
            progress.lr, progress.grad_norm = rate, norm
            old = mean_nats if progress.smoothed_nats is None else progress.smoothed_nats
            progress.smoothed_nats = SMOOTHING * old + (1 - SMOOTHING) * mean_nats
            for window in (progress.log, progress.interval):
                window.loss_nats += loss_nats
                window.tokens += example.predicted
                window.steps += 1
                window.clipped += clipped
        return fault, StepDone(mean_nats, example.predicted, norm, clipped, rate)

    def _fault(self, mean_nats: float, norm: float) -> str:
        if not math.isfinite(mean_nats):
            return f"the loss is {mean_nats}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        return f"the loss exploded to {mean_nats:.3g} nats a token" if self._exploded(mean_nats) else ""

    def _exploded(self, mean_nats: float) -> bool:
        # The first loss is of weights that training has not touched; it is high if they come from another text.
        usual_nats = max(self.task.guess_nats, self.state.progress.first_nats or 0.0)
        return mean_nats > EXPLODED * usual_nats + 1

    def _record(self, carried: Array | None = None) -> None:
        """Make `safe` the state, in the memory that it has; ``carried`` if the state's own has gone on since."""
        arrays = self.state.arrays()
        if carried is not None:
            arrays["carried"] = carried
        kept = {name: np.empty_like(array) for name, array in arrays.items()} if self.safe is None else self.safe[0]
        for name, array in arrays.items():
            kept[name][...] = array
        self.safe = kept, self.state.progress.to_json()

    def _record_due(self) -> bool:
        """Now and then, and after each validation."""
        assert self.safe is not None
        progress = self.state.progress
        is_place = progress.step % SNAPSHOT_STEPS == 0 or progress.interval.steps == 0
        return is_place and progress.step != self.safe[1]["step"]

    def _roll_back(self, reason: str, example: Example | None) -> Iterator[Event]:
        """Go back to the last good state and lower the rate, the more the oftener: by 2, 4, 8 ..."""
        assert self.safe is not None
        now = self.state.progress
        arrays, numbers = self.safe
        progress = Progress.from_json(numbers)
        progress.seconds, progress.rollbacks = now.seconds, now.rollbacks + 1
        progress.rollback_factor = now.rollback_factor * 0.5**progress.rollbacks
        self.state.restore(arrays, progress)
        self.task.model.changed()
        if now.first_nats is None and not now.rollbacks:  # its weights are those it began with: no rate would help
            raise TrainingError(
                f"{reason} at step 1, before any weight was changed; no model was written: "
                "begin with other weights, without --init-from or with another model"
            )
        if now.rollbacks >= ROLLBACKS:
            yield from self._give_up(f"{reason} at step {now.step + 1}, after {now.rollbacks} times at lower rates")
        self._record()
        lr = self.options.lr * progress.rollback_factor
        yield RolledBack(reason, example, now.step + 1, progress.step, lr)

    def _give_up(self, reason: str) -> Iterator[Event]:
        """Nothing of the last good state is lost: it may be the best so far."""
        if self.state.progress.interval.steps:
            fault, event = self._validate()
            if not fault:
                yield event
        place = "no model was written" if self.state.progress.best_nats is None else "the best model is in place"
        raise TrainingError(f"{reason}; {place}: begin anew with a lower --lr or a smaller --clip")

    def _validate(self) -> tuple[str, Validated]:
        """Validate; a reason if the weights turn out to be no good, and then nothing is changed."""
        progress = self.state.progress
        train_nats = progress.interval.nats_per_token
        valid_nats, error = self.task.validation() if self.task.has_validation else (None, None)
        judged = train_nats if valid_nats is None else valid_nats
        standing, best_nats = (error or 0.0, judged), progress.best_nats
        improved = best_nats is None or standing < (progress.best_error or 0.0, best_nats)
        event = Validated(train_nats, valid_nats, improved, error)
        if not math.isfinite(judged):
            return f"the validation loss is {judged}", event
        if not self.state.is_finite():
            return "the weights are no longer finite", event
        if improved:
            progress.best_nats, progress.best_error = judged, error
            progress.best_step, progress.unimproved = progress.step, 0
        else:
            progress.unimproved += 1
            if self.options.schedule == "plateau":
                progress.halvings += 1
        progress.history.append(
            {
                "step": progress.step,
                "epoch": self.epoch,
                "tokens": progress.tokens,
                "seconds": round(progress.seconds, 3),
                "train_nats": train_nats,
                "valid_nats": valid_nats,
                "valid_error": error,
                "clipped": round(progress.interval.clipped / max(1, progress.interval.steps), 4),
            }
        )
        progress.history = thinned(progress.history, progress.best_step)
        progress.interval = Window()
        return "", event


def _clock() -> float:
    """Seconds; it stands still while kernels are compiled, which is no part of a training."""
    return time.perf_counter() - compilation_seconds()
