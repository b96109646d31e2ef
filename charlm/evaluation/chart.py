"""Curves as a picture: an SVG for a page, or panels of characters for a terminal."""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

Curves = Mapping[str, Sequence[tuple[float, float]]]
Point = tuple[float, float]

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 440, 70, 58, 50  # pixels of the picture, and around its curves
LETTER, LINE = 7.6, 17  # pixels: about the width of a letter, and the least distance of two labels
LONGEST = 40  # characters of a label that are shown
MOST_TICKS = 8  # of a scale, about
FINE_DECADES = 3  # of a logarithmic scale, up to which 2 and 5 get a tick as well as 1
MOST_DOTS = 30  # points of a curve up to which each gets a dot
NICE = (1, 2, 5)
# Each curve's colour on a white ground, and on a dark one.
COLOURS = (
    ("#0b6e4f", "#4cc38a"), ("#c2410c", "#ff8b5e"), ("#2f56a6", "#82aaff"), ("#8a6500", "#e0b03a"),
    ("#7a3e9d", "#c792ea"), ("#444444", "#bbbbbb"), ("#0f7490", "#56c8d8"), ("#b3264e", "#ff7a9c"),
)  # fmt: skip
INK, DARK_INK = "#24292f", "#e6edf3"
GRID, DARK_GRID = "#dddddd", "#3a3f46"
PAPER, DARK_PAPER = "#ffffff", "#16191d"

BLOCKS, ASCII_BLOCKS = " ▁▂▃▄▅▆▇█", " .:#"  # a row of a panel, from empty to full
TERMINAL_WIDTH = 80
PANEL_ROWS = 4


@dataclass(frozen=True)
class Axis:
    """A scale from ``low`` to ``high``, which differ; of a logarithmic one both are above zero."""

    title: str
    low: float
    high: float
    logarithmic: bool = False
    label: Callable[[float], str] = "{:g}".format

    def place(self, value: float) -> float | None:
        """Where a value lies between the two ends, 0 to 1; None outside, and for what is no number."""
        if not self.low <= value <= self.high:
            return None
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values within the scale, at most ``MOST_TICKS``, about; at least one."""
        found = list(self._powers() if self.logarithmic else self._multiples())
        return found or [self.low]

    def _multiples(self) -> Iterator[float]:
        rough = (self.high - self.low) / MOST_TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(nice * unit for nice in (*NICE, 10) if nice * unit >= rough * (1 - 1e-9))
        for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1):
            yield min(max(i * step, self.low), self.high)

    def _powers(self) -> Iterator[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = NICE if last - first <= FINE_DECADES else (1,)
        stride = -(-(last - first) // MOST_TICKS)
        for exponent in range(first, last + 1):
            for factor in factors:
                value = float(f"{factor}e{exponent}")  # 10.0 ** -5 is not quite 1e-05
                if exponent % stride == 0 and self.low <= value <= self.high:
                    yield value


def log_axis(title: str, values: Sequence[float], most_decades: int) -> Axis:
    """A logarithmic scale of whole decades around the values that are above zero.

    Args:
        title: of the axis.
        values: to be shown.
        most_decades: below the largest; what lies lower is cut off.
    """
    shown = [value for value in values if 0 < value < math.inf]
    if not shown:
        return Axis(title, 0.1, 1.0, logarithmic=True, label=power_label)
    last = min(max(math.ceil(math.log10(max(shown))), sys.float_info.min_10_exp + 1), sys.float_info.max_10_exp)
    first = min(math.floor(math.log10(min(shown))), last - 1)
    first = max(first, last - most_decades, sys.float_info.min_10_exp)
    return Axis(title, float(f"1e{first}"), float(f"1e{last}"), logarithmic=True, label=power_label)


def power_label(value: float) -> str:
    """As 0.01, or 1e-05 where that is shorter."""
    return f"{value:g}" if 1e-3 <= value < 1e5 else f"{value:.0e}"


# A picture


def svg(curves: Curves, across: Axis, up: Axis, title: str = "") -> str:
    """An SVG of curves by name, each of points (across, up); the names stand at the curves' ends.

    It has a ground of its own, white or dark as the reader's system prefers. Points outside the axes are left out.
    """
    labels = {name: _short(name) for name in curves}
    right = 24 + LETTER * max(map(len, labels.values()), default=0)

    def place(point: Point) -> Point | None:
        x, y = across.place(point[0]), up.place(point[1])
        if x is None or y is None:
            return None
        return LEFT + x * (WIDTH - LEFT - right), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        _dark_style(),
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        _text(14, 22, _printable(title), "start", "ink", INK, 'font-weight="bold"'),
        _text(14, 44, up.title, "start", "ink", INK),
        _text((LEFT + WIDTH - right) / 2, HEIGHT - 10, across.title, "middle", "ink", INK),
        *_grid(across, up, WIDTH - right),
    ]
    ends: dict[str, Point] = {}
    for i, (name, curve) in enumerate(curves.items()):
        places = [place(point) for point in curve]
        parts += _curve(places, f"c{i % len(COLOURS)}", COLOURS[i % len(COLOURS)][0])
        seen = [point for point in places if point is not None]
        ends[name] = seen[-1] if seen else (LEFT, HEIGHT - BOTTOM)
    heights = _spread([y for _, y in ends.values()])
    for i, (name, y) in enumerate(zip(ends, heights, strict=True)):
        kind, colour = f"c{i % len(COLOURS)}t", COLOURS[i % len(COLOURS)][0]
        parts.append(_text(ends[name][0] + 10, y + 5, labels[name], "start", kind, colour))
    return "\n".join([*parts, "</svg>\n"])


def _short(name: str) -> str:
    name = _printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _printable(text: str) -> str:
    """What XML can hold of a text that may be a file's name."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _dark_style() -> str:
    rules = [f".ink{{fill:{DARK_INK}}}", f".paper{{fill:{DARK_PAPER}}}", f".grid{{stroke:{DARK_GRID}}}"]
    for i, (_, dark) in enumerate(COLOURS):
        rules += [f".c{i}{{stroke:{dark}}}", f".c{i}t{{fill:{dark}}}"]
    return f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"


