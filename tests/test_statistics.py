"""Random trimaps, alphas, pairings and augmentations seen as samples: shares, chances and independence.

The tests of each operator compare it with a plain loop over the contract. Here no formula of the contract is known:
a contract that gave poor random numbers would fail as well. Every seed is fixed, so a test passes always or never;
the tolerances LIMIT and FAR are such that another SEED would raise a false alarm once in some 1000 times.
"""

from functools import cache

import numpy as np
import pytest
import torch
from ranges import make_augmentation

from dptmat import random_alpha, random_trimap, synthesize
from dptmat.kernels.philox import Stream, words

SEED = 2**40 + 12345  # both halves of the 64 bits are in use
IMAGES = 1_281_167  # photographs of ImageNet: two ids this far apart hold the same position of two epochs

LIMIT = 4.5  # a standard normal number is beyond it with a chance of 7e-6; about 140 are compared with it
FAR = 6.5  # beyond it with a chance of 8e-11: for the largest of many; about 140,000 are compared with it


def chi_square_deviate(statistic, degrees):
    """Turn a chi-square statistic into a standard normal number.

    By the cube root of Wilson and Hilferty; (x - k) / sqrt(2 k) has too heavy a tail where k is small.
    """
    variance = 2 / (9 * degrees)
    return ((statistic / degrees) ** (1 / 3) - (1 - variance)) / variance**0.5


def assert_evenly_spread(counts, constraints=1):
    """Refuse counts too far from equal ones, and too near, for one total (or more constraints) given."""
    expected = counts.sum() / counts.size
    assert expected > 20  # below, counts are not normal
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square_deviate(statistic, counts.size - constraints)) < LIMIT


def assert_standard_normal(z):
    """Refuse deviates of which one is far out, or which are together too wide, too narrow or to one side."""
    assert abs(z).max() < FAR
    assert abs(chi_square_deviate((z**2).sum(), z.size)) < LIMIT
    assert abs(z.sum() / z.size**0.5) < LIMIT


def assert_uncorrelated(sequences):
    """Refuse pairs of rows that go together, given [K, n] numbers.

    The correlation of two independent rows has mean 0 and variance 1 / (n - 1), whatever their values are, if all
    orders of one of them are equally likely; so this holds for exact shares of cells, too.
    """
    correlation = np.corrcoef(sequences)[np.triu_indices(len(sequences), 1)]
    assert_standard_normal(correlation * (sequences.shape[1] - 1) ** 0.5)


def assert_no_block_twice(sequences):
    """Refuse 16 bytes that come twice, wherever they stand, given uint8 [K, n]; chance: below 2**-90."""
    blocks = np.ascontiguousarray(sequences).reshape(-1, 16)
    assert len(np.unique(blocks.view("V16"))) == len(blocks)


def draw_noise(ids, seed, size, mode="pixel"):
    """Draw a byte for each pixel: uint8 [N, H, W]. In mode "block", too: the cells are single pixels."""
    trimap = torch.ones((len(ids), *size), dtype=torch.uint8)
    return random_alpha(trimap, torch.as_tensor(ids), seed, mode, cell=1).numpy()


SHARES = [  # size, cell, unknown, foreground; cells of each: background, unknown, foreground, counted by hand
    ((224, 224), 7, 0.75, 0.125, (128, 768, 128)),  # the paper's
    ((224, 224), 7, 1, 0, (0, 1024, 0)),
    ((30, 37), 7, 0.75, 0.125, (3, 23, 4)),  # 5 x 6 cells, 22.5 and 3.75
    ((100, 100), 7, 0.75, 0.125, (28, 169, 28)),  # 15 x 15 cells, 168.75 and 28.125
    ((33, 20), 10, 0.25, 0.5, (2, 2, 4)),  # 4 x 2 cells
    ((5, 9), 2, 0.5, 0.25, (3, 8, 4)),  # 3 x 5 cells, 7.5 and 3.75
    ((14, 15), 3, 1 / 3, 1 / 3, (9, 8, 8)),  # 5 x 5 cells, 8.33 twice
    ((131, 97), 16, 0, 0.4, (38, 0, 25)),  # 9 x 7 cells, 25.2
    ((61, 83), 1, 0.1, 0.2, (3544, 506, 1013)),  # 5063 cells, 506.3 and 1012.6
]


@pytest.mark.parametrize(("size", "cell", "unknown", "foreground", "counts"), SHARES)
def test_shares_of_cells_are_exact_in_every_sample(size, cell, unknown, foreground, counts):
    ids = torch.cat([torch.arange(10), torch.arange(10) * IMAGES + 2**35])
    trimap = random_trimap(ids, SEED, size, cell, unknown, foreground).numpy()
    cells = trimap[:, ::cell, ::cell]  # the upper left pixel of each, which no border cuts
    assert np.array_equal(trimap, cells.repeat(cell, 1)[:, : size[0]].repeat(cell, 2)[:, :, : size[1]])
    assert [tuple(np.bincount(sample.ravel(), minlength=3)) for sample in cells] == [counts] * 20


