"""No result is made of what is no number.

Weights of any size are numbers in a file, but their products need not be: float32 ends at 3e38.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError

Nats = NDArray[np.float64]


def not_a_number() -> CheckpointError:
    """What to raise when a probability is a NaN."""
    return CheckpointError(
        "the model's weights are so large that its probabilities are no numbers (NaN); train it again with a lower --lr"
    )


def refuse_nan(nats: Nats) -> Nats:
    """The same array.

    Raises:
        CheckpointError: there is a NaN in it.
    """
    if np.isnan(nats).any():
        raise not_a_number()
    return nats
