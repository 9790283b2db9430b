"""The errors of an alpha matte as papers report them: SAD, MSE, Grad, Conn and MAD over the trimap's unknown region.

The first four equal the official MATLAB code of the Deep Image Matting evaluation on any 8-bit input, but for the
rounding of floating-point sums; it has no MAD. All take

    pred, alpha: uint8 [H, W], 255 is opaque. Both are used as they are, also where the trimap says foreground or
        background: Grad and Conn look there, so set pred to 255 and 0 there first if published results did.
    trimap: uint8 [H, W] as in image files: unknown is what equals 128, and no other value means anything. One of 128
        alone counts the whole image; see `dptmat.data.regions`.

and raise

    TypeError: One of them is no NumPy array of uint8.
    ValueError: One is not [H, W] with a pixel or more, sizes differ, or the trimap is one of 0, 1 and 2.

A test set's score is the plain mean over its images, whatever their size. The memory for one is 50 bytes per pixel.

Source: the evaluation code of Xu et al., Deep Image Matting, CVPR 2017; Grad and Conn are from Rhemann et al., A
Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009.
Differs: other Python implementations give other numbers. mmagic compares alphas with the steps of Conn in double
precision, where 153 / 255 misses the step 0.6: 0.1 to 0.4 % more on each of 20 images of alphamatting.com with blurred
alphas. It also orders regions of one size by rows, and its SAD and MSE count the known regions too: 3.6 % more SAD on
GT27. The port in GCA-Matting scales both alphas by 255 in Grad instead of stretching each, and its Conn may take the
background for the largest region.
"""

from math import ceil, log, pi, sqrt

import cv2
import numpy as np

_SIGMA = 1.4  # pixels, of the Gaussian whose derivative Grad takes
_RADIUS = ceil(_SIGMA * sqrt(-2 * log(sqrt(2 * pi) * _SIGMA * 0.01)))  # 4: where the Gaussian has fallen to 0.01


def sad(
    pred: np.ndarray,  # uint8 [H, W]
    alpha: np.ndarray,  # uint8 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]
) -> float:
    """Return the sum of absolute differences over the unknown region, alphas in 0..1, divided by 1000.

    Args:
        pred: The alpha to judge.
        alpha: The true alpha.
        trimap: Of the image, as in files: what equals 128 counts.

    Raises:
        TypeError: One of them is no NumPy array of uint8.
        ValueError: Shapes or sizes are wrong, or the trimap holds 0, 1 and 2: see the head of the module.
    """
    pred, alpha, unknown = _require(pred, alpha, trimap)
    return int(cv2.absdiff(pred, alpha)[unknown].sum(dtype=np.int64)) / 255 / 1000


def mse(
    pred: np.ndarray,  # uint8 [H, W]
    alpha: np.ndarray,  # uint8 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]
) -> float:
    """Return the mean squared difference over the unknown region, alphas in 0..1; NaN if nothing is unknown.

    It is not scaled: papers print it times 1000.

    Args:
        pred: The alpha to judge.
        alpha: The true alpha.
        trimap: Of the image, as in files: what equals 128 counts.

    Raises:
        TypeError: One of them is no NumPy array of uint8.
        ValueError: Shapes or sizes are wrong, or the trimap holds 0, 1 and 2: see the head of the module.
    """
    pred, alpha, unknown = _require(pred, alpha, trimap)
    errors = cv2.absdiff(pred, alpha)[unknown].astype(np.int64)
    return int((errors**2).sum()) / 255**2 / errors.size if errors.size else float("nan")


def mad(
    pred: np.ndarray,  # uint8 [H, W]
    alpha: np.ndarray,  # uint8 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]
) -> float:
    """Return the mean absolute difference over the unknown region, alphas in 0..1; NaN if nothing is unknown.

    It is 1000 SAD over the number of pixels. It is not scaled: tables print it plain, or times 1000.

    Args:
        pred: The alpha to judge.
        alpha: The true alpha.
        trimap: Of the image, as in files: what equals 128 counts.

    Raises:
        TypeError: One of them is no NumPy array of uint8.
        ValueError: Shapes or sizes are wrong, or the trimap holds 0, 1 and 2: see the head of the module.

    Source: the evaluation code of Li et al., Deep Automatic Natural Image Matting, IJCAI 2021 (AIM-500).
    """
    pred, alpha, unknown = _require(pred, alpha, trimap)
    errors = cv2.absdiff(pred, alpha)[unknown]
    return int(errors.sum(dtype=np.int64)) / 255 / errors.size if errors.size else float("nan")


