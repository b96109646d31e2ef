"""Threads that share each product of a few rows: one stream of text, drawn by two threads.

Rows are what threads divide elsewhere. Of a single row nothing is left to divide but the columns of its products, and
those follow each other every few microseconds: too soon to hand work to a sleeping thread. So all threads of a crew
take the row through all steps, each in memory of its own. Of a product each computes its share of the columns; then
they meet, and each copies what the others have found. Each number is still computed by one thread, in the same order:
a crew never changes a bit.

The kernels that a crew runs are the usual ones, in which `multiply`, `layer_of` and `parted` mean those of this file:
see `inference.variant`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from charlm.engine import matmul
from charlm.engine.jit import IS_X86, kernel
from charlm.engine.matmul import lanes_of
from charlm.engine.tile import VECTORS

LINE = 8  # numbers of 64 bits in a cache line: two threads that write to one would hinder each other
PATIENCE = 2000  # looks at the others' counters before the processor is offered to someone else: some 50 microseconds
ENOUGH_STEPS = 16  # whose time tells something
LONGEST = 256  # tasks between two trials of what was slower, at most; of more where they are short
WORTH_SHARING = 1 << 15  # multiplications of a product that take longer than to meet


class Crew(NamedTuple):
    """One thread's view of its crew.

    Attributes:
        part, parts: which of how many.
        meetings: int64, how often each thread has come to a meeting, a line each; last, whether to wait no longer.
        attended: (1,), int64: how often this thread has.
        exchange: (2, enough columns): what the threads find, in turns.
    """

    part: int
    parts: int
    meetings: Any
    attended: Any
    exchange: Any


class SharedWeight(NamedTuple):
    """A packed weight, or a pile of them, and those who multiply by it together."""

    packed: Any
    crew: Crew


def shared(packed: NDArray[Any], crew: Crew | None) -> Any:
    """A packed weight as the kernels of a crew take it; as it is if there is no crew."""
    return packed if crew is None else SharedWeight(packed, crew)


def new_crew(parts: int, columns: int, dtype: Any) -> list[Crew]:
    """A crew of so many threads, for products of at most so many columns, rows times columns."""
    meetings = np.zeros((parts + 1) * LINE, np.int64)
    exchange = np.zeros((2, columns), dtype)
    return [Crew(part, parts, meetings, np.zeros(LINE, np.int64)[:1], exchange) for part in range(parts)]


class Muster:
    """How many threads to take along, task after task: all, or one, whichever was the faster lately.

    A crew is fast while each thread has a processor to itself. Where others want the processors too, a thread is often
    absent when the rest meet, and one alone does better. That shows in nothing but the time: even on a free machine
    the first meeting of a task waits for the others to wake. So the slower way is tried again now and then, the more
    seldom the more often it has lost.
    """

    def __init__(self, threads: int) -> None:
        self._seconds = dict.fromkeys((threads, 1), 0.0)  # of a step, by the number of threads; 0 before the first
        self._steps, self._took = 0, 0.0  # of the tasks since the last lesson, seconds
        self._pause, self._left = 1, 1  # lessons from one trial to the next, and those still to come before it

    def parts(self) -> int:
        """Threads for the next task."""
        choose = min if self._left > 0 else max
        return choose(self._seconds, key=self._seconds.__getitem__)

    def learn(self, steps: int, seconds: float) -> None:
        """Draw the lesson from a task of so many steps by `parts` threads, or from several short ones together."""
        self._steps += steps
        self._took += seconds
        if self._steps < ENOUGH_STEPS:
            return
        parts, before = self.parts(), self._faster()
        self._seconds[parts] = self._took / self._steps
        self._steps, self._took = 0, 0.0
        self._left -= 1
        if self._faster() != before:
            self._pause = self._left = 1
        elif parts != before:
            self._pause = self._left = min(4 * self._pause, LONGEST)

    def _faster(self) -> int:
        return min(self._seconds, key=self._seconds.__getitem__)


def dissolve(crew: Crew) -> None:
    """Let nobody wait for a thread that will not come; what the others compute is then of no use."""
    crew.meetings[-LINE] = 1


def _load(typing_context: Any, array: Any, place: Any) -> Any:
    """What another thread may be writing to ``array[place]``, and all that it wrote before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(array, types.intp), generate


def _publish(typing_context: Any, array: Any, place: Any, value: Any) -> Any:
    """Write to ``array[place]``: whoever sees it sees all that this thread wrote before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        builder.store_atomic(args[2], builder.gep(data, [args[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate


def _pause(typing_context: Any) -> Any:
    """Tell the processor that this is a loop of waiting."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if IS_X86:
            name, kinds, values = "llvm.x86.sse2.pause", [], []
        else:
            name, kinds, values = "llvm.aarch64.hint", [ir.IntType(32)], [ir.Constant(ir.IntType(32), 1)]
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(ir.VoidType(), kinds), name
        )
        builder.call(function, values)
        return context.get_dummy_value()

    return types.void(), generate


load: Any = intrinsic(_load)
publish: Any = intrinsic(_publish)
pause: Any = intrinsic(_pause)
give_way: Any = types.ExternalFunction("sched_yield", types.intc())


@kernel
def meet(crew: Crew) -> None:
    """Return when every thread of the crew has come here as often as this one."""
    crew.attended[0] += 1
    now = crew.attended[0]
    publish(crew.meetings, crew.part * LINE, now)
    for other in range(crew.parts):
        looks = 0
        while load(crew.meetings, other * LINE) < now:
            looks += 1
            if looks < PATIENCE:
                pause()
            elif load(crew.meetings, crew.parts * LINE):
                return
            else:
                give_way()


@kernel
def multiply(
    a: Any, a_step: int, column: int, k: int, weight: SharedWeight, c: Any, c_step: int, c_column: int, n: int,
    steps: int, low: int, high: int, start: int, bias: Any,
) -> None:  # fmt: skip
    """`matmul.multiply` of a single step, by all threads of the crew."""
    crew = weight.crew
    first, last = 0, n
    is_shared = crew.parts > 1 and k * n >= WORTH_SHARING
    width = VECTORS * lanes_of(a)
    panels = (n + width - 1) // width
    if is_shared:
        first = panels * crew.part // crew.parts * width
        last = min(panels * (crew.part + 1) // crew.parts * width, n)
    if first < last:
        matmul.multiply(
            a, a_step, column, k, weight.packed[first * k :], c, c_step, c_column + first, last - first, steps, low,
            high, start, bias[first:],
        )  # fmt: skip
    if not is_shared:
        return
    found = crew.exchange[crew.attended[0] & 1]
    for row in range(low, high):
        result, place = c[c_step, row], row * n
        for j in range(first, last):
            found[place + j] = result[c_column + j]
    meet(crew)
    for row in range(low, high):
        result, place = c[c_step, row], row * n
        for j in range(first):
            result[c_column + j] = found[place + j]
        for j in range(last, n):
            result[c_column + j] = found[place + j]


@kernel
def layer_of(pile: SharedWeight, layer: int) -> SharedWeight:
    """The weight of a layer."""
    return SharedWeight(pile.packed[layer], pile.crew)


@kernel
def parted(weight: SharedWeight, place: int) -> tuple[SharedWeight, SharedWeight]:
    """The two weights that are packed before and after ``place``."""
    return SharedWeight(weight.packed[:place], weight.crew), SharedWeight(weight.packed[place:], weight.crew)
