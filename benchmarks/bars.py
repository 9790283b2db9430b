"""Bars with their spread, drawn by matplotlib."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

WIDTH, ROW, LABELS, TEXTS = 960, 44, 230, 230  # pixels; at both sides of the longest bar there is room for words
OURS, THEIRS = "#e08a2e", "#bdbdbd"


@dataclass(frozen=True)
class Bar:
    label: str
    median: float
    smallest: float
    largest: float
    text: str  # behind the bar
    ours: bool  # or what it is measured against


def draw_bars(title: str, bars: list[Bar], path: Path) -> None:
    """Draw horizontal bars from zero, each with a line from its smallest to its largest value, into a PNG file.

    Args:
        title: One line above them.
        bars: From the top.
        path: The file; its folder is made if it is missing.
    """
    height = ROW * (len(bars) + 1) + 16
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100)
        plot = LABELS / WIDTH, 16 / height, (WIDTH - LABELS - TEXTS) / WIDTH, ROW * len(bars) / height
        axes = figure.add_axes(plot, xlim=(0, max(bar.largest for bar in bars)), ylim=(len(bars) - 0.5, -0.5))
        axes.set_axis_off()
        figure.text(16 / WIDTH, 1 - ROW / 2 / height, title, size=12, va="center")
        for row, bar in enumerate(bars):
            axes.barh(row, bar.median, height=0.62, color=OURS if bar.ours else THEIRS)
            axes.plot([bar.smallest, bar.largest], [row, row], color="#555555", linewidth=2, clip_on=False)
            axes.annotate(bar.text, (bar.largest, row), (8, 0), textcoords="offset points", va="center", size=10)
            axes.annotate(
                bar.label, (0, row), (-8, 0), textcoords="offset points", va="center", ha="right", size=10
            )  # fmt: skip
        figure.savefig(path, metadata={"Software": None})
