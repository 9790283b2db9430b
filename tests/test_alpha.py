"""Random alphas: equal to a plain loop over pixels, fixed outside the unknown region."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.philox import plain_bytes

from dptmat.kernels import random_alpha, random_trimap


def plain_alpha(trimap, ident, seed, mode, cell):
    """Draw one alpha pixel by pixel, from the text of the contract."""
    height, width = len(trimap), len(trimap[0])
    columns = -(-width // cell)
    if mode == "pixel":
        drawn = plain_bytes(seed, 1, ident, height * width)
    else:
        drawn = plain_bytes(seed, 2, ident, -(-height // cell) * columns)
    out = []
    for y in range(height):
        positions = [y * width + x if mode == "pixel" else y // cell * columns + x // cell for x in range(width)]
        out.append([(0, drawn[i], 255)[state] for state, i in zip(trimap[y], positions, strict=True)])
    return out


@settings(deadline=None, max_examples=25)
@given(
    ids=st.lists(st.integers(0, 2**63 - 1), max_size=3),
    seed=st.integers(0, 2**64 - 1),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(["pixel", "block"]),
    data=st.data(),
)
def test_equal_to_the_plain_loop(ids, seed, size, mode, data):
    cell = data.draw(st.integers(1, max(size)))
    trimap = torch.from_numpy(np.random.default_rng(len(ids)).integers(0, 3, (len(ids), *size), np.uint8))
    alpha = random_alpha(trimap, torch.tensor(ids, dtype=torch.int64), seed, mode, cell)
    assert alpha.dtype == torch.uint8
    assert alpha.shape == trimap.shape
    assert alpha.tolist() == [plain_alpha(t, i, seed, mode, cell) for t, i in zip(trimap.tolist(), ids, strict=True)]


def test_pixel_mode_needs_no_cells():
    trimap = torch.ones((1, 1, 3), dtype=torch.uint8)
    assert random_alpha(trimap, torch.tensor([2**40]), 8).flatten().tolist() == plain_bytes(8, 1, 2**40, 3)


@pytest.mark.parametrize("mode", ["pixel", "block"])
def test_fixed_outside_the_unknown_region(mode):
    ids = torch.arange(3) + 2**32
    trimap = random_trimap(ids, 5, (50, 61))
    alpha = random_alpha(trimap, ids, 5, mode)
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 2] == 255).all()


def test_a_block_has_one_alpha():
    trimap = torch.ones((2, 70, 84), dtype=torch.uint8)
    cells = random_alpha(trimap, torch.arange(2), 0, "block").numpy().reshape(2, 10, 7, 12, 7)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert len(np.unique(cells[0])) > 60  # of 120 cells: they differ from each other


def test_inputs_are_left_alone_and_may_be_strided():
    trimap = torch.ones((2, 20, 30), dtype=torch.uint8).transpose(1, 2)
    alpha = random_alpha(trimap, torch.arange(4)[::2], 9)
    assert torch.equal(alpha, random_alpha(trimap.contiguous(), torch.tensor([0, 2]), 9))
    assert alpha.is_contiguous()
    assert (trimap == 1).all()


@pytest.mark.parametrize("mode", ["pixel", "block"])
def test_operator_is_registered_rightly(mode):
    trimap = torch.ones((2, 20, 30), dtype=torch.uint8)
    torch.library.opcheck(torch.ops.dptmat.random_alpha.default, (trimap, torch.arange(2), -1, mode == "block", 7))


IDS, TRIMAP = torch.arange(2), torch.ones((2, 28, 28), dtype=torch.uint8)
BAD_CALLS = [
    (TypeError, "trimap must be torch.uint8, got torch.float32", {"trimap": TRIMAP.float()}),
    (TypeError, "ids must be torch.int64", {"ids": IDS.float()}),
    (ValueError, r"trimap must have the shape \[2, any, any\], got \[1, 28, 28\]", {"trimap": TRIMAP[:1]}),
    (ValueError, r"trimap must have the shape \[2, any, any\], got \[2, 1, 28, 28\]", {"trimap": TRIMAP[:, None]}),
    (ValueError, "trimap must hold 0, 1 and 2 only, got 128", {"trimap": TRIMAP * 128}),
    (ValueError, "trimap and ids must be on one device", {"ids": IDS.to("meta")}),
    (ValueError, "ids must be 0 or more, got -1", {"ids": IDS - 1}),
    (ValueError, "mode must be one of pixel, block, got 'cell'", {"mode": "cell"}),
    (ValueError, "cell must be from 1", {"cell": 0, "mode": "block"}),
    (TypeError, "cell must be an int, got '7'", {"cell": "7", "mode": "block"}),
    (ValueError, "seed must be from 0", {"seed": 2**64}),
]


@pytest.mark.parametrize(("error", "message", "bad"), BAD_CALLS)
def test_a_wrong_call_ends_in_a_sentence(error, message, bad):
    with pytest.raises(error, match=message):
        random_alpha(**{"trimap": TRIMAP, "ids": IDS, "seed": 0, **bad})
