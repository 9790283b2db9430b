"""The metrics equal their definition in plain loops, the published constants, and show each known quirk."""

import time

import cv2
import numpy as np
import pytest
from reference import metrics as plain

from dptmat import metrics
from dptmat.data.image_io import LEVELS

NAMES = ("sad", "mse", "grad", "conn", "mad")
STEPS = (26, 51, 77, 102, 128, 153, 179, 204, 230, 255)  # the least 8-bit value of each level of Conn


def picture(*rows):
    return np.array(rows, np.uint8)


def only(at, shape):
    """A trimap with one unknown pixel."""
    trimap = np.zeros(shape, np.uint8)
    trimap[at] = 128
    return trimap


def make(kind, random, shape):
    """An alpha as fuzzing should meet it."""
    if kind == "noise":
        return random.integers(0, 256, shape, np.uint8)
    if kind == "steps":  # on, just below and just above the levels of Conn
        return (random.choice(STEPS, shape) + random.integers(-1, 1, shape)).astype(np.uint8)
    if kind == "islands":  # regions of one size, so that their order counts
        return random.choice(picture(0, 0, 40, 160, 255), shape)
    if kind == "constant":
        return np.full(shape, random.integers(0, 256), np.uint8)
    coarse = random.integers(0, 256, (3, 3), np.uint8)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR)  # smooth


SHAPES = [(1, 1), (1, 4), (4, 1), (1, 13), (11, 1), (2, 2), (3, 8), (9, 7), (14, 12)]
KINDS = ["noise", "steps", "islands", "constant", "smooth"]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_equal_their_definition(shape):
    random = np.random.default_rng(shape)
    for kind in KINDS:
        for other in (kind, "smooth", "constant", "islands"):
            pred, alpha = make(kind, random, shape), make(other, random, shape)
            trimap = random.choice(picture(0, 127, 128, 128, 128, 129, 255), shape)
            for name in NAMES:
                expected = getattr(plain, name)(pred, alpha, trimap)
                result = getattr(metrics, name)(pred, alpha, trimap)
                assert isinstance(result, float)
                # Both compute in double precision, but Conn in plain loops, whose alphas are single: 6e-8 per pixel.
                tolerance = {"abs": 1e-8} if name == "conn" else {"rel": 1e-9, "abs": 1e-14}
                assert result == pytest.approx(expected, nan_ok=True, **tolerance), (name, kind, other)


