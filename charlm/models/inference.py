"""A stack's passes through which nothing goes back: what the kernel `engine.inference.through` takes."""

from __future__ import annotations

import numpy as np

from charlm.engine import inference
from charlm.engine.crew import Crew, shared
from charlm.engine.threads import Task, Team
from charlm.models.buffers import Buffers
from charlm.models.parameters import Array
from charlm.models.stack import Stack

SMALL_WORK = 8_000_000  # multiplications of a pass below which one thread is faster than two


def begin_inference(
    stack: Stack, buffers: Buffers, state: Array, block: int, table: Array, member: Crew | None = None
) -> tuple[inference.Weights, inference.Room]:
    """Weights and room for a pass in blocks of at most ``block`` steps, which begins with ``state`` (L, S, N, H).

    Args:
        buffers: where the room is; of a crew's, each member has its own.
        table: (1, U, C), see `engine.inference.Weights`.
    """
    config, values, get = stack.config, stack.parameters, buffers.get
    layers, states, rows, size = state.shape
    paths = [f"{stack.prefix}layer{layer}/b" for layer in range(layers)]
    weights = inference.Weights(
        table=table,
        embedding=values[f"{stack.prefix}embedding"],
        w_x_0=shared(stack.projection.w_x.forward, member),
        w_x=shared(stack.packed_w_x, member),
        w_h=shared(stack.packed_w_h, member),
        w_p=np.stack([layer.w_p for layer in stack.layers]),
        b=np.stack([values[path] for path in paths]),
        initial=stack.zero_state(rows),
        activation=stack.activation,
    )
    room = inference.Room(
        embedded=get("embedded", (1, rows, config.embedding_size)),
        pre=get("pre", (block, rows, stack.columns)),
        state=get("state", (layers, block + 1, states, rows, size)),
        hidden=get("between", (2, block, rows, size)),
        saved=get("saved", (block, rows, stack.cell.saved * size)),
    )
    room.state[:, 0] = state
    return weights, room


def run_rows(team: Team, task: Task, rows: int, work: int) -> None:
    """Run a task over rows; one of a few microseconds is not worth waking anyone for.

    Args:
        work: multiplications in it.
    """
    if rows == 1 or work < SMALL_WORK:
        task(0, 1)
    else:
        team.run(task)