def _grid(across: Axis, up: Axis, right_edge: float) -> Iterator[str]:
    for value in across.ticks():
        x = LEFT + (across.place(value) or 0.0) * (right_edge - LEFT)
        yield _line(x, TOP, x, HEIGHT - BOTTOM)
        yield _text(x, HEIGHT - BOTTOM + 19, across.label(value), "middle", "ink", INK)
    for value in up.ticks():
        y = HEIGHT - BOTTOM - (up.place(value) or 0.0) * (HEIGHT - TOP - BOTTOM)
        yield _line(LEFT, y, right_edge, y)
        yield _text(LEFT - 8, y + 5, up.label(value), "end", "ink", INK)


def _curve(places: Sequence[Point | None], kind: str, colour: str) -> Iterator[str]:
    """A line through the points, broken where one is left out."""
    for is_shown, group in groupby(places, lambda point: point is not None):
        if is_shown:
            path = " ".join(f"{point[0]:.1f},{point[1]:.1f}" for point in group if point is not None)
            yield f'<polyline class="{kind}" points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
    shown = [point for point in places if point is not None]
    if len(shown) <= MOST_DOTS:
        for x, y in shown:
            yield f'<circle class="{kind}t" cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'


def _spread(heights: Sequence[float]) -> list[float]:
    """Heights, moved as little as may be so that no two are nearer than ``LINE`` and none is below the axis."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for above, i in pairwise(order):
        placed[i] = max(placed[i], placed[above] + LINE)
    limit: float = HEIGHT - BOTTOM
    for i in reversed(order):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - LINE
    return placed


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str, colour: str, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place} fill="{colour}" {more}>{html.escape(text, quote=False)}</text>'.replace(
        " >", ">"
    )


# A terminal


def panels(curves: Curves, across: Axis, up: Axis, *, width: int = TERMINAL_WIDTH, ascii_only: bool = False) -> str:
    """A panel a curve, one below the other on the same scales: a column is as high as the curve is there.

    Args:
        curves: by name, each of points (across, up), the first coordinate rising.
        across, up: the scales.
        width: columns of the terminal; no line is longer.
        ascii_only: the terminal has no block characters.
    """
    steps = ASCII_BLOCKS if ascii_only else BLOCKS
    margin = max(len(up.label(value)) for value in (up.low, up.high)) + 1
    columns = width - margin
    lines = []
    for name, curve in curves.items():
        lines.append(name[:width])
        heights = _column_heights(curve, across, up, columns)
        for row in reversed(range(PANEL_ROWS)):
            filled = "".join(steps[_filled(height, row, len(steps) - 1)] for height in heights)
            label = {PANEL_ROWS - 1: up.label(up.high), 0: up.label(up.low)}.get(row, "")
            lines.append(f"{label:>{margin - 1}} {filled}".rstrip())
    lines += [f"{'':{margin}}{text}".rstrip() for text in (_scale(across, columns), f"{across.title:^{columns}}")]
    return "".join(f"{line}\n" for line in lines)


def _column_heights(curve: Sequence[Point], across: Axis, up: Axis, columns: int) -> list[float]:
    """For each column the height, 0 to 1, of the nearest point; 0 where it is outside."""
    places = [(across.place(x), up.place(y)) for x, y in curve]
    shown = [(x, y or 0.0) for x, y in places if x is not None]
    if not shown:
        return [0.0] * columns
    result, nearest = [], 0
    for column in range(columns):
        at = column / max(1, columns - 1)
        while nearest + 1 < len(shown) and abs(shown[nearest + 1][0] - at) <= abs(shown[nearest][0] - at):
            nearest += 1
        result.append(shown[nearest][1])
    return result


def _filled(height: float, row: int, levels: int) -> int:
    """How much of this row, from the bottom, a column of this height fills: 0 to ``levels``."""
    eighths = round(height * PANEL_ROWS * levels)
    return min(max(eighths - row * levels, 0), levels)


def _scale(across: Axis, columns: int) -> str:
    """The ticks of an axis as a line of text: each label begins at its place, if there is room."""
    line = ""
    for value in across.ticks():
        column = round((across.place(value) or 0.0) * (columns - 1))
        label = across.label(value)
        if column + len(label) <= columns and (not line or column > len(line)):
            line = f"{line:{column}}{label}"
    return line
