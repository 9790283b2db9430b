"""Losses of image matting, each over the unknown region only.

All take alpha mattes of [N, 1, H, W] in 0..1 and a weight of the same shape, 1 where the trimap is unknown and 0
elsewhere, and give a scalar: the sum of the weighted absolute errors over the batch, divided by the sum of the weights.
Without an unknown pixel they are 0. They compute in float32, since float16 cannot hold sums over a picture.
"""

import torch
import torch.nn.functional as F

_LEVELS = 5
# Weight of each output, by the number of them and by the stride at which it is predicted. The sum over three is divided
# by 5, as in MG Matting and MatteFormer.
_OUTPUT_WEIGHTS = {1: {"alpha_os1": 1.0}, 3: {"alpha_os1": 2 / 5, "alpha_os4": 1 / 5, "alpha_os8": 1 / 5}}


def l1(prediction, alpha, weight):
    """Mean absolute error of alpha (Xu et al., Deep Image Matting, CVPR 2017, eq. 1, without the square root)."""
    return _weighted_mean((prediction.float() - alpha.float()).abs(), weight)


def composition(prediction, alpha, contrast, weight):
    """Mean absolute error of the composite made with the predicted alpha (Deep Image Matting, eq. 2).

    Since |(a' F + (1 - a') B) - (a F + (1 - a) B)| = |a' - a| |F - B|, the colours enter as ``contrast`` only: the sum
    over channels of |F - B| / std, [N, 1, H, W], as ``synthesize`` gives it.
    """
    return _weighted_mean((prediction.float() - alpha.float()).abs() * contrast.float(), weight)


def laplacian(prediction, alpha, weight):
    """Weighted sum over a Laplacian pyramid of 5 levels, level i counting 2**i (Hou & Liu, ICCV 2019, eq. 2).

    Each level is averaged over its own unknown pixels: the weight is subsampled with the picture. The low-pass residual
    does not count. Sides must be at least 48 pixels, so that the coarsest level can be padded.
    """
    # The pyramid is linear: that of the difference is the difference of the pyramids.
    total, current, weight = 0, prediction.float() - alpha.float(), weight.float()
    for level in range(_LEVELS):
        smaller = _blur(current)[:, :, ::2, ::2]
        total = total + 2**level * _weighted_mean((current - _expand(smaller, current.shape)).abs(), weight)
        current, weight = smaller, weight[:, :, ::2, ::2]
    return total


def matting_losses(outputs, batch, names):
    """The losses ``names`` of a network's outputs, each summed over three outputs with weights 2, 1, 1 over 5.

    Args:
        outputs: Dictionary of alphas [N, 1, H, W]: alpha_os1, alpha_os4, alpha_os8, or
            alpha_os1 alone, which then counts fully.
        batch: What ``synthesize`` gave.
        names: Some of "l1", "comp", "lap".

    Returns:
        Dictionary of scalars, float32, by name. Their sum is the loss.
    """
    unknown = (batch.trimap == 1).float()
    of = {
        "l1": lambda prediction: l1(prediction, batch.alpha, unknown),
        "comp": lambda prediction: composition(prediction, batch.alpha, batch.contrast, unknown),
        "lap": lambda prediction: laplacian(prediction, batch.alpha, unknown),
    }
    weights = _OUTPUT_WEIGHTS[len(outputs)]
    return {name: sum(w * of[name](outputs[key]) for key, w in weights.items()) for name in names}


def _weighted_mean(error, weight):
    """Sum of weight * error over the sum of the weights; 0 if there is none."""
    return (error * weight).sum() / weight.sum(dtype=torch.float32).clamp(min=1e-8)


def _blur(x):
    """Convolve [N, 1, H, W] with the binomial filter (1, 4, 6, 4, 1) / 16 along both axes; borders are reflected."""
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for axis in (2, 3):
        a, b, c, d, e = (x.narrow(axis, shift, x.shape[axis] - 4) for shift in range(5))
        x = (a + e + 4 * (b + d) + 6 * c) / 16
    return x


def _expand(x, shape):
    """Double the size: zeros in between, blurred, times 4 so that the mean stays."""
    full = x.new_zeros(shape)
    full[:, :, ::2, ::2] = x
    return 4 * _blur(full)
