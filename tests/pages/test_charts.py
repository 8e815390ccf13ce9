"""Charts: points lie where their values say, and text cannot break out."""

import re
from xml.etree import ElementTree

import pytest

from stages.pages.report.charts import (
    Interval,
    Series,
    interval_plot,
    interval_strip,
    line_chart,
    ticks,
)


def path_of(svg: str, style: str) -> list[tuple[float, float]]:
    data = re.search(rf'class="line {style}" d="M([^"]+)"', svg).group(1)
    return [tuple(float(part) for part in point.split()) for point in data.split("L")]


def test_line_is_drawn_to_scale() -> None:
    svg = line_chart([Series("loss", [(0, 1.0), (50, 3.0), (100, 2.0)], "tuned")], "loss")
    (x0, y0), (x1, y1), (x2, y2) = path_of(svg, "tuned")
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 < y2 < y0, "more is higher"
    assert (y0 - y1) == pytest.approx(2 * (y0 - y2), abs=0.3)


@pytest.mark.parametrize("points", [[(5, 1.0)], [(0, 2.0), (1, 2.0)]])
def test_flat_lines_and_single_points_have_a_place(points: list) -> None:
    svg = line_chart([Series("a", points, "tuned")], "a")
    assert "nan" not in svg
    assert all(0 <= y <= 210 for _, y in path_of(svg, "tuned"))


def test_points_have_titles_a_ring_and_the_name_of_the_last_one() -> None:
    points = [(0, 1.0), (1, 3.0), (2, 2.0)]
    series = Series("a", points, "time1", ["zero", "half <", "one"], ringed=1, ends="1")
    svg = line_chart([series], "a", dots=True)
    circles = re.findall(r'<circle class="(point|ring) time1" cx="([\d.]+)"', svg)
    rings = [x for kind, x in circles if kind == "ring"]
    assert rings == [[x for kind, x in circles if kind == "point"][1]]
    assert re.findall(r"<title>([^<]+)</title></circle>", svg) == ["zero", "half &lt;", "one"]
    assert ">1</text>" in svg
    assert "ring" not in line_chart([Series("a", points, "time1")], "a", dots=True)


def test_nothing_draws_nothing() -> None:
    assert line_chart([Series("a", [], "tuned")], "a") == ""


def test_interval_lies_around_its_mean_and_zero_is_drawn() -> None:
    row = Interval("a", 0.2, 0.1, 0.3, [("s", 0.15), ("t", 0.25)], "good")
    for svg in (interval_plot([row], "deltas", "+.2f", "PSNR, dB"), interval_strip(row, "+.2f")):
        reach = re.search(r'class="reach good" x1="([\d.]+)"[^>]* x2="([\d.]+)"', svg)
        low, high = map(float, reach.groups())
        mean = float(re.search(r'class="mean good" d="M([\d.]+)', svg).group(1))
        zero = float(re.search(r'class="zero" x1="([\d.]+)"', svg).group(1))
        dots = [float(one) for one in re.findall(r'cx="([\d.]+)"', svg)]
        assert mean == pytest.approx((low + high) / 2, abs=0.1)
        assert mean - zero == pytest.approx(high - low, abs=0.2), "zero is as far as it is wide"
        assert low < dots[0] < mean < dots[1] < high
        assert "t: +0.25" in svg


def test_one_scene_has_no_interval() -> None:
    assert "reach" not in interval_strip(Interval("a", 1.0, None, None, [("s", 1.0)], "open"), "g")


def test_names_are_escaped() -> None:
    evil = "<script>&\"'"
    row = Interval(evil, 1.0, 0.5, 1.5, [(evil, 1.0)], "good")
    for svg in (
        line_chart([Series(evil, [(0, 1), (1, 2)], "tuned")], evil, evil),
        interval_plot([row], evil, "g", evil),
    ):
        assert "<script" not in svg
        ElementTree.fromstring(svg)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.05, 0.01), (1e-4, 3e-4), (0, 12345), (2, 2)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-9 <= one <= high + 1e-9 for one in found)


def test_rings_in_one_place_surround_each_other() -> None:
    lines = [
        Series(name, [(0.0, 0.0), (1.0, end)], "plain", ringed=nth)
        for name, end, nth in (("a", 1.0, 0), ("b", 0.5, 0), ("c", 1.0, 1))
    ]
    svg = line_chart(lines, "three", "x", "y", dots=True)
    assert re.findall(r'class="ring [^>]* r="(\d+)"', svg) == ["6", "9", "6"]
