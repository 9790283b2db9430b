"""Which pixels of an image its errors count, and how that is called: errors of different regions are not comparable.

- "unknown": what the trimap leaves unknown, as Composition-1k and alphamatting.com are scored.
- "whole": every pixel, as the first columns of AIM-500, P3M-10k and AM-2k.
- "transition": as their column "Tran.": what the trimaps that the set comes with leave unknown; where there are none,
  what `dptmat.data.trimaps.transition` makes of the true alpha.

Source: the evaluation code of Li et al., Deep Automatic Natural Image Matting, IJCAI 2021, which those of P3M-10k and
AM-2k equal here.
Differs: in the transition region that code also counts true alphas that are neither 0 nor 1 where the trimap is known.
"""

import numpy as np

from dptmat.data.image_io import LEVELS
from dptmat.data.trimaps import TRANSITION, transition
from dptmat.defaults import REGIONS


def require_region(region: str) -> None:
    """Raise a ValueError unless ``region`` is one of REGIONS."""
    if region not in REGIONS:
        raise ValueError(f"`region` must be {', '.join(REGIONS)}, got {region!r}")


def mark_region(region: str, alpha: np.ndarray, trimap: np.ndarray | None, *, made: bool) -> np.ndarray:
    """Mark the pixels that count, as the functions of `dptmat.metrics` take them.

    Args:
        region: One of REGIONS.
        alpha: The true alpha, uint8 [H, W].
        trimap: uint8 [H, W] of 0, 1 and 2, or None; "unknown" needs one.
        made: Whether the trimap was made for the evaluation, so that "transition" is not taken from it.

    Returns:
        uint8 [H, W]: 128 where a pixel counts.
    """
    if region == "whole":
        return np.full_like(alpha, 128)
    if region == "transition" and (trimap is None or made):
        trimap = transition(alpha)
    if trimap is None:
        raise ValueError("the unknown region is that of a trimap; give one")
    return LEVELS[trimap]


def tell_source(region: str, has_trimap: bool) -> str:
    """Tell in a few words where a region is from, for scores.json."""
    if region == "whole":
        return "every pixel"
    return "trimap" if region == "unknown" or has_trimap else f"alpha, by an ellipse of {TRANSITION} pixels"
