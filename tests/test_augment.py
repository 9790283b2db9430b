"""The matrices of augmentation: their ranges, their meaning, and that they depend on seed and id alone."""

import numpy as np
import pytest
from ranges import make_augmentation

from dptmat.pipelines.augment import Augmentation

IDS = np.arange(4000, dtype=np.int64) + 2**40
NOTHING = {"rotation": 0.0, "scale_min": 1.0, "scale_max": 1.0, "shear": 0.0, "hflip": 0.0, "vflip": 0.0, "hue": 0.0}


def draw(ids=IDS, seed=1, size=224, **ranges):
    return Augmentation(**{**NOTHING, **ranges}).matrices(ids, seed, size)


def test_without_any_range_nothing_changes():
    affine, color = draw(IDS[:5])
    assert np.array_equal(affine, np.tile(np.float32([[1, 0, -112], [0, 1, -112]]), (5, 1, 1)))
    assert np.allclose(color, np.eye(3), atol=1e-6)  # the product of two rounded matrices


def test_the_centre_of_the_view_is_the_centre_of_the_photograph():
    affine, _ = make_augmentation().matrices(IDS, 1, 320)
    assert np.abs(affine @ np.float32([160, 160, 1])).max() < 1e-3  # pixels; float32 at 160


def test_rotation_keeps_lengths_and_fills_its_range():
    linear = draw(rotation=30.0)[0][:, :, :2]
    angle = np.degrees(np.arctan2(linear[:, 0, 1], linear[:, 0, 0]))
    assert np.allclose(linear @ linear.transpose(0, 2, 1), np.eye(2), atol=1e-6)
    assert -30 <= angle.min() < -29.9
    assert 29.9 < angle.max() <= 30
    assert abs(angle.mean()) < 4 * 60 / np.sqrt(12 * len(IDS))  # four standard errors of a uniform draw


def test_scale_is_a_magnification_drawn_apart_for_each_axis():
    linear = draw(scale_min=0.8, scale_max=1.25)[0]
    x, y = 1 / linear[:, 0, 0], 1 / linear[:, 1, 1]
    for scale in (x, y):
        assert 0.8 - 1e-6 <= scale.min() < 0.801
        assert 1.249 < scale.max() <= 1.25 + 1e-6
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(len(IDS))


def test_shear_slides_the_rows_by_the_tangent():
    linear = draw(shear=10.0)[0][:, :, :2]
    slant = np.degrees(np.arctan(linear[:, 0, 1]))
    assert np.allclose(linear[:, 1], [0, 1])  # rows stay rows, at their distance
    assert 9.9 < slant.max() <= 10.0001
    assert -10.0001 <= slant.min() < -9.9


def test_flips_come_with_their_chance_and_apart():
    linear = draw(hflip=0.5, vflip=0.25)[0]
    mirrored, upside_down = linear[:, 0, 0] < 0, linear[:, 1, 1] < 0
    assert abs(mirrored.mean() - 0.5) < 4 * np.sqrt(0.25 / len(IDS))
    assert abs(upside_down.mean() - 0.25) < 4 * np.sqrt(0.1875 / len(IDS))
    assert abs(np.corrcoef(mirrored, upside_down)[0, 1]) < 4 / np.sqrt(len(IDS))


def test_affine_equals_the_formula_in_plain_numbers():
    """[cos a * fx / sx, sin(a + t) * fx / sx; -sin a * fy / sy, cos(a + t) * fy / sy] / cos t, for one view."""
    from dptmat.kernels.philox import words

    unit = [int(word) / 2**32 for word in words(9, 3, np.array([77]), 2).ravel()]
    a, t = np.radians((2 * unit[0] - 1) * 30), np.radians((2 * unit[3] - 1) * 10)
    sx, sy = 0.8 + unit[1] * 0.45, 0.8 + unit[2] * 0.45
    fx, fy = (-1 if unit[4] < 0.5 else 1), (-1 if unit[5] < 0.5 else 1)
    linear = np.array(
        [[np.cos(a) * fx / sx, np.sin(a + t) * fx / sx], [-np.sin(a) * fy / sy, np.cos(a + t) * fy / sy]]
    ) / np.cos(t)
    expected = np.concatenate([linear, linear @ [[-50], [-50]]], axis=1)
    assert np.allclose(make_augmentation().matrices(np.array([77]), 9, 100)[0][0], expected, atol=1e-5)


def test_hue_rotation_keeps_grey_and_brightness_and_turns_red_towards_yellow():
    _, color = draw(hue=40.0)
    assert np.allclose(color @ np.float32([1, 1, 1]), 1, atol=1e-5)
    assert np.allclose(np.float32([0.299, 0.587, 0.114]) @ color, [0.299, 0.587, 0.114], atol=1e-5)
    strongest = {}
    for i in range(len(IDS)):
        red = color[i] @ np.float32([1, 0, 0])
        strongest[i] = red[1] - red[2]  # green over blue
    assert max(strongest.values()) > 0.2
    assert min(strongest.values()) < -0.2


def test_hue_of_120_degrees_turns_red_mostly_green():
    from dptmat.pipelines.augment import _hue_rotation

    red, green, blue = _hue_rotation(np.radians([120.0]))[0] @ np.float32([1, 0, 0])
    assert green > red
    assert green > blue


@pytest.mark.parametrize("other", [{"seed": 2}, {"ids": IDS + 1}])
def test_parameters_depend_on_seed_and_id(other):
    assert not np.array_equal(draw(rotation=30.0)[0], draw(rotation=30.0, **other)[0])


def test_a_view_does_not_depend_on_its_batch():
    whole, part = make_augmentation().matrices(IDS, 1, 224), make_augmentation().matrices(IDS[5:7], 1, 224)
    assert all(np.array_equal(a[5:7], b) for a, b in zip(whole, part, strict=True))
