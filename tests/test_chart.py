"""Pictures and drawings of curves."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.evaluation.chart import ASCII_BLOCKS, BLOCKS, LINE, Axis, _spread, log_axis, panels, svg

SVG = "{http://www.w3.org/2000/svg}"
ACROSS, UP = Axis("k", 0, 10), Axis("norm", 1e-4, 1.0, logarithmic=True)
numbers = st.floats(allow_nan=True, allow_infinity=True)


def test_places() -> None:
    assert [Axis("", 2, 6).place(value) for value in (2, 3, 6)] == [0, 0.25, 1]
    assert UP.place(1e-2) == pytest.approx(0.5)
    assert [UP.place(value) for value in (1e-5, 2.0, 0.0, -1.0, math.nan, math.inf)] == [None] * 6


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 50), [0, 10, 20, 30, 40, 50]),
        (Axis("", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", 1.4, 2.4), [1.4, 1.6, 1.8, 2.0, 2.2, 2.4]),
        (Axis("", 3, 4), [3, 3.2, 3.4, 3.6, 3.8, 4]),
        (Axis("", 1e-5, 1, logarithmic=True), [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]),
        (Axis("", 3, 60, logarithmic=True), [5, 10, 20, 50]),
        (Axis("", 1e-20, 1, logarithmic=True), [1e-18, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 1]),
        (Axis("", 3, 4, logarithmic=True), [3]),
    ],
)
def test_ticks_are_round(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == pytest.approx(ticks)


def test_a_scale_of_whole_decades() -> None:
    assert (log_axis("", [0.03, 2.0], 12).low, log_axis("", [0.03, 2.0], 12).high) == (0.01, 10)
    assert (log_axis("", [1e-5, 1.0], 12).low, log_axis("", [1e-5, 1.0], 12).high) == (1e-5, 1)
    assert log_axis("", [1e-30, 1.0], 12).low == 1e-12
    assert (log_axis("", [1.0], 12).low, log_axis("", [1.0], 12).high) == (0.1, 1)
    assert log_axis("", [0.0, math.nan, math.inf], 12).high == 1
    assert [log_axis("", [1], 9).label(value) for value in (1e-5, 0.001, 10)] == ["1e-05", "0.001", "10"]


@given(st.lists(numbers, max_size=9))
def test_any_numbers_make_a_scale_and_a_drawing(values: list[float]) -> None:
    axis = log_axis("norm", values, 12)
    assert 0 < axis.low < axis.high
    curve = {"a": list(enumerate(values))}
    across = Axis("k", 0, max(1, len(values) - 1))
    ElementTree.fromstring(svg(curve, across, axis))
    assert all(len(line) <= 80 for line in panels(curve, across, axis).splitlines())


def test_a_picture_holds_each_curve_its_name_at_its_end_and_both_grounds() -> None:
    curves = {"rnn": [(0.0, 1.0), (5.0, 0.1), (10.0, 1e-4)], "a <b> & c": [(0.0, 1e-2), (10.0, 0.9)]}
    root = ElementTree.fromstring(svg(curves, ACROSS, UP, "A title"))
    lines = [line.attrib for line in root.iter(f"{SVG}polyline")]
    places = [[tuple(map(float, point.split(","))) for point in line["points"].split()] for line in lines]
    assert [len(line) for line in places] == [3, 2]
    assert lines[0]["stroke"] != lines[1]["stroke"]
    assert places[0][0][1] < places[0][1][1] < places[0][2][1]  # falls
    assert places[1][0][1] > places[1][1][1]
    assert places[0][1][0] - places[0][0][0] == pytest.approx(places[0][2][0] - places[0][1][0], abs=0.2)
    texts = {text.text: text.attrib for text in root.iter(f"{SVG}text")}
    assert {"A title", "norm", "k", "rnn", "a <b> & c", "0.01"} <= set(texts)
    for name, line, place in zip(curves, lines, places, strict=True):
        assert float(texts[name]["x"]) == pytest.approx(place[-1][0] + 10, abs=0.1)
        assert abs(float(texts[name]["y"]) - 5 - place[-1][1]) < LINE
        assert texts[name]["fill"] == line["stroke"]
    width = float(root.attrib["width"])
    assert all(0 <= float(text["x"]) <= width for text in texts.values())
    style = next(root.iter(f"{SVG}style")).text or ""
    assert "prefers-color-scheme: dark" in style
    for kind in (lines[0]["class"], lines[1]["class"], texts["rnn"]["class"], "ink", "grid", "paper"):
        assert f".{kind}{{" in style


def test_a_point_outside_breaks_the_line() -> None:
    curve = [(0.0, 1.0), (1.0, 0.5), (2.0, 0.0), (3.0, 0.5), (4.0, 0.25), (11.0, 0.2)]
    root = ElementTree.fromstring(svg({"a": curve}, ACROSS, UP))
    assert [len(line.attrib["points"].split()) for line in root.iter(f"{SVG}polyline")] == [2, 2]


def test_a_name_is_made_fit_to_print() -> None:
    text = svg({"a\x00\ud800b" + "c" * 99: [(0.0, 1.0)]}, ACROSS, UP, "\x1b[1m")
    ElementTree.fromstring(text.encode("utf-8"))
    assert "a\ufffd\ufffdb" in text
    assert "c" * 50 not in text


def test_names_do_not_overlap() -> None:
    for heights in ([100.0, 101.0, 102.0], [390.0, 390.0, 390.0], [50.0, 200.0, 10.0], []):
        placed = sorted(_spread(heights))
        assert all(b - a >= LINE - 1e-9 for a, b in itertools.pairwise(placed))
    assert _spread([50.0, 200.0, 10.0]) == [50.0, 200.0, 10.0]


def test_a_panel_is_as_high_as_the_curve() -> None:
    drawn = panels({"a": [(0.0, 1.0), (5.0, 1e-2), (10.0, 1e-4)]}, ACROSS, UP, width=40).splitlines()
    assert drawn[0] == "a"
    rows = [line[7:] for line in drawn[1:5]]
    assert [line[:7] for line in drawn[1:5]] == ["     1 ", " " * 7, " " * 7, "0.0001 "]
    assert rows[0] == rows[1] == "█" * 8
    assert rows[2] == rows[3] == "█" * 24
    assert drawn[5].split() == ["0", "2", "4", "6", "8"]  # for 10 there is no room
    assert drawn[6].strip() == "k"


def test_eighths() -> None:
    up = Axis("", 0, 32)
    for height in range(33):
        drawn = panels({"a": [(0.0, float(height))]}, Axis("", 0, 1), up, width=4).splitlines()
        assert sum(BLOCKS.index(line[3]) for line in drawn[1:5] if len(line) > 3) == height


def test_a_drawing_in_ascii() -> None:
    curves = {"a": [(float(k), 0.5**k) for k in range(11)]}
    drawn = panels(curves, ACROSS, UP, ascii_only=True)
    assert drawn.isascii()
    assert set(drawn) >= set(ASCII_BLOCKS)
    assert not panels(curves, ACROSS, UP).isascii()


def test_panels_share_their_scale_and_keep_their_width() -> None:
    curves = {name: [(float(k), factor**k) for k in range(101)] for name, factor in (("a", 0.9), ("b" * 200, 0.99))}
    across = Axis("k", 0, 100)
    for width in (30, 80, 200):
        lines = panels(curves, across, UP, width=width).splitlines()
        assert len(lines) == 2 * 5 + 2
        assert max(map(len, lines)) == width
    assert len(re.findall("0.0001", panels(curves, across, UP))) == 2


def test_a_curve_that_is_nowhere_is_an_empty_panel() -> None:
    for curve in ([], [(0.0, 0.0)], [(99.0, 0.5)]):
        assert "█" not in panels({"a": curve}, ACROSS, UP)
