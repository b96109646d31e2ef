"""Drawing tokens from a language model, many steps in one go."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.engine import decode
from charlm.engine.crew import Crew, Muster, dissolve, new_crew
from charlm.engine.threads import Team, share
from charlm.models.buffers import Buffers
from charlm.models.inference import begin_inference, run_rows
from charlm.models.parameters import Array, Ids
from charlm.models.softmax import Output
from charlm.models.stack import Stack

NextToken = tuple[Array, NDArray[np.float64]]  # (L, S, N, H), and the log probabilities (N, V) of what comes next
Drawn = tuple[Ids, NDArray[np.float64]]  # tokens and their log probabilities, (T, N)

# Multiplications of a step below which one thread draws a row as soon as two: LSTM 2 x 128 is below, 2 x 192 above.
CREW_WORK = 400_000


class Drawing:
    """Draws with a stack and an output layer, whose weights are packed.

    Rows are shared out to the threads; a single row is drawn by a crew.

    Args:
        buffers: the model's.
    """

    def __init__(self, stack: Stack, output: Output, buffers: Buffers, team: Team) -> None:
        self.stack, self.output, self.team = stack, output, team
        self._muster = Muster(team.threads)
        self._buffers = [buffers, *(Buffers(stack.dtype) for _ in range(team.threads - 1))]  # of each member
        self._no_table = np.zeros((1, 0, stack.columns), stack.dtype)

    def __call__(
        self,
        state: Array,
        log_probs: NDArray[np.float64],
        uniforms: NDArray[np.float64],
        rule: decode.Rule,
        left: NDArray[np.int64],
        before_end: NDArray[np.int64],
    ) -> tuple[NextToken, Drawn]:
        """See `LanguageModel.generate`."""
        steps, rows = uniforms.shape
        work = rows * self.stack.parameters.count
        crew = self._crew() if rows == 1 and self.team.threads > 1 and work >= CREW_WORK else []
        kernel = decode.generate(self.stack.cell, self.output.log_probs, by_crew=bool(crew))
        members: list[Crew | None] = [*crew] or [None]
        tasks = [
            self._arguments(member, state, log_probs.copy(), uniforms, rule, left.copy(), before_end.copy())
            for member in members
        ]
        begin = perf_counter()
        if len(crew) > 1:
            self.team.run(lambda part, parts: kernel(*tasks[part], 0, rows), partial(dissolve, crew[0]))
        else:
            run_rows(self.team, lambda part, parts: kernel(*tasks[0], *share(rows, part, parts)), rows, work * steps)
        _, _, room, log_probs, _, _, left[:], before_end[:], tokens, nats = tasks[0]
        if crew:
            self._muster.learn(int(np.count_nonzero(tokens >= 0)), perf_counter() - begin)
        return (room.stack.state[:, 0].copy(), log_probs), (tokens, nats)

    def _crew(self) -> list[Crew]:
        return new_crew(self._muster.parts(), max(self.stack.columns, self.output.width), self.stack.dtype)

    def _arguments(
        self, member: Crew | None, state: Array, log_probs: Array, uniforms: Array, *rule_and_counts: Any
    ) -> tuple[Any, ...]:
        """What the kernel takes, but for the rows; a member of a crew has room of its own."""
        steps, rows = uniforms.shape
        symbols, size = log_probs.shape[1], self.stack.config.hidden_size
        buffers = self._buffers[0 if member is None else member.part]
        table, get = self.stack.projection.table if self.stack.whole_table else self._no_table, buffers.get
        weights, stack_room = begin_inference(self.stack, buffers, state, 1, table, member)
        room = decode.Room(
            stack=stack_room,
            tokens=get("tokens", (1, rows), np.int32),
            reset=get("no_reset", (1, rows), np.uint8),  # zeros, and never written
            output=get("hidden", (1, rows, size)),
            logits=get("step_logits", (1, rows, self.output.width)),
            weights=get("weights", (rows, symbols), np.float64),
            heap=get("heap", (rows, symbols), np.int32),
        )
        tokens, nats = np.full((steps, rows), -1, np.int32), np.zeros((steps, rows))
        output = self.output.inference(rows, member)
        return weights, output, room, log_probs, uniforms, *rule_and_counts, tokens, nats
