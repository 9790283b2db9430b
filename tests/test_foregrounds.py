"""Foregrounds read before a run: what is known of them, and everything wrong with them told at once."""

import cv2
import numpy as np
import pytest
from mattes import soft_disc, write_mattes

from dptmat.data.foregrounds import read_foregrounds
from dptmat.errors import UserError
from dptmat.pipelines.crop_window import CELLS


@pytest.fixture
def folders(tmp_path):
    return write_mattes(tmp_path, [(120, 160), (200, 90)])


def test_sizes_unknown_pixels_and_opaque_cells(folders):
    fg, alpha = folders
    (first, second), empty = read_foregrounds(fg, alpha)
    assert (first.height, first.width, second.height, second.width) == (120, 160, 200, 90)
    assert empty == []
    matte = soft_disc(120, 160)
    x, y = (first.unknown * (160, 120)).astype(int).T
    near = cv2.dilate(matte, np.ones((3, 3))) > 0
    assert np.all(near[y, x] & (cv2.erode(matte, np.ones((3, 3)))[y, x] < 255))
    assert len(first.unknown) == 2048  # of some 2,300
    for row, column in zip(*np.nonzero(first.opaque), strict=True):
        cell = matte[
            row * 120 // CELLS : -(-(row + 1) * 120 // CELLS), column * 160 // CELLS : -(-(column + 1) * 160 // CELLS)
        ]
        assert (cell == 255).all()
    assert 0.02 < first.opaque.mean() < (matte == 255).mean()


def test_the_edge_of_a_binary_matte_is_unknown(folders):
    fg, alpha = folders
    cv2.imwrite(str(alpha / "0.png"), np.where(soft_disc(120, 160) > 127, 255, 0).astype(np.uint8))
    first = read_foregrounds(fg, alpha)[0][0]
    assert len(first.unknown) > 100


@pytest.mark.parametrize(("level", "reason"), [(0, "alpha is empty"), (255, "alpha is opaque")])
def test_a_matte_without_unknown_pixels_is_left_out_and_named(folders, level, reason):
    fg, alpha = folders
    cv2.imwrite(str(alpha / "1.png"), np.full((200, 90), level, np.uint8))
    good, [(path, told)] = read_foregrounds(fg, alpha)
    assert [foreground.height for foreground in good] == [120]
    assert path == alpha / "1.png"
    assert reason in told


def test_nothing_left_is_an_error(folders):
    fg, alpha = folders
    for i, shape in enumerate([(120, 160), (200, 90)]):
        cv2.imwrite(str(alpha / f"{i}.png"), np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="no matte has an unknown pixel"):
        read_foregrounds(fg, alpha)


def test_all_that_is_wrong_is_told_at_once(folders):
    fg, alpha = folders
    (alpha / "0.png").write_bytes((alpha / "0.png").read_bytes()[:200])
    cv2.imwrite(str(alpha / "1.png"), soft_disc(200, 91))
    with pytest.raises(UserError) as told:
        read_foregrounds(fg, alpha)
    lines = str(told.value).splitlines()
    assert len(lines) == 2
    assert "0.png cannot be read" in lines[0]
    assert "1: sizes differ: fg 90 x 200, alpha 91 x 200 pixels" in lines[1]


def test_a_missing_partner_is_named(folders):
    fg, alpha = folders
    (alpha / "1.png").unlink()
    with pytest.raises(UserError, match=r"`alpha` .*alpha has no partner of 1 of `fg`"):
        read_foregrounds(fg, alpha)
