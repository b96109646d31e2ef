"""Matrix products at the shapes of a recurrent network: packed, register-tiled.

The right-hand matrix is packed once a training step into panels of ``VECTORS`` vectors, each panel's rows contiguous;
what a packed matrix looks like is known to this file alone. The product is then made of tiles: up to ``ROWS`` rows of
the left-hand matrix times one panel, all sums in registers until the tile is done. NumPy's BLAS reaches 76 to 91
GFLOP/s a core at these shapes where this reaches 200 (AMD Zen 5, float32, 24..36 rows).

Each number of the result is summed over k in ascending order, whatever tile it falls into: how rows are shared out
over threads never changes a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from charlm.engine.jit import HAS_FMA, VECTOR_BYTES, VECTOR_REGISTERS, kernel

ROWS = 6
VECTORS = 4 if VECTOR_REGISTERS >= 32 else 2  # 6 x 4 sums + 4 of the panel + 1 broadcast of 32; 6 x 2 + 2 + 1 of 16
K_BLOCK = 512  # rows of a panel used in one go: 128 KB of float32, which stays in the second-level cache
A_BLOCK = 1 << 16  # numbers of the left-hand matrix used in one go, for the same reason
PADDING = 16  # numbers between packed rows: a stride of a power of two would map them all to the same cache lines
OUTER_BLOCK = 192  # rows summed in one go by `accumulate_outer`: a packed panel then fits the first-level cache

ZERO, ADD, BIAS = 0, 1, 2  # what a product starts from: nothing, the result's old value, a row of biases


def _tile_function(module: ir.Module, real: Any, lanes: int) -> ir.Function:
    """Emit, once a module, the function that computes one tile.

    c[r, j] = start + sum_k a[r * a_row + k * a_k] * panel[k, j]   for r < rows, j < columns

    ``rows`` and ``vectors`` choose, by a switch, one of the loops unrolled for that size.
    """
    name = f"charlm_tile_{'f32' if isinstance(real, ir.FloatType) else 'f64'}"
    if name in module.globals:
        found: ir.Function = module.globals[name]
        return found
    i64, pointer = ir.IntType(64), real.as_pointer()
    names = ["a", "a_row", "a_k", "b", "k", "c", "c_row", "columns", "rows", "vectors", "start", "bias"]
    kinds = [pointer, i64, i64, pointer, i64, pointer, i64, i64, i64, i64, i64, pointer]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    for argument, label in zip(function.args, names, strict=True):
        argument.name = label
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    finished = function.append_basic_block("finished")
    size = builder.add(builder.mul(function.args[8], ir.Constant(i64, VECTORS + 1)), function.args[9], name="size")
    choice = builder.switch(size, finished)
    for rows in range(1, ROWS + 1):
        for vectors in range(1, VECTORS + 1):
            block = function.append_basic_block(f"tile_{rows}x{vectors}")
            choice.add_case(ir.Constant(i64, rows * (VECTORS + 1) + vectors), block)
            _Tile(ir.IRBuilder(block), function, real, lanes, rows, vectors).emit(finished)
    ir.IRBuilder(finished).ret_void()
    return function


class _Tile:
    """Emits the code of one size of tile."""

    def __init__(self, builder: Any, function: Any, real: Any, lanes: int, rows: int, vectors: int) -> None:
        self.builder, self.function, self.rows, self.vectors, self.lanes = (
            builder,
            function,
            rows,
            vectors,
            lanes,
        )
        self.argument = {argument.name: argument for argument in function.args}
        self.vector = ir.VectorType(real, lanes)
        self.bytes = real.width if hasattr(real, "width") else (4 if isinstance(real, ir.FloatType) else 8)
        self.i64 = ir.IntType(64)
        suffix = f"v{lanes}f{8 * self.bytes}"
        module, mask = function.module, ir.VectorType(ir.IntType(1), lanes)
        i32, address = ir.IntType(32), self.vector.as_pointer()
        self.fma = self._declare(module, f"llvm.fma.{suffix}", self.vector, [self.vector] * 3)
        self.masked_load = self._declare(
            module, f"llvm.masked.load.{suffix}.p0", self.vector, [address, i32, mask, self.vector]
        )
        self.masked_store = self._declare(
            module, f"llvm.masked.store.{suffix}.p0", ir.VoidType(), [self.vector, address, i32, mask]
        )

    @staticmethod
    def _declare(module: Any, name: str, result: Any, arguments: list[Any]) -> Any:
        return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)

    def _constant(self, value: int) -> Any:
        return ir.Constant(self.i64, value)

    def _at(self, base: Any, vector: int, offset: Any = None) -> Any:
        """Address of the ``vector``-th vector after ``base`` (+ ``offset`` numbers)."""
        index = self._constant(vector * self.lanes)
        if offset is not None:
            index = self.builder.add(offset, index)
        return self.builder.bitcast(self.builder.gep(base, [index]), self.vector.as_pointer())

    def _row(self, base: str, stride: str, row: int) -> Any:
        offset = self.builder.mul(self.argument[stride], self._constant(row))
        return self.builder.gep(self.argument[base], [offset])

    def _broadcast(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        lane = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(lane, undefined, zeros)

    def _multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        if HAS_FMA:
            return self.builder.call(self.fma, [a, b, total])
        return self.builder.fadd(self.builder.fmul(a, b), total)

    def _masks(self) -> list[Any]:
        """For each vector of the panel: which lanes lie inside the result."""
        lanes = ir.VectorType(self.i64, self.lanes)
        undefined = ir.Constant(lanes, ir.Undefined)
        one = self.builder.insert_element(undefined, self.argument["columns"], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        columns = self.builder.shuffle_vector(one, undefined, zeros)
        return [
            self.builder.icmp_signed("<", ir.Constant(lanes, [v * self.lanes + i for i in range(self.lanes)]), columns)
            for v in range(self.vectors)
        ]

    def _load(self, base: Any, masks: list[Any]) -> list[Any]:
        nothing = ir.Constant(self.vector, [0.0] * self.lanes)
        align = ir.Constant(ir.IntType(32), self.bytes)
        return [
            self.builder.call(self.masked_load, [self._at(base, v), align, masks[v], nothing])
            for v in range(self.vectors)
        ]

    def emit(self, finished: Any) -> None:
        builder, arg, function = self.builder, self.argument, self.function
        add, bias, zero, head, body, whole, ragged, done = (
            function.append_basic_block(f"{label}_{self.rows}x{self.vectors}")
            for label in ("add", "bias", "zero", "head", "body", "whole", "ragged", "done")
        )
        masks = self._masks()
        c_rows = [self._row("c", "c_row", r) for r in range(self.rows)]
        a_rows = [self._row("a", "a_row", r) for r in range(self.rows)]
        start = builder.switch(arg["start"], zero)
        start.add_case(self._constant(ADD), add)
        start.add_case(self._constant(BIAS), bias)
        builder.position_at_end(add)
        old = [self._load(row, masks) for row in c_rows]
        builder.branch(head)
        builder.position_at_end(bias)
        biases = self._load(arg["bias"], masks)
        builder.branch(head)
        builder.position_at_end(zero)
        builder.branch(head)

        builder.position_at_end(head)
        k = builder.phi(self.i64)
        for origin in (add, bias, zero):
            k.add_incoming(self._constant(0), origin)
        nothing = ir.Constant(self.vector, [0.0] * self.lanes)
        sums = [[builder.phi(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        for r in range(self.rows):
            for v in range(self.vectors):
                sums[r][v].add_incoming(old[r][v], add)
                sums[r][v].add_incoming(biases[v], bias)
                sums[r][v].add_incoming(nothing, zero)
        builder.cbranch(builder.icmp_signed("<", k, arg["k"]), body, done)

        builder.position_at_end(body)
        b_row = builder.mul(k, self._constant(self.vectors * self.lanes))
        panel = [builder.load(self._at(arg["b"], v, b_row), align=self.bytes) for v in range(self.vectors)]
        a_column = builder.mul(k, arg["a_k"])
        for r in range(self.rows):
            value = self._broadcast(builder.load(builder.gep(a_rows[r], [a_column])))
            for v in range(self.vectors):
                sums[r][v].add_incoming(self._multiply_add(value, panel[v], sums[r][v]), body)
        k.add_incoming(builder.add(k, self._constant(1)), body)
        builder.branch(head)

        builder.position_at_end(done)
        width = self._constant(self.vectors * self.lanes)
        builder.cbranch(builder.icmp_signed(">=", arg["columns"], width), whole, ragged)
        builder.position_at_end(whole)
        for r in range(self.rows):
            for v in range(self.vectors):
                builder.store(sums[r][v], self._at(c_rows[r], v), align=self.bytes)
        builder.branch(finished)
        builder.position_at_end(ragged)
        align = ir.Constant(ir.IntType(32), self.bytes)
        for r in range(self.rows):
            for v in range(self.vectors):
                builder.call(self.masked_store, [sums[r][v], self._at(c_rows[r], v), align, masks[v]])
        builder.branch(finished)


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
) -> Any:
    """Type and code of one tile, see `_tile_function`; starts and strides count numbers within each array's memory."""
    i = types.intp
    signature = types.void(a, i, i, i, b, i, i, c, i, i, i, i, i, i, bias, i)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointer(position: int) -> Any:
            array = context.make_array(signature.args[position])(context, builder, args[position])
            return builder.gep(array.data, [args[position + 1]])

        real = ir.FloatType() if a.dtype == types.float32 else ir.DoubleType()
        lanes = VECTOR_BYTES // (4 if a.dtype == types.float32 else 8)
        builder.call(
            _tile_function(builder.module, real, lanes),
            [pointer(0), *args[2:4], pointer(4), args[6], pointer(7), *args[9:14], pointer(14)],
        )
        return context.get_dummy_value()

    return signature, generate


