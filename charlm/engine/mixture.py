"""What a text is under any of several labels, and which label it has: Bayes' rule, a token at a time.

With p_k<t> = P(label k | x<1> .. x<t>), and P(x<t> | k) short for its probability given label k and the tokens before:

    p_k<0>   = P(label k), the prior                                                                  (1)
    P(x<t> | x<1> .. x<t-1>) = sum over k of p_k<t-1> P(x<t> | k)                                     (2)
    p_k<t>   = p_k<t-1> P(x<t> | k) / P(x<t> | x<1> .. x<t-1>)                                        (3)

The product of (2) over the tokens is P(text) = sum over k of P(label k) P(text | label k), and p_k<T> is
P(label k | text). Everything is kept as its logarithm, so neither underflows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from charlm.engine.jit import kernel


@kernel
def mix(label_nats: Any, ends: Any, prior_nats: Any, nats: Any, posterior_nats: Any) -> None:
    """Equations (1) to (3) for sequences that are laid end to end.

    A token that is impossible under every label tells nothing of the label: (3) is left out. NaN stays NaN.

    Args:
        label_nats: (K, M), log P(x<t> | k) of each token.
        ends: (S,), where each sequence ends, exclusive; rising, the last is M.
        prior_nats: (K,).
        nats: OUT, (M,), the logarithm of (2).
        posterior_nats: OUT, (S, K), log P(label k | text).
    """
    begin = 0
    for s in range(ends.size):
        posterior = posterior_nats[s]
        posterior[:] = prior_nats
        for t in range(begin, ends[s]):
            largest = -np.inf
            for k in range(posterior.size):
                value = posterior[k] + label_nats[k, t]
                if value > largest or value != value:
                    largest = value
            if largest == -np.inf:
                nats[t] = largest
                continue
            total = 0.0
            for k in range(posterior.size):
                total += math.exp(posterior[k] + label_nats[k, t] - largest)
            nats[t] = largest + math.log(total)
            for k in range(posterior.size):
                posterior[k] += label_nats[k, t] - nats[t]
        begin = ends[s]
