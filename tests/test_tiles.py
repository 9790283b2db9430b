"""Tiles of a side: they cover it, start on the grid, and their weights add up to 1."""

import pytest
import torch

from dptmat.errors import UserError
from dptmat.tiles import cut, require_tile


@pytest.mark.parametrize("tile", [448, 672, 2016])
def test_tiles_cover_a_side(tile):
    for length in (*range(32, 3000, 32), 8192):
        parts = cut(length, tile)
        total, covered = torch.zeros(length), torch.zeros(length, dtype=torch.int64)
        for part, weight in parts:
            assert part.start % 224 == 0
            assert 32 <= part.stop - part.start <= tile
            assert part.stop - part.start == len(weight)
            total[part] += weight
            covered[part] += 1
            if part.start:
                assert not weight[:64].any()
            if part.stop < length:
                assert not weight[-64:].any()
        torch.testing.assert_close(total, torch.ones(length), atol=1e-6, rtol=0)
        assert (total[covered == 1] == 1).all()
        for (before, _), (after, _) in zip(parts, parts[1:], strict=False):
            assert before.stop - after.start >= 224
        assert len(parts) == 1 or length > tile
        assert parts[-1][0].stop == length


def test_a_side_off_the_grid_is_refused_with_the_nearest_one_on_it():
    for tile in (None, 0, 448, 672):
        require_tile(tile)
    with pytest.raises(UserError, match="`tile` must be 0 or a multiple of 224 from 448 pixels, got 700; use 672"):
        require_tile(700)
