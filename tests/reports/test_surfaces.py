"""Two planes side by side: one colour scale, everything inside the drawing, valid SVG."""

import math
import re
from xml.etree import ElementTree

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import regmix.reports.report as report
from regmix.reports.surfaces import BANDS, LEFT, SIDE, TOP, surfaces

STEPS = [-1.0, 0.0, 1.0]


def plane(centre: float, rim: float) -> list[list[float]]:
    return [[rim, rim, rim], [rim, centre, rim], [rim, rim, rim]]


def drawn(first, second, **more):
    planes = [("first", first), ("second", second)]
    return surfaces("Loss", planes, STEPS, x_label="adversarial", y_label="random", **more)


def test_one_shade_means_one_loss_in_both_panels() -> None:
    chart = drawn(plane(0.0, 1.0), plane(1.0, 12.0))
    steep, flat = chart.panels[1].bands, chart.panels[0].bands
    assert len({band.opacity for band in (*flat, *steep)}) == 3  # 0; 1 in both; 12
    assert flat[-1].opacity == steep[0].opacity
    assert steep[-1].opacity == 1
    assert [band.opacity for band in chart.scale] == sorted(band.opacity for band in chart.scale)
    assert len(chart.scale) == BANDS
    assert chart.scale_ticks[0].at == LEFT
    assert chart.scale_ticks[0].text == "0"


def test_one_plane_is_drawn_alone() -> None:
    both = drawn(plane(0.0, 1.0), plane(1.0, 12.0))
    alone = surfaces("Loss", [("first", plane(0.0, 1.0))], STEPS, x_label="", y_label="")
    assert len(alone.panels) == 1
    assert alone.right == LEFT + SIDE < both.right
    assert {band.opacity for band in alone.panels[0].bands} == {alone.scale[0].opacity, 1}
    assert alone.scale_ticks[-1].at <= alone.right


def test_ticks_are_short_and_zero_has_no_sign() -> None:
    steps = [-1.0, -4.5e-8, 1.0000001]
    chart = surfaces("Loss", [("a", plane(0, 1)), ("b", plane(0, 1))], steps, x_label="", y_label="")
    assert [tick.text for tick in chart.y_ticks] == ["-1", "0", "1"]


def test_rows_go_up_and_columns_to_the_right() -> None:
    rows = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]]
    (cell,) = [band.path for band in drawn(rows, plane(0.0, 0.0)).panels[0].bands if band.opacity == 1]
    x, y, x_end, y_end = map(float, re.match(r"M(\S+) (\S+)H(\S+)V(\S+)H", cell).groups())
    assert (x_end, y) == (LEFT + SIDE, TOP)
    assert (x, y_end) == pytest.approx((LEFT + 2 * SIDE / 3, TOP + SIDE / 3), abs=0.01)


def test_points_that_are_not_finite_stay_blank_and_are_counted() -> None:
    chart = drawn(plane(math.nan, 1.0), plane(0.0, math.inf), note="Mean of 5 images.")
    assert chart.note == "Mean of 5 images. 9 of 18 points have no finite value and are blank."
    assert sum(band.path.count("M") for panel in chart.panels for band in panel.bands) == 9


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_values_can_be_drawn(value) -> None:
    assert all(len(panel.bands) == 1 for panel in drawn(plane(value, value), plane(value, value)).panels)


def test_the_template_draws_valid_svg_within_its_frame() -> None:
    chart = surfaces(
        "Loss <1>",
        [("a & b", plane(0.2, 0.31)), ("a label that is far too long for its panel", plane(0.0, 2.5))],
        STEPS,
        x_label="adversarial direction (eps)",
        y_label="random direction (eps)",
    )
    loader = FileSystemLoader(report.__file__.rpartition("/")[0])
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=True)
    figure = environment.from_string('{% from "macros.html" import surfaces %}{{ surfaces(c) }}').render(c=chart)
    svg = next(iter(ElementTree.fromstring(figure.strip()).iter("svg")))
    for node in svg.iter():
        for name, most in (("x", chart.width), ("cx", chart.width), ("y", chart.height), ("cy", chart.height)):
            assert 0 <= float(node.get(name, 0)) <= most
    labels = [node.text for node in svg.iter("text") if node.find("title") is not None]
    assert labels == ["a & b", "a label that is far t…"]