def test_conn_of_many_small_pictures():
    """Ties, levels that change places and regions that touch by a corner come up often in 3 x 4 pixels."""
    random = np.random.default_rng(0)
    trimap = np.full((3, 4), 128, np.uint8)
    for i in range(400):
        pred, alpha = make(KINDS[i % 3], random, trimap.shape), make(KINDS[i // 3 % 3], random, trimap.shape)
        assert metrics.conn(pred, alpha, trimap) == pytest.approx(plain.conn(pred, alpha, trimap), abs=1e-9)


def test_hand_computed():
    pred, alpha = picture([255, 128, 0]), picture([255, 26, 51])
    assert metrics.sad(pred, alpha, picture([128] * 3)) == pytest.approx((102 + 51) / 255 / 1000, rel=1e-15)
    assert metrics.mse(pred, alpha, picture([128] * 3)) == pytest.approx((0.4**2 + 0.2**2) / 3, rel=1e-15)
    assert metrics.mse(pred, alpha, picture([128, 128, 0])) == pytest.approx(0.4**2 / 2, rel=1e-15)
    assert metrics.mad(pred, alpha, picture([128] * 3)) == pytest.approx((0.4 + 0.2) / 3, rel=1e-15)
    assert metrics.mad(pred, alpha, picture([0, 128, 128])) == pytest.approx((0.4 + 0.2) / 2, rel=1e-15)
    # Levels: 1; 0.1, as 26 reaches 0.1 but not 0.2; 0. Above them: 0, 0; 0.402 and 0.002, which is cut; 0 and 0.2.
    expected = (128 / 255 - 0.1 + 51 / 255) / 1000
    assert metrics.conn(pred, alpha, picture([128] * 3)) == pytest.approx(expected, rel=1e-14)


# ---- Grad


def test_norm_of_the_plain_kernel_is_the_published_one():
    assert plain.kernel()[1] == pytest.approx(0.1017678191555374, rel=1e-14)


def amplitude_at(at, image):
    """What Grad sees at one pixel: a constant has no gradient."""
    return np.sqrt(1000 * metrics.grad(image, np.zeros_like(image), only(at, image.shape)))


def test_kernel_is_the_published_one():
    dot = np.zeros((9, 9), np.uint8)
    dot[4, 4] = 255
    row = [0.027486976682, 0.122945913444, 0.293474169401, 0.315433716138, 0]
    expected = [*row, *row[3::-1]]
    assert [amplitude_at((4, x), dot) for x in range(9)] == pytest.approx(expected, abs=1e-12)
    assert [amplitude_at((y, 4), dot) for y in range(9)] == pytest.approx(expected, abs=1e-12)
    # The squared weights of both kernels add up to 1 each.
    assert metrics.grad(dot, np.zeros_like(dot), np.full_like(dot, 128)) == pytest.approx(2 / 1000, rel=1e-14)


def test_step_and_ramp_are_the_published_ones():
    step = np.zeros((20, 20), np.uint8)
    step[:, 10:] = 255
    assert max(amplitude_at((10, x), step) for x in range(20)) == pytest.approx(2.6620, abs=5e-5)
    assert amplitude_at((10, 0), step) == 0
    ramp = np.tile(np.arange(256, dtype=np.uint8), (9, 1))
    assert 255 * amplitude_at((4, 100), ramp) == pytest.approx(9.6838, abs=5e-5)


def test_borders_are_replicated():
    rows = np.tile(picture([0], [255], [0], [0]), (1, 9))
    assert amplitude_at((2, 0), rows) == pytest.approx(amplitude_at((2, 4), rows), rel=1e-12)


def test_grad_sees_neither_offset_nor_contrast():
    random = np.random.default_rng(0)
    alpha = random.integers(0, 2, (20, 30), np.uint8) * 255
    trimap = random.choice(picture(0, 128, 255), alpha.shape)
    assert metrics.grad((alpha // 5) + 60, alpha, trimap) == pytest.approx(0, abs=1e-15)
    errors = {metrics.grad(np.full_like(alpha, value), alpha, trimap) for value in (0, 1, 100, 255)}
    assert len(errors) == 1
    assert errors.pop() > 0.1


def test_grad_looks_at_the_known_regions():
    alpha = np.full((9, 9), 255, np.uint8)
    alpha[:, 5:] = 0
    pred = alpha.copy()
    pred[0, 8] = 255
    assert metrics.grad(pred, alpha, only((4, 4), alpha.shape)) > 0  # 4 rows and columns away: a corner of the kernel
    assert metrics.grad(pred, alpha, only((5, 4), alpha.shape)) == 0
    pred = alpha // 2
    pred[0, 8] = 255  # out of reach, but the stretch now leaves the step half as high
    assert metrics.grad(pred, alpha, only((8, 4), alpha.shape)) > 0.1 / 1000


# ---- Conn


def test_153_reaches_the_level_of_0_6():
    """A pixel stays up to the last step that it reaches; of the other alpha, 255, the rest is counted."""
    alpha, trimap = np.full((2, 2), 255, np.uint8), only((0, 0), (2, 2))
    for level, value in enumerate(STEPS, 1):
        for low, expected in ((value, level), (value - 1, level - 1)):
            pred = alpha.copy()
            pred[0, 0] = low
            above = 1 - expected / 10
            assert metrics.conn(pred, alpha, trimap) == pytest.approx((above if above > 0.15 else 0) / 1000, abs=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_of_regions_of_one_size_the_first_by_columns_counts(turned):
    """The left region counts, whether it lies below the right one or above."""
    both = picture([0, 0, 255, 255], [255, 255, 0, 0])
    alpha, at = (both[::-1].copy(), [(0, 0), (1, 2)]) if turned else (both, [(1, 0), (0, 2)])
    pred = alpha.copy()
    for here in at:
        pred[here] = 200
    first, second = (metrics.conn(pred, alpha, only(here, pred.shape)) for here in at)
    # The left region counts up to 0.7, above which lie 0.3 and 0.084, which is cut. The right one is out at level 0.
    assert first == pytest.approx(0.3 / 1000, rel=1e-12)
    assert second == pytest.approx(55 / 255 / 1000, rel=1e-12)


def test_what_dropped_out_stays_out():
    """The right region is the smaller one up to 0.3, and the larger one from 0.4; its level stays 0."""
    alpha = picture([100, 100, 100, 0, 255, 255])
    pred = picture([100, 100, 100, 0, 255, 204])
    assert metrics.conn(pred, alpha, only((0, 5), alpha.shape)) == pytest.approx(51 / 255 / 1000, rel=1e-12)


def test_corners_do_not_connect():
    alpha = picture([255, 255, 0], [0, 0, 255])
    pred = picture([255, 255, 0], [0, 0, 204])
    assert metrics.conn(pred, alpha, only((1, 2), alpha.shape)) == pytest.approx(0.2 / 1000, rel=1e-12)


def test_conn_looks_at_the_known_regions():
    alpha, unknown = picture([255, 255, 255, 255, 200]), only((0, 4), (1, 5))
    # Connected, the pixel stays up to 0.7: 55 / 255 are cut on one side. Known pixels that part it make its level 0.
    assert metrics.conn(picture([255, 255, 255, 255, 255]), alpha, unknown) == pytest.approx(0.3 / 1000)
    assert metrics.conn(picture([255, 255, 255, 0, 255]), alpha, unknown) == pytest.approx(55 / 255 / 1000)


def test_conn_may_exceed_sad_and_be_0_where_sad_is_not():
    unknown = only((0, 3), (1, 4))
    pred, alpha = picture([255, 255, 0, 39]), picture([255, 255, 0, 38])  # parted: only 39 lies 0.15 above level 0
    assert metrics.sad(pred, alpha, unknown) == pytest.approx(1 / 255 / 1000)
    assert metrics.conn(pred, alpha, unknown) == pytest.approx(39 / 255 / 1000)
    pred[0, 3], alpha[0, 3] = 38, 0
    assert metrics.sad(pred, alpha, unknown) == pytest.approx(38 / 255 / 1000)
    assert metrics.conn(pred, alpha, unknown) == 0


# ---- the unknown region


def test_only_128_is_unknown():
    random = np.random.default_rng(0)
    pred, alpha = (random.integers(0, 256, (1, 5), np.uint8) for _ in range(2))
    everything = picture([0, 127, 129, 255, 3])
    for name in ("sad", "grad", "conn"):
        assert getattr(metrics, name)(pred, alpha, everything) == 0
    assert np.isnan(metrics.mse(pred, alpha, everything))


def test_nothing_is_changed_and_any_memory_order_is_read():
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (12, 18), np.uint8) for _ in range(2)] + [
        random.choice(picture(0, 128, 255), (12, 18))
    ]
    kept = [each.copy() for each in pictures]
    for each in pictures:
        each.flags.writeable = False
    views = [np.asfortranarray(pictures[0]), pictures[1][::-1].copy()[::-1], np.repeat(pictures[2], 2, 1)[:, ::2]]
    for name in NAMES:
        expected = getattr(metrics, name)(*pictures)
        assert getattr(metrics, name)(*views) == expected
        swapped = getattr(metrics, name)(pictures[1], pictures[0], pictures[2])
        assert swapped == pytest.approx(expected, rel=1e-12)
    assert all(np.array_equal(*each) for each in zip(pictures, kept, strict=True))


@pytest.mark.timing
def test_800_pixels_take_less_than_half_a_second():
    random = np.random.default_rng(0)
    alpha = cv2.resize(random.integers(0, 256, (60, 80), np.uint8), (800, 600))
    pred = random.integers(0, 256, alpha.shape, np.uint8)  # noise has the most regions
    trimap = np.full_like(alpha, 128)
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        for name in NAMES:
            getattr(metrics, name)(pred, alpha, trimap)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.5


# ---- bad input

GREY = np.full((4, 5), 128, np.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (GREY / 255, GREY, GREY),
            TypeError,
            "pred must be a NumPy array of uint8, got float64; give alphas as 0..255",
        ),
        ((GREY, GREY.astype(np.uint16), GREY), TypeError, "alpha must be a NumPy array of uint8, got uint16"),
        ((GREY, GREY, GREY > 0), TypeError, "trimap must be a NumPy array of uint8, got bool"),
        ((GREY.tolist(), GREY, GREY), TypeError, "pred must be a NumPy array of uint8, got list"),
        ((GREY, GREY[..., None], GREY), ValueError, r"alpha must be \[H, W\] with a pixel or more, got \[4, 5, 1\]"),
        ((GREY[:0], GREY[:0], GREY[:0]), ValueError, r"pred must be \[H, W\] with a pixel or more, got \[0, 5\]"),
        ((GREY, GREY.T, GREY), ValueError, r"sizes differ: pred \[4, 5\], alpha \[5, 4\], trimap \[4, 5\]"),
        (
            (GREY, GREY, GREY // 128),
            ValueError,
            r"trimap holds 0, 1 and 2, .* map them first",
        ),
    ],
)
def test_wrong_input_is_refused(name, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(metrics, name)(*arguments)


def test_a_trimap_of_the_library_is_mapped_by_levels():
    trimap = picture([0, 1, 2])
    assert metrics.sad(picture([0, 0, 0]), picture([255, 255, 255]), LEVELS[trimap]) == pytest.approx(1 / 1000)
    assert metrics.sad(picture([0, 0]), picture([255, 255]), picture([0, 2])) == 0  # nothing unknown, either way
