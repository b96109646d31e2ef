"""The training loop: chunks in, events out.

It writes no file and prints nothing: whoever drives it does so between two events, and may stop there. What it then
finds in ``trainer.state`` and ``trainer.safe`` goes on to the same bits as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlm.errors import TrainingError
from charlm.models.language_model import LanguageModel
from charlm.models.parameters import Array
from charlm.models.stack import Batch
from charlm.text.batches import Batches, Chunk
from charlm.training.optimiser import Clipper, Optimiser, gradient_norm
from charlm.training.options import TrainingOptions
from charlm.training.schedule import PLATEAU_FACTOR, rate_factor
from charlm.training.state import Progress, TrainingState, Window

DROPOUT_DRAWS, STATE_DRAWS = 1, 2  # streams of random numbers, each seeded by (seed, step, stream)
RANDOM_STATE_SIZE = 0.1  # standard deviation of a random initial state
SNAPSHOT_STEPS = 200  # between the states in memory to which a divergence goes back
EXPLODED = 2.0  # times the loss of guessing (ln V) or the first loss, plus 1 nat: above it is a divergence
ROLLBACKS = 8  # then give up
SMOOTHING = 0.98


@dataclass(frozen=True)
class StepDone:
    """After each step; means over the window since the last event of the kind are in ``trainer.state``."""

    loss_nats: float  # per token
    tokens: int
    grad_norm: float
    clipped: bool
    lr: float


@dataclass(frozen=True)
class Validated:
    """After each validation; ``valid_nats`` is None if there is no validation text."""

    train_nats: float  # per token, since the last validation
    valid_nats: float | None
    improved: bool


@dataclass(frozen=True)
class RolledBack:
    """After a divergence: the state is an older one, and the rate lower."""

    reason: str
    chunk: Chunk | None  # the text at fault; None if a validation found the fault
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
    """Trains a language model.

    Args:
        validation: gives the chunks of the validation text anew each time it is called; None if there is none.

    Attributes:
        state: where it stands.
        safe: the last state whose weights are known to be good, to which a divergence goes back.
    """

    def __init__(
        self,
        model: LanguageModel,
        batches: Batches,
        options: TrainingOptions,
        validation: Callable[[], Iterable[Chunk]] | None = None,
    ) -> None:
        self.model, self.batches, self.options, self._validation = model, batches, options, validation
        optimiser = Optimiser(options.optimizer, model.parameters, options.weight_decay)
        self.state = TrainingState(model.parameters, optimiser, model.zero_state(batches.streams))
        self.safe: Record | None = None
        self._clip = Clipper(options.clip_mode, options.clip)
        self._zero = model.zero_state(batches.streams)
        self._threshold = round(256 * options.dropout)

    @property
    def total_steps(self) -> int | None:
        """Steps in all epochs; None if only time ends the training."""
        epochs = self.options.epochs
        return None if epochs is None else epochs * self.batches.steps_per_epoch

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
        clock = time.perf_counter()
        chunks = self._chunks()
        while True:
            reason = self._end()
            chunk: Chunk | None = None
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
                chunk = next(chunks)
                fault, event = self._step(chunk)
                now = time.perf_counter()
                self.state.progress.seconds += now - clock
                clock = now
                if not fault:
                    yield event
                    continue
            yield from self._roll_back(fault, chunk)
            chunks = self._chunks()

    def _validation_due(self, end: str | None) -> bool:
        """Whether to validate before anything else: at the end, at intervals within an epoch, and after each epoch.

        If an interval is longer than an epoch, only where an interval ends. So an epoch that ends a training is
        validated as it would be in the middle of a longer one.
        """
        progress, interval = self.state.progress, self.options.valid_interval
        if not progress.interval.steps:
            return False
        place = progress.chunk if interval < self.batches.steps_per_epoch else progress.step
        return end is not None or place % interval == 0

    def _end(self) -> str | None:
        """Why the training is over, if it is."""
        progress, options = self.state.progress, self.options
        if self.total_steps is not None and progress.step >= self.total_steps:
            return f"{options.epochs} epochs done"
        if options.time_seconds is not None and progress.seconds >= options.time_seconds:
            return f"{options.time_seconds:g} seconds are over"
        if options.patience is not None and progress.unimproved >= options.patience:
            return f"no improvement in {progress.unimproved} validations"
        return None

    def _chunks(self) -> Iterator[Chunk]:
        """The chunks from the state's place on, epoch after epoch."""
        progress = self.state.progress
        while True:
            yield from self.batches.chunks(progress.epoch, progress.chunk)

    def _draws(self, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.options.seed, self.state.progress.step, stream]))

    def _batch(self, chunk: Chunk) -> Batch:
        state, options = self.state, self.options
        initial = self._zero
        if options.initial_state == "random":
            draws = self._draws(STATE_DRAWS).standard_normal(self._zero.shape, np.float32)
            initial = (RANDOM_STATE_SIZE * draws).astype(self._zero.dtype)
        if state.progress.chunk == 0:
            state.carried[...] = initial
        if not self._threshold:
            return Batch(chunk.inputs, state.carried, initial)
        steps, rows = chunk.inputs.shape
        shape = (1 if options.variational else steps, rows, self.model.config.hidden_size)
        generator, size = self._draws(DROPOUT_DRAWS), math.prod(shape)
        masks = [
            np.frombuffer(generator.bytes(size), np.uint8).reshape(shape) for _ in range(self.model.config.num_layers)
        ]
        return Batch(chunk.inputs, state.carried, initial, masks, self._threshold)

    def _step(self, chunk: Chunk) -> tuple[str, StepDone]:
        """One step; a reason if it diverged, and then the parameters are as they were."""
        model, progress, options = self.model, self.state.progress, self.options
        factor = rate_factor(options.schedule, progress.step, options.warmup, self.done())
        rate = options.lr * factor * progress.rollback_factor * PLATEAU_FACTOR**progress.halvings
        carried = self.state.carried.copy() if self._record_due() else None
        loss_nats = model.loss_and_gradients(self._batch(chunk), chunk.targets)
        norm = gradient_norm(model.gradients.flat, model.team)
        mean_nats = loss_nats / max(1, chunk.predicted)
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
            if progress.chunk == self.batches.steps_per_epoch:
                progress.epoch, progress.chunk = progress.epoch + 1, 0
            progress.tokens += chunk.predicted
            progress.lr, progress.grad_norm = rate, norm
            old = mean_nats if progress.smoothed_nats is None else progress.smoothed_nats
            progress.smoothed_nats = SMOOTHING * old + (1 - SMOOTHING) * mean_nats
            for window in (progress.log, progress.interval):
                window.loss_nats += loss_nats
                window.tokens += chunk.predicted
                window.steps += 1
                window.clipped += clipped
        return fault, StepDone(mean_nats, chunk.predicted, norm, clipped, rate)

    def _fault(self, mean_nats: float, norm: float) -> str:
        if not math.isfinite(mean_nats):
            return f"the loss is {mean_nats}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        return f"the loss exploded to {mean_nats:.3g} nats a token" if self._exploded(mean_nats) else ""

    def _exploded(self, mean_nats: float) -> bool:
        # The first loss is of weights that training has not touched; it is high if they come from another text.
        usual_nats = max(math.log(self.model.config.vocabulary_size), self.state.progress.first_nats or 0.0)
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

    def _roll_back(self, reason: str, chunk: Chunk | None) -> Iterator[Event]:
        """Go back to the last good state and lower the rate, the more the oftener: by 2, 4, 8 ..."""
        assert self.safe is not None
        now = self.state.progress
        arrays, numbers = self.safe
        progress = Progress.from_json(numbers)
        progress.seconds, progress.rollbacks = now.seconds, now.rollbacks + 1
        progress.rollback_factor = now.rollback_factor * 0.5**progress.rollbacks
        self.state.restore(arrays, progress)
        self.model.changed()
        if now.rollbacks >= ROLLBACKS:
            yield from self._give_up(f"{reason} at step {now.step + 1}, after {now.rollbacks} times at lower rates")
        self._record()
        lr = self.options.lr * progress.rollback_factor
        yield RolledBack(reason, chunk, now.step + 1, progress.step, lr)

    def _give_up(self, reason: str) -> Iterator[Event]:
        """Nothing of the last good state is lost: it may be the best so far."""
        if self.state.progress.interval.steps:
            fault, event = self._validate()
            if not fault:
                yield event
        place = "no model was written" if self.state.progress.best_nats is None else "the best model is in place"
        raise TrainingError(f"{reason}; {place}: begin anew with a lower --lr or a smaller --clip")

    def validation_nats(self) -> float:
        """The mean loss per token of the validation text."""
        assert self._validation is not None
        total_nats, tokens, state = 0.0, 0, None
        for chunk in self._validation():
            if state is None:
                state = self.model.zero_state(chunk.inputs.shape[1])
            total_nats -= float(self.model.log_probs(chunk.inputs, chunk.targets, state).sum())
            tokens += chunk.predicted
        return total_nats / tokens

    def _validate(self) -> tuple[str, Validated]:
        """Validate; a reason if the weights turn out to be no good, and then nothing is changed."""
        progress = self.state.progress
        train_nats = progress.interval.nats_per_token
        valid_nats = self.validation_nats() if self._validation else None
        judged = train_nats if valid_nats is None else valid_nats
        improved = progress.best_nats is None or judged < progress.best_nats
        event = Validated(train_nats, valid_nats, improved)
        if not math.isfinite(judged):
            return f"the validation loss is {judged}", event
        if not self.state.is_finite():
            return "the weights are no longer finite", event
        if improved:
            progress.best_nats, progress.best_step, progress.unimproved = judged, progress.step, 0
        else:
            progress.unimproved += 1
            if self.options.schedule == "plateau":
                progress.halvings += 1
        progress.history.append(
            {
                "step": progress.step,
                "epoch": progress.epoch + progress.chunk / self.batches.steps_per_epoch,
                "tokens": progress.tokens,
                "seconds": round(progress.seconds, 3),
                "train_nats": train_nats,
                "valid_nats": valid_nats,
            }
        )
        progress.interval = Window()
        return "", event
