"""A large image in tiles that overlap, whose alphas are blended: `dptmat.inference` says by which rule."""

from collections.abc import Callable, Iterator
from itertools import groupby, product
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dptmat.errors import UserError

# Tiles start at multiples of 7 * 32 pixels: there the strides of convolutions line up with those in the whole image,
# and so do the 7x7 windows of a Swin at each of its stages. It is also the least by which neighbours overlap.
GRID = 224
EDGE = 64  # pixels along a cut that a tile leaves to its neighbour: there the network saw padding in place of the image

Span: TypeAlias = tuple[slice, Tensor]  # of a tile along one side, and the weight of each of its pixels


def require_tile(tile: int | None) -> None:
    """Refuse a side of tiles, in pixels, that is not on the grid; None, for the default, and 0, for none, are.

    Raises:
        UserError: It is not.
    """
    if tile and (tile < 2 * GRID or tile % GRID):
        sizes = f"0 or a multiple of {GRID} from {2 * GRID} pixels"
        raise UserError(f"`tile` must be {sizes}, got {tile}; use {max(2, tile // GRID) * GRID}")


def predict_tiles(
    network: nn.Module,
    image: Tensor,  # uint8 [H, W, C]
    tile: int,
    tiles_at_once: int,
    normalize: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:  # float32 [1, 1, H, W]
    """Predict the alphas of an image tile by tile.

    Args:
        network: A network of `create_model`, compiled or not.
        image: The image and its guidance, H and W multiples of 32.
        tile: Largest side of a tile in pixels, a multiple of GRID from 2 * GRID.
        tiles_at_once: Tiles of one size that go through the network as a batch, from 1.
        normalize: Makes the network's input, float32 [1, C, h, w], of a part of the image, uint8 [h, w, C].

    Returns:
        The network's dictionary of alphas.
    """
    height, width = image.shape[:2]
    alphas: dict[str, Tensor] = {}
    for batch in _batches(cut(height, tile), cut(width, tile), tiles_at_once):
        x = torch.cat([normalize(image[rows, columns]) for (rows, _), (columns, _) in batch])
        for name, parts in network(x).items():
            if name not in alphas:
                alphas[name] = parts.new_zeros(1, 1, height, width)
            for ((rows, down), (columns, across)), part in zip(batch, parts, strict=True):
                weight = down.to(part.device)[:, None] * across.to(part.device)
                alphas[name][0, :, rows, columns].add_(part * weight)
    return {name: alpha.clamp_(0, 1) for name, alpha in alphas.items()}  # weights add up to 1 but for rounding


def cut(length: int, tile: int) -> list[Span]:
    """Cut a side into tiles and weigh the pixels of each, float32; the weights of all tiles at a pixel add up to 1."""
    shift = -(-max(0, length - tile) // GRID)  # of the last tile, in steps of the grid
    cuts = -(-shift // (tile // GRID - 1))
    starts = [GRID * (i * shift // max(1, cuts)) for i in range(cuts + 1)]
    tiles = [slice(start, min(start + tile, length)) for start in starts]
    pixels = torch.arange(length)
    weights = torch.ones(len(tiles), length)
    for weight, part in zip(weights, tiles, strict=True):
        if part.start > 0:
            weight *= _ramp(pixels - part.start)
        if part.stop < length:
            weight *= _ramp(part.stop - 1 - pixels)
    weights /= weights.sum(0)
    return [(part, weight[part]) for part, weight in zip(tiles, weights, strict=True)]


def _ramp(distance: Tensor) -> Tensor:
    """Rise from 0 to 1 over the middle of an overlap, by the distance from a cut in pixels."""
    return ((distance - EDGE + 0.5) / (GRID - 2 * EDGE)).clamp(0, 1)


def _batches(down: list[Span], across: list[Span], tiles_at_once: int) -> Iterator[list[tuple[Span, Span]]]:
    """Pair the tiles of both sides, and batch those of one size; the last of a side may be smaller."""

    def size(pair: tuple[Span, Span]) -> list[int]:
        return [len(weight) for _, weight in pair]

    for _, group in groupby(sorted(product(down, across), key=size), key=size):
        tiles = list(group)
        yield from (tiles[i : i + tiles_at_once] for i in range(0, len(tiles), tiles_at_once))
