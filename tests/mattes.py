"""Foregrounds with mattes for the tests: smooth colours and a soft disc, so that any resampling gives the same."""

import cv2
import numpy as np


def soft_disc(height, width, softness=20.0):
    """Alpha of a disc in the middle: uint8 [H, W]."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - 0.45 * height, x - 0.55 * width)
    return (np.clip((0.3 * min(height, width) - distance) / softness + 0.5, 0, 1) * 255 + 0.5).astype(np.uint8)


def shades(height, width, seed):
    """Slowly changing colours: uint8 [H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_mattes(folder, sizes, softness=20.0):
    """Write ``fg/`` and ``alpha/`` of soft discs, one for each (height, width); return the two folders."""
    for name in ("fg", "alpha"):
        (folder / name).mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        cv2.imwrite(str(folder / f"fg/{i}.png"), shades(height, width, i))
        cv2.imwrite(str(folder / f"alpha/{i}.png"), soft_disc(height, width, softness))
    return folder / "fg", folder / "alpha"
