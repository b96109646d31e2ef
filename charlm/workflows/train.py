"""What ``charlm train`` does: text in, a model file out, a state to resume from beside it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, Any, Protocol

import numpy as np

from charlm import checkpoint
from charlm.engine.threads import Team, available_cores
from charlm.errors import CheckpointError, UsageError
from charlm.models.language_model import LanguageModel
from charlm.text.batches import evaluation_chunks
from charlm.text.readers import STDIN
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.training.loop import Finished, RolledBack, StepDone, Trainer, Validated
from charlm.training.state import Progress, Window
from charlm.workflows.train_plan import TRAINING_STATE, Plan, TrainRequest, fingerprint, resume_path

EVALUATION_STREAMS, EVALUATION_STEPS, EVALUATION_WARMUP = 32, 64, 128
EXCERPT_CHARACTERS = 60
SAMPLE_TOKENS = {"char": 200, "byte": 200, "word": 40}


class Observer(Protocol):
    """Whoever is told what happens. Nothing here is printed by the workflow itself."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, plan: Plan, trainer: Trainer) -> None:
        """Training begins."""

    def step(self, event: StepDone, trainer: Trainer) -> None:
        """A step was made."""

    def validated(self, event: Validated, trainer: Trainer, sample: str) -> None:
        """The model was validated, and kept if it improved."""

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


def run(request: TrainRequest, observer: Observer) -> TrainResult:
    """Train, or go on training, a language model.

    Raises:
        CharlmError: the request, the text or a file is at fault; nothing was written or lost.
    """
    if request.resume and request.init_from:
        raise UsageError("--resume goes on with a training, --init-from begins a new one: leave out one")
    for path in filter(None, (request.output, request.log)):
        checkpoint.check_writable(path)
    for path in (*request.corpus, *request.valid):
        if path != STDIN and os.path.exists(path) and _same_file(path, request.output):
            raise UsageError(f"{path}: is the text itself; choose another name for -o")
    return _Session(request, observer).run()


def _same_file(a: str, b: str) -> bool:
    return os.path.exists(b) and os.path.samefile(a, b)


