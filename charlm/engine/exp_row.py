"""The exponentials of a row and their sum, as LLVM instructions: what every softmax begins with.

In a loop in Python that Numba compiles, running maxima and sums lie in memory, where each waits for the one before it
to be written: twice the time (0.82 and 0.36 ns a number of a long row, vectors of 256 bits). Here they stay in
registers. There are ``LANES`` of them on every machine, whatever its vectors, so that the sums are the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from charlm.engine.math import FORMATS, Arithmetic
from charlm.engine.panels import I32, I64, Vectors, real_type

LANES = 16


class _Row(Vectors):
    """Emits passes over a row, ``LANES`` numbers at a time.

    Args:
        first: address of the row.
        size: its length.
    """

    def __init__(self, builder: Any, real: Any, first: Any, size: Any) -> None:
        super().__init__(builder, real, LANES)
        self.first, self.whole = first, builder.and_(size, self.constant(-LANES))
        self.inside = self.mask(builder.sub(size, self.whole))  # of what is left behind the whole vectors

    def fold(self, total: Any, join: Any, replace: Any = None) -> Any:
        """``total = join(total, values)`` for all vectors of the row; returns the last total, a vector.

        Args:
            total: a vector to begin with, which changes nothing if it is joined again: it is, where the row has ended.
            join: emits code for two vectors.
            replace: emits code for what is written in the values' place, and joined; None for the values themselves.
        """
        builder, entry = self.builder, self.builder.block
        head, body, rest = (builder.append_basic_block(f"row_{name}") for name in ("head", "body", "rest"))
        builder.branch(head)
        builder.position_at_end(head)
        place, so_far = builder.phi(I64), builder.phi(self.vector)
        place.add_incoming(self.constant(0), entry)
        so_far.add_incoming(total, entry)
        builder.cbranch(builder.icmp_signed("<", place, self.whole), body, rest)
        builder.position_at_end(body)
        so_far.add_incoming(join(so_far, self._values(place, replace)), body)
        place.add_incoming(builder.add(place, self.constant(LANES)), body)
        builder.branch(head)
        builder.position_at_end(rest)
        return join(so_far, builder.select(self.inside, self._values(self.whole, replace, self.inside), total))

    def join_lanes(self, vector: Any, join: Any) -> Any:
        """One number of a vector: halves are joined, again and again, in the same order on every machine."""
        for lanes in (LANES >> bit for bit in range(1, LANES.bit_length())):
            halves = (ir.Constant(ir.VectorType(I32, lanes), [*range(first, first + lanes)]) for first in (0, lanes))
            vector = join(*(self.builder.shuffle_vector(vector, vector, half) for half in halves))
        return self.builder.extract_element(vector, ir.Constant(I32, 0))

    def _values(self, place: Any, replace: Any, mask: Any = None) -> Any:
        address = self.at(self.first, place)
        values = self.load(address, mask)
        if replace is not None:
            values = replace(values)
            self.store(values, address, mask)
        return values


def _exp_row(typing_context: Any, row: Any) -> Any:
    """Turn a row into exp(row - max); returns the maximum, and the sum in float64. A NaN in the row makes the sum NaN.

    Args:
        row: of one number or more, in one piece.
    """
    if row.ndim != 1 or row.layout != "C" or row.dtype not in FORMATS:
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        of = _Row(builder, real_type(row), array.data, builder.extract_value(array.shape, 0))
        numbers = Arithmetic(builder, row.dtype, LANES)

        def larger(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", b, a), b, a)

        def add(a: Any, b: Any) -> Any:
            return builder.fadd(a, b)

        largest = of.join_lanes(of.fold(of.splat(builder.load(array.data), of.real), larger), larger)
        shift = of.splat(largest, of.real)
        total = of.fold(of.zeros, add, lambda values: numbers.exp(builder.fsub(values, shift)))
        if row.dtype == types.float32:
            total = builder.fpext(total, ir.VectorType(ir.DoubleType(), LANES))
        return context.make_tuple(builder, signature.return_type, (largest, of.join_lanes(total, add)))

    result: Any = types.Tuple  # which has types in later versions only
    return result((row.dtype, types.float64))(row), generate


exp_row: Any = intrinsic(_exp_row)
