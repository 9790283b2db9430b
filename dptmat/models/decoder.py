"""The decoder of all networks: five doublings from /32 to full size, and three alphas.

Source: Li and Lu, Natural Image Matting via Guided Contextual Attention, AAAI 2020 (blocks and shortcuts); Yu et al.,
Mask Guided Matting via Progressive Refinement Network, CVPR 2021 (the heads at /8, /4 and /1).
Differs: the alphas are computed in float32 from the heads' logits, also under autocast. The identity path of a block
that doubles a map doubles it last, not first; the result is the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dptmat.models.layers import sn_conv, sn_double

# Channels of what Decoder.forward takes: the shortcuts of /1, /2, /4, /8 and /16, then the bottleneck at /32.
CHANNELS = (32, 32, 64, 128, 256, 512)


class _Block(nn.Module):
    """Residual block [N, n_in, H, W] -> [N, n_out, 2H, 2W] with ``double``, else [N, n_out, H, W] and n_in = n_out."""

    def __init__(self, n_in: int, n_out: int, double: bool) -> None:
        super().__init__()
        self.conv1 = sn_double(n_in) if double else sn_conv(n_in, n_in, 3, xavier=True)
        self.bn1 = nn.BatchNorm2d(n_in)
        self.conv2 = sn_conv(n_in, n_out, 3, xavier=True)
        self.bn2 = nn.BatchNorm2d(n_out)
        nn.init.zeros_(self.bn2.weight)  # at the start the block is its identity path
        self.upsample = (
            # Doubled last: neither the 1x1 convolution nor the norm tells four equal pixels from one.
            nn.Sequential(
                nn.Identity(), sn_conv(n_in, n_out, 1, xavier=True), nn.BatchNorm2d(n_out), nn.Upsample(scale_factor=2)
            )
            if double
            else nn.Identity()
        )
        self.activation = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.activation(y + self.upsample(x))


def decoder_stage(n_in: int, n_out: int, blocks: int) -> nn.Sequential:
    """Make a stage that doubles a map: [N, n_in, h, w] -> [N, n_out, 2h, 2w].

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        blocks: Number of residual blocks, from 1; the first one doubles.
    """
    return nn.Sequential(_Block(n_in, n_out, True), *(_Block(n_out, n_out, False) for _ in range(blocks - 1)))


def _head(channels: int) -> nn.Sequential:
    first, last = nn.Conv2d(channels, 32, 3, padding=1, bias=False), nn.Conv2d(32, 1, 3, padding=1)
    nn.init.xavier_uniform_(first.weight)
    nn.init.xavier_uniform_(last.weight)
    return nn.Sequential(first, nn.BatchNorm2d(32), nn.LeakyReLU(0.2, inplace=True), last)


def to_alpha(logits: Tensor, scale: int = 1) -> Tensor:
    """Turn logits [N, 1, h, w] into alpha, float32 [N, 1, scale * h, scale * w] in 0..1."""
    logits = logits.float()  # half precision next to 1 has fewer steps than 8-bit alpha
    if scale > 1:
        logits = interpolate(logits, scale_factor=scale, mode="bilinear", align_corners=False)
    return (torch.tanh(logits) + 1) / 2


class Doublings(nn.Module):
    """The way up from the bottleneck to full size; the shortcut of each size is added.

    The ``features`` are six maps [N, C, h, w] with C of ``CHANNELS``, at /1, /2, /4, /8, /16 and /32 of H x W.

    Args:
        attention: Makes a module ``gca`` for the map at /8, if the decoder has one there.
    """

    def __init__(self, attention: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        full, half, quarter, eighth, sixteenth, bottleneck = CHANNELS
        self.layer1 = decoder_stage(bottleneck, sixteenth, 2)
        self.layer2 = decoder_stage(sixteenth, eighth, 3)
        if attention is not None:
            self.gca = attention()  # in the order of the published weights
        self.layer3 = decoder_stage(eighth, quarter, 3)
        self.layer4 = decoder_stage(quarter, half, 2)
        self.conv1 = sn_double(half)
        self.bn1 = nn.BatchNorm2d(full)
        self.activation = nn.LeakyReLU(0.2, inplace=True)

    def up_to_8(self, features: list[Tensor]) -> Tensor:  # [N, 128, H/8, W/8]
        """Start from the bottleneck."""
        x = self.layer1(features[5]) + features[4]  # [N, 256, H/16, W/16]
        return self.layer2(x) + features[3]

    def up_to_4(self, x: Tensor, features: list[Tensor]) -> Tensor:  # [N, 64, H/4, W/4]
        """Go on from the map of `up_to_8`."""
        return self.layer3(x) + features[2]

    def up_to_1(self, x: Tensor, features: list[Tensor]) -> Tensor:  # [N, 32, H, W]
        """Go on from the map of `up_to_4`."""
        x = self.layer4(x) + features[1]  # [N, 32, H/2, W/2]
        return self.activation(self.bn1(self.conv1(x))) + features[0]


class Decoder(Doublings):
    """Turn the shortcuts of an encoder into alpha at three levels of detail."""

    def __init__(self) -> None:
        super().__init__()
        full, _, quarter, eighth, _, _ = CHANNELS
        self.refine_OS8 = _head(eighth)
        self.refine_OS4 = _head(quarter)
        self.refine_OS1 = _head(full)

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Return ``alpha_os1``, ``alpha_os4`` and ``alpha_os8``, each float32 [N, 1, H, W] in 0..1.

        Args:
            features: Six maps [N, C, h, w] with C of ``CHANNELS``, at /1, /2, /4, /8, /16 and /32 of H x W.
        """
        x = self.up_to_8(features)
        os8 = self.refine_OS8(x)
        x = self.up_to_4(x, features)
        os4 = self.refine_OS4(x)
        os1 = self.refine_OS1(self.up_to_1(x, features))
        return {"alpha_os1": to_alpha(os1), "alpha_os4": to_alpha(os4, 4), "alpha_os8": to_alpha(os8, 8)}