class _Session:
    """One call of ``charlm train``, from its plan to its result."""

    def __init__(self, request: TrainRequest, observer: Observer) -> None:
        self.request, self.observer = request, observer
        self.plan = Plan(request)
        self.options, self.train, self.valid = self.plan.options, self.plan.train, self.plan.valid
        for remark in self.plan.remarks:
            observer.message(remark)
        self.model = LanguageModel(self.plan.config, Team(request.threads or available_cores()))
        self.trainer = self._make_trainer()
        self._initialise()

    def _make_trainer(self) -> Trainer:
        validation = None
        if self.valid is not None:
            validation = partial(
                evaluation_chunks, self.valid.tokens, self.valid.vocabulary.size, EVALUATION_STREAMS,
                EVALUATION_STEPS, EVALUATION_WARMUP,
            )  # fmt: skip
        return Trainer(self.model, self.plan.batches(self.options), self.options, validation)

    def _initialise(self) -> None:
        state = self.trainer.state
        saved, origin = self.plan.saved, self.plan.origin
        if saved is not None:
            path = resume_path(self.request.output)
            checkpoint.check_arrays(saved.arrays, state.array_shapes(), path)
            try:
                numbers = checkpoint.require(saved.header, "progress", dict, path)
                state.restore(saved.arrays, Progress.from_json(numbers))
            except ValueError as error:
                raise CheckpointError(f"{path}: {error}; begin a new training without --resume") from error
        elif origin is not None:
            self.model.parameters.assign(dict(origin.model.parameters))
        else:
            self.model.initialise(np.random.default_rng(self.options.seed))
        self.model.changed()

    def run(self) -> TrainResult:
        trainer, request = self.trainer, self.request
        mode = "a" if request.resume else "w"
        with open(request.log or os.devnull, mode, encoding="utf-8") as log:
            self.observer.begin(self.plan, trainer)
            reason, interrupted = self._follow(log)
        self._save_state(finished=not interrupted)
        progress = trainer.state.progress
        history = progress.history
        return TrainResult(
            model=request.output,
            parameters=self.model.parameters.count,
            epochs=round(progress.epoch + progress.chunk / trainer.batches.steps_per_epoch, 4),
            steps=progress.step,
            tokens=progress.tokens,
            seconds=round(progress.seconds, 3),
            tokens_per_second=round(progress.tokens / progress.seconds, 1) if progress.seconds else 0.0,
            train_nats=_number(history[-1]["train_nats"] if history else progress.smoothed_nats),
            best_valid_nats=progress.best_nats if self.valid is not None else None,
            reason=reason,
            interrupted=interrupted,
        )

    def _follow(self, log: IO[str]) -> tuple[str, bool]:
        """Drive the trainer to its end, or until a stop is asked for; returns why it ended."""
        progress, last = self.trainer.state.progress, None
        log_interval = max(1, self.options.valid_interval // 10)
        for event in self.trainer.run():
            progress = self.trainer.state.progress
            if isinstance(event, StepDone):
                last = event
                self.observer.step(event, self.trainer)
                if progress.step % log_interval == 0:
                    self._write_line(log, "step", last, loss_nats=progress.log.nats_per_token)
                    progress.log = Window()
            elif isinstance(event, Validated):
                self._write_line(log, "validation", last, loss_nats=event.train_nats, valid_nats=event.valid_nats)
                if event.improved:
                    self._save_model()
                self._save_state(finished=False)
                self.observer.validated(event, self.trainer, self._sample())
            elif isinstance(event, RolledBack):
                self._write_line(log, "rollback", last, loss_nats=None)
                self.observer.message(
                    f"step {event.step}: {event.reason}, near {self._excerpt(event)}; "
                    f"back to step {event.back_to_step}, rate lowered to {event.lr:.2g}"
                )
            elif isinstance(event, Finished):
                self._write_line(log, "end", last, loss_nats=None)
                return event.reason, False
            stop = self.observer.stop_requested()
            if stop:
                return stop, True
        raise AssertionError("a trainer's last event is Finished")

    def _write_line(self, log: IO[str], event: str, step: StepDone | None, **nats: float | None) -> None:
        progress = self.trainer.state.progress
        window = progress.log
        line = {
            "event": event,
            "step": progress.step,
            "epoch": round(progress.epoch + progress.chunk / self.trainer.batches.steps_per_epoch, 4),
            "seconds": round(progress.seconds, 3),
            "tokens": progress.tokens,
            "loss_nats": _number(nats.get("loss_nats")),
            "valid_nats": _number(nats.get("valid_nats")),
            "lr": step.lr if step else None,
            "grad_norm": _number(step.grad_norm) if step else None,
            "clipped": round(window.clipped / window.steps, 4) if window.steps else None,
        }
        log.write(json.dumps(line) + "\n")
        log.flush()

    def _header(self) -> dict[str, Any]:
        counts = asdict(self.train.counts)
        return {
            "task": "lm",
            "model": self.model.config.to_json(),
            "tokenizer": self.train.tokenizer.to_json(),
            "vocabulary": list(self.train.vocabulary.symbols),
            "corpus": {"names": self.train.names, **fingerprint(self.train, self.valid), **counts},
            "text": self.plan.text_record,
            "training": asdict(self.options),
            "command": self.request.command,
            "history": self.trainer.state.progress.history,
        }

    def _save_model(self) -> None:
        checkpoint.save(self.request.output, self._header(), dict(self.model.parameters))

    def _save_state(self, *, finished: bool) -> None:
        state = self.trainer.state
        header = self._header() | {"progress": state.progress.to_json(), "finished": finished}
        checkpoint.save(resume_path(self.request.output), header, state.arrays(), kind=TRAINING_STATE)

    def _sample(self) -> str:
        """A little text of the model's."""
        model, vocabulary, tokenizer = self.model, self.train.vocabulary, self.train.tokenizer
        rng = np.random.default_rng([self.options.seed, self.trainer.state.progress.step])
        state, token, symbols = model.zero_state(1), vocabulary.start_id, list[str]()
        for _ in range(SAMPLE_TOKENS[tokenizer.level]):
            state, log_probs = model.step(state, np.array([token], np.int32))
            probs = np.exp(log_probs[0])
            probs[UNK_ID] = 0
            token = int(rng.choice(probs.size, p=probs / probs.sum()))
            if token == EOS_ID:
                break
            symbols.append(vocabulary.symbol(token))
        return tokenizer.join(symbols)

    def _excerpt(self, event: RolledBack) -> str:
        """The text of the first row of a chunk, shortened."""
        ids = event.chunk.targets[:, 0]
        symbols = [self.train.vocabulary.symbol(int(i)) for i in ids[ids >= 0]]
        return repr(self.train.tokenizer.join(symbols)[:EXCERPT_CHARACTERS])


def _number(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return None if value is None or not math.isfinite(value) else value
