"""Random trimaps: square cells, of which exact shares are unknown, foreground and background."""

import math
from typing import NamedTuple

import numpy as np
import torch

from . import _checks
from ._launch import THREADS, launch
from .permutation import half_bits, permute, round_keys
from .philox import Stream

BACKGROUND, UNKNOWN, FOREGROUND = range(3)


def random_trimap(ids, seed, size, cell=7, unknown=0.75, foreground=0.125):
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
        TypeError: ``ids`` is not an int64 tensor, ``seed`` not an int, or ``size`` not a pair.
        ValueError: ``ids`` is not [N], the image is empty, ``cell`` is below 1 or larger than the image, a share is
            outside 0..1 or the two add up to more than 1, the seed is out of range, or a CPU id is negative.
        RuntimeError: ``ids`` is a CUDA tensor, and CuPy is missing or the GPU too old.

    Source: Li et al., Disentangled Pre-training for Image Matting, WACV 2024.
    """
    _checks.require_ids(ids)
    height, width = _checks.as_height_and_width(size)
    _checks.require_size(height, width, cell)
    _checks.require_shares(unknown, foreground)
    return _random_trimap(ids, _checks.seed_as_int64(seed), height, width, cell, unknown, foreground)


class Cells(NamedTuple):
    """How many cells a trimap has, and how many of each state."""

    rows: int
    columns: int
    unknown: int
    foreground: int

    @property
    def total(self):
        return self.rows * self.columns


def count_cells(height, width, cell, unknown, foreground):
    """Count the cells; in double precision on the host, so that every device works with the same integers."""
    rows, columns = -(-height // cell), -(-width // cell)
    total = rows * columns  # exact, so that a share is rounded once
    return Cells(rows, columns, math.floor(unknown * total + 0.5), math.floor(foreground * total + 0.5))


def trimap_reference(ids, seed, height, width, cell, unknown, foreground):
    """Draw the trimaps in NumPy: int64 [N] to uint8 [N, H, W]."""
    cells = count_cells(height, width, cell, unknown, foreground)
    trimap = np.empty((len(ids), height, width), np.uint8)
    for i, keys in enumerate(round_keys(seed, Stream.TRIMAP, ids)):
        order = permute(np.arange(cells.total), cells.total, keys)
        state = np.full(cells.total, BACKGROUND, np.uint8)
        state[order < cells.unknown + cells.foreground] = FOREGROUND
        state[order < cells.unknown] = UNKNOWN
        trimap[i] = spread(state.reshape(cells.rows, cells.columns), cell, height, width)
    return trimap


def spread(grid, cell, height, width):
    """Give each pixel its cell's value: [rows, columns] to [H, W]; cells at the right and lower border are cut."""
    return grid.repeat(cell, axis=0)[:height].repeat(cell, axis=1)[:, :width]


@torch.library.custom_op("dptmat::random_trimap", mutates_args=(), device_types="cpu")
def _random_trimap(
    ids: torch.Tensor, seed: int, height: int, width: int, cell: int, unknown: float, foreground: float
) -> torch.Tensor:
    _checks.require_non_negative(ids)
    return torch.from_numpy(trimap_reference(ids.numpy(), seed % 2**64, height, width, cell, unknown, foreground))


@_random_trimap.register_kernel("cuda")
def _random_trimap_cuda(ids, seed, height, width, cell, unknown, foreground):
    cells = count_cells(height, width, cell, unknown, foreground)
    trimap = ids.new_empty((len(ids), height, width), dtype=torch.uint8)
    tiles = -(-cells.total // THREADS)  # thread blocks of a sample; a thread fills one cell
    launch(
        "trimap", "random_trimap", len(ids) * tiles, ids.contiguous(), trimap, seed, tiles, height, width, cell,
        cells.columns, cells.total, half_bits(cells.total), cells.unknown, cells.foreground,
    )  # fmt: skip
    return trimap


@_random_trimap.register_fake
def _random_trimap_fake(ids, seed, height, width, cell, unknown, foreground):
    return ids.new_empty((len(ids), height, width), dtype=torch.uint8)
