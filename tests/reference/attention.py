"""Global attention with the dot product (Luong et al., 2015), written from its equations, a row and a step at a time.

    (1) score(t, s) = d<t> . h<s>
    (2) alpha(t, s) = exp(score(t, s)) / sum over s' of exp(score(t, s'))
    (3) context<t>  = sum over s of alpha(t, s) h<s>
    (4) a~<t>       = tanh(W_c [context<t>; d<t>] + b_c)

Row vectors: W_c [context; d] is context @ w[:H] + d @ w[H:]. The sums are over the source's own steps alone; without
any the context is zero. All functions let complex numbers through.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]


def attend(d: Array, h: Array) -> tuple[Array, Array]:
    """One row.

    Args:
        d: what asks, (T, H).
        h: what answers, (S, H): a source's own steps, in the order of the text.

    Returns:
        alpha (T, S) and context (T, H).
    """
    alphas, contexts = [], []
    for d_t in d:
        score = np.array([(d_t * h_s).sum() for h_s in h])  # (1)
        weights = np.exp(score - score.real.max(initial=-np.inf))
        alpha = weights / weights.sum()  # (2)
        contexts.append(sum((alpha_s * h_s for alpha_s, h_s in zip(alpha, h, strict=True)), np.zeros_like(d_t)))  # (3)
        alphas.append(alpha)
    return np.array(alphas), np.array(contexts)


def attentional(d: Array, context: Array, w: Array, b: Array) -> Array:
    """Equation (4): d and context (T, H), w (2 H, H), b (H,); to (T, H)."""
    H = d.shape[-1]
    found: Array = np.tanh(context @ w[:H] + d @ w[H:] + b)
    return found
