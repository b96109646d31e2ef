"""How the learning rate changes in the course of a training."""

from __future__ import annotations

import math

FINAL_FRACTION = 0.02  # of the rate, where the cosine ends
PLATEAU_FACTOR = 0.5


def rate_factor(schedule: str, step: int, warmup: int, progress: float) -> float:
    """What to multiply the learning rate by.

    Args:
        schedule: "cosine" falls to ``FINAL_FRACTION`` (Loshchilov and Hutter, 2017); "constant" and "plateau" stay
            (the latter is halved by the loop when validation does not improve).
        step: steps made so far.
        warmup: steps over which the rate rises linearly from nothing.
        progress: how much of the training is over, 0 to 1, by its steps or by its seconds.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule != "cosine":
        return rise
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return rise * (FINAL_FRACTION + (1 - FINAL_FRACTION) * fall)
