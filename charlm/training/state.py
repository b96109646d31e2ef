"""Where a training stands: all that going on needs, to and from plain arrays and JSON.

Nothing random is kept: every draw follows from the seed and the number of the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.models.parameters import Array, Parameters
from charlm.training.optimiser import Optimiser
from charlm.training.options import MANY, check_fields, check_ranges

COUNT, ANY = (0, MANY), (-math.inf, math.inf)
WINDOW_RANGES = {"loss_nats": ANY, "tokens": COUNT, "steps": COUNT, "clipped": COUNT}
RANGES = {
    **dict.fromkeys(("step", "epoch", "chunk", "tokens", "halvings", "rollbacks", "best_step", "unimproved"), COUNT),
    **dict.fromkeys(("best_nats", "best_error", "first_nats", "smoothed_nats", "lr", "grad_norm"), ANY),
    "seconds": (0, math.inf), "rollback_factor": (0, 1),
}  # fmt: skip


@dataclass
class Window:
    """Sums since the last line of the log, or since the last validation.

    The losses of a step are float64 and are summed in pairs (NumPy), those of steps one after another: of n steps
    that is wrong by n / 2^53 of the sum at the most, after 1e9 tokens in steps of 2000 by 6e-11; as a rule by the root
    of n instead of n, 1e-13. It is shown with three digits.
    """

    loss_nats: float = 0.0
    tokens: int = 0
    steps: int = 0
    clipped: int = 0

    @property
    def nats_per_token(self) -> float:
        """Mean loss; NaN before the first step."""
        return self.loss_nats / self.tokens if self.tokens else float("nan")


@dataclass
class Progress:
    """The numbers of a state.

    Attributes:
        step: optimiser steps made. ``epoch``, ``chunk``: the place in the corpus at which the next one begins.
        seconds: spent so far, in all sessions.
        halvings: by the plateau schedule. ``rollback_factor``: what is left of the rate after divergences.
        best_nats: the validation loss (training loss, if there is no validation) per prediction of the best model,
            which is that of the least error, and among those of the least loss; None before.
        best_error: of that model, 0 to 1; None where the loss alone judges.
        unimproved: validations since then.
        first_nats: training loss per token before the weights were changed; None before the first step.
        smoothed_nats: running mean of the training loss; None before the first step.
        lr, grad_norm: of the last step; None before the first.
        history: a record for each validation.
    """

    step: int = 0
    epoch: int = 0
    chunk: int = 0
    tokens: int = 0
    seconds: float = 0.0
    halvings: int = 0
    rollback_factor: float = 1.0
    rollbacks: int = 0
    best_nats: float | None = None
    best_error: float | None = None
    best_step: int = 0
    unimproved: int = 0
    first_nats: float | None = None
    smoothed_nats: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    log: Window = field(default_factory=Window)
    interval: Window = field(default_factory=Window)
    history: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's header holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """The reverse of `to_json`.

        Raises:
            ValueError: fields are missing, unknown, of the wrong type or out of range.
        """
        check_fields(cls, values, "numbers")
        windows = {}
        for name in ("log", "interval"):
            if not isinstance(values[name], dict):
                raise ValueError(f"its numbers are malformed ({name})")
            check_fields(Window, values[name], "numbers")
            check_ranges(values[name], WINDOW_RANGES, "numbers")
            windows[name] = Window(**values[name])
        if not isinstance(values["history"], list) or not all(isinstance(one, dict) for one in values["history"]):
            raise ValueError("its numbers are malformed (history)")
        if not all(value is None or _is_number(value) for one in values["history"] for value in one.values()):
            raise ValueError("its numbers are malformed (history)")
        check_ranges(values, RANGES, "numbers")
        return cls(**{**values, **windows})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass
class TrainingState:
    """Weights, optimiser, the state carried between chunks, and the numbers; see `Progress`."""

    parameters: Parameters
    optimiser: Optimiser
    carried: Array  # (L, S, N, H)
    progress: Progress = field(default_factory=Progress)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the numbers, by name; no copies: the next step changes them."""
        result: dict[str, NDArray[Any]] = {f"parameters/{path}": view for path, view in self.parameters.items()}
        result |= {f"optimiser/{moment}": flat for moment, flat in self.optimiser.moments.items()}
        return result | {"carried": self.carried}

    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of `arrays`."""
        shapes = {f"parameters/{path}": shape for path, shape in self.parameters.shapes.items()}
        shapes |= {f"optimiser/{moment}": flat.shape for moment, flat in self.optimiser.moments.items()}
        return shapes | {"carried": self.carried.shape}

    def is_finite(self) -> bool:
        """Whether all arrays hold numbers, neither NaN nor infinity."""
        arrays = (*self.parameters.values(), *self.optimiser.moments.values(), self.carried)
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def restore(self, arrays: Mapping[str, NDArray[Any]], progress: Progress) -> None:
        """Go back, or on, to a state that `arrays` and `Progress.to_json` have recorded."""
        self.parameters.assign({path: arrays[f"parameters/{path}"] for path in self.parameters})
        moments = {name: arrays[f"optimiser/{name}"] for name in self.optimiser.moments}
        self.optimiser.restore(moments, progress.step)
        self.carried[...] = np.asarray(arrays["carried"], self.carried.dtype)
        self.progress = progress
