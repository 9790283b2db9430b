"""A picture of what photographs are like: how their sizes, shapes and bytes are distributed."""

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dptmat.files import write_output

_COLOR = "#3b6ea5"
_STYLE = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True}
_BARS = 40


def draw_distributions(path: str | Path, title: str, sizes: np.ndarray, file_bytes: np.ndarray, side: int) -> None:
    """Draw four distributions into a PNG file: shorter sides, widths against heights, shapes, and bytes of a file.

    Args:
        path: The file.
        title: What the picture shows.
        sizes: Width and height in pixels, int64 [N, 2], N >= 1.
        file_bytes: int64 [N].
        side: In pixels, which a line marks.

    Raises:
        OSError: The file cannot be written.
    """
    with matplotlib.style.context(["default", _STYLE]):  # whatever the user has set
        figure = Figure(figsize=(10, 7), layout="constrained")
        figure.suptitle(title)
        (shorter, both), (shape, weight) = figure.subplots(2, 2)
        _bars(shorter, sizes.min(axis=1), "shorter side, pixels")
        shorter.axvline(side, color="black", linestyle="--", linewidth=1, label=f"{side} pixels")
        shorter.legend(frameon=False)
        _bars(shape, sizes[:, 0] / sizes[:, 1], "width / height")
        _bars(weight, file_bytes / 1000, "kB")
        both.scatter(*sizes.T, s=6, alpha=0.3, color=_COLOR, linewidths=0)
        both.set(xlabel="width, pixels", ylabel="height, pixels")
        both.set_yscale("log")
        for axes in (shorter, shape, weight, both):
            axes.set_xscale("log")
            _number(axes.xaxis)
        _number(both.yaxis)
        write_output(path, lambda file: figure.savefig(file, format="png", dpi=100, metadata={"Software": None}))


def _number(axis: Axis) -> None:
    """Write plain numbers at few places of a logarithmic axis."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(NullLocator())


def _bars(axes: Axes, values: np.ndarray, label: str) -> None:
    """Draw how many values lie in each of some ranges, which grow by one factor."""
    low, high = float(values.min()), float(values.max())
    low, high = (low, high) if high > low * 1.01 else (low / 1.1, high * 1.1)
    axes.hist(values, bins=np.geomspace(low, high * (1 + 1e-9), _BARS + 1).tolist(), color=_COLOR)
    axes.set(xlabel=label, ylabel="photographs")
