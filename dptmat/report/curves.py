"""Curves of numbers against the step: drawn by matplotlib as SVG that lies in a page and has its colors and font.

However long the log, a curve has one point for each column of pixels: the mean of the lines of the log that share it,
with a band from the least to the largest of them.
"""

import io
import math
import re
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

WIDTH, HEIGHT = 520, 240  # of a chart: units of its SVG, which are pixels where the page gives it as many
COLUMNS = 440  # units across the plot
COLORS = 6  # that the page has for curves, --curve-0 and on; curves beyond them are dashed, too
_PLACE = 62 / WIDTH, 44 / HEIGHT, COLUMNS / WIDTH, 188 / HEIGHT  # of the plot: left, bottom, width, height
_WITH_DOTS = 40  # columns up to which each has a dot
_MUTED, _RULE, _CURVE = "#dece06", "#dece07", "#dece0"  # stand for colors of the page, the last with a digit behind it
_STYLE: dict[str, Any] = {  # on top of matplotlib's own defaults, whatever the user has set
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it, and measures with it; the page sets its own
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": _MUTED,
    "axes.linewidth": 1,
    "axes.labelpad": 5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 1,
    "xtick.color": _MUTED,
    "xtick.major.pad": 7,
    "ytick.left": False,
    "ytick.major.pad": 7,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes."""

    title: str
    last: dict[str, str]  # the last value of each curve, by its name
    description: str  # in words, for those who do not see it
    svg: str  # what stands between <svg viewBox="0 0 WIDTH HEIGHT"> and </svg>
    thinned: bool  # whether a column holds more than one line of the log


def chart(
    title: str,
    steps: np.ndarray,
    values: dict[str, np.ndarray],
    span: tuple[int, int],
    *,
    may_be_log: bool = False,
    top: float = 0.0,
) -> Chart:
    """Draw numbers against the step.

    Args:
        title: What the numbers are, with their unit; charts of one page have different ones.
        steps: int [N], N >= 1, ascending.
        values: Names and float [N]; NaN where there is none, which makes a gap. At least one number in all.
        span: First and last step of the axis; all steps are within.
        may_be_log: Whether the axis is logarithmic if all numbers are positive and some 10 times as large as others;
            the title then says so.
        top: Smallest upper end of the axis.
    """
    step, mean, least, most = thin(steps, np.stack(list(values.values()), axis=1), span)
    low, high = float(np.nanmin(least)), float(np.nanmax(most))
    log = may_be_log and low > 0 and high > 10 * low
    # names within the SVG are hashes, of the salt too
    with matplotlib.style.context(["default", _STYLE, {"svg.hashsalt": title}]):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))  # inches, of 72 units each
        axes = figure.add_axes(_PLACE, xlabel="step", xlim=(span[0], max(span[1], span[0] + 1)))
        (_set_log_axis if log else _set_linear_axis)(axes, low, max(high, top))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        for k in reversed(range(len(values))):  # the first on top
            _draw(axes, k, step, mean[:, k], least[:, k], most[:, k])
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    numbers = {name: series[np.isfinite(series)] for name, series in values.items()}
    return Chart(
        title=title + (", logarithmic scale" if log else ""),
        last={name: number(series[-1] if len(series) else None) for name, series in numbers.items()},
        description="; ".join(f"{name} {_describe(series)}" for name, series in numbers.items()),
        svg=_as_part_of_a_page(file.getvalue()),
        thinned=len(step) < len(steps),
    )


def thin(steps: np.ndarray, values: np.ndarray, span: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Take together the lines of a log that share one of ``COLUMNS`` columns of pixels.

    Args:
        steps: int [N], ascending.
        values: float [N, K]; NaN where there is no number.
        span: First step of the first column and last step of the last.

    Returns:
        Of the C columns that have any: the middle of their steps, float [C], and mean, least and most of their values,
        float [C, K]; NaN where there is no number.
    """
    columns = np.minimum((steps - span[0]) * COLUMNS // max(span[1] - span[0], 1), COLUMNS - 1)
    starts = np.flatnonzero(np.diff(columns, prepend=-1))
    last = steps[np.append(starts[1:], len(steps)) - 1]
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a column has no number
        mean = np.add.reduceat(np.where(there, values, 0), starts) / np.add.reduceat(there.astype(int), starts)
    return (steps[starts] + last) / 2, mean, np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)


def number(value: float | None) -> str:
    """Write a number for people: four digits and a comma at the thousands, or 1.5e-4; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if size and not 1e-3 <= size < 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def _describe(numbers: np.ndarray) -> str:
    if not len(numbers):
        return "has no number"
    first, last, least, most = map(number, (numbers[0], numbers[-1], numbers.min(), numbers.max()))
    return f"goes from {first} to {last}, and lies between {least} and {most}"


def _set_linear_axis(axes: Axes, low: float, high: float) -> None:
    """Let the axis hold zero and all numbers."""
    low, high = min(low, 0.0), max(high, 0.0)
    edge = 0.05 * (high - low) or 1.0  # all are zero: an axis from 0 to 1
    axes.set_ylim(low - (edge if low < 0 else 0), high + edge)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _set_log_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(low / 1.1, high * 1.1)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,), numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())


def _draw(axes: Axes, k: int, step: np.ndarray, mean: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
    """Draw curve k, a band behind it where columns hold different numbers, and dots where a line would not be seen."""
    color = f"{_CURVE}{k % COLORS}"
    if (most > least).any():
        axes.fill_between(step, least, most, color=color, alpha=0.2, linewidth=0, clip_on=False)
    there = np.pad(np.isfinite(mean), 1)
    lone = there[1:-1] & (~there[:-2] & ~there[2:] | (len(step) <= _WITH_DOTS))
    axes.plot(
        step, mean, "-" if k < COLORS else "--", color=color, linewidth=1.5, clip_on=False,
        marker="o", markersize=4, markeredgewidth=0, markevery=lone,
    )  # fmt: skip


def _as_part_of_a_page(svg: str) -> str:
    """Take from a file by matplotlib what it draws, and leave colors and fonts to the page's CSS."""
    svg = svg[svg.index("<g ") : svg.rindex("</svg>")]  # the head has metadata, and styles that would hold for the page
    svg = re.sub(r"<!--.*?-->|font[-\w]*: [^;]*; |(?<=<g) id=\"[^\"]*\"", "", svg, flags=re.DOTALL)
    svg = svg.replace(_MUTED, "var(--muted)").replace(_RULE, "var(--rule)")
    svg = re.sub(rf"{_CURVE}(\d)", r"var(--curve-\1)", svg)
    return re.sub(r"(\.\d\d)\d+(?=[ \"])", r"\1", re.sub(r"\s+", " ", svg))  # a hundredth of a pixel is enough
