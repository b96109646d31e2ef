"""Rows of numbers moved as whole vectors, as LLVM instructions: how matrices are packed for the products of `tile`.

Loops in Python that Numba compiles do the same at a third (rows) to a tenth (transposed) of the speed: they ask at each
row whether source and target overlap, and transpose number by number.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from charlm.engine.jit import VECTOR_BYTES

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
AHEAD = 8  # rows by which `copy_row` asks for memory before it is read: halves the time of what is in no near cache


class Vectors:
    """Emits loads and stores of vectors of one float type.

    Args:
        real: the type of one number.
        lanes: numbers of a vector; by default as many as one of the processor's holds.
    """

    def __init__(self, builder: Any, real: Any, lanes: int | None = None) -> None:
        self.builder, self.module, self.real = builder, builder.module, real
        self.bytes = 4 if isinstance(real, ir.FloatType) else 8
        self.lanes = lanes or VECTOR_BYTES // self.bytes
        self.vector = ir.VectorType(real, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.bytes}"
        self.zeros = ir.Constant(self.vector, [0.0] * self.lanes)

    def declare(self, name: str, result: Any, arguments: list[Any]) -> Any:
        """An LLVM function of that name."""
        return self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def constant(self, value: int) -> Any:
        """An integer as wide as a pointer."""
        return ir.Constant(I64, value)

    def at(self, base: Any, offset: Any) -> Any:
        """Address of the vector that begins ``offset`` numbers after ``base``."""
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.vector.as_pointer())

    def splat(self, scalar: Any, kind: Any) -> Any:
        """A vector of ``lanes`` equal numbers of that type."""
        undefined = ir.Constant(ir.VectorType(kind, self.lanes), ir.Undefined)
        lane = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(lane, undefined, order)

    def mask(self, count: Any, first: int = 0) -> Any:
        """Which lanes, of a vector that begins at number ``first``, lie before ``count``, which fits 32 bits.

        They need one comparison, 64 bits five instructions.
        """
        numbers = ir.Constant(ir.VectorType(I32, self.lanes), [first + i for i in range(self.lanes)])
        return self.builder.icmp_signed("<", numbers, self.splat(self.builder.trunc(count, I32), I32))

    def load(self, address: Any, mask: Any = None) -> Any:
        """A vector; 0 in the lanes outside ``mask``, whose memory is not touched."""
        if mask is None:
            return self.builder.load(address, align=self.bytes)
        kinds = [address.type, I32, ir.VectorType(I1, self.lanes), self.vector]
        function = self.declare(f"llvm.masked.load.{self.suffix}.p0", self.vector, kinds)
        return self.builder.call(function, [address, ir.Constant(I32, self.bytes), mask, self.zeros])

    def store(self, value: Any, address: Any, mask: Any = None) -> None:
        """Write a vector, or those of its lanes that ``mask`` has."""
        if mask is None:
            self.builder.store(value, address, align=self.bytes)
            return
        kinds = [self.vector, address.type, I32, ir.VectorType(I1, self.lanes)]
        function = self.declare(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), kinds)
        self.builder.call(function, [value, address, ir.Constant(I32, self.bytes), mask])

    def prefetch(self, address: Any, *, write: bool = False) -> None:
        """Ask for the cache line of an address, without waiting and whether or not it exists."""
        function = self.declare("llvm.prefetch.p0", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        near, data = ir.Constant(I32, 3), ir.Constant(I32, 1)
        address = self.builder.bitcast(address, I8.as_pointer())
        self.builder.call(function, [address, ir.Constant(I32, int(write)), near, data])


def real_type(array: Any) -> Any:
    """The LLVM type of the numbers of a Numba array type."""
    return ir.FloatType() if array.dtype == types.float32 else ir.DoubleType()


def pointer(context: Any, builder: Any, kind: Any, array: Any, start: Any) -> Any:
    """Address of the number at place ``start`` of an array's memory."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [start])


def _copy_row(
    typing_context: Any, source: Any, start: Any, step: Any, target: Any, target_start: Any, columns: Any, vectors: Any
) -> Any:
    """target[:] = source[start : start + columns], then zeros up to ``vectors`` (a constant) whole vectors.

    ``step``: numbers from this row to the next that will be copied.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    i = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Vectors(builder, real_type(source))
        read = pointer(context, builder, signature.args[0], args[0], args[1])
        write = pointer(context, builder, signature.args[3], args[3], args[4])
        later = builder.gep(read, [builder.mul(args[2], emit.constant(AHEAD))])
        places = [emit.constant(v * emit.lanes) for v in range(vectors.literal_value)]
        values = []
        for v, place in enumerate(places):
            emit.prefetch(emit.at(later, place))
            values.append(emit.load(emit.at(read, place), emit.mask(args[5], v * emit.lanes)))
        for value, place in zip(values, places, strict=True):
            emit.store(value, emit.at(write, place))
        return context.get_dummy_value()

    return types.void(source, i, i, target, i, i, vectors), generate


def _transpose_block(
    typing_context: Any,
    source: Any,
    start: Any,
    source_row: Any,
    rows: Any,
    columns: Any,
    target: Any,
    target_start: Any,
    target_row: Any,
) -> Any:
    """Transpose a block of up to lanes x lanes numbers: target[j, i] = source[i, j] for i < rows, j < columns.

    The lanes i >= rows of the target's rows become 0; rows j >= columns are not touched.
    """
    i = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Vectors(builder, real_type(source))
        read = pointer(context, builder, signature.args[0], args[0], args[1])
        write = pointer(context, builder, signature.args[5], args[5], args[6])
        read_step, row_count, column_count, write_step = args[2], args[3], args[4], args[7]
        lanes, inside = emit.lanes, emit.mask(column_count)
        values: list[Any] = []
        for row in range(lanes):
            exists = builder.icmp_signed("<", emit.constant(row), row_count)
            address = emit.at(read, builder.mul(read_step, emit.constant(row)))
            values.append(emit.load(address, builder.and_(inside, emit.splat(exists, I1))))
        distance = lanes // 2
        while distance:  # exchange the off-diagonal quarters of blocks of 2 * distance rows and columns
            for row in range(lanes):
                if not row & distance:
                    pair = values[row], values[row + distance]
                    values[row] = builder.shuffle_vector(*pair, _quarters(lanes, distance, upper=False))
                    values[row + distance] = builder.shuffle_vector(*pair, _quarters(lanes, distance, upper=True))
            distance //= 2
        for column, value in enumerate(values):
            with builder.if_then(builder.icmp_signed("<", emit.constant(column), column_count)):
                emit.store(value, emit.at(write, builder.mul(write_step, emit.constant(column))))
        return context.get_dummy_value()

    return types.void(source, i, i, i, i, target, i, i), generate


def _quarters(lanes: int, distance: int, *, upper: bool) -> Any:
    """Which lanes of two rows, ``distance`` apart, make the lower or the upper of them after the exchange."""
    order = []
    for lane in range(lanes):
        in_second = bool(lane & distance)
        column = (lane | distance) if upper else (lane & ~distance)
        order.append(column + (lanes if in_second else 0))
    return ir.Constant(ir.VectorType(I32, lanes), order)


copy_row: Any = intrinsic(prefer_literal=True)(_copy_row)
transpose_block: Any = intrinsic(_transpose_block)
