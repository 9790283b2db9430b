"""Losses of image matting, each over a region: the trimap's unknown one, unless their names say otherwise.

All take alpha mattes of [N, 1, H, W] in 0..1 and a weight of the same shape, 1 in the region and 0 elsewhere, and give
a scalar: the sum of the weighted absolute errors over the batch, divided by the sum of the weights. Where the region
is empty they are 0. They compute in float32, since float16 cannot hold sums over an image.

The K outputs of a network go through them together, as a prediction of [K, N, 1, H, W] with an alpha for all and a
weight for all or for each, and give [K]: the same numbers as one after the other, in a third of the kernel launches.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from operator import add
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dptmat.defaults import LOSSES
from dptmat.errors import UserError
from dptmat.fusion import uncertain_region

_LEVELS = 5
# Weight of each output, by the number of them and by the stride at which it is predicted. The sum over three is divided
# by 5, as in MG Matting and MatteFormer.
_OUTPUT_WEIGHTS = {1: {"alpha_os1": 1.0}, 3: {"alpha_os1": 2 / 5, "alpha_os4": 1 / 5, "alpha_os8": 1 / 5}}


class Targets(Protocol):
    """What a network's outputs are compared with: a ``Batch`` or a ``ComposedBatch``."""

    @property
    def alpha(self) -> Tensor: ...  # [N, 1, H, W], 0..1

    @property
    def contrast(self) -> Tensor: ...  # [N, 1, H, W]: sum over channels of |F - B| / std

    @property
    def trimap(self) -> Tensor: ...  # uint8 [N, 1, H, W]: 0 background, 1 unknown, 2 foreground


def l1(
    prediction: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
    alpha: Tensor,  # [N, 1, H, W]
    weight: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
) -> Tensor:  # float32 [] or [K]
    """Average the absolute error of alpha (Xu et al., Deep Image Matting, CVPR 2017, eq. 1, without the square root).

    Args:
        prediction: The network's alpha, 0..1.
        alpha: The true alpha, 0..1.
        weight: 1 where an error counts, else 0.
    """
    return _weighted_mean((prediction.float() - alpha.float()).abs(), weight)


def composition(
    prediction: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
    alpha: Tensor,  # [N, 1, H, W]
    contrast: Tensor,  # [N, 1, H, W]
    weight: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
) -> Tensor:  # float32 [] or [K]
    """Average the absolute error of the composite made with the predicted alpha (Deep Image Matting, eq. 2).

    Since |(a' F + (1 - a') B) - (a F + (1 - a) B)| = |a' - a| |F - B|, the colours enter as ``contrast`` only: the sum
    over channels of |F - B| / std, as ``synthesize`` gives it.

    Args:
        prediction: The network's alpha, 0..1.
        alpha: The true alpha, 0..1.
        contrast: What an error of alpha counts at each pixel.
        weight: 1 where an error counts, else 0.
    """
    return _weighted_mean((prediction.float() - alpha.float()).abs() * contrast.float(), weight)


def laplacian(
    prediction: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
    alpha: Tensor,  # [N, 1, H, W]
    weight: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
) -> Tensor:  # float32 [] or [K]
    """Sum the errors over a Laplacian pyramid of 5 levels, level i counting 2**i (Hou & Liu, ICCV 2019, eq. 2).

    Each level is averaged over its own unknown pixels: the weight is subsampled with the image. The low-pass residual
    does not count. Sides must be at least 48 pixels, so that the coarsest level can be padded.

    Args:
        prediction: The network's alpha, 0..1.
        alpha: The true alpha, 0..1.
        weight: 1 where an error counts, else 0.
    """
    # The pyramid is linear: that of the difference is the difference of the pyramids.
    current, weight, levels = prediction.float() - alpha.float(), weight.float(), []
    for level in range(_LEVELS):
        smaller = _blur(current)[..., ::2, ::2]
        levels.append(2**level * _weighted_mean((current - _expand(smaller, current.shape)).abs(), weight))
        current, weight = smaller, weight[..., ::2, ::2]
    return _sum(levels)


