"""The window of a sample: where it lies, that it holds what is to be found, and that all choices have their chances."""

import numpy as np
import pytest
from ranges import make_augmentation, make_recipe

from dptmat.pipelines.crop_window import CELLS, CHOICES, Foreground, draw_second_foregrounds, draw_windows

IDS = np.arange(2000)


def foreground(height=900, width=1400, unknown=None, opaque=False):
    grid = np.stack(np.meshgrid(np.linspace(0.3, 0.7, 20), np.linspace(0.4, 0.6, 20)), -1).reshape(-1, 2)
    unknown = np.float32(grid if unknown is None else unknown).reshape(-1, 2)
    return Foreground("fg", "alpha", height, width, unknown, np.full((CELLS, CELLS), opaque))


def draw(first, second=None, ids=IDS, seed=3, size=512, **recipe):
    pair = [first] * len(ids), [second or first] * len(ids)
    return draw_windows(ids, seed, *pair, size, make_recipe(**recipe))


def column(windows, name):
    return windows.choices[:, CHOICES.index(name)]


def to_frame(windows, points, first, size, recipe):
    """Positions of the frame, relative to it, that points of the window (with margin) show: [N, 2], x and y."""
    in_part = np.einsum("nij,j->ni", windows.matrix[:, :, :2], points) + windows.matrix[:, :, 2]
    start, end = windows.region[:, 0, ::-1], windows.region[:, 1, ::-1]
    return start + in_part / windows.shape[:, ::-1] * (end - start)


def test_the_middle_of_the_window_is_an_unknown_pixel():
    recipe = make_recipe()
    first = foreground(unknown=[[0.45 + 0.001 * i, 0.5] for i in range(20)])
    windows = draw(first)
    middle = np.full(2, 512 / 2 + recipe.margin)
    seen = to_frame(windows, middle, first, 512, recipe)
    # up to a pixel of the crop's place in whole pixels of the scene, and 1.25 of those of the frame
    nearest = np.abs(seen[:, None] - first.unknown).max(-1).min(1)
    assert np.median(nearest) < 2 / 900
    assert (nearest < 3 / 640).mean() > 0.99  # a few are too near to a corner of a rotated frame


def test_with_few_unknown_pixels_the_crop_is_anywhere():
    windows = draw(foreground(unknown=[[0.5, 0.5]] * 9), squeeze=0.0)
    starts = windows.background_window[:, 0]
    limit = 1 - 512 / np.array([900, 1400])
    assert starts.min() >= 0
    assert np.all(starts.max(0) <= limit + 1e-6)
    assert np.all(starts.mean(0) == pytest.approx(limit / 2, rel=0.05))


@pytest.mark.parametrize(("height", "width"), [(900, 1400), (100, 300), (512, 513), (5, 7), (3000, 200)])
def test_the_part_of_the_file_covers_the_window(height, width):
    """No pixel of the window inside the frame lies outside the part that is resized."""
    recipe = make_recipe()
    first = foreground(height, width)
    windows = draw(first, ids=IDS[:200])
    start, end = windows.region[:, 0], windows.region[:, 1]
    assert start.min() >= 0
    assert end.max() <= 1
    assert np.all(end > start)
    side = 512 + 2 * recipe.margin
    for point in ((0, 0), (0, side), (side, 0), (side, side), (side / 2, 0)):
        seen = np.clip(to_frame(windows, np.array(point, float), first, 512, recipe), 0, 1)[:, ::-1]
        assert np.all(seen >= start - 1e-4)
        assert np.all(seen <= end + 1e-4)


def test_the_background_is_seen_without_rotation_at_the_place_of_the_crop():
    windows = draw(foreground(), squeeze=0.0)
    assert np.allclose(
        (windows.background_window[:, 1] - windows.background_window[:, 0]) * (900, 1400), 512, atol=1e-3
    )
    small = draw(foreground(200, 300), squeeze=0.0)  # enlarged to 1.1 * 512 at the shorter side
    assert np.allclose(
        (small.background_window[:, 1] - small.background_window[:, 0]) * (200, 300) * 1.1 * 512 / 200, 512, atol=1e-3
    )


def test_small_foregrounds_are_not_rotated():
    still = make_augmentation(shear=0.0, scale_min=1.0, scale_max=1.0, hflip=0.0, vflip=0.0)
    turned = draw(foreground(), squeeze=0.0, augmentation=still, interpolation=False).matrix
    straight = draw(foreground(900, 1023), squeeze=0.0, augmentation=still, interpolation=False).matrix
    assert np.degrees(np.arctan2(turned[:, 0, 1], turned[:, 0, 0])).std() == pytest.approx(60 / 12**0.5, rel=0.05)
    assert np.allclose(straight[:, :, :2], np.eye(2), atol=1e-6)


def test_choices_have_their_chances():
    windows = draw(foreground())
    assert windows.combined.mean() == pytest.approx(0.5, abs=0.04)
    assert np.array_equal(column(windows, "combined"), windows.combined)
    for name, low, high in (
        ("fg_width", 1, 29), ("bg_width", 1, 29), ("hue", -40, 39), ("os4_width", 1, 29), ("os1_width", 1, 14)
    ):  # fmt: skip
        values, counts = np.unique(column(windows, name), return_counts=True)
        assert np.array_equal(values, np.arange(low, high + 1)), name
        expected = len(IDS) / len(values)
        # chi-square of n cells has mean n and deviation sqrt(2n): four of them
        assert ((counts - expected) ** 2 / expected).sum() < len(values) + 4 * (2 * len(values)) ** 0.5, name
    for name in ("saturation", "value"):
        assert column(windows, name).min() < -0.99
        assert column(windows, name).max() > 0.99
        assert abs(column(windows, name).mean()) < 0.05
    names = [name for name in CHOICES if name != "combined"]
    together = np.corrcoef([column(windows, name) for name in names])
    assert np.abs(together - np.eye(len(names))).max() < 0.1
    kinds = np.stack([np.bincount(windows.filters[:, i], minlength=4) for i in range(3)])
    assert kinds.min() > 400
    assert np.all(draw(foreground(), interpolation=False).filters == 1)
    assert np.unique(draw_second_foregrounds(IDS, 3, 7), return_counts=True)[1].min() > 230


def test_a_sample_does_not_depend_on_the_others():
    whole = draw(foreground(), ids=np.arange(50))
    part = draw(foreground(), ids=np.arange(20, 30))
    for a, b in zip(whole, part, strict=True):
        assert np.array_equal(a[20:30], b)
    assert not np.array_equal(draw(foreground(), ids=np.arange(50), seed=4).choices, whole.choices)


def test_a_foreground_that_covers_all_is_not_combined():
    """Where one matte is opaque the other's unknown pixels are gone; nothing would be left to find."""
    covered = foreground(unknown=[[0.5, 0.5]])._replace(opaque=np.ones((CELLS, CELLS), bool))
    opaque_middle = foreground(opaque=True)
    assert not draw(covered, opaque_middle).combined.any()
    left = foreground(unknown=[[0.1, 0.5]] * 20)
    opaque_at_the_right = left._replace(opaque=np.tile(np.arange(CELLS) >= CELLS // 2, (CELLS, 1)))
    windows = draw(left, opaque_at_the_right)
    assert windows.combined.mean() > 0.4
