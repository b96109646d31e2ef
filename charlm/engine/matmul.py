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

from charlm.engine.jit import VECTOR_BYTES, kernel
from charlm.engine.panels import copy_row, transpose_block
from charlm.engine.tile import ADD, BIAS, ROWS, VECTORS, ZERO, panels_at_once, tile

__all__ = [
    "ADD",
    "BIAS",
    "ZERO",
    "accumulate_outer",
    "layer_of",
    "multiply",
    "pack",
    "pack_transposed",
    "pack_weight",
    "packed_size",
    "parted",
]

K_BLOCK = 1024  # rows of a panel used in one go, at most: 64 KB, with vectors of 512 bits 256 KB
# Rows of the left-hand matrix used in one go, in whole tiles: few, so that what is written stays near until the next
# panel writes beside it (3 to 9 % of such a product), and many where a right-hand matrix of more than FAR numbers,
# which is in no near cache, is read less often for it (up to 7 %)
FEW_ROWS, MANY_ROWS, FAR = 128, 512, 1 << 20
OUTER_BLOCK = 400  # rows summed in one go by `accumulate_outer`, as far as OUTER_NUMBERS allows; a step is never cut
PANELS = max(1, 256 // (VECTORS * VECTOR_BYTES))  # packed in one go: 256 bytes of a row
OUTER_NUMBERS = 1 << 17  # of the inputs kept packed meanwhile: 512 KB of float32


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
def layer_of(pile: Any, layer: int) -> Any:
    """The packed weight of a layer."""
    return pile[layer]


@kernel
def parted(packed: Any, place: int) -> tuple[Any, Any]:
    """The two weights that are packed before and after ``place``."""
    return packed[:place], packed[place:]


@kernel
def pack_panels(b: Any, start: int, b_row: int, k_total: int, columns: int, packed: Any, packed_start: int) -> None:
    """Pack ``k_total`` rows of a few panels: of each panel the rows one after another, whole vectors of them.

    A row of all panels, then the next, so that each page of memory is visited once: rows that lie 4 KB apart take a
    third of the time that they take a panel at a time.

    Args:
        b: flat; the first row begins at ``start``, the others ``b_row`` numbers after one another.
        columns: those of all panels.
        packed: OUT, flat, from ``packed_start`` on.
    """
    lanes = lanes_of(b)
    width = VECTORS * lanes
    whole = columns // width
    for k in range(k_total):
        for panel in range(whole):
            column, place = panel * width, (panel * k_total + k) * width
            copy_row(b, start + k * b_row + column, b_row, packed, packed_start + place, width, VECTORS)
    first = whole * width
    padded = (columns - first + lanes - 1) // lanes * lanes
    if padded > 0:
        for k in range(k_total):
            for j in range(0, padded, lanes):
                place = packed_start + first * k_total + k * padded + j
                copy_row(b, start + k * b_row + first + j, b_row, packed, place, columns - first - j, 1)


@kernel
def pack(b: Any, column: int, n: int, packed: Any, part: int, parts: int) -> None:
    """Pack columns ``column`` .. ``column + n`` of a matrix, or this thread's share of its panels.

    Args:
        b: (K, columns), C order.
        packed: OUT, (packed_size(K, n),). The columns beyond n in the last vector are zero.
        part, parts: which share of the panels to pack.
    """
    width = VECTORS * lanes_of(b)
    k_total = b.shape[0]
    b_flat = b.reshape(b.size)
    panels = (n + width - 1) // width
    last_panel = panels * (part + 1) // parts
    for panel in range(panels * part // parts, last_panel, PANELS):
        first = panel * width
        inside = min(min(panel + PANELS, last_panel) * width, n) - first
        pack_panels(b_flat, column + first, b.shape[1], k_total, inside, packed, first * k_total)


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
    b_flat = b.reshape(b.size)
    panels = (n + width - 1) // width
    for panel in range(panels * part // parts, panels * (part + 1) // parts):
        first = panel * width
        inside = min(width, n - first)
        padded = (inside + lanes - 1) // lanes * lanes
        start = first * k_total
        for k in range(0, k_total, lanes):
            for j in range(0, inside, lanes):
                transpose_block(
                    b_flat, (first + j) * b.shape[1] + column + k, b.shape[1], inside - j, min(lanes, k_total - k),
                    packed, start + k * padded + j, padded,
                )  # fmt: skip


@kernel
def pack_weight(b: Any, widths: Any, forward: Any, transposed: Any, part: int, parts: int) -> None:
    """Pack a matrix and its transpose, or this thread's share of both.

    In one call: after each a thread may wait some 40 us for Python's lock, which the others want just then.

    Args:
        b: (K, N), C order.
        widths: of the groups of columns that are multiplied apart, int64; their sum is N.
        forward: OUT, the packed groups one after another.
        transposed: OUT, the same of the transposes; of length 0 if they are not wanted.
    """
    lanes, k = lanes_of(b), b.shape[0]
    column, begin, begin_transposed = 0, 0, 0
    for width in widths:
        pack(b, column, width, forward[begin:], part, parts)
        begin += packed_size(k, width, lanes)
        if transposed.size > 0:
            pack_transposed(b, column, width, transposed[begin_transposed:], part, parts)
            begin_transposed += packed_size(width, k, lanes)
        column += width


@kernel
def multiply(
    a: Any, a_step: int, column: int, k: int, packed: Any, c: Any, c_step: int, c_column: int, n: int,
    steps: int, low: int, high: int, start: int, bias: Any,
) -> None:  # fmt: skip
    """c[s, r] = start + a[s, r] @ b, for ``steps`` steps and the rows ``low`` .. ``high`` of each; if k is 0, nothing.

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
    if rows <= 0 or k == 0:
        return
    tiles = (rows + ROWS - 1) // ROWS  # of a step; of nearly equal height, which wastes nothing on a remainder
    height, higher = rows // tiles, rows % tiles  # that of most, and how many have a row more
    together = panels_at_once(rows) * width
    k_blocks = (k + K_BLOCK - 1) // K_BLOCK
    k_block = (k + k_blocks - 1) // k_blocks  # of nearly equal size
    block = (FEW_ROWS if k * n <= FAR else MANY_ROWS) // ROWS
    for first_tile in range(0, steps * tiles, block):
        last_tile = min(first_tile + block, steps * tiles)
        first_step = first_tile // tiles
        for first_k in range(0, k, k_block):
            k_here = min(k_block, k - first_k)
            begin = start if first_k == 0 else ADD
            first = 0
            while first < n:
                inside = together if first + together <= n else min(width, n - first)
                vectors = (inside + lanes - 1) // lanes
                b_start = first * k + first_k * min(vectors, VECTORS) * lanes
                s, i, left = first_step, first_tile - first_step * tiles, last_tile - first_tile
                while left > 0:
                    r = i * height + min(i, higher)
                    a_start = ((a_step + s) * a.shape[1] + low + r) * a_row + column + first_k
                    c_start = ((c_step + s) * c.shape[1] + low + r) * c_row + c_column + first
                    here = height + (1 if i < higher else 0)
                    alike = min(left, (higher if i < higher else tiles) - i)
                    tile(
                        a, a_start, a_row, 1, packed, b_start, k_here, c, c_start, c_row, inside, here, vectors,
                        begin, bias, first, width * k, alike, here * a_row,
                    )  # fmt: skip
                    i, left = i + alike, left - alike
                    if i == tiles:
                        s, i = s + 1, 0
                first += inside


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
    steps_here = max(1, min(OUTER_BLOCK, max(96, OUTER_NUMBERS // m)) // rows)
    a_flat, b_flat = a.reshape(a.size), b.reshape(b.size)
    most = steps_here * rows
    # By tiles, each one's ROWS numbers of a row side by side: a tile's inputs fill whole cache lines, so that they and
    # the panel stay in the nearest cache (13 % of these products, with vectors of 256 bits; 1 % with 512).
    a_tile = most * ROWS + lanes  # of a tile, with room for what its last row writes beyond
    a_packed = np.empty((last_tile - first_tile) * a_tile, b.dtype)
    b_packed = np.empty(most * width * PANELS, b.dtype)
    ones, sums, no_bias = np.ones((1, 1, most), b.dtype), row_sum.reshape(1, 1, row_sum.size), row_sum[:0]
    for first_step in range(0, steps, steps_here):
        last_step = min(first_step + steps_here, steps)
        k_total = (last_step - first_step) * rows
        row = 0
        for s in range(first_step, last_step):
            for r in range(rows):
                source = a_start + s * a_step + r * m
                for i in range(first_tile, last_tile):
                    target = (i - first_tile) * a_tile + row * ROWS
                    for j in range(0, ROWS, lanes):  # whole vectors: what is beyond ROWS, the next row writes over
                        copy_row(a_flat, source + i * ROWS + j, m, a_packed, target + j, min(ROWS, m - i * ROWS) - j, 1)
                row += 1
        for group in range(first_panel, last_panel, PANELS):
            beyond = min(group + PANELS, last_panel)
            start, columns = group * width, min(beyond * width, n) - group * width
            pack_panels(b_flat, first_step * rows * b_row + column + start, b_row, k_total, columns, b_packed, 0)
            if with_sum:  # a row of ones times b: no loop of its own, in which each sum would wait for the one before
                multiply(ones, 0, 0, k_total, b_packed, sums, 0, c_column + start, columns, 1, 0, 1, ADD, no_bias)
            for panel in range(group, beyond):
                first = panel * width
                inside = min(width, n - first)
                for i in range(first_tile, last_tile):
                    tile(
                        a_packed, (i - first_tile) * a_tile, 1, ROWS, b_packed, (first - start) * k_total, k_total,
                        c, i * ROWS * c.shape[1] + c_column + first, c.shape[1], inside, min(ROWS, m - i * ROWS),
                        (inside + lanes - 1) // lanes, ADD, c, 0, 0, 1, 0,
                    )  # fmt: skip
