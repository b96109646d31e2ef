"""Where the time of a training step goes: products, gates, softmax, table, packing, optimiser, Python. charlm alone.

    python tests/benchmarks/shares.py [--rows REGEX] [--threads 2] [--steps N] [--quick] [--kernels]

Every compiled kernel that Python calls is timed, on each thread, and its time sorted into shares of threads x seconds
of a step; what no kernel took is Python's own and the waiting of a thread that is done before the other. A cell's
kernels hold products and gates in one loop: the products alone are measured at the same shapes on the same threads,
and the rest is the gates. ``--kernels`` lists each kernel's part.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from machine import describe
from numba.core.dispatcher import Dispatcher
from ours import operations, peak, work
from table import Table
from work import ROWS, TRAIN, Row, matching, measure

from charlm.engine import cells, matmul
from charlm.engine.jit import kernel
from charlm.engine.threads import Team, share
from charlm.models.packed_weight import PackedWeight

USUAL = "lstm 2 x 128|lstm 2 x 512|lstm 2 x 200, words V 10,000"
PRODUCTS, GATES, SOFTMAX, TABLE, PACKING, OPTIMISER = "products", "gates", "softmax", "table", "packing", "optimiser"
OTHERS, REST = "other kernels", "Python and waiting"
CELL = "a cell's loop over the steps"  # products and gates, to be divided

# The one place that names kernels. A new one that is missing here shows up as one of the others.
SHARES = {
    "multiply": PRODUCTS, "accumulate_outer": PRODUCTS, "gradients": PRODUCTS,
    "forward": CELL, "backward": CELL,
    "cross_entropy": SOFTMAX,
    "embed": TABLE, "look_up": TABLE, "add_to_table": TABLE, "add_to_embedding": TABLE,
    "pack_weight": PACKING,
    "squares": OPTIMISER, "adamw": OPTIMISER, "clip_values": OPTIMISER,
}  # fmt: skip
ORDER = (PRODUCTS, GATES, SOFTMAX, TABLE, PACKING, OPTIMISER, OTHERS, REST)


@kernel
def steps_of_products(a: Any, packed: Any, c: Any, low: int, high: int, start: int, bias: Any) -> None:
    """A cell's products without its gates: one after another, as each step needs the one before."""
    for t in range(c.shape[0]):
        matmul.multiply(a, t, 0, a.shape[2], packed, c, t, 0, c.shape[2], 1, low, high, start, bias)


class Clock:
    """Seconds and calls of each kernel, over all threads."""

    def __init__(self) -> None:
        self._spent: dict[tuple[int, str], float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    def timed(self, compiled: Any) -> Any:
        """The kernel with a clock around it."""
        function = compiled.py_func
        name = f"{function.__module__.removeprefix('charlm.engine.')}.{function.__name__}"

        def call(*arguments: Any) -> Any:
            begin = time.perf_counter()
            result = compiled(*arguments)
            self._spent[threading.get_ident(), name] += time.perf_counter() - begin  # no two threads share a key
            self.calls[name] += 1
            return result

        return call

    def clear(self) -> None:
        self._spent.clear()
        self.calls.clear()

    def seconds(self) -> dict[str, float]:
        totals: dict[str, float] = defaultdict(float)
        for (_, name), seconds in self._spent.items():
            totals[name] += seconds
        return totals


@contextmanager
def watched(clock: Clock, cell: Any) -> Iterator[None]:
    """Meanwhile, put the clock around every kernel that charlm's modules and the cell's record hold.

    Nothing may be compiled meanwhile: what kernels call by name would be the clock.
    """
    timed: dict[int, Any] = {}
    changed: list[tuple[Any, str, Any]] = []
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "charlm"]
    for holder in [*modules, cell]:
        for name, value in list(vars(holder).items()):
            if isinstance(value, Dispatcher):
                changed.append((holder, name, value))
                object.__setattr__(holder, name, timed.setdefault(id(value), clock.timed(value)))
    try:
        yield
    finally:
        for holder, name, value in changed:
            object.__setattr__(holder, name, value)