def gradient(
    prediction: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
    alpha: Tensor,  # [N, 1, H, W]
    weight: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
) -> Tensor:  # float32 [] or [K]
    """Average the absolute error of alpha's gradient, and a hundredth of the predicted gradient itself.

    The sum over both axes of mean |S(prediction) - S(alpha)| + 0.01 mean |S(prediction)|, where S is the filter
    (-1 0 1) along the axis and (1 2 1) across it (Sobel), not divided, and zeros lie around the image.

    Source: the published training code of ViTMatte (Yao et al., Information Fusion 2024).

    Args:
        prediction: The network's alpha, 0..1.
        alpha: The true alpha, 0..1.
        weight: 1 where an error counts, else 0.
    """
    prediction = prediction.float()
    errors, slopes = _sobel(prediction - alpha.float()), _sobel(prediction)  # the filter is linear
    return _sum(_weighted_mean(e.abs() + 0.01 * s.abs(), weight.float()) for e, s in zip(errors, slopes, strict=True))


def matting_losses(
    outputs: Mapping[str, Tensor],
    batch: Targets,
    names: Iterable[str],
    regions: Mapping[str, Tensor] | None = None,
    compile: bool = False,
) -> dict[str, Tensor]:
    """Compute the losses ``names`` of a network's outputs, each summed over three outputs with weights 2, 1, 1 over 5.

    Args:
        outputs: Dictionary of alphas [N, 1, H, W]: alpha_os1, alpha_os4, alpha_os8, or
            alpha_os1 alone, which then counts fully.
        batch: With ``alpha``, ``contrast`` and ``trimap``: a ``Batch`` or ``ComposedBatch``.
        names: Some of `dptmat.defaults.LOSSES`: "l1", "comp", "lap", "grad"; "l1_known", which is "l1" averaged over
            the known region of the trimap; and "lap_whole", a fifth of "lap" averaged over the whole image. ViTMatte's
            loss is "l1", "l1_known", "lap_whole" and "grad".
        regions: Where each output counts, bool [N, 1, H, W] by its name; by default the unknown region of the trimap.
            Not for "l1_known" and "lap_whole", whose names tell it.
        compile: Whether to compile the Laplacian loss, nearly all of the launches, by ``torch.compile``: sums are then
            added in another order.

    Returns:
        Dictionary of scalars, float32, by name. Their sum is the loss.

    Raises:
        UserError: A name is none of these.
    """
    names = list(names)
    if unknown := set(names) - set(LOSSES):
        raise UserError(f"`names` must be some of {', '.join(LOSSES)}, got {', '.join(map(repr, sorted(unknown)))}")
    shares = _OUTPUT_WEIGHTS[len(outputs)]
    prediction = torch.stack([outputs[key] for key in shares])
    weight = (torch.stack([regions[key] for key in shares]) if regions else batch.trimap == 1).float()
    lap = _compiled_laplacian() if compile else laplacian
    of = {
        "l1": lambda: l1(prediction, batch.alpha, weight),
        "comp": lambda: composition(prediction, batch.alpha, batch.contrast, weight),
        "lap": lambda: lap(prediction, batch.alpha, weight),
        "grad": lambda: gradient(prediction, batch.alpha, weight),
        "l1_known": lambda: l1(prediction, batch.alpha, (batch.trimap != 1).float()),
        "lap_whole": lambda: lap(prediction, batch.alpha, torch.ones_like(weight)) / _LEVELS,
    }
    return {name: _sum(share * loss for share, loss in zip(shares.values(), of[name](), strict=True)) for name in names}


