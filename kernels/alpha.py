"""Random alphas: 0 in background, 255 in foreground, random bytes in the unknown region of a trimap."""

import numpy as np
import torch
from torch import Tensor

from dptmat.defaults import CELL

from . import _checks
from ._compile import compiled, for_each_part
from ._launch import count_tiles, launch
from ._operator import register
from .division import reciprocal
from .philox import Stream, words
from .trimap import FOREGROUND, UNKNOWN

PIXELS_PER_THREAD = 16  # on CUDA: one for each byte of a Philox block
_BLOCK_BYTES = 16  # of a Philox block


def random_alpha(
    trimap: Tensor,  # uint8 [N, H, W]
    ids: Tensor,  # int64 [N]
    seed: int,
    mode: str = "pixel",
    cell: int = CELL,
) -> Tensor:  # uint8 [N, H, W]
    """Draw one alpha per sample, with a random byte in each unknown pixel or cell of its trimap.

    Equal on CPU and CUDA bit for bit; does not wait for the device.

    Args:
        trimap: uint8 [N, H, W]: 0 background, 1 unknown, 2 foreground. Other values are refused on the CPU;
            on CUDA, where a check would wait for the GPU, they count as background.
        ids: Sample ids, int64 [N], 0 or more (checked on the CPU only, for the same reason).
        seed: Seed of the run, 0 <= seed < 2**64.
        mode: ``"pixel"`` draws a byte for each pixel, ``"block"`` one for each cell.
        cell: Side of a square cell in pixels, the one of the trimap; unused in mode ``"pixel"``.

    Returns:
        uint8 [N, H, W] on the device of ``trimap``; 255 is opaque.

    Raises:
        TypeError: ``trimap`` is not a uint8 or ``ids`` not an int64 tensor, or ``seed`` or ``cell`` not an int.
        ValueError: Shapes or devices do not agree, ``mode`` is unknown, ``cell`` is below 1 or larger than the image
            in mode ``"block"``, the seed is out of range, or a CPU id is negative or a CPU trimap holds values above 2.
        RuntimeError: The tensors are on CUDA, and CuPy is missing or the GPU too old.

    Source: Li et al., Disentangled Pre-training for Image Matting, WACV 2024.
    """
    _checks.require_ids(ids)
    _checks.require_dtype("trimap", trimap, torch.uint8, "draw it with random_trimap()")
    _checks.require_shape("trimap", trimap, (len(ids), None, None), "pass one trimap for each of the ids")
    _checks.require_same_device(trimap=trimap, ids=ids)
    _checks.require_mode(mode)
    _, height, width = trimap.shape
    _checks.require_size(height, width, cell if mode == "block" else 1)
    return _operator(trimap, ids, _checks.seed_as_int64(seed), mode == "block", cell)


def fill_alphas(
    alpha: np.ndarray,  # uint8 [N, H, W]
    trimap: np.ndarray,  # uint8 [N, H, W]
    ids: np.ndarray,  # int64 [N]
    seed: int,
    block_alpha: bool,
    cell: int,
) -> None:
    """Draw alphas on the CPU into ``alpha``; the other arguments are those of `random_alpha`."""
    _, height, width = trimap.shape
    rows, columns = -(-height // cell), -(-width // cell)
    stream, count = (Stream.ALPHA_BLOCK, rows * columns) if block_alpha else (Stream.ALPHA_PIXEL, height * width)
    drawn = words(seed, stream, ids, -(-count // _BLOCK_BYTES)).astype("<u4", copy=False)
    noise: np.ndarray = drawn.view(np.uint8).reshape(len(ids), -1)
    if block_alpha:
        grid = noise[:, :count].reshape(-1, rows, columns)
        noise = grid.repeat(cell, axis=1)[:, :height].repeat(cell, axis=2)[:, :, :width]
    else:
        noise = noise[:, :count].reshape(trimap.shape)
    _choose(trimap, noise, alpha)


@compiled
def _choose(trimap: np.ndarray, noise: np.ndarray, alpha: np.ndarray) -> None:  # uint8 [N, H, W] each
    """Take the noise where a trimap is unknown."""
    samples, height, width = trimap.shape
    for n in range(samples):
        for y in range(height):
            for x in range(width):
                fixed = np.uint8(255) if trimap[n, y, x] == FOREGROUND else np.uint8(0)
                alpha[n, y, x] = noise[n, y, x] if trimap[n, y, x] == UNKNOWN else fixed


def _random_alpha(trimap: Tensor, ids: Tensor, seed: int, block_alpha: bool, cell: int) -> Tensor:
    _checks.require_non_negative(ids)
    if trimap.numel() and trimap.max() > FOREGROUND:
        raise ValueError(f"trimap must hold 0, 1 and 2 only, got {int(trimap.max())}; map 0, 128, 255 to them first")
    alpha = np.empty(trimap.shape, np.uint8)
    states, idents = trimap.contiguous().numpy(), ids.numpy()

    def work(part: slice) -> None:
        fill_alphas(alpha[part], states[part], idents[part], seed % 2**64, block_alpha, cell)

    for_each_part(work, len(ids))
    return torch.from_numpy(alpha)


def _random_alpha_cuda(trimap: Tensor, ids: Tensor, seed: int, block_alpha: bool, cell: int) -> Tensor:
    samples, height, width = trimap.shape
    alpha = _random_alpha_fake(trimap, ids, seed, block_alpha, cell)
    tiles = count_tiles(height * width, PIXELS_PER_THREAD)
    launch(
        "alpha", "random_alpha", samples * tiles, trimap.contiguous(), ids.contiguous(), alpha, seed, tiles,
        reciprocal(tiles), height * width, width, reciprocal(width), cell, reciprocal(cell), -(-width // cell),
        block_alpha,
    )  # fmt: skip
    return alpha


def _random_alpha_fake(trimap: Tensor, ids: Tensor, seed: int, block_alpha: bool, cell: int) -> Tensor:
    return torch.empty_like(trimap, memory_format=torch.contiguous_format)


_operator = register("random_alpha", _random_alpha, _random_alpha_cuda, _random_alpha_fake)
