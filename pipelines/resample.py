"""Photographs as arrays, made smaller and warped: by PyTorch's resize and OpenCV's warp, which need no DALI."""

import cv2
import numpy as np
import torch

# A photograph more than this many times longer than wide is shrunk further: a strip of pixels cannot fill the memory.
LONGEST_ASPECT = 4


def shrink(photo: np.ndarray, size: int) -> np.ndarray:
    """Resize a photograph to ``size`` pixels on its shorter side, antialiased: uint8 [H, W, 3] to [H', W', 3]."""
    height, width = photo.shape[:2]
    scale = min(size / min(height, width), LONGEST_ASPECT * size / max(height, width))
    shape = [max(1, int(scale * side + 0.5)) for side in (height, width)]
    if shape == [height, width]:  # as what was packed for this size: to resize it changes nothing
        return photo
    planes = torch.from_numpy(photo)[None].permute(0, 3, 1, 2)  # in this layout PyTorch has vector instructions for it
    resized = torch.nn.functional.interpolate(planes, shape, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def warp(photo: np.ndarray, affine: np.ndarray, size: int) -> np.ndarray:
    """Warp a photograph to a square view; beyond its frame the edge is repeated.

    Args:
        photo: uint8 [H, W, 3].
        affine: float32 [2, 3], from a position (x, y) in the view to one relative to the photograph's centre.
        size: Side of the view in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = photo.shape[:2]
    matrix = affine.astype(np.float64)
    # OpenCV counts from the centre of the first pixel, half a pixel inside.
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) + (width / 2 - 0.5, height / 2 - 0.5)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photo, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
