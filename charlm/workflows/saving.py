"""What a training writes, in which order, and what happens when the disk refuses.

After a validation, in this order:

1. MODEL.npz, if the model is the best so far,
2. MODEL.resume.npz, the state,
3. with ``--keep``, MODEL.step-000000200.npz, as the state has recorded,
4. and older ones of these are removed, as the state has recorded.

Whoever is killed between two of these, and resumed, ends with the same files. Killed before 2, the older state leads
to the same model again. Killed before 3 or 4, the state is that of this step: what it has recorded is done first of
all. A new training that takes the place of a finished one writes its state first, with the model in it: the new model
never lies beside the old state, which would go on to something else.

Where validations are far apart, the state is also written between them.

A write that fails does not end the training. The old file stays, and it is tried again after the next validation; until
then the best model stays in memory, and in the state if that can be written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from charlm import checkpoint
from charlm.errors import CheckpointError, UnwritableError
from charlm.models.parameters import Array
from charlm.training.loop import Trainer
from charlm.training.state import Progress
from charlm.workflows.kept_models import Kept, step_path
from charlm.workflows.train_plan import TRAINING_STATE
from charlm.workflows.train_request import resume_path

BEST = "best/"  # in a state, what the names of an unwritten best model's arrays begin with
STATE_SECONDS = 600  # between states, at the most: so much of a training can be lost
RETRY = "the training goes on and tries again at the next validation"


@dataclass
class _Unwritten:
    """A best model that is not in its file yet; ``history`` is that of the training up to it."""

    step: int
    history: list[Any]
    arrays: dict[str, Array]
    is_copy: bool = False  # or views, which the next step changes

    def keep(self) -> None:
        if not self.is_copy:
            self.arrays = {name: array.copy() for name, array in self.arrays.items()}
            self.is_copy = True


class Saver:
    """Writes the files of one training.

    Args:
        output: the model's path.
        trainer: whose state is written.
        header: makes the model's header, as of now.
        state_header: makes what the state's header holds besides.
        tell: takes a line for the user.
        resumed: the header and arrays to go on from, if any; the trainer's state is restored already.
        keep: how many models of the last validations to keep; None for as many as before, or none.

    Raises:
        CheckpointError: what is resumed has a malformed record of kept models.
    """

    def __init__(
        self,
        output: str,
        trainer: Trainer,
        *,
        header: Callable[[], dict[str, Any]],
        state_header: Callable[[], dict[str, Any]],
        tell: Callable[[str], None],
        resumed: checkpoint.Checkpoint | None,
        keep: int | None,
    ) -> None:
        self._output, self._state_path = output, resume_path(output)
        self._trainer, self._header, self._state_header, self._tell = trainer, header, state_header, tell
        self._best: _Unwritten | None = None
        self._kept = Kept()
        self._own_steps: set[int] = set()  # whose files this process has written
        self._not_kept: set[int] = set()  # steps whose models should have been
        self._problems: dict[str, UnwritableError] = {}  # by what could not be written
        self._told: dict[str, str] = {}
        self._model_step: int | None = None  # in the files that this training has written
        self._state_step: int | None = None
        self._written_at = time.monotonic()  # or tried
        self._takes_place = resumed is None and os.path.exists(self._state_path)
        if resumed is not None:
            self._take_up(resumed)
        if keep is not None:
            self._kept = replace(self._kept, count=keep)

    @property
    def keeps(self) -> bool:
        """Whether models of single steps are written."""
        return self._kept.count > 0

    @property
    def is_best_written(self) -> bool:
        """Whether the best model is in its file."""
        return self._best is None

    def begin(self) -> None:
        """Do what a resumed state has recorded and a kill may have prevented."""
        if not self._takes_place:
            self._write_best()
        step = self._progress.step
        if self._kept.steps and self._kept.steps[-1] == step and not self._write_step(step):
            self._not_kept.add(step)
        self._remove_dropped()
        self._tell_problems()

    def stepped(self) -> None:
        """Write the state if it is long ago that this was tried."""
        if time.monotonic() - self._written_at >= STATE_SECONDS:
            self._write_pair(finished=False)
            self._tell_problems()

    def validated(self, *, improved: bool) -> None:
        """Write what a validation asks for; what cannot be written is told, and tried again at the next."""
        step = self._progress.step
        if improved:
            self._best = self._model_now()
        before, self._kept = self._kept, self._kept.with_step(step)
        if not self._write_pair(finished=False) or (self._kept.count and not self._write_step(step)):
            self._kept = before
            if self.keeps:
                self._not_kept.add(step)
        else:
            self._not_kept.discard(step)
            self._remove_dropped()
        self._tell_problems()

    def finish(self, *, finished: bool) -> None:
        """Write the last state, and whatever is still unwritten.

        Args:
            finished: whether the training came to its end, rather than that it was stopped.

        Raises:
            UnwritableError: something cannot be written. One line: what is lost, and what remains.
        """
        if not finished and self._best is None and not os.path.exists(self._output):
            self._best = self._model_now()  # not validated yet, but better than none
        self._kept = self._kept.trimmed()
        if self._write_pair(finished=finished):
            self._remove_dropped()
        self._tell_missing()
        if self._best is not None or "state" in self._problems:
            raise self._lost()

    # ---- writing ----

    @property
    def _progress(self) -> Progress:
        return self._trainer.state.progress

    def _model_now(self) -> _Unwritten:
        progress, parameters = self._progress, self._trainer.task.model.parameters
        return _Unwritten(progress.step, list(progress.history), dict(parameters))

    def _write_pair(self, *, finished: bool) -> bool:
        """The best model, if it is not written, and the state; whether the state was written."""
        if self._takes_place:
            self._takes_place = not self._write_state(finished=False)
        is_written = False
        if not self._takes_place:
            self._write_best()
            is_written = self._write_state(finished=finished)
        if self._best is not None:
            self._best.keep()
        self._written_at = time.monotonic()
        return is_written

    def _write_best(self) -> None:
        best = self._best
        if best is not None and self._save(
            "model", self._output, self._header() | {"history": best.history}, best.arrays
        ):
            self._model_step, self._best = best.step, None

    def _write_state(self, *, finished: bool) -> bool:
        state, safe, best = self._trainer.state, self._trainer.safe, self._best
        header = {
            **self._header(),
            **self._state_header(),
            "progress": state.progress.to_json(),
            "safe": None,
            "best": None,
            "kept": self._kept.to_json(),
            "finished": finished and best is None,
        }
        arrays = state.arrays()
        if safe is not None and safe[1]["step"] != state.progress.step:
            header["safe"] = safe[1]
            arrays |= {f"safe/{name}": array for name, array in safe[0].items()}
        if best is not None:
            header["best"] = {"step": best.step, "history": best.history}
            arrays |= {BEST + name: array for name, array in best.arrays.items()}
        if not self._save("state", self._state_path, header, arrays, TRAINING_STATE):
            return False
        self._state_step = state.progress.step
        return True

    def _write_step(self, step: int) -> bool:
        """The model as it is now, that of a validation."""
        path = step_path(self._output, step)
        self._own_steps.add(step)
        return self._save("kept", path, self._header(), dict(self._trainer.task.model.parameters))

    def _remove_dropped(self) -> None:
        """Remove what the state that lies on the disk no longer counts among the kept."""
        left = []
        for step in self._kept.dropped:
            try:
                if step in self._own_steps or _is_model(step_path(self._output, step)):
                    os.unlink(step_path(self._output, step))
            except FileNotFoundError:
                pass
            except OSError as error:
                path = step_path(self._output, step)
                self._problems["kept"] = UnwritableError(path, f"cannot be removed ({error.strerror})", RETRY)
                left.append(step)
        self._kept = replace(self._kept, dropped=tuple(left))

    def _save(
        self, what: str, path: str, header: dict[str, Any], arrays: dict[str, Array], kind: str = "model"
    ) -> bool:
        try:
            checkpoint.save(path, header, arrays, kind=kind)
        except UnwritableError as error:
            self._problems[what] = error
            return False
        self._problems.pop(what, None)
        return True

    # ---- telling ----

    def _tell_problems(self) -> None:
        """Tell what is new: once when it begins, when it changes, and when it is over."""
        for what, error in self._problems.items():
            if self._told.get(what) != error.what:
                self._tell(f"{error.path}: {error.what}; {RETRY}")
        names = {"model": self._output, "state": self._state_path, "kept": step_path(self._output, self._progress.step)}
        for what in self._told:
            if what not in self._problems:
                self._tell(f"{names[what]}: is written again")
        self._told = {what: error.what for what, error in self._problems.items()}

    def _tell_missing(self) -> None:
        """Tell which of the last models, as many as are to be kept, are not there."""
        last = sorted({*self._kept.steps, *self._not_kept})[-self._kept.count :] if self.keeps else []
        missing = [step_path(self._output, step) for step in last if step in self._not_kept]
        if missing:
            others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            self._tell(f"{missing[-1]}{others}: could not be written, as --keep {self._kept.count} asks")

    def _lost(self) -> UnwritableError:
        """What could not be written at the end, what is lost by it, and what remains."""
        best, error = self._best, self._problems.get("model") or self._problems["state"]
        steps = {self._output: self._model_step, self._state_path: self._state_step}
        good = {path: step for path, step in steps.items() if step is not None and os.path.exists(path)}
        remain = " and ".join(f"{path} (step {step:,})" for path, step in good.items())
        if best is not None and "state" not in self._problems:
            told = f"the best model, of step {best.step:,}, is in {self._state_path} instead"
        elif best is None and self._output in good:
            told = f"the best model is in its place; there are {remain}"
        elif good:
            told = f"lost are the steps after {max(good.values()):,}; there are {remain}"
        else:
            told = f"lost are all {self._progress.step:,} steps"
        again = ": once it can be written, go on with --resume" if self._state_path in good else ""
        return UnwritableError(error.path, error.what, told + again)

    # ---- resuming ----

    def _take_up(self, resumed: checkpoint.Checkpoint) -> None:
        header, path, progress = resumed.header, self._state_path, self._progress
        if header.get("kept") is not None:
            try:
                self._kept = Kept.from_json(checkpoint.require(header, "kept", dict, path))
            except ValueError as error:
                raise CheckpointError(f"{path}: {error}; begin a new training without --resume") from None
        self._state_step = progress.step
        if header.get("best") is not None:
            best = checkpoint.require(header, "best", dict, path)
            step, history = checkpoint.require(best, "step", int, path), checkpoint.require(best, "history", list, path)
            if not all(isinstance(one, dict) for one in history):
                raise CheckpointError(f"{path}: its history is malformed; begin a new training without --resume")
            arrays = {name.removeprefix(BEST): a for name, a in resumed.arrays.items() if name.startswith(BEST)}
            self._best = _Unwritten(step, history, arrays, is_copy=True)
        elif progress.best_nats is not None:
            self._model_step = progress.best_step


def best_shapes(saved: checkpoint.Checkpoint, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of a best model that a state holds; none if it holds none."""
    return {} if saved.header.get("best") is None else {BEST + name: shape for name, shape in shapes.items()}


def _is_model(path: str) -> bool:
    """Whether a file that the state calls a kept model is one: the state may be a stranger's, or the file a user's."""
    try:
        checkpoint.load(path)
    except CheckpointError:
        return False
    return True
