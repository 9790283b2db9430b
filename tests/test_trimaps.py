"""Made trimaps: a function of name and seed, true to the alpha, and of the width that was asked for."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dptmat.data.trimaps import WIDEST, from_alpha, from_mask, from_matte


def edge(side=99):
    """An alpha that is 255 in its left half and 0 in its right: uint8 [side, side]."""
    alpha = np.zeros((side, side), np.uint8)
    alpha[:, : side // 2] = 255
    return alpha


def width_of(name, seed=0):
    """Of the ellipse, as it shows at a straight edge: it takes width - 1 pixels of both sides together."""
    row = from_alpha(edge(), name, seed)[50]
    assert set(row) <= {0, 1, 2}
    return 1 + int((row == 1).sum())


def test_widths_are_spread_over_1_to_20():
    widths = np.bincount([width_of(f"{i}") for i in range(2000)], minlength=WIDEST + 1)
    assert widths[0] == 0
    assert len(widths) == WIDEST + 1 == 21
    # Each is binomial with mean 100 and standard deviation 9.7; five of these are crossed once in 10^5 runs.
    assert np.abs(widths[1:] - 100).max() < 49


def test_a_trimap_follows_from_name_and_seed_alone():
    first = {name: from_alpha(edge(), name) for name in "abcdefghij"}
    for name in reversed(first):
        np.testing.assert_array_equal(from_alpha(edge(), name, 0), first[name])
    assert len({width_of(name) for name in first}) > 3
    assert [width_of(name, 1) for name in first] != [width_of(name) for name in first]
    # A contract: scores of an earlier version stay comparable.
    assert [width_of(name) for name in ("GT04", "cat_0", "caf\udce9", "")] == [18, 16, 20, 12]


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (37, 53)])
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_what_is_marked_known_is_so_in_alpha(shape, name):
    random = np.random.default_rng(0)
    alpha = cv2.resize(random.integers(0, 2, (5, 6), np.uint8) * 255, shape[::-1], interpolation=cv2.INTER_LINEAR)
    trimap = from_alpha(alpha, name)
    assert trimap.dtype == np.uint8
    assert trimap.shape == alpha.shape
    assert (alpha[trimap == 2] == 255).all()
    assert (alpha[trimap == 0] == 0).all()
    assert (trimap[(alpha > 0) & (alpha < 255)] == 1).all()


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_an_alpha_of_one_value_has_no_edge(value):
    expected = {0: 0, 255: 2}.get(value, 1)
    for name in "abcd":
        assert (from_alpha(np.full((40, 30), value, np.uint8), name) == expected).all()


def test_a_thin_hair_leaves_no_known_pixel_near():
    alpha = np.zeros((99, 99), np.uint8)
    alpha[:, 50] = 3
    for name in "abcd":
        trimap = from_alpha(alpha, name)
        unknown = np.flatnonzero((trimap == 1).any(0))
        assert len(unknown) == width_of(name)
        assert (trimap[:, unknown] == 1).all()
        assert unknown[0] <= 50 <= unknown[-1]


def plain_distance(mask):
    """To the nearest pixel of the other side, one by one; infinite where there is none."""
    distance = np.full(mask.shape, np.inf)
    for (y, x), value in np.ndenumerate(mask):
        other = np.argwhere(mask != value)
        if len(other):
            distance[y, x] = np.sqrt(((other - [y, x]) ** 2).sum(1)).min()
    return distance


@pytest.mark.parametrize("shape", [(1, 1), (1, 23), (23, 1), (24, 31)])
@pytest.mark.parametrize("width", [0, 1, 2, 5, 10, 100])
def test_a_mask_is_unknown_within_the_width_of_its_outline(shape, width):
    random = np.random.default_rng(sum(shape))
    mask = cv2.resize(random.integers(0, 256, (3, 4), np.uint8), shape[::-1])
    inside = mask >= 128
    trimap = from_mask(mask, width)
    assert trimap.dtype == np.uint8
    np.testing.assert_array_equal(trimap, np.where(plain_distance(inside) <= width, 1, 2 * inside))


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (127, 0), (128, 2), (255, 2)])
def test_foreground_is_from_128_and_the_border_no_outline(value, expected):
    assert (from_mask(np.full((20, 30), value, np.uint8), 5) == expected).all()


def test_distances_are_exact_on_the_diagonal():
    mask = np.zeros((50, 50), np.uint8)
    mask[25, 25] = 255
    unknown = from_mask(mask, 5) == 1
    assert unknown[22, 21]  # 3, 4: 5 pixels away
    assert unknown[20, 25]
    assert not unknown[21, 21]  # 5.66
    assert unknown.sum() == 81  # points of the grid within 5 of the origin (Gauss's circle problem)


@given(st.integers(0, 2**64 - 1), st.text(max_size=20))
def test_any_name_and_seed(seed, name):
    assert from_alpha(edge(9), name, seed).max() <= 2


def shrink(mask, width):
    """Erode by a disc of this radius that is written out, and grown beyond the border: bool [H, W]."""
    reach = int(width)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (y**2 + x**2 <= width**2).astype(np.uint8)
    return cv2.erode(mask.astype(np.uint8), disc, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0


def strands(shape=(60, 80)):
    """An opaque body, a hole, hairs that are opaque, faint and slanting, and a soft edge: uint8 [H, W]."""
    alpha = np.zeros(shape, np.uint8)
    cv2.ellipse(alpha, (30, 34), (20, 16), 20, 0, 360, 255, -1)
    cv2.circle(alpha, (26, 34), 2, 0, -1)
    alpha = cv2.GaussianBlur(alpha, (5, 5), 0)
    alpha[10:20, 60] = 255
    alpha[50, 50:78] = 2
    for i in range(20):
        alpha[30 + i // 2, 52 + i] = 90
    return alpha


@pytest.mark.parametrize("inward", [0, 1, 2.5, 7, 30])
@pytest.mark.parametrize("outward", [0, 1, 4, 9.5, 200])
def test_both_parts_of_a_matte_are_shrunk_by_a_disc_each(inward, outward):
    alpha = strands()
    trimap = from_matte(alpha, inward, outward)
    assert trimap.dtype == np.uint8
    np.testing.assert_array_equal(trimap == 2, shrink(alpha == 255, inward))
    np.testing.assert_array_equal(trimap == 0, shrink(alpha == 0, outward))
    assert trimap.max() <= 2


@given(st.integers(0, 2**32 - 1), st.floats(0, 30), st.floats(0, 30), st.floats(0, 10))
def test_a_wider_trimap_knows_less_and_nothing_else(seed, inward, outward, more):
    noise = np.random.default_rng(seed).integers(-200, 456, (4, 5)).clip(0, 255).astype(np.uint8)
    alpha = cv2.resize(noise, (24, 17), interpolation=cv2.INTER_NEAREST)
    alpha[seed % 17] //= 2
    narrow, wide = from_matte(alpha, inward, outward), from_matte(alpha, inward + more, outward + more)
    known = wide != 1
    np.testing.assert_array_equal(wide[known], narrow[known])
    # What alpha says of known pixels is what the trimap says.
    np.testing.assert_array_equal(alpha[narrow != 1], narrow[narrow != 1] // 2 * 255)
    # The widths of the two sides have nothing to do with each other.
    np.testing.assert_array_equal(from_matte(alpha, inward, outward + more) == 2, narrow == 2)
    np.testing.assert_array_equal(from_matte(alpha, inward + more, outward) == 0, narrow == 0)


def test_a_width_of_0_keeps_a_part_as_it_is():
    alpha = strands()
    np.testing.assert_array_equal(from_matte(alpha, 0, 9) == 2, alpha == 255)
    np.testing.assert_array_equal(from_matte(alpha, 9, 0) == 0, alpha == 0)


@pytest.mark.parametrize("width", [0, 1, 3, 10])
def test_no_hair_is_lost_however_thin_or_faint(width):
    alpha = strands()
    assert (from_matte(alpha, width, width)[alpha > 0] >= 1).all()
    hair = np.s_[10:20, 60]
    assert (from_matte(alpha, width, width)[hair] == (1 if width else 2)).all()
    assert (from_mask(alpha, width)[hair] == (1 if width else 2)).all()
    assert (from_mask(alpha, width)[alpha >= 128] >= 1).all()


def test_a_mask_has_two_widths_as_a_matte_of_two_values_has():
    mask = strands()
    hard = np.where(mask >= 128, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(from_mask(mask, 2, 6), from_matte(hard, 2, 6))
    np.testing.assert_array_equal(from_mask(mask, 4), from_mask(mask, 4, 4))
    assert (from_mask(mask, 2, 6) != from_mask(mask, 6, 2)).any()