_tile: Any = intrinsic(_declare_tile)


@kernel
def lanes_of(a: Any) -> Any:
    """How many numbers of the array's type one vector holds."""
    return VECTOR_BYTES // a.itemsize


def panel_share(n: int, part: int, parts: int, itemsize: int) -> tuple[int, int]:
    """First and last column of this thread's share of the panels, as `pack` and `pack_transposed` share them."""
    width = VECTORS * VECTOR_BYTES // itemsize
    panels = -(-n // width)
    return panels * part // parts * width, min(panels * (part + 1) // parts * width, n)


@kernel
def packed_size(k: int, n: int, lanes: int) -> int:
    """Length of the packed form of a (K, N) matrix."""
    return k * ((n + lanes - 1) // lanes) * lanes


@kernel
def pack(b: Any, column: int, n: int, packed: Any, part: int, parts: int) -> None:
    """Pack columns ``column`` .. ``column + n`` of a matrix, or this thread's share of its panels.

    Args:
        b: (K, columns), C order.
        packed: OUT, (packed_size(K, n),). The columns beyond n in the last vector are zero.
        part, parts: which share of the panels to pack.
    """
    lanes = lanes_of(b)
    width = VECTORS * lanes
    k_total = b.shape[0]
    panels = (n + width - 1) // width
    for panel in range(panels * part // parts, panels * (part + 1) // parts):
        first = panel * width
        inside = min(width, n - first)
        padded = (inside + lanes - 1) // lanes * lanes
        for k in range(k_total):
            start = first * k_total + k * padded
            row = packed[start : start + padded]
            source = b[k, column + first : column + first + inside]
            for j in range(inside):
                row[j] = source[j]
            for j in range(inside, padded):
                row[j] = 0


@kernel
def pack_transposed(b: Any, column: int, k_total: int, packed: Any, part: int, parts: int) -> None:
    """Pack the transpose of columns ``column`` .. ``column + k_total`` of a matrix, or this thread's share.

    Args:
        b: (N, columns), C order; what is packed is the (k_total, N) matrix b[:, column : column + k_total].T.
        packed: OUT, (packed_size(k_total, N),).
        part, parts: which share of the panels to pack.
    """
    lanes = lanes_of(b)
    width = VECTORS * lanes
    n = b.shape[0]
    panels = (n + width - 1) // width
    for panel in range(panels * part // parts, panels * (part + 1) // parts):
        first = panel * width
        inside = min(width, n - first)
        padded = (inside + lanes - 1) // lanes * lanes
        start = first * k_total
        for k in range(0, k_total, 16):  # 16 columns of b are one cache line of each of its rows
            stop = min(k + 16, k_total)
            for j in range(inside):
                for i in range(k, stop):
                    packed[start + i * padded + j] = b[first + j, column + i]
            for j in range(inside, padded):
                for i in range(k, stop):
                    packed[start + i * padded + j] = 0


@kernel
def multiply(
    a: Any, a_step: int, column: int, k: int, packed: Any, c: Any, c_step: int, c_column: int, n: int,
    steps: int, low: int, high: int, start: int, bias: Any,
) -> None:  # fmt: skip
    """c[s, r] = start + a[s, r] @ b, for ``steps`` steps and the rows ``low`` .. ``high`` of each.

    Args:
        a: (steps of a, N, columns of a), C order; the product takes columns ``column`` .. ``column + k``.
        a_step, c_step: the step of each array at which to begin.
        packed: b, (k, n), packed.
        c: IN and OUT, (steps of c, N, columns of c), C order; columns ``c_column`` .. ``c_column + n`` are written.
        start: ZERO, ADD (what c held) or BIAS.
        bias: (n,), read with BIAS only.
    """
    lanes = lanes_of(a)
    width = VECTORS * lanes
    a_row, c_row = a.shape[2], c.shape[2]
    rows = high - low
    if rows <= 0:
        return
    tiles = (rows + ROWS - 1) // ROWS
    block = max(1, A_BLOCK // (rows * k))
    for first_step in range(0, steps, block):
        last_step = min(first_step + block, steps)
        for first_k in range(0, k, K_BLOCK):
            k_here = min(K_BLOCK, k - first_k)
            begin = start if first_k == 0 else ADD
            for first in range(0, n, width):
                inside = min(width, n - first)
                vectors = (inside + lanes - 1) // lanes
                b_start = first * k + first_k * vectors * lanes
                for s in range(first_step, last_step):
                    a_start = ((a_step + s) * a.shape[1] + low) * a_row + column + first_k
                    c_start = ((c_step + s) * c.shape[1] + low) * c_row + c_column + first
                    for i in range(tiles):
                        r = rows * i // tiles  # tiles of nearly equal height waste nothing on a remainder
                        _tile(
                            a, a_start + r * a_row, a_row, 1, packed, b_start, k_here,
                            c, c_start + r * c_row, c_row, inside, rows * (i + 1) // tiles - r, vectors, begin,
                            bias, first,
                        )  # fmt: skip


@kernel
def accumulate_outer(
    a: Any, a_start: int, a_step: int, m: int, b: Any, column: int, n: int, c: Any, c_column: int,
    row_sum: Any, part: int, parts: int,
) -> None:  # fmt: skip
    """C += sum over steps and rows of a[s, r]^T b[s, r]: a weight's gradient, or this thread's share of it.

    Each number of c belongs to one thread and is summed in the order of the rows: threads never change a bit.

    Args:
        a: the inputs; row r of step s begins ``a_start + s * a_step + r * m`` numbers into its memory, and is m long.
        b: (T, N, columns of b), C order: gradients of the outputs; columns ``column`` .. ``column + n`` take part.
        c: ACCUMULATED, (m, columns of c), C order; columns ``c_column`` .. ``c_column + n``.
        row_sum: ACCUMULATED, (columns of c,): the gradient of the bias; length 0 if there is none.
        part, parts: which share to compute.
    """
    lanes = lanes_of(b)
    width = VECTORS * lanes
    steps, rows, b_row = b.shape
    panels, tiles = (n + width - 1) // width, (m + ROWS - 1) // ROWS
    by_panel = panels >= 4 * parts or panels % parts == 0
    first_panel, last_panel, first_tile, last_tile = 0, panels, 0, tiles
    if by_panel:
        first_panel, last_panel = panels * part // parts, panels * (part + 1) // parts
    else:
        first_tile, last_tile = tiles * part // parts, tiles * (part + 1) // parts
    with_sum = row_sum.size > 0 and (by_panel or part == 0)
    steps_here = max(1, OUTER_BLOCK // rows)
    a_flat, b_flat = a.reshape(a.size), b.reshape(b.size)
    first_m, last_m = first_tile * ROWS, min(last_tile * ROWS, m)
    a_row = last_m - first_m + PADDING
    a_packed = np.empty(steps_here * rows * a_row, b.dtype)
    b_packed = np.empty(steps_here * rows * width, b.dtype)
    for first_step in range(0, steps, steps_here):
        last_step = min(first_step + steps_here, steps)
        k_total = (last_step - first_step) * rows
        for k in range(k_total):
            source = a_start + (first_step + k // rows) * a_step + k % rows * m
            inputs, row = a_flat[source + first_m : source + last_m], a_packed[k * a_row : (k + 1) * a_row]
            for j in range(inputs.size):
                row[j] = inputs[j]
        for panel in range(first_panel, last_panel):
            first = panel * width
            inside = min(width, n - first)
            vectors = (inside + lanes - 1) // lanes
            for k in range(k_total):
                source = (first_step * rows + k) * b_row + column + first
                values = b_flat[source : source + inside]
                row = b_packed[k * vectors * lanes : k * vectors * lanes + inside]
                for j in range(inside):
                    row[j] = values[j]
            if with_sum:
                sums = row_sum[c_column + first : c_column + first + inside]
                for k in range(k_total):
                    row = b_packed[k * vectors * lanes : k * vectors * lanes + inside]
                    for j in range(inside):
                        sums[j] += row[j]
            for i in range(first_tile, last_tile):
                _tile(
                    a_packed, i * ROWS - first_m, 1, a_row, b_packed, 0, k_total,
                    c, i * ROWS * c.shape[1] + c_column + first, c.shape[1], inside, min(ROWS, m - i * ROWS),
                    vectors, ADD, c, 0,
                )  # fmt: skip
