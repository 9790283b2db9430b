"""Curves: every number stays where it belongs, thinning hides no extreme, gaps and single points are seen."""

import math
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dptmat.report.curves import COLUMNS, HEIGHT, WIDTH, chart, number, thin

LINK = "{http://www.w3.org/1999/xlink}href"
LEFT, BOTTOM = 62, 196  # of the plot within the drawing


def draw(steps, values, **options):
    steps = np.array(steps)
    return chart("title", steps, {"loss": np.array(values, float)}, (int(steps[0]), int(steps[-1])), **options)


def tree(found):
    return ElementTree.fromstring(f'<svg xmlns:xlink="http://www.w3.org/1999/xlink">{found.svg}</svg>')


def line(found, k=0):
    """Points of the runs of curve k: a list of [(x, y), ...] for each M."""
    path = next(
        path.get("d")
        for path in tree(found).iter("path")
        if f"stroke: var(--curve-{k}); stroke-w" in path.get("style", "")
    )
    return [
        [tuple(map(float, point.split())) for point in run.split("L")] for run in path.split("M")[1:]
    ]  # fmt: skip


def dots(found):
    return [
        (float(use.get("x")), float(use.get("y")))
        for use in tree(found).iter("use")
        if use.get("style").startswith("fill: var(--curve-0)") and "opacity" not in use.get("style")
    ]


def ticks(found):
    """Labels with their places: across by x, and up by y."""
    texts = [text for text in tree(found).iter("text") if text.text != "step"]
    return [
        {text.text: float(text.get(axis)) for text in texts if f"text-anchor: {anchor}" in text.get("style")}
        for axis, anchor in (("x", "middle"), ("y", "end"))
    ]


def test_points_lie_at_their_step_and_value():
    """By hand: the axis goes from step 10 to 50 over 440 pixels, and from 0 to 4.2 over 188."""
    found = draw([10, 20, 40, 50], [4, 1, 0, 3])
    expected = [(LEFT + x * COLUMNS / 40, BOTTOM - y * 188 / 4.2) for x, y in ((0, 4), (10, 1), (30, 0), (40, 3))]
    # places are cut off at a hundredth of a pixel
    np.testing.assert_allclose(line(found), [expected], atol=0.02)
    np.testing.assert_allclose(dots(found), expected, atol=0.02)
    across, up = ticks(found)
    assert across == pytest.approx({"10": 62, "20": 172, "30": 282, "40": 392, "50": 502})
    assert list(up) == ["0", "1", "2", "3", "4"]
    assert up["0"] - up["4"] == pytest.approx(4 * 188 / 4.2, abs=0.02)
    assert found.last == {"loss": "3"}
    assert found.description == "loss goes from 4 to 3, and lies between 0 and 4"
    assert "opacity" not in found.svg  # no band
    assert not found.thinned


def test_a_logarithmic_axis_spaces_equal_factors_equally():
    found = draw([0, 1, 2], [100, 10, 1], may_be_log=True)
    ((_, high), (_, middle), (_, low)) = line(found)[0]
    assert low - middle == pytest.approx(middle - high, abs=0.02)
    assert found.title == "title, logarithmic scale"
    _, up = ticks(found)
    assert list(up) == ["1", "2", "5", "10", "20", "50", "100"]
    assert up["10"] - up["20"] == pytest.approx(math.log10(2) * (low - middle), abs=0.02)


@pytest.mark.parametrize("values", [[100, 10, 10.1], [100, 10, -1], [100, 10, 0]])
def test_an_axis_is_linear_for_small_factors_and_where_numbers_are_not_positive(values):
    assert draw([0, 1, 2], values, may_be_log=True).title == "title"


