"""Nats, bits, perplexity: the only place that knows log(2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LogProb = TypeVar("LogProb", "float", "NDArray[np.float64]")

LOG_BASES = {"e": 1.0, "2": math.log(2.0), "10": math.log(10.0)}


def nats_to_bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / LOG_BASES["2"]


def from_nats(nats: LogProb, base: str) -> LogProb:
    """Convert nats, a number or an array of them, to logarithms of ``base``, one of ``LOG_BASES``."""
    return nats / LOG_BASES[base]


def perplexity(nats_per_token: float) -> float:
    """exp(cross entropy), infinite where that overflows."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf
