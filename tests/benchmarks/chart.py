"""A picture of curves as SVG: validation nats against seconds, the seconds on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 480, 60, 300, 20, 45
HIGHEST = 2.4  # nats; what lies above is cut off
COLOURS = ("#0b6e4f", "#c8553d", "#3d5a99", "#b08900", "#7a4b94", "#444444", "#2a9d8f", "#d1495b")
NICE = (1, 2, 5)
LONGEST = 40  # characters of a name that fit


def draw(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """An SVG of curves by name, each of (seconds, nats)."""
    points = [point for curve in curves.values() for point in curve if point[1] <= HIGHEST]
    low, high = min((s for s, _ in points), default=1.0) * 0.9, max((s for s, _ in points), default=10.0) * 1.1
    bottom = math.floor(10 * min((nats for _, nats in points), default=1.4)) / 10

    def place(seconds: float, nats: float) -> tuple[float, float]:
        across = math.log(seconds / low) / math.log(high / low)
        up = (nats - bottom) / (HIGHEST - bottom)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    ]
    for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for seconds in (nice * 10.0**exponent for nice in NICE):
            if low <= seconds <= high:
                x, _ = place(seconds, bottom)
                parts.append(
                    _line(x, TOP, x, HEIGHT - BOTTOM) + _text(x, HEIGHT - BOTTOM + 18, f"{seconds:g}", "middle")
                )
    for tenth in range(round(10 * bottom), round(10 * HIGHEST) + 1):
        _, y = place(low, tenth / 10)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y) + _text(LEFT - 8, y + 4, f"{tenth / 10:.1f}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "seconds since the start of the command", "middle"))
    parts.append(_text(LEFT + 6, TOP + 14, "validation nats per character", "start"))
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        places = [place(seconds, nats) for seconds, nats in curve if nats <= HIGHEST]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        parts.append(_text(WIDTH - RIGHT + 14, TOP + 20 * (i + 1), _short(name), "start", colour))
    return "\n".join([*parts, "</svg>\n"])


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
