"""Curves of numbers against the step, with axes, thinned to what a screen can show: their geometry, without markup.

All places are percent of the plot, from its left and from its top, so that a page can give it any size.
"""

import math
from dataclasses import dataclass

import numpy as np

COLUMNS = 800  # pixel columns that are told apart; a wide plot on a page has about as many
_WITH_DOTS = 40  # points up to which each gets a dot


@dataclass(frozen=True)
class Tick:
    place: float
    label: str


@dataclass(frozen=True)
class Curve:
    """One series of a chart."""

    name: str
    last: float | None  # the last value of the log
    line: str  # SVG path through the mean of each column
    band: str  # SVG path around least and most of each column; empty where no column holds more than one line
    dots: list[tuple[float, float]]  # points that a line alone would not show


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes."""

    title: str
    curves: list[Curve]
    across: list[Tick]  # the step's
    up: list[Tick]
    thinned: bool  # whether a column holds more than one line of the log
    columns: dict  # for reading values: "x", "steps" (first and last), and "values": mean, least, most of each curve


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
        title: What the numbers are, with their unit.
        steps: int [N], N >= 1, ascending.
        values: Names and float [N]; NaN where there is none, which makes a gap. At least one number in all.
        span: First and last step of the axis; all steps are within.
        may_be_log: Whether the axis is logarithmic if all numbers are positive and some 10 times as large as others;
            the title then says so.
        top: Smallest upper end of the axis.
    """
    x, first, last, mean, least, most = _thin(steps, np.stack(list(values.values()), axis=1), span)
    log = may_be_log and np.nanmin(least) > 0 and np.nanmax(most) > 10 * np.nanmin(least)
    low, high, ticks = (_log_axis if log else _linear_axis)(np.nanmin(least), max(np.nanmax(most), top))

    def y(numbers):
        a, b, c = (np.log(numbers), math.log(low), math.log(high)) if log else (numbers, low, high)
        return 100 * (c - a) / (c - b)

    thinned = bool((last > first).any())
    return Chart(
        title=title + (", logarithmic scale" if log else ""),
        curves=[
            Curve(name, _last(series), *_paths(x, y(mean[:, k]), y(least[:, k]), y(most[:, k])))
            for k, (name, series) in enumerate(values.items())
        ],
        across=[Tick(_across(step, span), f"{step:,}") for step in _step_axis(span)],
        up=[Tick(float(y(tick)), number(tick)) for tick in ticks],
        thinned=thinned,
        columns={
            "x": [round(place, 2) for place in x.tolist()],
            "steps": np.stack([first, last], axis=1).tolist(),
            "values": [
                [_plain(column[:, k]) for column in ((mean, least, most) if thinned else (mean,))]
                for k in range(len(values))
            ],
        },
    )


def number(value: float | None) -> str:
    """A number for people: four digits and a comma at the thousands, or 1.5e-4; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if size and not 1e-3 <= size < 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def _thin(steps, values, span):
    """Place, first and last step, mean, least and most of the lines on each pixel column that has any."""
    columns = np.minimum(_across(steps, span) * COLUMNS / 100, COLUMNS - 1).astype(int)
    starts = np.flatnonzero(np.diff(columns, prepend=-1))
    first, last = steps[starts], steps[np.append(starts[1:], len(steps)) - 1]
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a column has no number
        mean = np.add.reduceat(np.where(there, values, 0), starts) / np.add.reduceat(there.astype(int), starts)
    least, most = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    return _across((first + last) / 2, span), first, last, mean, least, most


def _across(step, span):
    return 100 * (step - span[0]) / max(span[1] - span[0], 1)


def _paths(x, mean, least, most):
    """Line, band and dots; a gap where there is no number."""
    line, band, dots = [], [], []
    edges = np.flatnonzero(np.diff(np.isfinite(mean), prepend=False, append=False))
    for start, end in edges.reshape(-1, 2):
        run = slice(start, end)
        line.append("M" + "L".join(_points(x[run], mean[run])))
        if end - start == 1 or len(x) <= _WITH_DOTS:
            dots += zip(x[run].round(2).tolist(), mean[run].round(2).tolist(), strict=True)
        if (most[run] != least[run]).any():
            there, back = _points(x[run], most[run]), _points(x[run][::-1], least[run][::-1])
            band.append("M" + "L".join([*there, *back]) + "Z")
    return "".join(line), "".join(band), dots


def _points(x, y):
    return [f"{a:g} {b:g}" for a, b in zip(x.round(2), y.round(2), strict=True)]


def _last(series):
    numbers = series[np.isfinite(series)]
    return float(numbers[-1]) if len(numbers) else None


def _plain(numbers):
    """For JSON: six digits, None for what there is not."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in numbers.tolist()]


def _linear_axis(least, most):
    """Ends and ticks of an axis from zero, or from a round number below it, to a round number."""
    least = min(least, 0.0)
    step = _round_step(most - least, 4) if most > least else 1.0
    ticks = step * np.arange(math.floor(least / step), max(math.ceil(most / step), 1) + 1)
    return float(ticks[0]), float(ticks[-1]), ticks.tolist()


def _log_axis(least, most):
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    digits = (1, 2, 5) if most < 300 * least else (1,)
    ticks = [digit * 10.0**decade for decade in decades[:: math.ceil(len(decades) / 8)] for digit in digits]
    return least, most, [tick for tick in ticks if least <= tick <= most]


def _step_axis(span):
    step = max(round(_round_step(max(span[1] - span[0], 1), 5)), 1)
    return range(-(-span[0] // step) * step, span[1] + 1, step)


def _round_step(length, intervals):
    """1, 2 or 5 times a power of ten, which parts a length into about so many intervals."""
    coarse = length / intervals
    power = 10.0 ** math.floor(math.log10(coarse))
    return min((digit * power for digit in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / coarse)))
