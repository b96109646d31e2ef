"""Equations between rows of numbers, as LLVM instructions: what a cell does between its matrix products.

    @rowwise
    def mixed(x, y):
        return sigmoid(x), 1 - x * y

    mixed((x, y), (s, z))  # in a kernel: s[j], z[j] = ... for each j

The equations are written once, over `Values`, with +, - and * as between numbers. Loops in Python that Numba compiles
take 1.2 (LSTM forward) to 1.5 times (backward) as long, vectors of 256 bits: at each row they ask which of its arrays
overlap, they load constants anew for each vector, and the last numbers, which fill no vector, go one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from charlm.engine.jit import VECTOR_BYTES
from charlm.engine.math import FORMATS, Arithmetic
from charlm.engine.panels import I64, Vectors, real_type

VECTORS = 2  # at a time: while the sums of one wait for each other, the other's go on (LSTM forward: up to 10 %)


class Values:
    """The numbers at some places of a row; a number beside it in an equation stands for itself at each place."""

    def __init__(self, numbers: Arithmetic, code: Any) -> None:
        self._numbers, self.code = numbers, code

    def made(self, emit: Callable[..., Any], *others: Values | float) -> Values:
        """What ``emit``, a method of `Arithmetic`, makes of these values and the others."""
        codes = (x.code if isinstance(x, Values) else self._numbers.constant(x) for x in others)
        return Values(self._numbers, emit(self._numbers, self.code, *codes))

    def __add__(self, other: Values | float) -> Values:
        return self.made(Arithmetic.add, other)

    def __sub__(self, other: Values | float) -> Values:
        return self.made(Arithmetic.subtract, other)

    def __rsub__(self, other: float) -> Values:
        return self.made(lambda numbers, code, first: numbers.subtract(first, code), other)

    def __mul__(self, other: Values | float) -> Values:
        return self.made(Arithmetic.multiply, other)

    __radd__, __rmul__ = __add__, __mul__


def sigmoid(x: Values) -> Values:
    """1 / (1 + e^-x)."""
    return x.made(Arithmetic.sigmoid)


def tanh(x: Values) -> Values:
    """(e^2x - 1) / (e^2x + 1)."""
    return x.made(Arithmetic.tanh)


def relu(x: Values) -> Values:
    """0 where x < 0, otherwise x: NaN stays NaN."""
    return x.made(Arithmetic.at_least, 0.0)


def where_positive(x: Values, value: Values) -> Values:
    """The value where x > 0, otherwise 0, also where x is NaN."""
    return x.made(Arithmetic.where_above, 0.0, value, 0.0)


def rowwise(equations: Callable[..., tuple[Values, ...]]) -> Any:
    """What kernels call as ``f(inputs, outputs)``, two tuples of rows of equal length, each in one piece.

    An output may be one of the inputs: all of some places are read before any of them is written. Rows that overlap in
    another way are not allowed, nor rows of different lengths: nothing looks.

    Args:
        equations: takes a `Values` for each input and returns one for each output.
    """

    def declare(typing_context: Any, inputs: Any, outputs: Any) -> Any:
        rows = [*inputs, *outputs]
        if any(row.ndim != 1 or row.layout != "C" or row.dtype != rows[0].dtype for row in rows):
            return None
        if rows[0].dtype not in FORMATS or not all(row.mutable for row in outputs):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [
                [
                    context.make_array(kind)(context, builder, builder.extract_value(row_tuple, i))
                    for i, kind in enumerate(kinds)
                ]
                for kinds, row_tuple in zip(signature.args, args, strict=True)
            ]
            size = builder.extract_value(arrays[0][0].shape, 0)
            _Places(builder, rows[0], *([array.data for array in some] for some in arrays)).emit(equations, size)
            return context.get_dummy_value()

        return types.void(inputs, outputs), generate

    declare.__name__, declare.__doc__ = equations.__name__, equations.__doc__
    return intrinsic(declare)


class _Places(Vectors):
    """Emits the equations for some places of the rows at a time.

    Args:
        kind: of the rows, Numba's.
        inputs, outputs: addresses of the rows.
    """

    def __init__(self, builder: Any, kind: Any, inputs: list[Any], outputs: list[Any]) -> None:
        super().__init__(builder, real_type(kind), VECTORS * VECTOR_BYTES // (kind.dtype.bitwidth // 8))
        self.numbers = Arithmetic(builder, kind.dtype, self.lanes)
        self.inputs, self.outputs = inputs, outputs

    def emit(self, equations: Callable[..., tuple[Values, ...]], size: Any) -> None:
        """All places: whole vectors in a loop, then what is left."""
        builder, entry = self.builder, self.builder.block
        head, body, end, rest, done = (
            builder.append_basic_block(f"rowwise_{name}") for name in ("head", "body", "end", "rest", "done")
        )
        whole = builder.and_(size, self.constant(-self.lanes))
        builder.branch(head)
        builder.position_at_end(head)
        place = builder.phi(I64)
        place.add_incoming(self.constant(0), entry)
        builder.cbranch(builder.icmp_signed("<", place, whole), body, end)
        builder.position_at_end(body)
        self._emit_at(place, equations)
        place.add_incoming(builder.add(place, self.constant(self.lanes)), builder.block)
        builder.branch(head)
        builder.position_at_end(end)
        builder.cbranch(builder.icmp_signed("<", whole, size), rest, done)
        builder.position_at_end(rest)
        self._emit_at(whole, equations, self.mask(builder.sub(size, whole)))
        builder.branch(done)
        builder.position_at_end(done)

    def _emit_at(self, place: Any, equations: Callable[..., tuple[Values, ...]], mask: Any = None) -> None:
        values = [Values(self.numbers, self.load(self.at(row, place), mask)) for row in self.inputs]
        for row, result in zip(self.outputs, equations(*values), strict=True):
            self.store(result.code, self.at(row, place), mask)
