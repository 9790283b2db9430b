"""Masks grown by OpenCV's ellipses, on the device of the masks and with a width of its own for each."""

import torch
from torch import Tensor

_NEVER = -(1 << 20)  # the column of a pixel that is not there


def dilate(
    mask: Tensor,  # bool [N, 1, H, W]
    width: int | Tensor,  # int64 [N]
    widest: int | None = None,
) -> Tensor:  # bool [N, 1, H, W]
    """Grow a mask by an ellipse that is as high as wide, as ``cv2.dilate`` with ``MORPH_ELLIPSE`` does.

    Row i of the ellipse of width k reaches round(sqrt(c**2 - (i - c)**2)) pixels from its centre c = k // 2, but not
    beyond k: an even ellipse lacks what an odd one has at the right and at the bottom. Does not wait for the device.

    Args:
        mask: bool [N, 1, H, W].
        width: In pixels, from 1: one for all masks, or int64 [N].
        widest: The largest width that may occur; to be given where ``width`` is a tensor.

    Returns:
        bool [N, 1, H, W].

    Raises:
        ValueError: ``width`` is a tensor, and ``widest`` is not given.
    """
    if not isinstance(width, Tensor):
        widths, widest = torch.full((len(mask),), width, device=mask.device), width
    elif widest is None:
        raise ValueError("widest must be given where width is a tensor; to look for it there, the host would wait")
    else:
        widths = width
    gaps = torch.cat([_distance(mask), _distance(mask.flip(3)).flip(3)], dim=1)  # [N, 2, H, W]: to the left, right
    rows = range(-(widest // 2), widest - widest // 2)
    reaches = _reaches(widths, rows).to(gaps.dtype)
    grown, height = torch.zeros_like(gaps, dtype=torch.bool), mask.shape[2]
    for dy, reach in zip(rows, reaches, strict=True):
        length = height - abs(dy)
        if length > 0:
            hit = gaps.narrow(2, max(dy, 0), length) <= reach
            grown.narrow(2, max(-dy, 0), length).logical_or_(hit)
    return grown.any(1, keepdim=True)


def erode(mask: Tensor, width: int | Tensor, widest: int | None = None) -> Tensor:
    """Shrink a mask as ``cv2.erode`` does; arguments, result and errors as for `dilate`.

    Outside of the mask all counts as set.
    """
    return ~dilate(~mask, width, widest)


def _distance(mask: Tensor) -> Tensor:
    """Count the pixels from each one to the next set one at its left, int32 of the same shape; large without one."""
    column = torch.arange(mask.shape[3], dtype=torch.int32, device=mask.device)
    return column - torch.where(mask, column, _NEVER).cummax(dim=3).values


def _reaches(
    widths: Tensor,  # int64 [N]
    rows: range,  # R of them, from an ellipse's centre
) -> Tensor:  # int64 [R, N, 2, 1, 1]
    """Tell how far each row of each ellipse reaches to the left and to the right; -1 where it has no such row."""
    dy = torch.arange(rows.start, rows.stop, device=widths.device)[:, None]
    centre = widths // 2
    left = (centre**2 - dy**2).clamp(min=0).sqrt().round().long()
    both = torch.stack([left, torch.minimum(left, widths - 1 - centre)], dim=2)
    within = (dy >= -centre) & (dy < widths - centre)
    return torch.where(within[:, :, None], both, -1)[..., None, None]