def test_thinning_keeps_mean_least_and_most_of_every_column():
    """Against a plain loop over 50,001 lines; one of them is 1000 times as large as the others."""
    generator = np.random.default_rng(0)
    steps, values = np.arange(7, 7 + 50_001 * 3, 3), generator.random(50_001)
    values[31_415], values[100:250] = 1000, np.nan
    columns = {}
    for at, value in zip(steps, values, strict=True):
        columns.setdefault(min((at - 7) * COLUMNS // 150_000, COLUMNS - 1), []).append((at, value))
    step, mean, least, most = thin(steps, values[:, None], (7, 150_007))
    np.testing.assert_array_equal(step, [(lines[0][0] + lines[-1][0]) / 2 for lines in columns.values()])
    kept = [[value for _, value in lines if value == value] for lines in columns.values()]
    for got, part in ((mean, np.mean), (least, min), (most, max)):
        # sums are added up in another order
        np.testing.assert_allclose(got[:, 0], [part(numbers) if numbers else np.nan for numbers in kept], rtol=1e-12)
    assert [] in kept


def test_a_long_log_gives_a_small_drawing_with_its_extremes():
    values = np.random.default_rng(0).random(1_000_000)
    values[31_415] = 1000
    found = draw(np.arange(1_000_000), values)
    assert found.thinned
    assert found.description.endswith("and 1000") or found.description.endswith("and 1,000")
    assert len(found.svg) < 40_000
    band = next(path.get("d") for path in tree(found).iter("path") if len(path.get("d")) > 10_000 and path.get("id"))
    top = min(float(y) for _, y in re.findall(r"([-\d.]+) ([-\d.]+)", band)) + HEIGHT  # drawn from the lower edge
    assert top == pytest.approx(BOTTOM - 188 / 1.05, abs=0.02)


def test_a_missing_number_is_a_gap_and_a_lone_one_a_dot():
    steps = np.arange(100)
    found = draw(steps, np.where(np.isin(steps, (30, 32)), np.nan, steps % 7))
    assert [len(run) for run in line(found)] == [30, 1, 67]
    assert dots(found) == [pytest.approx((LEFT + 31 * COLUMNS / 99, line(found)[1][0][1]), abs=0.02)]


def test_the_curve_on_top_is_the_first_and_those_past_the_colors_are_dashed():
    found = chart("title", np.arange(3), {f"part {k}": np.arange(3) + k for k in range(7)}, (0, 2))
    styles = [path.get("style") for path in tree(found).iter("path") if "stroke-width: 1.5" in path.get("style", "")]
    assert [re.search(r"curve-\d", style)[0] for style in styles] == [f"curve-{k}" for k in (0, 5, 4, 3, 2, 1, 0)]
    assert ["dasharray" in style for style in styles] == [True] + 6 * [False]


def test_a_drawing_depends_on_its_numbers_alone_and_takes_looks_from_the_page():
    before = draw([1, 2, 3], [1, 2, np.nan])
    with matplotlib.rc_context(
        {"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}
    ):
        assert draw([1, 2, 3], [1, 2, np.nan]) == before
    assert not re.search(r"#[0-9a-f]{6}\b|font|<style|<metadata|http", before.svg)


def test_drawings_of_a_page_share_no_names():
    values = {"x": np.random.default_rng(0).random(1000)}
    drawings = [chart(title, np.arange(1000), values, (0, 999)) for title in ("one", "two")]
    names = [re.findall(r' id="([^"]+)"', found.svg) for found in drawings]
    assert all(names)
    assert not set(names[0]) & set(names[1])
    for found, own in zip(drawings, names, strict=True):
        assert set(re.findall(r'(?:href="|url\()#(\w+)', found.svg)) <= set(own)


@pytest.mark.parametrize(("steps", "values"), [([5], [2.5]), ([5], [0]), ([5, 6], [0, 0]), ([5, 6], [-3, -3])])
def test_few_and_equal_numbers_have_axes_too(steps, values):
    found = chart("title", np.array(steps), {"loss": np.array(values, float)}, (0, 6))
    assert len(dots(found)) == len(steps)
    across, up = ticks(found)
    assert len(up) >= 2
    assert list(across) == ["0", "2", "4", "6"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.one_of(st.floats(-1e12, 1e12), st.floats(-1e-6, 1e-6), st.just(math.nan)), min_size=1, max_size=30),
    st.integers(1, 10**7),
    st.booleans(),
)
def test_all_is_drawn_within_the_axes(values, spacing, may_be_log):
    values = [*values, 1.0]
    found = draw(np.arange(len(values)) * spacing, values, may_be_log=may_be_log)
    for x, y in (point for run in line(found) for point in run):
        assert LEFT <= x <= LEFT + COLUMNS
        assert 8 <= y <= BOTTOM
    for labels in ticks(found):
        assert 2 <= len(labels) <= 12
    assert all(0 < x < WIDTH for x in ticks(found)[0].values())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1, "1"), (0.25, "0.25"), (0.123456, "0.1235"), (123.456, "123.5"), (1234.5, "1,234"), (-2.5, "-2.5"),
        (1.5e-4, "1.5e-4"), (1e-3, "0.001"), (1e-8, "1e-8"), (12_345_678, "1.23e7"), (None, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert number(value) == text
