"""Made trimaps: a function of name and seed, true to the alpha, and of the width that was asked for."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dptmat.data.trimaps import WIDEST, from_alpha, from_mask


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
