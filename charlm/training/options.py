"""What a training is told to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MANY = 2**53  # up to here a float holds every integer

KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


# What the numbers of options may be, both ends included; and what the others may.
RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, 2**31), "bptt": (1, 2**31), "epochs": (1, MANY), "lr": (0, math.inf), "warmup": (0, MANY),
    "clip": (0, math.inf), "dropout": (0, 0.99), "weight_decay": (0, math.inf), "time_seconds": (0, math.inf),
    "patience": (1, MANY), "valid_interval": (1, MANY), "seed": (0, 2**63 - 1),
}  # fmt: skip
CHOICES = {
    "optimizer": ("adamw", "sgd"), "schedule": ("cosine", "plateau", "constant"), "clip_mode": ("norm", "value"),
    "initial_state": ("zeros", "random"),
}  # fmt: skip


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides how a training runs; with the same corpus and model, the same bits.

    Attributes:
        bptt: steps through which the gradient flows back; None for whole sequences.
        epochs: passes over the corpus; None if ``time_seconds`` alone decides.
        time_seconds: how long to train; None for no limit.
        warmup: steps.
        clip: bound of the gradient's norm or values, 0 for none.
        dropout: probability; rounded to a multiple of 1/256.
        variational: the same dropout mask over all steps of a chunk (Gal and Ghahramani, 2016).
        patience: validations without improvement before the training ends; None for no such end.
        valid_interval: steps between validations.
    """

    batch_size: int
    bptt: int | None
    epochs: int | None
    lr: float
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: int = 0
    clip: float = 1.0
    clip_mode: str = "norm"
    dropout: float = 0.0
    variational: bool = False
    weight_decay: float = 0.0
    initial_state: str = "zeros"
    time_seconds: float | None = None
    patience: int | None = None
    valid_interval: int = 1000
    seed: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingOptions:
        """What ``asdict`` made of some options.

        Raises:
            ValueError: fields are missing, unknown, of the wrong type or out of range.
        """
        check_fields(cls, values, "training options")
        check_ranges(values, RANGES, "training options")
        for name, choices in CHOICES.items():
            if values[name] not in choices:
                raise ValueError(f"its training options are out of range ({name})")
        return cls(**values)


def check_fields(kind: type[Any], values: Mapping[str, Any], what: str) -> None:
    """Compare values with the names and types of a dataclass's fields; those of other types pass.

    Raises:
        ValueError: half a line.
    """
    if set(values) != {field.name for field in fields(kind)}:
        raise ValueError(f"its {what} have other fields than this version knows")
    for field in fields(kind):
        name, _, optional = str(field.type).partition(" | ")
        value = values[field.name]
        if name not in KINDS or (optional and value is None):
            continue
        if not isinstance(value, KINDS[name]) or (isinstance(value, bool) and name != "bool"):
            raise ValueError(f"its {what} are malformed ({field.name})")


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]], what: str) -> None:
    """See that numbers are finite and lie where they may; those that are None pass.

    Raises:
        ValueError: half a line.
    """
    for name, (least, most) in ranges.items():
        value = values[name]
        if value is not None and not (least <= value <= most and math.isfinite(value)):
            raise ValueError(f"its {what} are out of range ({name})")
