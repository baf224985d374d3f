import math

import pytest

from regmix.reports.charts import BOTTOM, LEFT, RIGHT, TOP, Mark, Series, Tick, line_chart, nice, texts, without_overlap


def _points(line):
    return [tuple(map(float, point.split(","))) for point in line.points.split()]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.137), (-3.2, 8.8), (0, 1e-7), (0, 4e6), (0, 0), (5, 5), (0, 2.5000001)]
)
def test_ticks_are_few_and_cover_the_range(low, high):
    ticks = nice(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low
    assert ticks[-1] >= high * (1 - 1e-6)


def test_tick_texts_have_equal_decimals():
    assert texts([0.0, 0.05, 0.1]) == ["0", "0.05", "0.10"]
    assert texts([0.0, 2.0, 4.0]) == ["0", "2", "4"]


def test_texts_that_would_touch_are_left_out():
    assert [tick.text for tick in without_overlap([Tick(0, "0.05"), Tick(10, "0.1"), Tick(60, "0.2")])] == [
        "0.05",
        "",
        "0.2",
    ]


def test_percent_axis_goes_from_0_to_100():
    chart = line_chart("t", [Series("a", [1, 2, 3], [0, 0.5, 1], 1)], x_label="epoch", percent=True)
    assert _points(chart.lines[0]) == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (RIGHT, TOP)]
    assert [tick.text for tick in chart.x_ticks] == ["1", "2", "3"]


def test_points_that_are_not_finite_are_left_out():
    chart = line_chart("t", [Series("a", [1, 2, 3], [1.0, math.nan, math.inf], 1)], x_label="epoch")
    assert len(_points(chart.lines[0])) == 1


def test_everything_lies_inside_the_drawing_even_for_a_single_point():
    whiskers = [Series(str(n), [0.1], [0.5], n, intervals=[(0.4, 0.6)]) for n in range(1, 7)]
    chart = line_chart("t", whiskers, x_label="eps", percent=True, x_ticks=[(0.1, "0.1")], mark=Mark(0.1, "here"))
    xs = [x for line in chart.lines for x, _ in _points(line)]
    assert all(LEFT <= x <= RIGHT for x in xs)
    assert len(set(xs)) == 6
    assert all(line.dots for line in chart.lines)


def test_the_axis_shows_the_whole_range():
    chart = line_chart("t", [Series("a", [2], [0.5], 1)], x_label="epoch", x_range=[1, 2, 3])
    assert _points(chart.lines[0])[0][0] == (LEFT + RIGHT) / 2
