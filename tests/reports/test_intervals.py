"""The layout of charts of values with intervals."""

import pytest

from regmix.reports.intervals import LABEL, Dot, Row, interval_chart


def test_shares_lie_on_an_axis_of_all_per_cent() -> None:
    chart = interval_chart("t", [Row("a", [Dot(0.5, 0.25, 0.75)], "50%"), Row("b", [Dot(0.0, 0.0, 1.0)], "0%")])
    positions = {tick.text: tick.at for tick in chart.x_ticks}
    assert list(positions) == ["0", "25", "50", "75", "100%"]
    (x, low, high, hollow), (other, least, most, _) = chart.rows[0].dots[0], chart.rows[1].dots[0]
    assert (x, low, high, hollow) == (positions["50"], positions["25"], positions["75"], False)
    assert (other, least, most) == (positions["0"], positions["0"], positions["100%"])
    assert chart.left <= positions["0"] < positions["100%"] <= chart.right
    assert chart.zero is None
    assert chart.rows[0].at < chart.rows[1].at < chart.bottom < chart.height


def test_differences_have_a_line_at_zero_and_an_axis_that_holds_every_interval() -> None:
    chart = interval_chart("t", [Row("a", [Dot(0.02, -0.013, 0.05)], "+2.0")], percent=False)
    at = {float(tick.text): tick.at for tick in chart.x_ticks if tick.text}
    (x, low, high, _) = chart.rows[0].dots[0]
    assert chart.zero == at[0.0]
    assert min(at.values()) <= low < chart.zero < x < high <= max(at.values())
    per_point = (high - low) / 6.3
    assert x - chart.zero == pytest.approx(2 * per_point, abs=0.2)


def test_long_labels_are_cut_and_kept_whole_beside() -> None:
    (row,) = interval_chart("t", [Row("x" * 100, [Dot(0.5, 0.4, 0.6)], "")]).rows
    assert (len(row.label), row.label[-1], row.full_label) == (LABEL, "…", "x" * 100)
