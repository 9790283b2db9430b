"""The CPU path of `synthesize`: loops that numba compiles, over parts of a batch at the same time."""

import math

import numpy as np
import torch
from torch import Tensor

from dptmat.defaults import MEAN, STD

from . import _checks
from ._compile import compiled, fma, for_each_part
from .alpha import fill_alphas
from .philox import Stream, words
from .trimap import fill_trimaps

# synthesize.cu has the same numbers
_MEAN, _STD = np.array(MEAN, np.float32), np.array(STD, np.float32)
_SCALE, _SHIFT = 1 / _STD, -_MEAN / _STD
_ONE_LEVEL = np.float32(1) / np.float32(255)


def draw_pairing(
    first_id: int | np.ndarray,  # int64 [1]
    seed: int,
    samples: int,
) -> np.ndarray:  # int64 [N]
    """Draw the view that each sample is laid over: sample i over ``(i + s) % N``, 1 <= s < N.

    Args:
        first_id: Sample id of the batch's first sample.
        seed: Seed of the run, 0 <= seed < 2**64.
        samples: N, from 2.
    """
    shift = 1 + int(words(seed, Stream.PAIRING, first_id, 1)[0, 0, 0]) % (samples - 1)
    return (np.arange(samples, dtype=np.int64) + shift) % samples


def empty(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool = False) -> Tensor:
    """Allocate on the CPU through NumPy, which asks for huge pages: the first touch of small ones takes longer.

    Args:
        shape: Of the tensor; [N, C, H, W] for ``channels_last``.
        dtype: Of its elements.
        channels_last: Whether C is the last in memory.
    """
    flat = torch.from_numpy(np.empty(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype)
    if not channels_last:
        return flat.view(shape)
    samples, channels, height, width = shape
    return flat.view(samples, height, width, channels).permute(0, 3, 1, 2)


def fill_batch(
    views: Tensor,
    ids: Tensor,
    seed: int,
    color: Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    block_alpha: bool,
    image: Tensor,
    alpha: Tensor,
    contrast: Tensor,
    trimap: Tensor,
    pairing: Tensor,
) -> None:
    """Write a batch over CPU tensors; the arguments are those of `synthesize` and the fields of a `Batch`.

    Raises:
        ValueError: An id is negative.
    """
    _checks.require_non_negative(ids)
    samples = len(ids)
    pixels, idents, seed = views.contiguous().numpy(), ids.numpy(), seed % 2**64
    identity = torch.eye(3).expand(samples, 3, 3)
    matrices = (identity if color is None else color.detach()).contiguous().numpy()
    pairing[:] = torch.from_numpy(draw_pairing(idents[:1], seed, samples))
    backgrounds, states = pairing.numpy(), trimap.numpy()[:, 0]
    # The loops write float32, as it lies in memory: [N, 6, H, W] or [N, H, W, 6].
    channels_last = not image.is_contiguous()
    floats = [
        x if x.dtype == torch.float32 else empty(x.shape, torch.float32, channels_last and x is image)
        for x in (image, alpha, contrast)
    ]
    network_input = (floats[0].permute(0, 2, 3, 1) if channels_last else floats[0]).numpy()
    alphas, contrasts = floats[1].numpy()[:, 0], floats[2].numpy()[:, 0]

    def work(part: slice) -> None:
        fill_trimaps(states[part], idents[part], seed, cell, unknown, foreground)
        levels = np.empty_like(states[part])
        fill_alphas(levels, states[part], idents[part], seed, block_alpha, cell)
        inputs = pixels, matrices, np.arange(samples)[part], backgrounds[part], states[part], levels
        _compose(*inputs, channels_last, network_input[part], alphas[part], contrasts[part])

    for_each_part(work, samples)
    for wanted, computed in zip((image, alpha, contrast), floats, strict=True):
        if wanted is not computed:
            wanted.copy_(computed)


@compiled
def _compose(
    views: np.ndarray,  # uint8 [V, H, W, 3]
    color: np.ndarray,  # float32 [V, 3, 3]
    foregrounds: np.ndarray,  # int64 [N]: which view is the foreground of each sample
    backgrounds: np.ndarray,  # int64 [N]: likewise
    trimap: np.ndarray,  # uint8 [N, H, W]
    levels: np.ndarray,  # uint8 [N, H, W]: alpha
    channels_last: bool,
    image: np.ndarray,  # float32 [N, 6, H, W] or [N, H, W, 6]: the network's input; written, as are the next two
    alpha: np.ndarray,  # float32 [N, H, W]
    contrast: np.ndarray,  # float32 [N, H, W]
) -> None:
    """Compose samples row by row, in short loops that become vector instructions."""
    samples, height, width = trimap.shape
    rows = views.reshape(len(views), height, 3 * width)
    planes = np.empty((3, width), np.float32)
    f, b = np.empty((3, width), np.float32), np.empty((3, width), np.float32)
    channels = np.empty((6, width), np.float32)
    for n in range(samples):
        fg, bg = foregrounds[n], backgrounds[n]
        for y in range(height):
            _color(rows[fg, y], color[fg], planes, f)
            _color(rows[bg, y], color[bg], planes, b)
            state, level, a, total = trimap[n, y], levels[n, y], alpha[n, y], contrast[n, y]
            for x in range(width):
                a[x] = np.float32(level[x]) / np.float32(255)
            for c in range(3):
                over, under = f[c], b[c]
                composite = channels[c] if channels_last else image[n, c, y]
                one_hot = channels[3 + c] if channels_last else image[n, 3 + c, y]
                scale, shift = _SCALE[c], _SHIFT[c]
                for x in range(width):
                    difference = over[x] - under[x]
                    composite[x] = fma(fma(a[x], difference, under[x]), scale, shift)
                    total[x] = fma(abs(difference), scale, total[x]) if c else abs(difference) * scale
                for x in range(width):
                    one_hot[x] = np.float32(state[x] == c)
            if channels_last:
                pixels = image[n, y]
                for x in range(width):
                    for c in range(6):
                        pixels[x, c] = channels[c, x]


@compiled
def _color(
    row: np.ndarray,  # uint8 [3 W]
    matrix: np.ndarray,  # float32 [3, 3]
    planes: np.ndarray,  # float32 [3, W]: room to work in
    out: np.ndarray,  # float32 [3, W], 0..1; written
) -> None:
    """Correct a row of pixels by a colour matrix."""
    red, green, blue = planes[0], planes[1], planes[2]
    for x in range(len(red)):
        red[x], green[x], blue[x] = row[3 * x], row[3 * x + 1], row[3 * x + 2]
    for c in range(3):
        value = out[c]
        to_red, to_green, to_blue = matrix[c, 0] * _ONE_LEVEL, matrix[c, 1] * _ONE_LEVEL, matrix[c, 2] * _ONE_LEVEL
        for x in range(len(red)):
            mixed = fma(to_blue, blue[x], fma(to_green, green[x], to_red * red[x]))
            mixed = np.float32(0) if mixed < np.float32(0) else mixed
            value[x] = np.float32(1) if mixed > np.float32(1) else mixed
