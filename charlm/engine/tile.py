"""One tile of a matrix product, as LLVM instructions: up to ``ROWS`` rows times one panel of ``VECTORS`` vectors.

All sums stay in registers until the tile is done. Loops in Python that Numba compiles do not get there: the compiler
would have to keep 24 vectors of sums in registers over a loop, and does not.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from charlm.engine.jit import HAS_FMA, VECTOR_BYTES, VECTOR_REGISTERS

ROWS = 6
VECTORS = 4 if VECTOR_REGISTERS >= 32 else 2  # 6 x 4 sums + 4 of the panel + 1 broadcast of 32; 6 x 2 + 2 + 1 of 16

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


tile: Any = intrinsic(_declare_tile)