LAYOUTS = [  # rows and columns of cells, pixels of a cell, unknown, foreground, samples
    # Of 4**h cells, where the permutation needs no second pass, and of other numbers, where it does. Not below 30
    # cells: a permutation of 16 or fewer by a Feistel network is slightly uneven (seen with 200,000 samples).
    ((32, 32), 1, 0.75, 0.125, 2000),
    ((8, 8), 2, 0.5, 0.25, 2000),
    ((12, 12), 1, 0.75, 0.125, 2000),
    ((5, 6), 3, 0.5, 0.3, 2000),
]


@cache
def draw_cells(layout):
    """Draw the states of cells [S, rows, columns] at an image size that cuts the last row and column of cells."""
    (rows, columns), cell, unknown, foreground, samples = layout
    size = rows * cell - cell // 2, columns * cell - cell // 2
    ids = torch.arange(samples) + 2**33
    return random_trimap(ids, SEED, size, cell, unknown, foreground)[:, ::cell, ::cell].numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_cell_has_the_same_chances(layout):
    states = draw_cells(layout)
    samples, n = len(states), states[0].size
    for state in range(3):
        drawn = states == state
        share = drawn[0].mean()
        counts = drawn.sum(0)
        # A count has the variance S u (1 - u). Exact shares tie the cells of a sample: each two have the covariance
        # -u (1 - u) / (n - 1), which leaves n - 1 degrees of freedom and makes the sum n / (n - 1) times too large.
        statistic = ((counts - samples * share) ** 2).sum() / (samples * share * (1 - share)) * (n - 1) / n
        assert abs(chi_square_deviate(statistic, n - 1)) < LIMIT


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("state", [1, 2])
def test_neighbouring_cells_are_independent(layout, state):
    drawn = (draw_cells(layout) == state).astype(np.float32)
    samples, n = len(drawn), drawn[0].size
    share = drawn[0].mean(dtype=np.float64)
    # Drawn without replacement: (x - u) (y - u) of two cells has this mean, and its square the one below it. Products
    # of other pairs are all but uncorrelated with it, which joint frequencies are not (two pairs share a cell).
    mean = -share * (1 - share) / (n - 1)
    variance = (share * (1 - share)) ** 2 + (1 - 2 * share) ** 2 * mean - mean**2
    x = drawn - np.float32(share)
    for product in (x[:, :, :-1] * x[:, :, 1:], x[:, :-1] * x[:, 1:]):  # right neighbour, lower neighbour
        assert_standard_normal((product.sum(0, dtype=np.float64) - samples * mean) / (samples * variance) ** 0.5)


@pytest.mark.parametrize("mode", ["pixel", "block"])
def test_every_byte_is_as_frequent_at_each_position_of_a_block(mode):
    noise = draw_noise(np.arange(64), SEED, (128, 128), mode).reshape(-1, 16)  # 65,536 blocks
    assert_evenly_spread(np.bincount(noise.ravel(), minlength=256))
    for position in range(16):
        assert_evenly_spread(np.bincount(noise[:, position], minlength=256))


@pytest.mark.parametrize("mode", ["pixel", "block"])
def test_the_128_bits_of_a_block_are_balanced_and_independent(mode):
    bits = np.unpackbits(draw_noise(np.arange(32), SEED, (128, 128), mode).reshape(-1, 16), axis=1)
    assert_standard_normal((bits.sum(0) - len(bits) / 2) / (len(bits) / 4) ** 0.5)
    assert_uncorrelated(bits.T)


@pytest.mark.parametrize("mode", ["pixel", "block"])
def test_neighbouring_pixels_are_independent(mode):
    noise = draw_noise(np.arange(64), SEED, (128, 130), mode)
    pairs = [  # none overlap: the counts of overlapping pairs would not be independent
        (noise[:, :, ::2], noise[:, :, 1::2]),  # right neighbour, from even columns
        (noise[:, :, 1:-1:2], noise[:, :, 2::2]),  # from odd ones, which crosses from block to block
        (noise[:, ::2], noise[:, 1::2]),  # lower neighbour
        (noise[::2], noise[1::2]),  # the same pixel of the next sample
    ]
    for a, b in pairs:
        high, low = (a >> 4 << 4 | b >> 4), (a & 15) << 4 | b & 15
        assert_evenly_spread(np.bincount(high.ravel(), minlength=256))
        assert_evenly_spread(np.bincount(low.ravel(), minlength=256))


