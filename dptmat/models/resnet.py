"""The residual encoder of GCA-Matting and MG-Matting, with the shortcut branches of its maps.

Source: Li and Lu, Natural Image Matting via Guided Contextual Attention, AAAI 2020. Published checkpoints load after
their keys are renamed; the modules carry their names.
Differs from torchvision's ResNet-34: three 3x3 convolutions at the start and no max pooling, 3, 4, 4, 2 blocks,
average pooling on the identity path, and spectral norm on every convolution.
"""

from torch import Tensor, nn

from dptmat.models.decoder import CHANNELS
from dptmat.models.layers import shortcut_branch, sn_conv


class _Block(nn.Module):
    """Residual block [N, n_in, h, w] -> [N, n_out, h / stride, w / stride]; n_in = n_out where stride is 1."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = sn_conv(n_in, n_out, 3, stride=stride, xavier=True)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = sn_conv(n_out, n_out, 3, xavier=True)
        self.bn2 = nn.BatchNorm2d(n_out)
        nn.init.zeros_(self.bn2.weight)  # at the start the block is its identity path
        self.downsample = (
            nn.Sequential(nn.AvgPool2d(2), sn_conv(n_in, n_out, 1, xavier=True), nn.BatchNorm2d(n_out))
            if stride == 2
            else nn.Identity()
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.activation(y + self.downsample(x))


def _stage(n_in: int, n_out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(n_in, n_out, stride), *(_Block(n_out, n_out, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """The way down from an image and its guidance, in two parts: GCA-Matting has attention between them."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv1 = sn_conv(in_channels, 32, 3, stride=2, xavier=True)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = sn_conv(32, 32, 3, xavier=True)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = sn_conv(32, 64, 3, stride=2, xavier=True)
        self.bn3 = nn.BatchNorm2d(64)
        self.activation = nn.ReLU(inplace=True)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(64, 128, 4, stride=2)
        self.layer3 = _stage(128, 256, 4, stride=2)
        self.layer_bottleneck = _stage(256, 512, 2, stride=2)
        sources = (in_channels, 32, 64, 128, 256)
        self.shortcut = nn.ModuleList(map(shortcut_branch, sources, CHANNELS[:5]))

    def down_to_8(self, x: Tensor) -> list[Tensor]:
        """Return the maps at /1, /2, /4 and /8, from [N, in_channels, H, W]: the input, then 32, 64, 128 channels."""
        x1 = self.activation(self.bn1(self.conv1(x)))
        x1 = self.activation(self.bn2(self.conv2(x1)))  # [N, 32, H/2, W/2]
        x2 = self.layer1(self.activation(self.bn3(self.conv3(x1))))  # [N, 64, H/4, W/4]
        return [x, x1, x2, self.layer2(x2)]

    def down_to_32(self, maps: list[Tensor]) -> list[Tensor]:
        """Go on from the four maps of `down_to_8`, and return the six that a decoder takes."""
        x4 = self.layer3(maps[-1])  # [N, 256, H/16, W/16]
        features = [branch(m) for branch, m in zip(self.shortcut, [*maps, x4], strict=True)]
        return [*features, self.layer_bottleneck(x4)]  # the last [N, 512, H/32, W/32]


class ResNetEncoder(ResNet):
    """Turn an image and its guidance into the six maps that a decoder takes."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return six maps with the channels of ``CHANNELS``, at /1 to /32, from [N, in_channels, H, W]."""
        return self.down_to_32(self.down_to_8(x))
