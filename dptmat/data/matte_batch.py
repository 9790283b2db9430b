"""From a fine-tuning sample's layers to the network's input and targets: combine, trimap, colours, composite.

Source: the published augmentation of MG Matting (Yu et al., CVPR 2021) and GCA-Matting (Li and Lu, AAAI 2020).
Differs: foregrounds are combined after the affine, in float; the trimap is made at the size of the crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dptmat.defaults import MEAN, STD
from dptmat.kernels import composite
from dptmat.morphology import erode
from dptmat.pipelines.batches import Layers
from dptmat.pipelines.crop_window import CHOICES, Recipe

_KNOWN = 1e-5  # alpha up to this is background, and from 1 minus this foreground


@dataclass(frozen=True, eq=False)
class ComposedBatch:
    """One batch of composites; every tensor is on one device, the floats are float32."""

    input: Tensor  # [N, 6, H, W]: the normalized composite and the one-hot trimap, as in ``Batch``
    alpha: Tensor  # [N, 1, H, W], 0..1: what the network must give back
    contrast: Tensor  # [N, 1, H, W]: sum over channels of |F - B| / std, as in ``Batch``
    trimap: Tensor  # uint8 [N, 1, H, W]: 0 background, 1 unknown, 2 foreground


@dataclass(frozen=True, eq=False)
class MatteBatch(ComposedBatch):
    """One batch of composites with real mattes."""

    widths: Tensor  # int64 [N, 2]: widths in pixels for the refinement of alpha_os4 and alpha_os1


def make_matte_batch(layers: Layers, recipe: Recipe) -> MatteBatch:
    """Compose one batch on the device of its layers, without waiting for it.

    Args:
        layers: Crops with their margins.
        recipe: Whose ``margin`` and ``trimap_width`` the layers were cut with.

    Returns:
        ``MatteBatch`` of crops without margins, in channels_last.
    """
    choice = {name: layers.choices[:, column, None, None, None] for column, name in enumerate(CHOICES)}
    alpha, second = planes(layers.alpha), planes(layers.second_alpha)
    fg, second_fg = planes(layers.fg), planes(layers.second_fg)
    combined = choice["combined"] > 0
    fg = torch.where(combined, alpha * fg + (1 - alpha) * second_fg, fg)
    alpha = torch.where(combined, 1 - (1 - alpha) * (1 - second), alpha)

    fg_width, bg_width, os4_width, os1_width = (
        choice[name].long().flatten() for name in ("fg_width", "bg_width", "os4_width", "os1_width")
    )
    known = torch.cat([alpha >= 1 - _KNOWN, alpha <= _KNOWN])
    foreground, background = erode(known, torch.cat([fg_width, bg_width]), recipe.trimap_width).chunk(2)
    trimap = 1 + foreground.byte() - background.byte()

    fg, alpha, trimap = (_crop(x, recipe.margin) for x in (fg, alpha, trimap))
    fg = torch.where(alpha.amax((1, 2, 3), keepdim=True) > 0, jitter(fg, alpha, choice), fg).clamp(0, 1)
    bg = planes(layers.bg)
    image, contrast = compose(fg, bg, alpha, trimap)
    return MatteBatch(image, alpha, contrast, trimap, torch.stack([os4_width, os1_width], dim=1))


def compose(
    fg: Tensor,  # float32 [N, 3, H, W] in 0..1
    bg: Tensor,  # float32 [N, 3, H, W] in 0..1
    alpha: Tensor,  # float32 [N, 1, H, W]
    trimap: Tensor,  # uint8 [N, 1, H, W]
) -> tuple[Tensor, Tensor]:
    """Make the network's input, in channels_last, and the contrast: fields of `ComposedBatch`."""
    guidance = (trimap == torch.arange(3, device=trimap.device)[:, None, None]).float()
    image = torch.cat([normalize(composite(fg, bg, alpha), MEAN, STD), guidance], dim=1)
    contrast = normalize((fg - bg).abs(), (0, 0, 0), STD).sum(1, keepdim=True)
    return image.contiguous(memory_format=torch.channels_last), contrast


def jitter(fg: Tensor, alpha: Tensor, choice: dict[str, Tensor]) -> Tensor:
    """Change the colours of foregrounds: hue, saturation and value.

    Saturation and value change by (1.1 - mean) / 10 at most, where the mean is taken over alpha > 0; beyond 0 and 1
    they are reflected.

    Args:
        fg: float32 [N, 3, H, W] in 0..1, red, green, blue.
        alpha: float32 [N, 1, H, W] in 0..1.
        choice: ``hue`` in degrees, ``saturation`` and ``value`` in -1..1, float32 [N, 1, 1, 1] each.

    Returns:
        float32 [N, 3, H, W] in 0..1.
    """
    hue, saturation, value = rgb_to_hsv(fg)
    visible = (alpha > 0).float()
    count = visible.sum((1, 2, 3), keepdim=True).clamp(min=1)

    def change(x: Tensor, by: Tensor) -> Tensor:
        mean = (x * visible).sum((1, 2, 3), keepdim=True) / count
        x = (x + by * (1.1 - mean) / 10).abs()
        return torch.where(x > 1, 2 - x, x)

    return hsv_to_rgb(
        (hue + choice["hue"]) % 360, change(saturation, choice["saturation"]), change(value, choice["value"])
    )


def rgb_to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in degrees 0..360, saturation and value 0..1, [N, 1, H, W] each, of [N, 3, H, W] in 0..1.

    Source: Smith, Color Gamut Transform Pairs, SIGGRAPH 1978.
    """
    value, largest = rgb.max(1, keepdim=True)
    chroma = value - rgb.amin(1, keepdim=True)
    red, green, blue = rgb.split(1, dim=1)
    divisor = torch.where(chroma > 0, chroma, 1)
    sextant = torch.where(
        largest == 0, (green - blue) / divisor % 6,
        torch.where(largest == 1, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )  # fmt: skip
    return 60 * sextant, chroma / torch.where(value > 0, value, 1), value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Reverse `rgb_to_hsv`: [N, 3, H, W] in 0..1."""
    shifts = torch.arange(5, 0, -2, device=hue.device)[:, None, None]  # 5, 3, 1 for red, green, blue
    sextants = (shifts + hue / 60) % 6
    return value * (1 - saturation * torch.minimum(sextants, 4 - sextants).clamp(0, 1))


def normalize(
    image: Tensor,  # [N, 3, H, W]
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:  # [N, 3, H, W]
    """Take the mean of each channel off, and divide by its deviation."""
    # Channel by channel with numbers: to bring tensors of them to a GPU, the host would wait for it.
    channels = zip(image.unbind(1), mean, std, strict=True)
    return torch.stack([(channel - m) / s for channel, m, s in channels], dim=1)


def planes(
    pixels: Tensor,  # uint8 [N, H, W, C]
) -> Tensor:  # float32 [N, C, H, W] in 0..1
    """Make planes of float of interleaved bytes."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def _crop(x: Tensor, margin: int) -> Tensor:
    return x[:, :, margin:-margin, margin:-margin]