def test_alpha_is_independent_of_the_trimap():
    ids = torch.arange(40)
    trimap = random_trimap(ids, SEED, (140, 150))
    alpha = random_alpha(trimap, ids, SEED)
    assert_evenly_spread(torch.bincount(alpha[trimap == 1], minlength=256).numpy())


KEYS = {  # (seed, id) pairs that a weak mixing, or a lost half of 64 bits, would not tell apart
    "successive ids": [(SEED, i) for i in range(60)],
    "the same position of successive epochs": [(SEED, 7 + epoch * IMAGES) for epoch in range(60)],
    "ids with equal low 32 bits": [(SEED, 7)] + [(SEED, 7 + 2**b) for b in range(32, 63)],
    "ids differing in one bit": [(SEED, 7)] + [(SEED, 7 ^ 2**b) for b in range(63)],
    "successive seeds": [(seed, 7) for seed in range(60)],
    "seeds differing in one bit": [(SEED, 7)] + [(SEED ^ 2**b, 7) for b in range(64)],
    "seed and id exchanged": [(a, b) for a in range(2, 10) for b in range(2, 10)],
    "sums of seed and id": [(a, 40 - a) for a in range(40)],
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_other_seeds_and_ids_give_unrelated_samples(keys):
    size = 64, 64
    trimap = [random_trimap(torch.tensor([i]), seed, size, 1, 0.5, 0.25).numpy() for seed, i in keys]
    noise = [draw_noise([i], seed, size, mode) for mode in ("pixel", "block") for seed, i in keys]
    trimap, noise = (np.concatenate(samples).reshape(len(samples), -1) for samples in (trimap, noise))
    assert_no_block_twice(noise)
    assert_uncorrelated(np.concatenate([trimap == 1, noise]))  # 4096 cells or pixels of each


@pytest.mark.parametrize("seed", [0, SEED, 2**64 - 1])
def test_streams_share_no_word_and_are_unrelated(seed):
    ids = np.arange(8)
    noise = [draw_noise(ids, seed, (64, 64), mode) for mode in ("pixel", "block")]
    # Not list(Stream), which leaves out a second name of a number. The two streams of alpha are there as drawn.
    others = [stream for name, stream in Stream.__members__.items() if not name.startswith("ALPHA")]
    keys = [words(seed, stream, ids, 256).view(np.uint8).reshape(8, 64, 64) for stream in others]
    drawn = np.concatenate(noise + keys)
    assert_no_block_twice(drawn)
    assert_uncorrelated(drawn.reshape(len(drawn), -1))


@pytest.mark.parametrize("samples", [3, 8])
def test_every_shift_of_the_pairing_is_as_likely(samples):
    views = torch.zeros((samples, 1, 1, 3), dtype=torch.uint8)
    first_ids = 2**33 + np.arange(300) * samples  # successive batches of a run
    batches = (torch.arange(samples) + first for first in first_ids)
    shifts = np.array([synthesize(views, ids, SEED, cell=1).pairing[0].item() for ids in batches])
    counts = np.bincount(shifts, minlength=samples)
    assert counts[0] == 0
    assert_evenly_spread(counts[1:])
    # The next batch's shift does not follow from this one's: 1 - 1/(N - 1) of them differ, whatever the first is.
    same = (shifts[1:] == shifts[:-1]).sum()
    chance = 1 / (samples - 1)
    assert abs(same - 299 * chance) < LIMIT * (299 * chance * (1 - chance)) ** 0.5


def test_augmentations_are_even_and_independent():
    """Rotation, both scales and the size of the hue's turn, read back from the matrices."""

    def draw(ids):
        affine, color = make_augmentation(shear=0, hflip=0, vflip=0).matrices(ids, SEED, 224)
        rotation = np.degrees(np.arctan2(affine[:, 0, 1], affine[:, 0, 0])) / 60 + 0.5
        scale = (1 / np.hypot(affine[:, :, 0], affine[:, :, 1]) - 0.8) / 0.45
        cos = np.minimum((np.trace(color, axis1=1, axis2=2) - 1) / 2, 1)  # float32 may round it to a hair above 1
        hue = np.degrees(np.arccos(cos)) / 40
        return np.stack([rotation, *scale.T, hue])  # each uniform in 0..1

    ids = 2 * np.arange(8000)  # even: an odd shift gives samples of their own
    now = draw(ids)
    for parameter in now:
        assert_evenly_spread(np.histogram(parameter, 32, (0, 1))[0])
    later = [draw(ids + shift) for shift in (1, IMAGES, 2**32)]
    assert_uncorrelated(np.concatenate([now, *later]))
