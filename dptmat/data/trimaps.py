"""Trimaps where there are none: from an alpha matte as benchmarks make them, and from a matte or a mask by widths."""

from hashlib import blake2b

import cv2
import numpy as np

from dptmat.kernels.philox import Stream, words

# Pixels: the ellipse of `transition`, in both ranges that released codes of training draw from: 25 to 35 (AM-2k) and 15
# to 30 (P3M-10k).
TRANSITION = 25
WIDEST = 20  # pixels: the largest ellipse of `from_alpha`, as published for Distinctions-646


def from_alpha(alpha: np.ndarray, name: str, seed: int = 0) -> np.ndarray:
    """Make a trimap from an alpha: its opaque and its empty part, each shrunk by one ellipse of random size.

    The ellipse is as high as wide, uniform in 1..20 pixels, a function of seed and name alone: two evaluations are
    comparable, whatever else they evaluate.

    Args:
        alpha: uint8 [H, W].
        name: Of the image.
        seed: 0 <= seed < 2**64.

    Returns:
        uint8 [H, W]: 0 background, 1 unknown, 2 foreground.

    Source: Qiao et al., Attention-Guided Hierarchical Structure Aggregation for Image Matting, CVPR 2020, whose test
    set Distinctions-646 comes without trimaps; "random dilation with threshold 20" is told in no more detail.
    """
    ident = np.frombuffer(blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), np.uint64)
    width = 1 + int(words(seed, Stream.DILATION, ident, 1)[0, 0, 0]) % WIDEST
    return _shrink(alpha, width)


def transition(alpha: np.ndarray) -> np.ndarray:
    """Make the trimap whose unknown region is the transition region of an alpha, by one ellipse of TRANSITION pixels.

    Unknown is what is neither opaque nor empty, and what the ellipse reaches from there: 12 pixels to each side. The
    border of the image is no edge.

    Args:
        alpha: uint8 [H, W].

    Returns:
        uint8 [H, W]: 0 background, 1 unknown, 2 foreground.

    Source: Li et al., Bridging Composite and Real: Towards End-to-end Deep Image Matting, IJCV 2022 (AM-2k), and Li et
    al., Privacy-Preserving Portrait Matting, ACM MM 2021 (P3M-10k), whose trimaps of training are made in this way.
    """
    return _shrink(alpha, TRANSITION)


def _shrink(alpha: np.ndarray, width: int) -> np.ndarray:
    """Leave as known what an ellipse of this width fits into, of the opaque and of the empty part: a trimap."""
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    foreground, background = (cv2.erode((alpha == value).astype(np.uint8), ellipse) for value in (255, 0))
    return 1 + foreground - background


def from_matte(alpha: np.ndarray, inward: float, outward: float) -> np.ndarray:
    """Make a trimap from an alpha: its opaque and its empty part, each shrunk by a width of its own.

    What alpha leaves between is unknown in any case, so that no hair is lost; so is what is opaque and narrower than
    twice ``inward``. Distances are Euclidean, from the middle of a pixel to that of another. The border of the image is
    no outline.

    Args:
        alpha: uint8 [H, W].
        inward: Pixels, 0 or more: unknown is what is opaque and within them of a pixel that is not.
        outward: Pixels, 0 or more: unknown is what is empty and within them of a pixel that is not.

    Returns:
        uint8 [H, W]: 0 background, 1 unknown, 2 foreground.
    """
    foreground, background = (
        cv2.distanceTransform((alpha == value).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > width
        for value, width in ((255, inward), (0, outward))
    )
    return 1 + foreground.astype(np.uint8) - background


def from_mask(mask: np.ndarray, inward: float, outward: float | None = None) -> np.ndarray:
    """Make a trimap from a mask, as `from_matte` does: unknown is what lies near to the mask's outline.

    Args:
        mask: uint8 [H, W], foreground from 128.
        inward: Pixels within the outline, 0 or more.
        outward: Pixels outside of it; by default as many. With 0 for both nothing is unknown.

    Returns:
        uint8 [H, W]: 0 background, 1 unknown, 2 foreground.
    """
    return from_matte(np.where(mask >= 128, np.uint8(255), np.uint8(0)), inward, inward if outward is None else outward)
