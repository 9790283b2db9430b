"""Affine warps of float images, each with an interpolation of its own, as OpenCV computes them; zero outside."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import _checks
from ._compile import compiled, for_each_part, inlined
from ._launch import count_tiles, launch
from ._operator import register

INTERPOLATIONS = "nearest", "linear", "cubic", "lanczos"
ONE_PIXEL = 1 << 16  # unit of the matrices, so that every device computes the same integers
_TAPS = 8  # of Lanczos in each direction: from 3 pixels before the position to 4 after
_STEPS = 32  # of a pixel, to which a position is rounded for Lanczos, as OpenCV does
_PAD = 8  # pixels of zeros around an image on the CPU


def warp(
    images: Tensor,  # float32 [N, C, H, W]
    matrix: Tensor,  # int64 [N, 2, 3]
    interpolation: Tensor,  # int64 [N]
) -> Tensor:  # float32 [N, C, H, W]
    """Move the pixels of images; what comes from outside the frame is 0, and overshoots are clipped to 0..1.

    The kernels are those of ``warpAffine`` in OpenCV 5: Lanczos over 8x8 pixels from positions rounded to 1/32 of a
    pixel, cubic with -0.75. As there, weights add up to 1 but for the last bit of a float: whether the inside of a
    region of ones is 1 exactly, differs from pixel to pixel. Equal on CPU and CUDA bit for bit; does not wait for the
    device.

    Args:
        images: float32 [N, C, H, W] in 0..1.
        matrix: From (x, y, 1) in the result to a position in the image, in 1/65536 of a pixel, int64 [N, 2, 3];
            the centre of the first pixel is at 0.
        interpolation: Index in ``INTERPOLATIONS`` for each image, int64 [N].

    Returns:
        float32 [N, C, H, W] on the device of ``images``, contiguous.

    Raises:
        TypeError: A tensor has another dtype.
        ValueError: Shapes or devices do not agree.
        RuntimeError: The tensors are on CUDA, and CuPy is missing or the GPU too old.
    """
    _checks.require_dtype("images", images, torch.float32, "convert them with .float()")
    _checks.require_shape("images", images, (None, None, None, None), "pass images with the channels first")
    for name, tensor, shape in (
        ("matrix", matrix, (len(images), 2, 3)),
        ("interpolation", interpolation, (len(images),)),
    ):
        _checks.require_dtype(name, tensor, torch.int64, "convert it with .to(torch.int64)")
        _checks.require_shape(name, tensor, shape, "pass one for each image")
    _checks.require_same_device(images=images, matrix=matrix, interpolation=interpolation)
    return _operator(images, matrix, interpolation)


def as_fixed_point(
    matrix: np.ndarray,  # float64 [N, 2, 3] in pixels
) -> np.ndarray:  # int64 [N, 2, 3]
    """Round matrices to the unit that `warp` takes."""
    return np.rint(matrix * ONE_PIXEL).astype(np.int64)


def _make_lanczos() -> np.ndarray:  # float32 [steps, taps]
    """Compute the weights of the pixels -3..4 around each step between pixels 0 and 1."""
    distance = np.arange(_STEPS)[:, None] / _STEPS - np.arange(-3, 5)
    weights = np.sinc(distance) * np.sinc(distance / 4) * (np.abs(distance) < 4)
    weights[0] = np.arange(-3, 5) == 0  # which NumPy's sine misses by 1e-17
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


_LANCZOS = _make_lanczos()


@cache
def _lanczos_on(device: torch.device) -> Tensor:
    return torch.from_numpy(_LANCZOS).to(device)


@inlined
def _clip(x: np.float32) -> np.float32:
    x = np.float32(0) if x < np.float32(0) else x
    return np.float32(1) if x > np.float32(1) else x


@inlined
def _cubic(f: np.float32, weights: np.ndarray) -> None:
    """Write the weights of pixels -1..2 for a position f after pixel 0."""
    one, three, a = np.float32(1), np.float32(3), np.float32(-0.75)
    before, after = f + one, one - f
    weights[0] = ((a * before - np.float32(5) * a) * before + np.float32(8) * a) * before - np.float32(4) * a
    weights[1] = ((a + np.float32(2)) * f - (a + three)) * f * f + one
    weights[2] = ((a + np.float32(2)) * after - (a + three)) * after * after + one
    weights[3] = one - weights[0] - weights[1] - weights[2]


@inlined
def _sum(
    image: np.ndarray,  # float32 [C, H + 16, W + 16]
    products: np.ndarray,  # float32 [8, 8]: weights, of which the first taps x taps count
    taps: int,
    row: np.uint64,
    column: np.uint64,
    out: np.ndarray,  # float32 [C]; written
) -> None:
    """Sum the weighted pixels from a row and column on."""
    channels = len(out)
    for c in range(0, channels - channels % 3, 3):  # three sums side by side, each in the order of the GPU
        red, green, blue = np.float32(0), np.float32(0), np.float32(0)
        for i in range(taps):
            for j in range(taps):
                weight, below, right = products[i, j], row + np.uint64(i), column + np.uint64(j)
                red += weight * image[c, below, right]
                green += weight * image[c + 1, below, right]
                blue += weight * image[c + 2, below, right]
        out[c], out[c + 1], out[c + 2] = _clip(red), _clip(green), _clip(blue)
    for c in range(channels - channels % 3, channels):
        total = np.float32(0)
        for i in range(taps):
            for j in range(taps):
                total += products[i, j] * image[c, row + np.uint64(i), column + np.uint64(j)]
        out[c] = _clip(total)


@compiled
def _move(  # noqa: C901 - a branch for each interpolation
    image: np.ndarray,  # float32 [C, H + 16, W + 16]: with _PAD pixels of zeros around
    matrix: np.ndarray,  # int64 [2, 3]
    kind: int,
    lanczos: np.ndarray,  # float32 [steps, taps]
    out: np.ndarray,  # float32 [C, H, W]; written
) -> None:
    channels, height, width = out.shape
    taps = 2 << max(kind - 1, 0)
    half = np.int64(32768 if kind == 0 else 1024 if kind == 3 else 0)  # to the nearest pixel, or 1/32 of one
    across, down, products = np.empty(8, np.float32), np.empty(8, np.float32), np.empty((8, 8), np.float32)
    for y in range(height):
        for x in range(width):
            sx = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + half
            sy = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + half
            # what is far away sees zeros alone
            left, top = min(max(sx >> 16, -5), width + 3) + 8, min(max(sy >> 16, -5), height + 3) + 8
            if kind == 0:
                for c in range(channels):
                    out[c, y, x] = image[c, top, left]
                continue
            fx, fy = np.float32(sx & 65535) / np.float32(65536), np.float32(sy & 65535) / np.float32(65536)
            if kind == 1:
                for c in range(channels):
                    here, below = image[c, top, left], image[c, top + 1, left]
                    here += fx * (image[c, top, left + 1] - here)
                    below += fx * (image[c, top + 1, left + 1] - below)
                    out[c, y, x] = here + fy * (below - here)
                continue
            if kind == 2:
                _cubic(fx, across)
                _cubic(fy, down)
            else:
                across, down = lanczos[sx >> 11 & 31], lanczos[sy >> 11 & 31]
            # unsigned, since Python's negative indices cost a test each
            column, row = np.uint64(left + 1 - taps // 2), np.uint64(top + 1 - taps // 2)
            for i in range(taps):
                for j in range(taps):
                    products[i, j] = down[i] * across[j]
            _sum(image, products, taps, row, column, out[:, y, x])


def _warp(images: Tensor, matrix: Tensor, interpolation: Tensor) -> Tensor:
    samples, channels, height, width = images.shape
    out = np.empty(images.shape, np.float32)
    pixels, matrices, kinds = images.numpy(), matrix.numpy(), interpolation.numpy()

    def work(part: slice) -> None:
        padded = np.zeros((channels, height + 2 * _PAD, width + 2 * _PAD), np.float32)
        for n in range(part.start, part.stop):
            padded[:, _PAD:-_PAD, _PAD:-_PAD] = pixels[n]
            _move(padded, matrices[n], kinds[n], _LANCZOS, out[n])

    for_each_part(work, samples)
    return torch.from_numpy(out)


def _warp_cuda(images: Tensor, matrix: Tensor, interpolation: Tensor) -> Tensor:
    samples, channels, height, width = images.shape
    out = _warp_fake(images, matrix, interpolation)
    launch(
        "warp", "warp", count_tiles(samples * height * width, 1), images.contiguous(), matrix.contiguous(),
        interpolation.contiguous(), _lanczos_on(images.device), out, samples, channels, height, width,
    )  # fmt: skip
    return out


def _warp_fake(images: Tensor, matrix: Tensor, interpolation: Tensor) -> Tensor:
    return torch.empty_like(images, memory_format=torch.contiguous_format)


_operator = register("warp", _warp, _warp_cuda, _warp_fake)
