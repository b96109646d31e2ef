"""What a training is told to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides how a training runs; with the same corpus and model, the same bits.

    Attributes:
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
    bptt: int
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
