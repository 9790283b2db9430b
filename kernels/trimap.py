"""Random trimaps: square cells, of which exact shares are unknown, foreground and background."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dptmat.defaults import CELL, FOREGROUND_SHARE, UNKNOWN_SHARE

from . import _checks
from ._compile import compiled, for_each_part
from ._launch import count_tiles, launch
from ._operator import register
from .division import reciprocal
from .permutation import half_bits, permute, round_keys
from .philox import Stream

BACKGROUND, UNKNOWN, FOREGROUND = range(3)
PIXELS_PER_THREAD = 16  # on CUDA


def random_trimap(
    ids: Tensor,  # int64 [N]
    seed: int,
    size: tuple[int, int],
    cell: int = CELL,
    unknown: float = UNKNOWN_SHARE,
    foreground: float = FOREGROUND_SHARE,
) -> Tensor:  # uint8 [N, H, W]
    """Draw one trimap per sample with exact shares of unknown, foreground and background cells.

    Equal on CPU and CUDA bit for bit; does not wait for the device.

    Args:
        ids: Sample ids, int64 [N], 0 or more (checked on the CPU only: a check of CUDA ids would wait for the GPU).
        seed: Seed of the run, 0 <= seed < 2**64.
        size: (height, width) in pixels; cells at the right and lower border are cut.
        cell: Side of a square cell in pixels.
        unknown: Share of unknown cells, 0..1; ``floor(unknown * cells + 0.5)`` cells of each trimap.
        foreground: Share of foreground cells, 0..1, rounded likewise; the rest is background.

    Returns:
        uint8 [N, H, W] on the device of ``ids``: 0 background, 1 unknown, 2 foreground.

    Raises:
        TypeError: ``ids`` is not an int64 tensor, ``seed`` or ``cell`` not an int, a share not a number, or ``size``
            not a pair of ints.
        ValueError: ``ids`` is not [N], the image is empty, ``cell`` is below 1 or larger than the image, a share is
            outside 0..1 or the two add up to more than 1, the seed is out of range, or a CPU id is negative.
        RuntimeError: ``ids`` is a CUDA tensor, and CuPy is missing or the GPU too old.

    Source: Li et al., Disentangled Pre-training for Image Matting, WACV 2024.
    """
    _checks.require_ids(ids)
    height, width = _checks.as_height_and_width(size)
    _checks.require_size(height, width, cell)
    _checks.require_shares(unknown, foreground)
    return _operator(ids, _checks.seed_as_int64(seed), height, width, cell, unknown, foreground)


class Cells(NamedTuple):
    """How many cells a trimap has, and how many of each state."""

    rows: int
    columns: int
    total: int
    half_bits: int  # of the permutation of the cells
    unknown: int
    foreground: int


@cache
def count_cells(height: int, width: int, cell: int, unknown: float, foreground: float) -> Cells:
    """Count the cells; in double precision on the host, so that every device works with the same integers.

    Args:
        height: Of the image in pixels.
        width: Of the image in pixels.
        cell: Side of a cell in pixels.
        unknown: Share of unknown cells, 0..1.
        foreground: Share of foreground cells, 0..1.
    """
    rows, columns = -(-height // cell), -(-width // cell)
    total = rows * columns  # exact, so that a share is rounded once
    shares = (math.floor(share * total + 0.5) for share in (unknown, foreground))
    return Cells(rows, columns, total, half_bits(total), *shares)


def fill_trimaps(
    trimap: np.ndarray,  # uint8 [N, H, W]
    ids: np.ndarray,  # int64 [N]
    seed: int,
    cell: int,
    unknown: float,
    foreground: float,
) -> None:
    """Draw trimaps on the CPU into ``trimap``; the other arguments are those of `random_trimap`."""
    _, height, width = trimap.shape
    cells = count_cells(height, width, cell, unknown, foreground)
    keys = round_keys(seed, Stream.TRIMAP, ids)
    order = permute(np.arange(cells.total), cells.total, keys[:, None])
    _spread(order, cells.unknown, cells.foreground, cell, cells.columns, trimap)


@compiled
def _spread(
    order: np.ndarray,  # int64 [N, cells]: place of each cell in the permutation
    unknown: int,
    foreground: int,
    cell: int,
    columns: int,
    trimap: np.ndarray,  # uint8 [N, H, W]
) -> None:
    """Give each pixel the state of its cell; cells at the right and lower border are cut."""
    samples, height, width = trimap.shape
    for n in range(samples):
        for y in range(height):
            if y % cell:
                trimap[n, y] = trimap[n, y - 1]
                continue
            for column in range(columns):
                position = order[n, y // cell * columns + column]
                state = FOREGROUND if position < unknown + foreground else BACKGROUND
                if position < unknown:
                    state = UNKNOWN
                for x in range(column * cell, min(column * cell + cell, width)):
                    trimap[n, y, x] = state


def _random_trimap(
    ids: Tensor, seed: int, height: int, width: int, cell: int, unknown: float, foreground: float
) -> Tensor:
    _checks.require_non_negative(ids)
    trimap = np.empty((len(ids), height, width), np.uint8)
    idents = ids.numpy()

    def work(part: slice) -> None:
        fill_trimaps(trimap[part], idents[part], seed % 2**64, cell, unknown, foreground)

    for_each_part(work, len(ids))
    return torch.from_numpy(trimap)


def _random_trimap_cuda(
    ids: Tensor, seed: int, height: int, width: int, cell: int, unknown: float, foreground: float
) -> Tensor:
    cells = count_cells(height, width, cell, unknown, foreground)
    trimap = _random_trimap_fake(ids, seed, height, width, cell, unknown, foreground)
    tiles = count_tiles(height * width, PIXELS_PER_THREAD)
    launch(
        "trimap", "random_trimap", len(ids) * tiles, ids.contiguous(), trimap, seed, tiles, reciprocal(tiles),
        height * width, width, reciprocal(width), cell, reciprocal(cell), cells.columns, cells.total,
        cells.half_bits, cells.unknown, cells.foreground,
    )  # fmt: skip
    return trimap


def _random_trimap_fake(
    ids: Tensor, seed: int, height: int, width: int, cell: int, unknown: float, foreground: float
) -> Tensor:
    return ids.new_empty((len(ids), height, width), dtype=torch.uint8)


_operator = register("random_trimap", _random_trimap, _random_trimap_cuda, _random_trimap_fake)
