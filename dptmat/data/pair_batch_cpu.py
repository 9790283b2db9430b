"""The CPU path of `dptmat.data.pair_batch`: its changes of colour and its composite as loops that numba compiles."""

import numpy as np
import torch
from torch import Tensor

from dptmat.defaults import MEAN, STD
from dptmat.kernels._compile import compiled, for_each_part

_MEAN, _SCALE = np.array(MEAN, np.float32), 1 / np.array(STD, np.float32)


def jitter_on_cpu(
    picture: Tensor,  # float32 [N, 3, H, W] in 0..1
    alpha: Tensor,  # float32 [N, 1, H, W]
    color: Tensor,  # float32 [N, 3]: hue in degrees; saturation and value in -1..1
) -> Tensor:  # float32 [N, 3, H, W] in 0..1
    """Change colours as `dptmat.data.matte_batch.jitter` does, but for those whose changes are all 0."""
    out = np.empty(picture.shape, np.float32)
    pictures, alphas, colors = picture.numpy(), alpha.numpy(), color.numpy()

    def work(part: slice) -> None:
        for n in range(part.start, part.stop):
            if colors[n].any():
                _jitter(pictures[n], alphas[n, 0], colors[n], out[n])
            else:
                out[n] = pictures[n]

    for_each_part(work, len(out))
    return torch.from_numpy(out)


def compose_on_cpu(fg: Tensor, bg: Tensor, alpha: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor]:
    """Make the network's input, in channels_last, and the contrast of a `Scene`."""
    samples, _, height, width = fg.shape
    image, contrast = (
        np.empty((samples, height, width, 6), np.float32),
        np.empty((samples, 1, height, width), np.float32),
    )
    fgs, bgs, alphas, states = fg.numpy(), bg.numpy(), alpha.numpy(), trimap.numpy()

    def work(part: slice) -> None:
        for n in range(part.start, part.stop):
            _compose(fgs[n], bgs[n], alphas[n, 0], states[n, 0], image[n], contrast[n, 0])

    for_each_part(work, samples)
    return torch.from_numpy(image).permute(0, 3, 1, 2), torch.from_numpy(contrast)


@compiled
def _jitter(  # noqa: C901 - compiled, in one loop
    picture: np.ndarray,  # float32 [3, H, W]
    alpha: np.ndarray,  # float32 [H, W]
    color: np.ndarray,  # float32 [3]
    out: np.ndarray,  # float32 [3, H, W]; written
) -> None:
    _, height, width = picture.shape
    zero, one, two, six = np.float32(0), np.float32(1), np.float32(2), np.float32(6)
    count, saturations, values = 0, 0.0, 0.0
    for y in range(height):
        for x in range(width):
            if alpha[y, x] > zero:
                red, green, blue = picture[0, y, x], picture[1, y, x], picture[2, y, x]
                value = max(red, green, blue)
                if value > zero:
                    saturations += np.float64((value - min(red, green, blue)) / value)
                values += np.float64(value)
                count += 1
    count = max(count, 1)
    by_saturation = np.float32(color[1] * (1.1 - saturations / count) / 10)
    by_value = np.float32(color[2] * (1.1 - values / count) / 10)
    turn = color[0] / np.float32(60) + six  # above 0, where a remainder is one of C
    for y in range(height):
        for x in range(width):
            red, green, blue = picture[0, y, x], picture[1, y, x], picture[2, y, x]
            value = max(red, green, blue)
            chroma = value - min(red, green, blue)
            divisor = chroma if chroma > zero else one
            if value == red:
                sextant = (green - blue) / divisor
            elif value == green:
                sextant = (blue - red) / divisor + two
            else:
                sextant = (red - green) / divisor + np.float32(4)
            sextant += turn
            saturation = abs(chroma / (value if value > zero else one) + by_saturation)
            saturation = two - saturation if saturation > one else saturation
            value = abs(value + by_value)
            value = two - value if value > one else value
            for c in range(3):
                k = sextant + np.float32(5 - 2 * c)
                while k >= six:
                    k -= six
                weight = max(zero, min(k, np.float32(4) - k, one))
                out[c, y, x] = value * (one - saturation * weight)


@compiled
def _compose(
    fg: np.ndarray,  # float32 [3, H, W]
    bg: np.ndarray,  # float32 [3, H, W]
    alpha: np.ndarray,  # float32 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]
    image: np.ndarray,  # float32 [H, W, 6]; written
    contrast: np.ndarray,  # float32 [H, W]; written
) -> None:
    _, height, width = fg.shape
    for y in range(height):
        for x in range(width):
            a, state, total = alpha[y, x], trimap[y, x], np.float32(0)
            for c in range(3):
                over, under = fg[c, y, x], bg[c, y, x]
                image[y, x, c] = (a * over + (np.float32(1) - a) * under - _MEAN[c]) * _SCALE[c]
                image[y, x, 3 + c] = np.float32(state == c)
                total += abs(over - under) * _SCALE[c]
            contrast[y, x] = total