def refine(
    outputs: Mapping[str, Tensor],
    widths: Tensor,  # int64 [N, 2]
    widest: Sequence[int],
    side: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Put finer alphas in place of coarser ones where these are uncertain, as at inference but with random widths.

    Args:
        outputs: Dictionary of alpha_os1, alpha_os4 and alpha_os8, float32 [N, 1, H, W].
        widths: Widths in pixels of the ellipses around the uncertain region of alpha_os8, and of alpha_os4 after it was
            put in place, int64 [N, 2].
        widest: The largest widths that may occur, one for each column.
        side: As for `dptmat.fusion.uncertain_region`: 640 for MatteFormer.

    Returns:
        The dictionary with alpha_os4 and alpha_os1 put in place, and where each of the three was asked, bool
        [N, 1, H, W] by name; alpha_os8 is everywhere.

    Source: Yu et al., Mask Guided Matting via Progressive Refinement Network, CVPR 2021, section 3.2.
    """
    alpha = outputs["alpha_os8"]
    fused, regions = {"alpha_os8": alpha}, {"alpha_os8": torch.ones_like(alpha, dtype=torch.bool)}
    for column, name in enumerate(("alpha_os4", "alpha_os1")):
        regions[name] = uncertain_region(alpha.detach(), widths[:, column], side, widest[column])
        alpha = fused[name] = torch.where(regions[name], outputs[name], alpha)
    return fused, regions


def keep_coarsest(
    outputs: Mapping[str, Tensor],
    unknown: Tensor,  # bool [N, 1, H, W]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Put the coarsest alpha in place of the finer ones in the known region; it then counts everywhere, they do not.

    Args:
        outputs: Dictionary of alphas [N, 1, H, W]: alpha_os8, alpha_os4 and alpha_os1, or alpha_os1 alone, which stays.
        unknown: The unknown region of the trimap.

    Returns:
        The dictionary with alpha_os8 put in place, and where each output counts, bool [N, 1, H, W] by name.

    Source: the published training code of DPT (Li et al., WACV 2024).
    """
    coarsest = outputs.get("alpha_os8")
    if coarsest is None:
        return dict(outputs), dict.fromkeys(outputs, unknown)
    fused = {name: torch.where(unknown, alpha, coarsest) for name, alpha in outputs.items()} | {"alpha_os8": coarsest}
    return fused, dict.fromkeys(outputs, unknown) | {"alpha_os8": torch.ones_like(unknown)}


@cache
def _compiled_laplacian() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return torch.compile(laplacian, dynamic=False)


def _weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """Divide the sum of weight * error by the sum of the weights; 0 if there is none."""
    return _total(error * weight) / _total(weight).clamp(min=1e-8)


def _total(
    x: Tensor,  # [N, 1, H, W] or [K, N, 1, H, W]
) -> Tensor:  # float32 [] or [K]
    # Output by output: one sum over all but the first dimension would add in another order, and round otherwise.
    return x.sum(dtype=torch.float32) if x.ndim == 4 else torch.stack([part.sum(dtype=torch.float32) for part in x])


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(add, terms)


def _sobel(x: Tensor) -> Iterator[Tensor]:
    """Filter [..., H, W] by Sobel's filter along columns, then along rows; outside are zeros."""
    x = F.pad(x, (1, 1, 1, 1))
    for along, across in ((-1, -2), (-2, -1)):
        slope = x.narrow(along, 2, x.shape[along] - 2) - x.narrow(along, 0, x.shape[along] - 2)
        a, b, c = (slope.narrow(across, shift, x.shape[across] - 2) for shift in range(3))
        yield a + 2 * b + c


def _blur(x: Tensor) -> Tensor:
    """Convolve [..., H, W] with the binomial filter (1, 4, 6, 4, 1) / 16 along both axes; borders are reflected."""
    x = F.pad(x.flatten(0, -4), (2, 2, 2, 2), mode="reflect").unflatten(0, x.shape[:-3])
    for axis in (-2, -1):
        a, b, c, d, e = (x.narrow(axis, shift, x.shape[axis] - 4) for shift in range(5))
        x = torch.add(a + e, b + d, alpha=4) + 6 * c
    return x / 16**2  # at the end, which is exact: a power of two


def _expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Double the size: zeros in between, blurred, times 4 so that the mean stays."""
    full = x.new_zeros(shape)
    full[..., ::2, ::2] = x
    return 4 * _blur(full)
