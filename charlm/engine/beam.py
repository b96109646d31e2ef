"""A step of beam search: the likeliest continuations by one token, of several searches side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from charlm.engine.jit import kernel


@kernel
def extend(log_probs: Any, scores: Any, rows: Any, allowed: Any, totals: Any, places: Any) -> bool:
    """Find each search's W likeliest continuations by one token, the likeliest first.

    Of equally likely ones, those of an earlier place come first: of an earlier row, then of a smaller id. A search's
    result depends on its own rows alone.

    Args:
        log_probs: (R, V), float64, nats, of the next token.
        scores: (B, W), float64, nats, of what is continued.
        rows: (B, W), int64: which row of ``log_probs`` continues it, -1 where there is nothing.
        allowed: (V,), uint8: 0 for the ids that are not taken.
        totals: OUT, (B, W), float64: score and log probability together; -inf where there are fewer than W.
        places: OUT, (B, W), int64: w * V + id; unspecified where there is none.

    Returns:
        Whether all were numbers: False if there is a NaN, and then the rest is unspecified.
    """
    symbols, width = log_probs.shape[1], rows.shape[1]
    for b in range(rows.shape[0]):
        best, best_places = totals[b], places[b]
        for i in range(width):
            best[i] = -np.inf
        for w in range(width):
            if rows[b, w] < 0:
                continue
            row, score = log_probs[rows[b, w]], scores[b, w]
            for j in range(symbols):
                total = score + row[j]
                if total != total:
                    return False
                if total <= best[width - 1] or not allowed[j]:
                    continue
                i = width - 1
                while i > 0 and best[i - 1] < total:
                    best[i], best_places[i] = best[i - 1], best_places[i - 1]
                    i -= 1
                best[i], best_places[i] = total, w * symbols + j
    return True
