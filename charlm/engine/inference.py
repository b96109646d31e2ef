"""A stack's forward pass without what training keeps: one kernel takes rows through all steps and layers.

Steps are taken in blocks, so that what one layer hands to the next stays in a near cache.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from charlm.engine import crew
from charlm.engine.cells._cell import Cell
from charlm.engine.jit import kernel
from charlm.engine.layers import embed_rows, look_up
from charlm.engine.matmul import BIAS, layer_of, multiply


class Weights(NamedTuple):
    """A stack's weights; those of products are packed (see `matmul`).

    Attributes:
        table: (1, U, C): the first layer's input projection of each id, of K labels too; (1, 0, C) if there is none.
        embedding: (V, E), for want of a table.
        w_x_0: (E, C) packed.
        w_x: (L - 1, ...), each (H, C) packed.
        w_h: (L, ...).
        w_p: (L, P, H).
        b: (L, C).
        initial: (L, S, N, H): the state in which a sequence begins.
        activation: of the cell.
    """

    table: Any
    embedding: Any
    w_x_0: Any
    w_x: Any
    w_h: Any
    w_p: Any
    b: Any
    initial: Any
    activation: int


class Room(NamedTuple):
    """Scratch arrays of a block of B steps, named as in a pass."""

    embedded: Any  # (1, N, E)
    pre: Any  # (B, N, C)
    state: Any  # (L, B + 1, S, N, H)
    hidden: Any  # (2, B, N, H): of a layer and of the one above, in turns
    saved: Any  # (B, N, K*H)


@kernel
def project(w: Weights, room: Room, inputs: Any, pre: Any, low: int, high: int) -> None:
    """The first layer's input projection of the rows ``low`` .. ``high``; see `_through`."""
    if w.table.shape[1] > 0:
        look_up(w.table, inputs, pre, low, high)
        return
    width, columns = w.embedding.shape[1], pre.shape[2]
    for t in range(inputs.shape[0]):
        # No label needs this: a table has its row.
        embed_rows(w.embedding, w.embedding[:0], inputs[t], room.embedded, low, high)
        multiply(room.embedded, 0, 0, width, w.w_x_0, pre, t, 0, columns, 1, low, high, BIAS, w.b[0])


def _forward(*arguments: Any) -> None:
    """Stands in `_through` for a cell's forward kernel."""


def _through(w: Weights, room: Room, inputs: Any, reset: Any, output: Any, low: int, high: int) -> None:
    """Take the rows ``low`` .. ``high``, which alone are read and written, through T steps and all layers.

    Args:
        room: its ``state[:, 0]`` is the state before the first step, and OUT that after the last.
        inputs: (T, N), int32, rows of the table; ids if there is none.
        reset: (T, N), uint8: 1 where a sequence begins.
        output: OUT, (T, N, H), of the last layer.
    """
    layers, size, columns = room.state.shape[0], output.shape[2], room.pre.shape[2]
    for first in range(0, inputs.shape[0], room.pre.shape[0]):
        steps = min(room.pre.shape[0], inputs.shape[0] - first)
        last = first + steps
        pre, saved = room.pre[:steps], room.saved[:steps]
        project(w, room, inputs[first:last], pre, low, high)
        for layer in range(layers):
            hidden = output[first:last] if layer == layers - 1 else room.hidden[layer % 2][:steps]
            if layer > 0:
                w_x, below = layer_of(w.w_x, layer - 1), room.hidden[(layer - 1) % 2]
                multiply(below, 0, 0, size, w_x, pre, 0, 0, columns, steps, low, high, BIAS, w.b[layer])
            state = room.state[layer]
            _forward(
                pre, layer_of(w.w_h, layer), w.w_p[layer], state[: steps + 1], hidden, saved, reset[first:last],
                w.initial[layer], w.activation, low, high,
            )  # fmt: skip
            for s in range(state.shape[1]):
                for n in range(low, high):
                    for j in range(size):
                        state[0, s, n, j] = state[steps, s, n, j]


@cache
def through(cell: Cell, *, by_crew: bool = False) -> Callable[..., None]:
    """The kernel `_through` for a cell; ``by_crew``: each thread of a crew takes all rows, see `crew`."""
    name = cell_name(cell)
    if by_crew:
        return shared(_through, name, project=shared(project), _forward=shared(cell.forward))
    return variant(_through, name, _forward=cell.forward)


@cache
def shared(function: Any, name: str = "", **names: Any) -> Callable[..., None]:
    """The kernel of a function, or of another kernel, whose products a crew shares."""
    function = getattr(function, "py_func", function)
    theirs = {key: getattr(crew, key) for key in ("multiply", "layer_of", "parted") if key in function.__globals__}
    return variant(function, f"{name}_by_crew".lstrip("_"), **theirs, **names)


def cell_name(cell: Cell) -> str:
    """By which variants of kernels are told apart."""
    return cell.forward.__module__.rpartition(".")[2]


def variant(function: Any, name: str, **names: Any) -> Callable[..., None]:
    """A kernel of a function's code in which ``names`` mean something else.

    So one source serves many cells. It has a name of its own, by which Numba's cache on disk tells it from the others.
    """
    copy = types.FunctionType(function.__code__, function.__globals__ | names)
    copy.__name__ = copy.__qualname__ = f"{function.__name__}_{name}"
    copy.__module__ = function.__module__
    return kernel(copy)
