"""Drawing tokens: from the probabilities of the next token to a token, and a model's steps in between.

Random numbers are arguments, one a token. A row's tokens depend on nothing but that row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from charlm.engine.cells._cell import Cell
from charlm.engine.inference import Weights, cell_name, shared, through, variant
from charlm.engine.jit import kernel
from charlm.engine.math import exp

LEAST = -700.0  # nats below the likeliest token: what is less likely has a weight of 0


class Rule(NamedTuple):
    """How the distribution of the next token is changed before a draw, in this order.

    Attributes:
        forbidden: an id that is never drawn; -1 for none.
        end: the id that ends a sequence.
        temperature: each probability is raised to the power of 1 / temperature; 0 takes the likeliest token.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the fewest tokens, the likeliest first, whose probabilities add up to p or more.
    """

    forbidden: int
    end: int
    temperature: float
    top_k: int
    top_p: float


class Room(NamedTuple):
    """Scratch arrays of `generate`."""

    stack: Any  # `inference.Room` of a block of one step
    tokens: Any  # (1, N) int32
    reset: Any  # (1, N) uint8, zeros
    output: Any  # (1, N, H)
    logits: Any  # (1, N, as many as the output layer wants)
    weights: Any  # (N, V) float64
    heap: Any  # (N, V) int32


@kernel
def _likelier(weights: Any, a: int, b: int) -> bool:
    """Whether id ``a`` comes before ``b``: of equally likely tokens, those with the smaller id."""
    return weights[a] > weights[b] or (weights[a] == weights[b] and a < b)


@kernel
def _sift(weights: Any, heap: Any, place: int, size: int) -> None:
    """Move an id down the heap of the first ``size`` until none below is likelier."""
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _likelier(weights, heap[child + 1], heap[child]):
            child += 1
        if not _likelier(weights, heap[child], heap[place]):
            return
        heap[place], heap[child] = heap[child], heap[place]
        place = child


@kernel
def _truncate(weights: Any, heap: Any, top_k: int, top_p: float) -> None:
    """Set the weights to 0 that are not kept. A heap gives the likeliest without sorting the others."""
    size = weights.size
    most = min(top_k, size) if top_k > 0 else size
    total = 0.0
    for i in range(size):
        heap[i] = i
        total += weights[i]
    for place in range(size // 2 - 1, -1, -1):
        _sift(weights, heap, place, size)
    kept = 0  # the likeliest, which move to the end of the heap's array, the first of them last
    if top_k > 0:
        total = 0.0
        while kept < most:
            total += weights[heap[0]]
            kept += 1
            heap[0], heap[size - kept] = heap[size - kept], heap[0]
            _sift(weights, heap, 0, size - kept)
    if top_p < 1:
        wanted = total * (top_p * (1 - 1e-12))  # a hair less than p, or 0.5 + 0.3 might not be found to reach 0.8
        taken, found = 0.0, 0
        while found < most and (found == 0 or taken < wanted):
            if found == kept:
                kept += 1
                heap[0], heap[size - kept] = heap[size - kept], heap[0]
                _sift(weights, heap, 0, size - kept)
            found += 1
            taken += weights[heap[size - found]]
        kept = found
    for i in range(size - kept):
        weights[heap[i]] = 0


@kernel
def weigh(log_probs: Any, rule: Rule, can_end: bool, weights: Any, heap: Any) -> Any:
    """Numbers in proportion to the changed probabilities; the likeliest token has 1, none if there is a NaN.

    Args:
        log_probs: (V,), nats.
        can_end: whether ``rule.end`` may be drawn.
        weights: OUT, (V,).
        heap: scratch, (V,) int32.

    Returns:
        The largest log probability among the tokens that can be drawn; NaN if there is one.
    """
    for j in range(log_probs.size):
        weights[j] = log_probs[j]
    if rule.forbidden >= 0:
        weights[rule.forbidden] = -np.inf
    if not can_end:
        weights[rule.end] = -np.inf
    largest = weights[0]
    for j in range(log_probs.size):
        if weights[j] > largest or weights[j] != weights[j]:  # a NaN stays
            largest = weights[j]
    temperature = rule.temperature if rule.temperature > 0 else 1.0
    for j in range(log_probs.size):
        nats = (weights[j] - largest) / temperature
        weights[j] = exp(nats) if nats > LEAST else 0.0
    if rule.temperature == 0:
        _truncate(weights, heap, 1, 1.0)
    elif rule.top_k > 0 or rule.top_p < 1:
        _truncate(weights, heap, rule.top_k, rule.top_p)
    return largest


@kernel
def draw(weights: Any, uniform: float) -> Any:
    """A token, in proportion to its weight: the first whose cumulative share exceeds ``uniform``, from [0, 1)."""
    total = 0.0
    for j in range(weights.size):
        total += weights[j]
    # A product that rounds up to the total would point behind the last token.
    place = min(uniform * total, np.nextafter(total, 0.0))
    total = 0.0
    for j in range(weights.size):
        total += weights[j]
        if total > place:
            return j
    return weights.size - 1


@kernel
def choose(
    log_probs: Any, uniforms: Any, rule: Rule, left: Any, before_end: Any, tokens: Any, nats: Any, weights: Any,
    heap: Any, low: int, high: int,
) -> int:  # fmt: skip
    """Draw one token for each of the rows ``low`` .. ``high`` that is not finished; returns how many are not then.

    Args:
        log_probs: (N, V).
        uniforms: (N,).
        left: IN and OUT, (N,): how many tokens the row may still get; 0 when it is finished.
        before_end: IN and OUT, (N,): how many it must get before it may end.
        tokens: OUT, (N,) int32; -1 for a row that was finished before.
        nats: OUT, (N,): the token's log probability under the unchanged distribution.
        weights, heap: scratch, (N, V).
    """
    unfinished = 0
    for n in range(low, high):
        tokens[n], nats[n] = -1, 0.0
        if left[n] > 0:
            largest = weigh(log_probs[n], rule, before_end[n] <= 0, weights[n], heap[n])
            token = draw(weights[n], uniforms[n])
            tokens[n], nats[n] = token, log_probs[n, token] if largest == largest else np.nan
            left[n] = 0 if token == rule.end else left[n] - 1
            before_end[n] -= 1
            unfinished += left[n] > 0
    return unfinished


def _through(*arguments: Any) -> None:
    """Stands in `_generate` for a cell's kernel `inference.through`."""


