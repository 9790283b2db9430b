"""Random alphas: 0 in background, 255 in foreground, random bytes in the unknown region of a trimap."""

import numpy as np
import torch

from . import _checks
from ._launch import THREADS, launch
from .philox import Stream, words
from .trimap import FOREGROUND, UNKNOWN, spread

RUN = 16  # bytes of a Philox block; also the pixels that one CUDA thread fills


def random_alpha(trimap, ids, seed, mode="pixel", cell=7):
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
        TypeError: ``trimap`` is not a uint8 or ``ids`` not an int64 tensor, or ``seed`` not an int.
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
    _checks.require_size(*trimap.shape[1:], cell if mode == "block" else 1)
    return _random_alpha(trimap, ids, _checks.seed_as_int64(seed), mode, cell)


def alpha_reference(trimap, ids, seed, mode, cell):
    """Draw the alphas in NumPy: uint8 [N, H, W] and int64 [N] to uint8 [N, H, W]."""
    alpha = np.empty(trimap.shape, np.uint8)
    for i, ident in enumerate(ids):  # one at a time: the words of a sample stay in the processor's cache
        noise = _noise(ident, seed, mode, cell, *trimap.shape[1:])
        alpha[i] = np.where(trimap[i] == UNKNOWN, noise, np.uint8(255) * (trimap[i] == FOREGROUND))
    return alpha


def _noise(ident, seed, mode, cell, height, width):
    """Draw the random bytes of one sample: uint8 [H, W]."""
    if mode == "pixel":
        return _bytes(seed, Stream.ALPHA_PIXEL, ident, height * width).reshape(height, width)
    rows, columns = -(-height // cell), -(-width // cell)
    grid = _bytes(seed, Stream.ALPHA_BLOCK, ident, rows * columns).reshape(rows, columns)
    return spread(grid, cell, height, width)


def _bytes(seed, stream, ident, count):
    """Draw the first ``count`` bytes of a stream; a word gives four, the low one first."""
    blocks = words(seed, stream, ident, -(-count // RUN))
    return blocks.astype("<u4").view(np.uint8).reshape(-1)[:count]


@torch.library.custom_op("dptmat::random_alpha", mutates_args=(), device_types="cpu")
def _random_alpha(trimap: torch.Tensor, ids: torch.Tensor, seed: int, mode: str, cell: int) -> torch.Tensor:
    _checks.require_non_negative(ids)
    if trimap.numel() and trimap.max() > FOREGROUND:
        raise ValueError(f"trimap must hold 0, 1 and 2 only, got {int(trimap.max())}; map 0, 128, 255 to them first")
    return torch.from_numpy(alpha_reference(trimap.numpy(), ids.numpy(), seed % 2**64, mode, cell))


@_random_alpha.register_kernel("cuda")
def _random_alpha_cuda(trimap, ids, seed, mode, cell):
    samples, height, width = trimap.shape
    alpha = torch.empty_like(trimap, memory_format=torch.contiguous_format)
    tiles = -(-height * width // (RUN * THREADS))  # thread blocks of a sample
    launch(
        "alpha", "random_alpha", samples * tiles, trimap.contiguous(), ids.contiguous(), alpha, seed, tiles,
        height, width, cell, mode == "block",
    )  # fmt: skip
    return alpha


@_random_alpha.register_fake
def _random_alpha_fake(trimap, ids, seed, mode, cell):
    return torch.empty_like(trimap, memory_format=torch.contiguous_format)
