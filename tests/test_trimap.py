"""Random trimaps: equal to a plain loop over pixels, with exact shares in every sample."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.permutation import plain_keys, plain_permute

from dptmat.kernels import random_trimap


def plain_trimap(ident, seed, height, width, cell, unknown, foreground):
    """Draw one trimap pixel by pixel, from the text of the contract."""
    rows, columns = math.ceil(height / cell), math.ceil(width / cell)
    n = rows * columns
    n_unknown, n_foreground = math.floor(unknown * n + 0.5), math.floor(foreground * n + 0.5)
    keys = plain_keys(seed, 0, ident)
    states = []
    for c in range(n):
        pi = plain_permute(c, n, keys)
        states.append(1 if pi < n_unknown else 2 if pi < n_unknown + n_foreground else 0)
    return [[states[(y // cell) * columns + x // cell] for x in range(width)] for y in range(height)]


@settings(deadline=None, max_examples=25)
@given(
    ids=st.lists(st.integers(0, 2**63 - 1), max_size=3),
    seed=st.integers(0, 2**64 - 1),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    data=st.data(),
)
def test_equal_to_the_plain_loop(ids, seed, size, data):
    cell = data.draw(st.integers(1, max(size)))
    unknown = data.draw(st.floats(0, 1))
    foreground = data.draw(st.floats(0, 1 - unknown))
    trimap = random_trimap(torch.tensor(ids, dtype=torch.int64), seed, size, cell, unknown, foreground)
    assert trimap.dtype == torch.uint8
    assert trimap.shape == (len(ids), *size)
    assert trimap.tolist() == [plain_trimap(i, seed, *size, cell, unknown, foreground) for i in ids]


def test_a_share_is_rounded_once():
    """0.02 of 29 * 25 cells is 14.5, rounded up to 15; 0.02 * 29 * 25 from left to right is a hair less."""
    trimap = random_trimap(torch.arange(3), 0, (29, 25), cell=1, unknown=0.02, foreground=0.02)
    assert [(row == 1).sum() for row in trimap] == [15, 15, 15]
    assert [(row == 2).sum() for row in trimap] == [15, 15, 15]


def test_shares_of_one_and_none():
    ids = torch.arange(2)
    assert (random_trimap(ids, 0, (9, 9), unknown=1, foreground=0) == 1).all()
    assert (random_trimap(ids, 0, (9, 9), unknown=0, foreground=1) == 2).all()
    assert (random_trimap(ids, 0, (9, 9), unknown=0, foreground=0) == 0).all()


def test_operator_is_registered_rightly():
    args = (torch.arange(3), -1, 20, 30, 7, 0.5, 0.25)  # seed -1: the 64 bits of 2**64 - 1
    torch.library.opcheck(torch.ops.dptmat.random_trimap.default, args)


IDS = torch.arange(2)
BAD_CALLS = [
    (TypeError, "ids must be torch.int64, got torch.int32", {"ids": IDS.int()}),
    (TypeError, "ids must be a torch.int64 tensor, got list", {"ids": [0, 1]}),
    (ValueError, r"ids must have the shape \[any\], got \[2, 1\]", {"ids": IDS[:, None]}),
    (ValueError, "ids must be 0 or more, got -3", {"ids": IDS - 3}),
    (ValueError, "seed must be from 0", {"seed": 2**64}),
    (ValueError, "seed must be from 0", {"seed": -1}),
    (TypeError, "seed must be an int, got str", {"seed": "0"}),
    (TypeError, r"size must be \(height, width\) in pixels, got 28", {"size": 28}),
    (TypeError, r"size must be \(height, width\) in pixels, got \(28.0, 28\)", {"size": (28.0, 28)}),
    (TypeError, "cell must be an int, got 2.5", {"cell": 2.5}),
    (TypeError, "foreground must be a number, got None", {"foreground": None}),
    (ValueError, "size must be 1 to .* got height 0", {"size": (0, 28)}),
    (ValueError, "size must be 1 to .* pixels", {"size": (2**16, 2**15)}),
    (ValueError, "cell must be from 1 to the image's longer side, 28 pixels, got 0", {"cell": 0}),
    (ValueError, "cell must be from 1 to the image's longer side, 28 pixels, got 29", {"cell": 29}),
    (ValueError, "unknown must be a share from 0 to 1, got 75", {"unknown": 75}),
    (ValueError, "foreground must be a share from 0 to 1, got -0.1", {"foreground": -0.1}),
    (ValueError, "unknown must be a share from 0 to 1, got nan", {"unknown": float("nan")}),
    (ValueError, "must not add up to more than 1, got 0.75 and 0.5", {"foreground": 0.5}),
]


@pytest.mark.parametrize(("error", "message", "bad"), BAD_CALLS)
def test_a_wrong_call_ends_in_a_sentence(error, message, bad):
    with pytest.raises(error, match=message):
        random_trimap(**{"ids": IDS, "seed": 0, "size": (28, 28), **bad})
