"""exp, sigmoid and tanh, in instructions that there are for whole vectors.

    exp(x) = 2^n * (1 + p(r)),   n = round(x / ln 2),   r = x - n ln 2,   |r| <= ln(2) / 2,
    p(r)   = r + r^2 q(r),       q a polynomial: Taylor's in float64, in float32 one that interpolates at Chebyshev's
                                 points (relative error of p 3e-8)

p(r) = exp(r) - 1 is kept apart, so that tanh(x) = e / (e + 2) with e = exp(2 x) - 1 keeps its relative precision near
zero. NaN comes out as NaN. Arguments are clamped to where exp is finite and normal.

The library functions that Numba would call instead cost 15 ns a value; these take about 0.3 ns (float32).
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from charlm.engine.jit import HAS_FMA

FLAGS = ("contract",)  # multiply and add may fuse, nothing else may move

# type -> mantissa bits, exponent bias, coefficients of q, least and greatest argument of exp, ln 2 in two parts; in
# float32 in one where products fuse, so that n ln 2 is not rounded before it is subtracted (2e-9 n remains)
FORMATS: dict[Any, Any] = {
    types.float32: (
        23, 127, (0.5, 0.16666576266, 0.041666556150, 0.0083632031456, 0.0013926213142),
        -87.0, 88.0, *((math.log(2), 0.0) if HAS_FMA else (0.693359375, -2.12194440e-4)),
    ),
    types.float64: (
        52, 1023, tuple(1 / math.factorial(i) for i in range(2, 14)),
        -708.0, 709.0, 0.6931471803691238, 1.9082149292705877e-10,
    ),
}  # fmt: skip


class Arithmetic:
    """Emits arithmetic of one float type, on single numbers or on vectors.

    Args:
        number: the type, Numba's.
        lanes: of a vector; 0 for single numbers.
    """

    def __init__(self, builder: Any, number: Any, lanes: int = 0) -> None:
        self.builder, self.lanes = builder, lanes
        kinds = (ir.FloatType(), ir.IntType(32)) if number == types.float32 else (ir.DoubleType(), ir.IntType(64))
        self.type, self.bits = (ir.VectorType(kind, lanes) if lanes else kind for kind in kinds)
        self.format = FORMATS[number]

    def constant(self, value: float) -> Any:
        """The number, in each lane."""
        return self._constant(self.type, value)

    def _constant(self, kind: Any, value: float) -> Any:
        return ir.Constant(kind, [value] * self.lanes if self.lanes else value)

    def add(self, a: Any, b: Any) -> Any:
        """The sum."""
        return self.builder.fadd(a, b, flags=FLAGS)

    def subtract(self, a: Any, b: Any) -> Any:
        """The difference."""
        return self.builder.fsub(a, b, flags=FLAGS)

    def multiply(self, a: Any, b: Any) -> Any:
        """The product."""
        return self.builder.fmul(a, b, flags=FLAGS)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """The product of a and b, and c; rounded once where the processor can."""
        return self.add(self.multiply(a, b), c)

    def at_least(self, x: Any, low: Any) -> Any:
        """The larger of both; an ordered comparison is false for NaN, which therefore passes."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, low), low, x)

    def at_most(self, x: Any, high: Any) -> Any:
        """The smaller of both; NaN passes."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, high), high, x)

    def where_above(self, x: Any, bound: Any, then: Any, otherwise: Any) -> Any:
        """``then`` where x > bound; otherwise, and where x is NaN, the other."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, bound), then, otherwise)

    def exp_parts(self, x: Any) -> tuple[Any, Any]:
        """2^n and p(r), so that exp(x) = 2^n * p + 2^n."""
        mantissa, bias, q, low, high, ln2_high, ln2_low = self.format
        x = self.at_most(self.at_least(x, self.constant(low)), self.constant(high))
        # Numbers of this size have no room for a fraction, so that n stands in their last bits.
        magic = self.constant(1.5 * 2.0**mantissa)
        shifted = self.multiply_add(x, self.constant(1 / math.log(2)), magic)
        n = self.builder.fsub(shifted, magic)
        r = self.multiply_add(n, self.constant(-ln2_high), x)
        if ln2_low:
            r = self.multiply_add(n, self.constant(-ln2_low), r)
        # A pair of coefficients at a time, in r^2: half as long a chain of sums that wait for each other.
        r2 = self.builder.fmul(r, r, flags=FLAGS)
        pairs = [self.multiply_add(self.constant(q[i + 1]), r, self.constant(q[i])) for i in range(0, len(q) - 1, 2)]
        pairs += map(self.constant, q[len(pairs) * 2 :])
        total = pairs[-1]
        for pair in reversed(pairs[:-1]):
            total = self.multiply_add(total, r2, pair)
        p = self.multiply_add(r2, total, r)
        # 2^n: n moved into the place of the exponent, and the exponent's bias added
        shift = self._constant(self.bits, mantissa)
        exponent = self.builder.shl(self.builder.bitcast(shifted, self.bits), shift)
        biased = self.builder.add(exponent, self._constant(self.bits, bias << mantissa))
        scale = self.builder.bitcast(biased, self.type)
        return scale, p

    def exp(self, x: Any) -> Any:
        """e^x."""
        scale, p = self.exp_parts(x)
        return self.multiply_add(scale, p, scale)

    def sigmoid(self, x: Any) -> Any:
        """1 / (1 + e^-x)."""
        one = self.constant(1.0)
        return self.builder.fdiv(one, self.add(one, self.exp(self.builder.fneg(x))))

    def tanh(self, x: Any) -> Any:
        """(e^2x - 1) / (e^2x + 1)."""
        scale, p = self.exp_parts(self.builder.fadd(x, x))
        e = self.multiply_add(scale, p, self.builder.fadd(scale, self.constant(-1.0)))
        return self.builder.fdiv(e, self.builder.fadd(e, self.constant(2.0)))


def _exp(typing_context: Any, x: Any) -> Any:
    """e^x of one number."""
    if x not in FORMATS:
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return Arithmetic(builder, x).exp(args[0])

    return x(x), generate


exp: Any = intrinsic(_exp)
