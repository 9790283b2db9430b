"""One alpha out of a network's three: the coarse one, replaced by finer ones where it is uncertain.

Source: Yu et al., Mask Guided Matting via Progressive Refinement Network, CVPR 2021, with the widths of the published
scripts of MG-Matting and MatteFormer.
Differs: computed on the device of the alphas, where the published scripts dilate with OpenCV; the results are equal.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dptmat.morphology import dilate


def fuse_alphas(alphas: dict[str, Tensor], side: int | None = None) -> Tensor:
    """Take alpha at /8, replace it by that at /4 where it is uncertain, and by that at /1 where it still is.

    Args:
        alphas: ``alpha_os8``, ``alpha_os4`` and ``alpha_os1``, float32 [N, 1, H, W] in 0..1, or ``alpha_os1`` alone.
        side: Look for uncertain pixels on a square of side x side pixels, as MatteFormer does with 640; None for
            H x W itself, as MG-Matting does.

    Returns:
        float32 [N, 1, H, W] in 0..1; ``alpha_os1`` itself where it is alone.
    """
    if "alpha_os8" not in alphas:
        return alphas["alpha_os1"]
    alpha = alphas["alpha_os8"]
    for name, width in (("alpha_os4", 15), ("alpha_os1", 7)):
        alpha = torch.where(uncertain_region(alpha, width, side), alphas[name], alpha)
    return alpha


def uncertain_region(
    alpha: Tensor,  # float32 [N, 1, H, W]
    width: int | Tensor,  # int64 [N]
    side: int | None = None,
    widest: int | None = None,
) -> Tensor:  # bool [N, 1, H, W]
    """Mark the pixels where alpha is from 1/255 to 254/255, grown by an ellipse.

    Args:
        alpha: float32 [N, 1, H, W].
        width, widest: Of the ellipse in pixels, as for `dptmat.morphology.dilate`.
        side: Resize alpha to side x side pixels before, and the result back; None for its own size.

    Returns:
        bool [N, 1, H, W].

    Raises:
        ValueError: As for `dptmat.morphology.dilate`.
    """
    size = alpha.shape[2:]
    if side:
        # MatteFormer's script calls the same function: PyTorch's "nearest" multiplies in float32, so that at some sizes
        # it takes another pixel than floor(i * H / side).
        alpha = interpolate(alpha, size=(side, side), mode="nearest")
    region = dilate((alpha >= 1 / 255) & (alpha <= 254 / 255), width, widest)
    return interpolate(region.byte(), size=size, mode="nearest").bool() if side else region
