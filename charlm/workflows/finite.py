"""What a model gives must be numbers: finite weights of absurd sizes can overflow on the way to a probability."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError


class NotFiniteError(CheckpointError):
    """A model gives no finite number; half a line, for whoever knows the model's file."""

    def __init__(self) -> None:
        super().__init__(
            "gives no finite number (NaN or infinity), its weights are damaged or grew too large; copy it afresh, or "
            "train it again with a lower --lr"
        )


def require_finite(values: NDArray[Any] | float) -> None:
    """NotFiniteError if one of the values is NaN or infinite: of what must be possible."""
    if not np.isfinite(values).all():
        raise NotFiniteError


def require_numbers(nats: NDArray[np.float64]) -> None:
    """NotFiniteError if one of the log probabilities is NaN, or more than certain; -inf is the impossible."""
    if not (nats < np.inf).all():
        raise NotFiniteError


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Say in which file the model is that gives no numbers.

    Raises:
        CheckpointError: it does. One line: the path, what is wrong, what to do.
    """
    try:
        yield
    except NotFiniteError as error:
        raise CheckpointError(f"{path}: {error}") from None
