"""Augmentation as two matrices per view, drawn from the sample ids: one moves its pixels, the other rotates its hue."""

from dataclasses import dataclass

import numpy as np

from dptmat.kernels.philox import Stream, words
from dptmat.kernels.warp import as_fixed_point

# RGB to luma (Y) and the two chroma axes (I, Q) of NTSC television, the space in which hue is an angle.
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes to a view; the settings of a run have their defaults.

    Words 0..6 of stream AUGMENT, over 2**32, are in this order: rotation, scale of x, scale of y, shear, horizontal
    flip, vertical flip, hue.
    """

    rotation: float  # degrees, drawn from -rotation..rotation
    scale_min: float  # smallest magnification of either axis
    scale_max: float  # largest
    shear: float  # degrees, drawn from -shear..shear
    hflip: float  # chance of a mirrored view
    vflip: float  # chance of a view upside down
    hue: float  # degrees, drawn from -hue..hue

    def draw(self, ids: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw the changes to each view: rotation, shear and hue in radians, float64 [N], and the zoom of x and y.

        Args:
            ids: Sample ids, int64 [N].
            seed: Seed of the run.

        Returns:
            rotation, shear, hue, and zoom float64 [N, 2]: steps in the photograph for one in the view, negative where
            the axis is flipped.
        """
        unit = words(seed, Stream.AUGMENT, ids, 2).reshape(len(ids), 8) / 2.0**32
        rotation, shear, hue = (
            np.radians((2 * unit[:, column] - 1) * limit)
            for column, limit in ((0, self.rotation), (3, self.shear), (6, self.hue))
        )
        scale = self.scale_min + unit[:, 1:3] * (self.scale_max - self.scale_min)
        mirrored = np.where(unit[:, 4:6] < (self.hflip, self.vflip), -1.0, 1.0)
        return rotation, shear, hue, mirrored / scale

    def matrices(self, ids: np.ndarray, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw both matrices of each view.

        Args:
            ids: Sample ids, int64 [N].
            seed: Seed of the run.
            size: Side of the square view in pixels.

        Returns:
            affine float32 [N, 2, 3], from a position in the view to one relative to the photograph's centre, in pixels;
            color float32 [N, 3, 3], to be multiplied with each pixel's (R, G, B).
        """
        rotation, shear, hue, zoom = self.draw(ids, seed)
        linear = linear_map(rotation, shear, zoom)
        offset = -linear @ np.full((2, 1), size / 2)  # the view's centre falls on the photograph's
        return np.concatenate([linear, offset], axis=2).astype(np.float32), _hue_rotation(hue)

    def moves(self, ids: np.ndarray, seed: int, size: int) -> np.ndarray:
        """Draw the same affine for `dptmat.kernels.warp`: int64 [N, 2, 3], from pixel to pixel of a square picture.

        About (size + 1) / 2, one pixel from the middle, as in DPT's released code.
        """
        rotation, shear, _, zoom = self.draw(ids, seed)
        linear = linear_map(rotation, shear, zoom)
        centre = np.full((2, 1), (size + 1) / 2)
        return as_fixed_point(np.concatenate([linear, centre - linear @ centre], axis=2))

    def jitters(self, ids: np.ndarray, seed: int) -> np.ndarray:
        """Draw the changes of colour in HSV: float32 [N, 3].

        Hue in whole degrees from -hue below hue; saturation and value in -1..1, of what `jitter` allows. They are words
        2 and 3 of stream PAIR; the hue is that of stream AUGMENT.
        """
        _, _, hue, _ = self.draw(ids, seed)
        unit = words(seed, Stream.PAIR, ids, 1)[:, 0] / 2.0**32
        return np.column_stack([np.floor(np.degrees(hue)), 2 * unit[:, 2:] - 1]).astype(np.float32)


def draw_interpolations(ids: np.ndarray, seed: int) -> np.ndarray:  # int64 [N, 2]
    """Draw numbers in ``INTERPOLATIONS`` of `dptmat.kernels.warp`, foreground and alpha: words 0, 1 of stream PAIR."""
    return (words(seed, Stream.PAIR, ids, 1)[:, 0, :2] >> 30).astype(np.int64)


def linear_map(
    rotation: np.ndarray,  # radians, float64 [N]
    shear: np.ndarray,  # likewise
    zoom: np.ndarray,  # float64 [N, 2], negative: mirrored
) -> np.ndarray:  # float64 [N, 2, 2]
    """Map from view to photograph: rotation by a, shear by t, then zoom of each axis.

    [cos a, sin(a + t); -sin a, cos(a + t)] / cos t, as in the augmentation of MG Matting (Yu et al., CVPR 2021).
    """
    return np.stack(
        [
            np.stack([np.cos(rotation), np.sin(rotation + shear)], -1) * zoom[:, :1],
            np.stack([-np.sin(rotation), np.cos(rotation + shear)], -1) * zoom[:, 1:],
        ],
        axis=1,
    ) / np.cos(shear).reshape(-1, 1, 1)


def _hue_rotation(angle: np.ndarray) -> np.ndarray:
    """Rotate the chroma plane and keep the luma: [N] radians to float32 [N, 3, 3]."""
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rotation = np.stack([one, zero, zero, zero, cos, sin, zero, -sin, cos], -1).reshape(-1, 3, 3)
    return (_YIQ_TO_RGB @ rotation @ _RGB_TO_YIQ).astype(np.float32)
