"""Tiles of a matrix product, as LLVM instructions: up to ``ROWS`` rows times a panel of ``VECTORS`` vectors.

All sums stay in registers until the tile is done. Loops in Python that Numba compiles do not get there: the compiler
would have to keep 24 vectors of sums in registers over a loop, and does not.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

from charlm.engine.jit import HAS_FMA, VECTOR_REGISTERS
from charlm.engine.panels import I64, Vectors, pointer, real_type

ROWS = 6
VECTORS = 4 if VECTOR_REGISTERS >= 32 else 2  # 6 x 4 sums + 4 of the panel + 1 broadcast of 32; 6 x 2 + 2 + 1 of 16

MOST_VECTORS = 4 * VECTORS  # of a tile that takes several panels

ZERO, ADD, BIAS = 0, 1, 2  # what a product starts from: nothing, the result's old value, a row of biases


@register_jitable
def panels_at_once(rows: int) -> int:
    """How many whole panels a tile of so many rows may take.

    A sum waits four cycles for the one before it: with fewer than eight under way the processor would wait, too. One
    stream of LSTM 2 x 128 is drawn 1.3 times as fast (20.3 and 15.2 us a token, vectors of 256 bits).
    """
    return 4 if rows == 1 else 2 if rows == 2 else 1


def _tile_function(module: ir.Module, real: Any) -> ir.Function:
    """Emit, once a module, the function that computes tiles.

    c[r, j] = start + sum_k a[r * a_row + k * a_k] * panel[k, j]   for r < rows, j < columns

    ``rows`` and ``vectors`` choose, by a switch, one of the loops unrolled for that size. More than ``VECTORS`` vectors
    are whole panels, ``b_panel`` numbers after one another. ``count`` tiles of that size follow each other without a
    call in between (2 % if K is 128): the next one's a begins ``a_tile`` numbers later, its c below this one's.
    """
    name = f"charlm_tile_{'f32' if isinstance(real, ir.FloatType) else 'f64'}"
    if name in module.globals:
        found: ir.Function = module.globals[name]
        return found
    i64, pointer = ir.IntType(64), real.as_pointer()
    numbers = ("a_row", "a_k", "k", "c_row", "columns", "rows", "vectors", "start", "b_panel", "count", "a_tile")
    kinds = dict.fromkeys(("a", "b", "c", "bias"), pointer) | dict.fromkeys(numbers, i64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*kinds.values()]), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    named = dict(zip(kinds, function.args, strict=True))
    for label, argument in named.items():
        argument.name = label
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    finished = function.append_basic_block("finished")
    size = builder.add(builder.mul(named["rows"], ir.Constant(i64, MOST_VECTORS + 1)), named["vectors"])
    choice = builder.switch(size, finished)
    for rows in range(1, ROWS + 1):
        for vectors in sorted({*range(1, VECTORS + 1), panels_at_once(rows) * VECTORS}):
            block = function.append_basic_block(f"tile_{rows}x{vectors}")
            choice.add_case(ir.Constant(i64, rows * (MOST_VECTORS + 1) + vectors), block)
            _Tile(ir.IRBuilder(block), function, real, rows, vectors).emit(finished)
    ir.IRBuilder(finished).ret_void()
    return function


class _Tile(Vectors):
    """Emits the code of one size of tile."""

    def __init__(self, builder: Any, function: Any, real: Any, rows: int, vectors: int) -> None:
        super().__init__(builder, real)
        self.function, self.rows, self.vectors = function, rows, vectors
        self.argument = {argument.name: argument for argument in function.args}

    def _row(self, base: Any, stride: str, row: int) -> Any:
        offset = self.builder.mul(self.argument[stride], self.constant(row))
        return self.builder.gep(base, [offset])

    def _multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        if HAS_FMA:
            fma = self.declare(f"llvm.fma.{self.suffix}", self.vector, [self.vector] * 3)
            return self.builder.call(fma, [a, b, total])
        return self.builder.fadd(self.builder.fmul(a, b), total)

    def _places(self, row: Any) -> list[Any]:
        """Addresses of a row's vectors."""
        return [self.at(row, self.constant(v * self.lanes)) for v in range(self.vectors)]

    def _panel(self, k: Any) -> list[Any]:
        """The vectors of row ``k`` of the panel, or of all panels."""
        width = min(self.vectors, VECTORS)
        row = self.builder.mul(k, self.constant(width * self.lanes))
        values = []
        for v in range(self.vectors):
            panel, vector = divmod(v, width)
            start = self.builder.add(row, self.builder.mul(self.argument["b_panel"], self.constant(panel)))
            place = self.builder.add(start, self.constant(vector * self.lanes))
            values.append(self.load(self.at(self.argument["b"], place)))
        return values

    def emit(self, finished: Any) -> None:
        builder, arg, function = self.builder, self.argument, self.function
        begin, head, body, done, whole, ragged, end = (
            function.append_basic_block(f"{label}_{self.rows}x{self.vectors}")
            for label in ("begin", "head", "body", "done", "whole", "ragged", "end")
        )
        entry = builder.block
        builder.branch(begin)
        builder.position_at_end(begin)
        a, c, left = builder.phi(arg["a"].type), builder.phi(arg["c"].type), builder.phi(I64)
        for value, name in ((a, "a"), (c, "c"), (left, "count")):
            value.add_incoming(arg[name], entry)
        c_rows = [self._row(c, "c_row", r) for r in range(self.rows)]
        a_rows = [self._row(a, "a_row", r) for r in range(self.rows)]
        for place in itertools.chain(*map(self._places, c_rows)):  # as a rule in no near cache: 3 % (LSTM 2 x 512)
            self.prefetch(place, write=True)
        builder.branch(head)

        builder.position_at_end(head)
        k = builder.phi(I64)
        k.add_incoming(self.constant(0), begin)
        sums = [[builder.phi(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        for total in itertools.chain(*sums):
            total.add_incoming(self.zeros, begin)
        builder.cbranch(builder.icmp_signed("<", k, arg["k"]), body, done)

        builder.position_at_end(body)
        panel = self._panel(k)
        a_column = builder.mul(k, arg["a_k"])
        for r in range(self.rows):
            value = self.splat(builder.load(builder.gep(a_rows[r], [a_column])), self.real)
            for v in range(self.vectors):
                sums[r][v].add_incoming(self._multiply_add(value, panel[v], sums[r][v]), body)
        k.add_incoming(builder.add(k, self.constant(1)), body)
        builder.branch(head)

        builder.position_at_end(done)
        has_all = builder.icmp_signed(">=", arg["columns"], self.constant(self.vectors * self.lanes))
        builder.cbranch(has_all, whole, ragged)
        for block in (whole, ragged):
            builder.position_at_end(block)
            self._finish(sums, c_rows, end, is_ragged=block is ragged)
        builder.position_at_end(end)
        a.add_incoming(builder.gep(a, [arg["a_tile"]]), end)
        c.add_incoming(self._row(c, "c_row", self.rows), end)
        others = builder.sub(left, self.constant(1))
        left.add_incoming(others, end)
        builder.cbranch(builder.icmp_signed(">", others, self.constant(0)), begin, finished)

    def _finish(self, sums: list[list[Any]], c_rows: list[Any], end: Any, *, is_ragged: bool) -> None:
        """Add what the product starts from, and write; with masks where they are needed alone (2 % if K is 128)."""
        builder, arg, origin = self.builder, self.argument, self.builder.block
        masks = [self.mask(arg["columns"], v * self.lanes) if is_ragged else None for v in range(self.vectors)]
        add, bias, store = (
            self.function.append_basic_block(f"{label}_{origin.name}") for label in ("add", "bias", "store")
        )
        start = builder.switch(arg["start"], store)
        start.add_case(self.constant(ADD), add)
        start.add_case(self.constant(BIAS), bias)
        builder.position_at_end(add)
        with_old = [self._with(total, self._load_row(row, masks)) for total, row in zip(sums, c_rows, strict=True)]
        builder.branch(store)
        builder.position_at_end(bias)
        biases = self._load_row(arg["bias"], masks)
        with_bias = [self._with(total, biases) for total in sums]
        builder.branch(store)

        builder.position_at_end(store)
        results = [[builder.phi(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        for block, values in ((origin, sums), (add, with_old), (bias, with_bias)):
            for result, value in zip(itertools.chain(*results), itertools.chain(*values), strict=True):
                result.add_incoming(value, block)
        for row, row_results in zip(c_rows, results, strict=True):
            for place, mask, result in zip(self._places(row), masks, row_results, strict=True):
                self.store(result, place, mask)
        builder.branch(end)

    def _with(self, totals: list[Any], others: list[Any]) -> list[Any]:
        return [self.builder.fadd(total, other) for total, other in zip(totals, others, strict=True)]

    def _load_row(self, row: Any, masks: list[Any]) -> list[Any]:
        """The vectors of a row; zeros beyond its columns."""
        return [self.load(place, mask) for place, mask in zip(self._places(row), masks, strict=True)]


def _declare_tile(
    typing_context: Any,
    a: Any,
    a_start: Any,
    a_row: Any,
    a_k: Any,
    b: Any,
    b_start: Any,
    k: Any,
    c: Any,
    c_start: Any,
    c_row: Any,
    columns: Any,
    rows: Any,
    vectors: Any,
    start: Any,
    bias: Any,
    bias_start: Any,
    b_panel: Any,
    count: Any,
    a_tile: Any,
) -> Any:
    """Type and code of tiles, see `_tile_function`; starts and strides count numbers within each array's memory."""
    i = types.intp
    signature = types.void(a, i, i, i, b, i, i, c, i, i, i, i, i, i, bias, i, i, i, i)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def at(position: int) -> Any:
            return pointer(context, builder, signature.args[position], args[position], args[position + 1])

        pointers, numbers = [at(0), at(4), at(7), at(14)], [*args[2:4], args[6], *args[9:14], *args[16:]]
        builder.call(_tile_function(builder.module, real_type(a)), [*pointers, *numbers])
        return context.get_dummy_value()

    return signature, generate


tile: Any = intrinsic(_declare_tile)
