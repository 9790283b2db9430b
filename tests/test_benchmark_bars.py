"""The bars of the benchmarks: as long as their numbers, each in the color of its kind."""

import cv2
import numpy as np
import pytest


def test_bars_are_as_long_as_their_numbers(import_benchmark, tmp_path):
    bars = import_benchmark("bars")
    rows = [bars.Bar("ours", 20, 19, 22, "20", True), bars.Bar("theirs", 5, 5, 5, "5", False)]
    bars.draw_bars("images/s", rows, tmp_path / "new" / "bars.png")
    image = cv2.imread(str(tmp_path / "new/bars.png"))
    assert image.shape[1] == bars.WIDTH
    lengths = [np.count_nonzero((image == color).all(2), axis=1).max() for color in ((46, 138, 224), (189, 189, 189))]
    longest = bars.WIDTH - bars.LABELS - bars.TEXTS
    # edges are blended over a pixel
    assert lengths == [pytest.approx(longest * 20 / 22, abs=2), pytest.approx(longest * 5 / 22, abs=2)]