def products_in_cells(row: Row, team: Team) -> float:
    """Seconds of the recurrent products of one step of the work, over all threads and layers."""
    rng = np.random.default_rng(1)
    spent = [0.0] * team.threads

    def numbers(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    total = 0.0
    for gates in cells.find(row.cell).products:
        weight = PackedWeight((row.size, gates * row.size), np.float32)
        weight.pack(numbers(row.size, gates * row.size), 0, 1, backward=True)
        narrow, wide = (numbers(row.steps, row.rows, width * row.size) for width in (1, gates))
        for a, packed, c, start in (
            (narrow, weight.forward, wide, matmul.ADD),
            (wide, weight.backward, narrow, matmul.ZERO),
        ):

            def task(part: int, parts: int, a: Any = a, packed: Any = packed, c: Any = c, start: Any = start) -> None:
                begin = time.perf_counter()
                steps_of_products(a, packed, c, *share(row.rows, part, parts), start, a[0, 0, :0])
                spent[part] = time.perf_counter() - begin

            rounds = []
            for _ in range(4):  # the first compiles
                team.run(task)
                c[...] = 0.5  # or the sums grow
                rounds.append(sum(spent))
            total += min(rounds)
    return total * row.layers


def shares_of(row: Row, team: Team, steps: int) -> tuple[dict[str, float], float, list[str]]:
    """Shares of threads x seconds, 0 to 1; the seconds of a step; a line for each kernel."""
    step = work(row, team)
    measure(step, 0.3, least=5)  # compiles, fills buffers and caches
    clock = Clock()
    with watched(clock, cells.find(row.cell)):
        step()  # Python's own caches
        clock.clear()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        wall = (time.perf_counter() - begin) / steps
    spent: dict[str, float] = defaultdict(float)
    lines = []
    for name, total in sorted(clock.seconds().items(), key=lambda item: -item[1]):
        share_name = SHARES.get(name.rpartition(".")[2], OTHERS)
        spent[share_name] += total / steps
        lines.append(
            f"    {total / steps / team.threads * 1e3:9.3f} ms {total / steps / team.threads / wall:6.1%} "
            f"{clock.calls[name] / steps:6.1f} calls  {name} ({share_name})"
        )
    in_cells = min(products_in_cells(row, team), spent[CELL])
    spent[PRODUCTS] += in_cells
    spent[GATES] += spent.pop(CELL) - in_cells
    spent[REST] = team.threads * wall - sum(spent.values())
    return {name: seconds / team.threads / wall for name, seconds in spent.items()}, wall, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=USUAL, metavar="REGEX", help=f"the trainings to look at (default: {USUAL})")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="of each training (default: 20)")
    parser.add_argument("--quick", action="store_true", help="3 steps: a first look, not a figure to quote")
    parser.add_argument("--kernels", action="store_true", help="also each kernel's part")
    options = parser.parse_args()
    chosen = matching([row for row in ROWS if row.kind == TRAIN], options.rows)
    print(f"{describe(None)}\n{options.threads} thread{'s' * (options.threads > 1)}\n", flush=True)
    team = Team(options.threads)
    top = peak(team, 0.3 if options.quick else 1.0)
    table = Table(("work", 46), *((name, len(name)) for name in ORDER), ("products, of peak", 17), ("tok/s", 9))
    print(table.head(), flush=True)
    for row in chosen:
        parts, wall, lines = shares_of(row, team, 3 if options.quick else options.steps)
        speed = operations(row)[0] / (parts[PRODUCTS] * wall) / top
        cells_of_row = [f"{parts.get(name, 0.0):.1%}" for name in ORDER]
        print(table.line([row.name, *cells_of_row, f"{speed:.0%}", f"{row.tokens / wall:,.0f}"]), flush=True)
        if options.kernels:
            print("\n".join(lines), flush=True)
    team.close()


if __name__ == "__main__":
    main()
