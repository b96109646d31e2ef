"""A text under any of K labels, by the definitions: no running posterior, each probability a sum of its own.

P(x<1> .. x<t>) = sum over k of P(label k) P(x<1> .. x<t> | label k)
P(x<t> | x<1> .. x<t-1>) = P(x<1> .. x<t>) / P(x<1> .. x<t-1>)
P(label k | text) = P(label k) P(text | label k) / P(text)
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]


def mix(label_nats: Array, prior: Array) -> tuple[Array, Array]:
    """One sequence.

    Args:
        label_nats: (K, T), the log probability of each token given the label and the tokens before.
        prior: (K,), P(label).
    Returns:
        (T,), the log probability of each token given the tokens before; (K,), P(label | text).
    """
    steps = label_nats.shape[1]
    joint = [prior * np.exp(label_nats[:, :t].sum(axis=1)) for t in range(steps + 1)]  # (K,) each
    totals = np.array([one.sum() for one in joint])
    return np.log(totals[1:] / totals[:-1]), joint[-1] / totals[-1]
