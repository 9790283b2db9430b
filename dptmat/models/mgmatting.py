"""MG-Matting: a residual encoder, pooling at several scales at its end, and alpha at three levels of detail.

Source: Yu et al., Mask Guided Matting via Progressive Refinement Network, CVPR 2021; Chen et al., Rethinking Atrous
Convolution, 2017 (the pooling). Published checkpoints load after their keys are renamed; the modules carry their names.
Differs: alpha is float32. ``in_channels=3`` is ours, for ablations: no guidance.
"""

import torch
from torch import Tensor, nn

from dptmat.models.decoder import Decoder
from dptmat.models.layers import MattingNetwork, require_input
from dptmat.models.resnet import ResNetEncoder


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: see a map at four dilations and as a whole, [N, 512, h, w] to the same shape."""

    def __init__(self) -> None:
        super().__init__()
        channels, width = 512, 256
        self.aspp1 = nn.Conv2d(channels, width, 1, bias=False)
        self.aspp2 = nn.Conv2d(channels, width, 3, padding=2, dilation=2, bias=False)
        self.aspp3 = nn.Conv2d(channels, width, 3, padding=4, dilation=4, bias=False)
        self.aspp4 = nn.Conv2d(channels, width, 3, padding=8, dilation=8, bias=False)
        self.aspp5 = nn.Conv2d(channels, width, 1, bias=False)
        self.aspp1_bn, self.aspp2_bn, self.aspp3_bn, self.aspp4_bn, self.aspp5_bn = (
            nn.BatchNorm2d(width) for _ in range(5)
        )
        self.conv2 = nn.Conv2d(5 * width, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        whole = x.mean((2, 3), keepdim=True)  # [N, 512, 1, 1]
        levels = [
            self.aspp1_bn(self.aspp1(x)),
            self.aspp2_bn(self.aspp2(x)),
            self.aspp3_bn(self.aspp3(x)),
            self.aspp4_bn(self.aspp4(x)),
            self.aspp5_bn(self.aspp5(whole)).expand(-1, -1, *x.shape[2:]),
        ]
        x = self.activation(torch.cat(levels, dim=1))  # [N, 1280, h, w]
        return self.activation(self.bn2(self.conv2(x)))


class MGMatting(MattingNetwork):
    """Predict alpha from an image and its guidance.

    Args:
        in_channels: 6 for the one-hot trimap as guidance, 4 for a mask, 3 for images alone.
    """

    def __init__(self, in_channels: int = 6) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.encoder = ResNetEncoder(in_channels)
        self.aspp = ASPP()
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``alpha_os1``, ``alpha_os4`` and ``alpha_os8``, each float32 [N, 1, H, W] in 0..1.

        Args:
            x: [N, in_channels, H, W], H and W multiples of 32: RGB normalised by ImageNet's mean and standard
                deviation, then the one-hot trimap (background, unknown, foreground) or the mask (1 in the foreground).
                In training N is at least 2, since one level of the pyramid is normalised over the batch alone.

        Raises:
            TypeError: x is not floating point.
            ValueError: x has another shape, or H or W is not a multiple of 32.
        """
        require_input(x, self.in_channels)
        *shortcuts, x = self.encoder(x)
        return self.decoder([*shortcuts, self.aspp(x)])
