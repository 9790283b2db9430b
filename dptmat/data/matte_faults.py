"""What is wrong with a foreground and its matte, as far as the two tell it themselves."""

import cv2
import numpy as np

# Share of the colours' range from which a halo is told. Of the 20 mattes of alphamatting.com, at 80 to 800 pixels,
# estimated colours of the foreground measure up to 0.054, and the photographs themselves from 0.145.
HALO = 0.09
_LONGEST = 800  # pixels of the longer side, to which larger foregrounds are shrunk before their colours are measured
_RADIUS = 2, 8  # pixels: of the windows in which colours are compared with alpha, a hundredth of the longer side
_SPREAD = 0.01  # variance of alpha in a window, 0..0.25, from which the two can be compared
_FEWEST = 50  # pixels on which a measure can rest
_NEAR = 8  # levels of 255 from 0 and 255 that a lossy file strays
_STRAY = 0.025  # such pixels for each of an edge: true mattes have up to 0.012, JPEG files of quality 98 from 0.044
_INVERTED = 0.3  # how much more opaque than the middle the border of a matte is that looks inverted


def matte_faults(alpha: np.ndarray) -> dict[str, str]:
    """Name what is unusual in a matte, uint8 [H, W]: the details by the kinds, which `dptmat check` explains."""
    counts = np.bincount(alpha.ravel(), minlength=256)
    levels = np.flatnonzero(counts)
    if len(levels) == 1:
        return {"useless": f"alpha is {levels[0]} everywhere"}
    faults = {}
    if len(levels) == 2:
        faults["mask"] = f"alpha holds {levels[0]} and {levels[1]} alone"
    if levels[-1] < 255:
        faults["not opaque"] = f"the largest alpha is {levels[-1]}"
    if levels[0] > 0:
        faults["not empty"] = f"the least alpha is {levels[0]}"
    stray, between = _count_stray(alpha)
    if stray > _STRAY * between:
        faults["noise"] = f"{stray:,} pixels of alpha are almost 0 or 255 far from an edge, beside {between:,} between"
    height, width = alpha.shape
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]]).mean() / 255
    middle = alpha[height // 4 : height - height // 4, width // 4 : width - width // 4].mean() / 255
    if border > middle + _INVERTED:
        faults["inverted"] = f"the border of the image is {border:.0%} opaque, its middle {middle:.0%}"
    return faults


def _count_stray(alpha: np.ndarray) -> tuple[int, int]:
    """Count the pixels that are almost 0 or 255 beside one that is so and far from any edge, and those of the edges.

    A lossy file leaves such specks around edges; where alpha rises slowly there are few beside 0 and 255 themselves.
    """
    between = (alpha > _NEAR) & (alpha < 255 - _NEAR)
    almost = ((alpha > 0) & (alpha <= _NEAR)) | ((alpha < 255) & (alpha >= 255 - _NEAR))
    far = cv2.dilate(between.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    around = np.ones((3, 3), np.uint8)
    beside = (cv2.erode(alpha, around) == 0) | (cv2.dilate(alpha, around) == 255)
    return int(np.count_nonzero(almost & far & beside)), int(np.count_nonzero(between))


def measure_halo(colors: np.ndarray, alpha: np.ndarray) -> float:
    """Measure how far the colours follow alpha, where it is between: 0..1, of the colours' range from opaque to empty.

    A foreground's own colours do not depend on how opaque it is. In colours that an old background still shines
    through, alpha F + (1 - alpha) B, they do: in a small window, where F and B hardly change, they lie on a line over
    alpha, of the slope F - B. That line is fitted in each window by least squares, over the pixels that are not empty,
    and its slope is weighted by the share of the colours' variance that it explains; the mean is taken over the pixels
    that are neither opaque nor empty.

    Args:
        colors: uint8 [H, W, 3].
        alpha: uint8 [H, W].

    Returns:
        The measure; 0 where too few pixels are between.

    Source: the local linear model of Levin et al., A Closed-Form Solution to Natural Image Matting, PAMI 2008.
    """
    scale = _LONGEST / max(alpha.shape)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in alpha.shape[::-1])
        colors, alpha = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (colors, alpha))
    a, c = alpha[..., None].astype(np.float32) / 255, colors.astype(np.float32) / 255
    side = 2 * min(max(round(max(alpha.shape) / 100), _RADIUS[0]), _RADIUS[1]) + 1
    weight = (a > 0).astype(np.float32)
    count = np.maximum(_box(side, weight), 1)
    mean_a, mean_c = _box(side, weight * a) / count, _box(side, weight * c) / count
    var_a = _box(side, weight * a * a) / count - mean_a * mean_a
    var_c = np.maximum(_box(side, weight * c * c) / count - mean_c * mean_c, 0).sum(axis=2)
    covariance = _box(side, weight * a * c) / count - mean_a * mean_c
    measured = (alpha > 0) & (alpha < 255) & (var_a[..., 0] > _SPREAD)
    if np.count_nonzero(measured) < _FEWEST:
        return 0.0
    slope = covariance[measured] / var_a[measured]  # [K, 3]
    explained = (covariance[measured] ** 2).sum(axis=1) / np.maximum(var_a[measured][:, 0] * var_c[measured], 1e-6)
    return float((np.sqrt((slope**2).mean(axis=1)) * np.minimum(explained, 1)).mean())


def _box(side: int, image: np.ndarray) -> np.ndarray:  # float32 [H, W, C]
    """Sum over square windows of a side."""
    summed = cv2.boxFilter(image, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return summed.reshape(image.shape)  # of one channel OpenCV drops the axis


def is_multiplied(colors: np.ndarray, alpha: np.ndarray) -> bool:
    """Tell whether colours seem to be multiplied by alpha: none is brighter than alpha is, where that is between.

    It is so of a black foreground, too; ask where `measure_halo` finds a halo.
    """
    between = (alpha > 0) & (alpha < 255)
    if np.count_nonzero(between) < _FEWEST:
        return False
    brighter = colors.max(axis=2)[between].astype(int) > alpha[between].astype(int) + 2
    return bool(brighter.mean() < 0.01)