def grad(
    pred: np.ndarray,  # uint8 [H, W]
    alpha: np.ndarray,  # uint8 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]
) -> float:
    """Return the sum over the unknown region of the squared differences of gradient magnitudes, divided by 1000.

    Each alpha is first stretched to 0..1 by itself, over the whole image, so that neither offset nor contrast count.
    The gradients are Gaussian derivatives with sigma 1.4 and 9 x 9 pixels, of Frobenius norm 1, and the borders are
    replicated.

    Args:
        pred: The alpha to judge.
        alpha: The true alpha.
        trimap: Of the image, as in files: what equals 128 counts.

    Raises:
        TypeError: One of them is no NumPy array of uint8.
        ValueError: Shapes or sizes are wrong, or the trimap holds 0, 1 and 2: see the head of the module.
    """
    pred, alpha, unknown = _require(pred, alpha, trimap)
    return float(((_amplitude(pred) - _amplitude(alpha))[unknown] ** 2).sum()) / 1000


def conn(
    pred: np.ndarray,  # uint8 [H, W]
    alpha: np.ndarray,  # uint8 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]
) -> float:
    """Return the connectivity error: the sum over the unknown region of |phi(pred) - phi(alpha)|, divided by 1000.

    phi is 1 less how far a pixel's alpha lies above its level, or 1 if that is less than 0.15. The level is the last of
    0, 0.1 ... 1 up to which the pixel belongs at every step to the one largest 4-connected region, of the whole image,
    where both alphas reach the step. Of regions of one size, the first by column and then by row counts.

    Args:
        pred: The alpha to judge.
        alpha: The true alpha.
        trimap: Of the image, as in files: what equals 128 counts.

    Raises:
        TypeError: One of them is no NumPy array of uint8.
        ValueError: Shapes or sizes are wrong, or the trimap holds 0, 1 and 2: see the head of the module.
    """
    pred, alpha, unknown = _require(pred, alpha, trimap)
    level = _connected_level(np.minimum(pred, alpha))[unknown].astype(np.int64)
    # In units of 1 / 2550 all of this is whole numbers: (v / 255 - k / 10) * 2550 = 10 v - 255 k, and 0.15 is 382.5.
    above = [10 * matte[unknown].astype(np.int64) - 255 * level for matte in (pred, alpha)]
    ours, true = (np.where(distance > 382, distance, 0) for distance in above)
    return int(np.abs(ours - true).sum()) / 2550 / 1000


def _amplitude(matte: np.ndarray) -> np.ndarray:  # uint8 -> float64, both [H, W]
    lowest, highest = int(matte.min()), int(matte.max())
    if lowest == highest:
        return np.zeros(matte.shape)
    stretched = (matte.astype(np.float64) - lowest) / (highest - lowest)
    x = np.arange(-_RADIUS, _RADIUS + 1)
    gaussian = np.exp(-(x**2) / (2 * _SIGMA**2))
    slope = x * gaussian / np.linalg.norm(np.outer(gaussian, x * gaussian))
    across = cv2.sepFilter2D(stretched, cv2.CV_64F, slope, gaussian, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(stretched, cv2.CV_64F, gaussian, slope, borderType=cv2.BORDER_REPLICATE)
    return np.sqrt(across**2 + down**2)


def _connected_level(lower: np.ndarray) -> np.ndarray:  # -> 0..10; uint8 [H, W] both
    """Count the steps of 0.1 up to which a pixel stays in the largest region; once out, it stays out."""
    level = np.zeros(lower.shape, np.uint8)
    inside = np.ones(lower.shape, bool)
    for k in range(1, 11):
        inside &= _largest_region(lower >= -(-255 * k // 10))  # whole numbers: 153 / 255 reaches 0.6
        level += inside
    return level


def _largest_region(mask: np.ndarray) -> np.ndarray:  # bool [H, W]
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    areas = statistics[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # what lies outside the mask
    if not areas.any():
        return mask
    largest = areas == areas.max()
    if np.count_nonzero(largest) == 1:
        return labels == largest.argmax()
    by_column = labels.T.ravel()
    return labels == by_column[largest[by_column].argmax()]


def _require(
    pred: np.ndarray, alpha: np.ndarray, trimap: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # uint8, uint8, bool; each [H, W]
    given = {"pred": pred, "alpha": alpha, "trimap": trimap}
    for name, image in given.items():
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            got = getattr(image, "dtype", type(image).__name__)
            raise TypeError(f"{name} must be a NumPy array of uint8, got {got}; give alphas as 0..255")
        if image.ndim != 2 or not image.size:
            raise ValueError(f"{name} must be [H, W] with a pixel or more, got {list(image.shape)}; give one channel")
    if len({image.shape for image in given.values()}) > 1:
        sizes = ", ".join(f"{name} {list(image.shape)}" for name, image in given.items())
        raise ValueError(f"sizes differ: {sizes}; give three images of one height and width")
    if trimap.max() <= 2 and (trimap == 1).any():
        raise ValueError("trimap holds 0, 1 and 2, expected 0, 128 and 255 as in image files; map them first")
    return pred, alpha, trimap == 128