def _output(*arguments: Any) -> None:
    """Stands in `_generate` for an output layer's kernel."""


def _generate(
    w: Weights, output: Any, room: Room, log_probs: Any, uniforms: Any, rule: Rule, left: Any, before_end: Any,
    tokens: Any, nats: Any, low: int, high: int,
) -> None:  # fmt: skip
    """Draw a token for each unfinished row, take a step with it, and so on, until all are finished.

    The rows ``low`` .. ``high`` alone are read and written.

    Args:
        w: the stack's.
        output: what the kernel of the output layer takes.
        room: the stack's ``state[:, 0]`` is the state before the first step, and OUT that after the last.
        log_probs: IN and OUT, (N, V): of the next token.
        uniforms: (T, N): at most T tokens are drawn for each row.
        rule, left, before_end: see `choose`.
        tokens, nats: OUT, (T, N), as in `choose`.
    """
    for t in range(uniforms.shape[0]):
        unfinished = choose(
            log_probs, uniforms[t], rule, left, before_end, tokens[t], nats[t], room.weights, room.heap, low, high
        )
        if unfinished == 0:
            return
        for n in range(low, high):
            room.tokens[0, n] = max(tokens[t, n], 0)
        _through(w, room.stack, room.tokens, room.reset, room.output, low, high)
        _output(room.output, output, room.logits, log_probs, low, high)


@cache
def generate(cell: Cell, output: Callable[..., None], *, by_crew: bool = False) -> Callable[..., None]:
    """The kernel `_generate` for a cell and an output layer's kernel; ``by_crew`` as in `inference.through`."""
    name = f"{cell_name(cell)}_{output.__name__}"
    if by_crew:
        name, output = f"{name}_by_crew", shared(output)
    return variant(_generate, name, _through=through(cell, by_crew=by_crew), _output=output)
