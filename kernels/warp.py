"""Affine warps of float images, each with an interpolation of its own, as OpenCV computes them; zero outside."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import _checks
from ._compile import for_each_part
from ._launch import count_tiles, launch
from ._operator import register
from .warp_cpu import INSIDE, LANCZOS, move, pad

INTERPOLATIONS = "nearest", "linear", "cubic", "lanczos"
ONE_PIXEL = 1 << 16  # unit of the matrices, so that every device computes the same integers


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


@cache
def _lanczos_on(device: torch.device) -> Tensor:
    return torch.from_numpy(LANCZOS).to(device)


def _warp(images: Tensor, matrix: Tensor, interpolation: Tensor) -> Tensor:
    samples, channels, height, width = images.shape
    out = np.empty(images.shape, np.float32)
    pixels, matrices, kinds = images.numpy(), matrix.numpy(), interpolation.numpy()

    def work(part: slice) -> None:
        padded = pad(channels, height, width)
        for n in range(part.start, part.stop):
            padded[INSIDE] = pixels[n]
            move(padded, matrices[n], kinds[n], out[n])

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
