"""Curves: every number stays where it belongs, thinning hides no extreme, gaps and single points are seen."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dptmat.report.curves import COLUMNS, chart, number


def places(path):
    """Points of the runs of an SVG path: a list of [(x, y), ...] for each M."""
    assert re.fullmatch(r"(M[\d. -]+(L[\d. -]+)*Z?)*", path)
    return [
        [tuple(map(float, point.split())) for point in re.split("L", run.rstrip("Z"))] for run in path.split("M")[1:]
    ]


def drawn(steps, values, **options):
    steps = np.array(steps)
    return chart("title", steps, {"loss": np.array(values, float)}, (int(steps[0]), int(steps[-1])), **options)


def test_points_lie_at_their_step_and_value():
    """By hand: the axis goes from 0 to 4, and from step 10 to step 50."""
    found = drawn([10, 20, 40, 50], [4, 1, 0, 3])
    assert places(found.curves[0].line) == [[(0, 0), (25, 75), (75, 100), (100, 25)]]
    assert found.curves[0].dots == [(0, 0), (25, 75), (75, 100), (100, 25)]
    assert [(tick.place, tick.label) for tick in found.up] == [(100, "0"), (75, "1"), (50, "2"), (25, "3"), (0, "4")]
    assert [(tick.place, tick.label) for tick in found.across] == [
        (0, "10"), (25, "20"), (50, "30"), (75, "40"), (100, "50")
    ]  # fmt: skip
    assert found.curves[0].last == 3
    assert found.curves[0].band == ""
    assert not found.thinned


def test_a_logarithmic_axis_spaces_equal_factors_equally():
    found = drawn([0, 1, 2], [100, 10, 1], may_be_log=True)
    assert places(found.curves[0].line) == [[(0, 0), (50, 50), (100, 100)]]
    assert found.title == "title, logarithmic scale"
    ticks = {tick.label: tick.place for tick in found.up}
    assert list(ticks) == ["1", "2", "5", "10", "20", "50", "100"]
    assert ticks["20"] == pytest.approx(100 - 50 * math.log10(20))


@pytest.mark.parametrize("values", [[100, 10, 10.1], [100, 10, -1], [100, 10, 0]])
def test_an_axis_is_logarithmic_for_large_factors_of_positive_numbers_only(values):
    assert drawn([0, 1, 2], values, may_be_log=True).title == "title" + ", logarithmic scale" * (values == [100, 1, 10])


def test_thinning_keeps_mean_least_and_most_of_every_column():
    """Against a plain loop over 50,001 lines; one of them is 1000 times as large as the others."""
    generator = np.random.default_rng(0)
    steps, values = np.arange(7, 7 + 50_001 * 3, 3), generator.random(50_001)
    values[31_415], values[100:200] = 1000, np.nan
    found = drawn(steps, values)
    columns = {}
    for step, value in zip(steps, values, strict=True):
        columns.setdefault(min(int((step - 7) * COLUMNS / 150_000), COLUMNS - 1), []).append((step, value))
    assert found.thinned
    assert found.columns["steps"] == [[lines[0][0], lines[-1][0]] for lines in columns.values()]
    kept = [[value for _, value in lines if value == value] for lines in columns.values()]
    expected = [[part(numbers) if numbers else None for numbers in kept] for part in (np.mean, min, max)]
    for got, wanted in zip(found.columns["values"][0], expected, strict=True):
        assert [value is None for value in got] == [value is None for value in wanted]
        # six digits are written: at most half of the last one is lost
        np.testing.assert_allclose(np.array(got, float), np.array(wanted, float), rtol=5e-6)
    line, band = places(found.curves[0].line), places(found.curves[0].band)
    assert sum(map(len, line)) == len(columns) - kept.count([])
    assert sum(map(len, band)) == 2 * sum(map(len, line))
    top = min(y for run in band for _, y in run)
    assert top == 0  # the axis ends at 1000
    assert len(found.curves[0].line) + len(found.curves[0].band) < 40_000


def test_a_missing_number_is_a_gap_and_a_lone_one_a_dot():
    steps = np.arange(100)
    values = np.where(np.isin(steps, (30, 32)), np.nan, 1.0)
    curve = drawn(steps, values).curves[0]
    assert [len(run) for run in places(curve.line)] == [30, 1, 67]
    assert curve.dots == [(round(100 * 31 / 99, 2), 0)]


@pytest.mark.parametrize(("steps", "values"), [([5], [2.5]), ([5], [0]), ([5, 6], [0, 0]), ([5, 6], [-3, -3])])
def test_few_and_equal_numbers_have_axes_too(steps, values):
    found = chart("title", np.array(steps), {"loss": np.array(values, float)}, (0, 6))
    assert len(found.curves[0].dots) == len(steps)
    assert len(found.up) >= 2
    assert [tick.label for tick in found.across] == ["0", "1", "2", "3", "4", "5", "6"]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.one_of(st.floats(-1e12, 1e12), st.floats(-1e-6, 1e-6), st.just(math.nan)), min_size=1, max_size=30),
    st.integers(1, 10**7),
    st.booleans(),
)
def test_all_is_drawn_within_the_axes(values, spacing, may_be_log):
    values = [*values, 1.0]
    found = drawn(np.arange(len(values)) * spacing, values, may_be_log=may_be_log)
    for x, y in (point for run in places(found.curves[0].line) for point in run):
        assert 0 <= x <= 100
        assert -0.01 <= y <= 100.01  # places are rounded to 0.01
    for ticks, most in ((found.up, 12), (found.across, 12)):
        assert 2 <= len(ticks) <= most
        assert all(-0.01 <= tick.place <= 100.01 for tick in ticks)
        assert len({tick.label for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1, "1"), (0.25, "0.25"), (0.123456, "0.1235"), (123.456, "123.5"), (1234.5, "1,234"), (-2.5, "-2.5"),
        (1.5e-4, "1.5e-4"), (1e-3, "0.001"), (1e-8, "1e-8"), (12_345_678, "1.23e7"), (None, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert number(value) == text
