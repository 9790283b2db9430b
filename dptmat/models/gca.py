"""GCA-Matting: a residual encoder and decoder, each with attention that the image guides from known to unknown.

Source: Li and Lu, Natural Image Matting via Guided Contextual Attention, AAAI 2020. Published checkpoints load after
their keys are renamed; the modules carry their names.
Differs: the attention is computed for the whole batch by matrix products, in place of a convolution for each
image with the image's own patches as kernels; attention's scores and alpha are float32, also under autocast.
``in_channels=3`` is ours, for ablations: the whole image counts as unknown.

Letters: N images, H x W the size of the input, h x w = H/8 x W/8, L = h/2 * w/2 positions of the attention.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, max_pool2d, normalize, pad, unfold

from dptmat.models.decoder import CHANNELS, Doublings, to_alpha
from dptmat.models.layers import MattingNetwork, require_input, sn_conv
from dptmat.models.resnet import ResNet


def unknown_map(
    x: Tensor,  # float [N, 3 or 6, H, W]
) -> Tensor:  # float32 [N, 1, H/16, W/16]
    """Take the unknown region from the input, 1 inside and 0 outside."""
    x = x[:, :, ::16, ::16]  # nearest: the top-left pixel of each cell
    unknown = x[:, 4:5] > 0.5 if x.shape[1] == 6 else torch.ones_like(x[:, :1])
    return unknown.float()


def key_weights(
    unknown: Tensor,  # float32 [N, 1, h/2, w/2]
) -> tuple[Tensor, Tensor]:  # float32 [N, L] each
    """Return what a key's scores are multiplied by, and what is added where it meets its own query.

    A key is unknown if any position of its 3x3 patch is. The larger region counts more, so that the unknown region
    looks into itself where little is known; but an unknown position must not look at itself.
    """
    share = unknown.mean((2, 3))  # [N, 1]
    ratio = share / (1 - share)  # 0 without an unknown position, infinite without a known one
    of_unknown = ratio.sqrt().clamp(0.1, 10.0)
    of_known = ratio.rsqrt().clamp(0.1, 10.0)
    is_unknown = max_pool2d(unknown, 3, stride=1, padding=1).flatten(1) > 0  # [N, L]
    return torch.where(is_unknown, of_unknown, of_known), -1e4 * is_unknown


def attention(
    patches: Tensor,  # [N, L, C]
    scale: Tensor,  # float32 [N, L]
    own: Tensor,  # float32 [N, L]
) -> Tensor:  # float32 [N, L, L]: query, key
    """Weigh, for each query, all keys by the likeness of their patches; the weights of a query add up to 1."""
    with torch.autocast(patches.device.type, enabled=False):  # queries are not normalised: scores overflow float16
        query = patches.float()
        key = normalize(query, dim=2, eps=1e-4) * scale[:, :, None]
        return torch.baddbmm(torch.diag_embed(own), query, key.transpose(1, 2)).softmax(2)


class GuidedAttention(nn.Module):
    """Rebuild a map from patches of itself, weighed by how much the image there looks alike."""

    def __init__(self) -> None:
        super().__init__()
        channels = 128
        self.guidance_conv = nn.Conv2d(channels, channels // 2, 1)
        conv, norm = nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.W = nn.Sequential(conv, norm)
        nn.init.xavier_uniform_(self.guidance_conv.weight)
        assert self.guidance_conv.bias is not None  # for the type checker
        nn.init.zeros_(self.guidance_conv.bias)
        nn.init.xavier_uniform_(conv.weight)
        nn.init.constant_(norm.weight, 1e-3)  # at the start hardly anything is added

    def forward(
        self,
        guidance: Tensor,  # [N, 128, h, w]
        x: Tensor,  # [N, 128, h, w]
        scale: Tensor,  # [N, L]
        own: Tensor,  # [N, L]
    ) -> Tensor:  # [N, 128, h, w]
        guidance = self.guidance_conv(guidance[:, :, ::2, ::2])  # [N, 64, h/2, w/2]
        patches = unfold(pad(guidance, (1, 1, 1, 1), mode="reflect"), 3).transpose(1, 2)  # [N, L, 576]
        weights = attention(patches, scale, own)
        # Four patches cover a pixel. Divided before they are added, their sum fits into float16.
        values = unfold(pad(x / 4, (1, 1, 1, 1), mode="reflect"), 4, stride=2)  # [N, 2048, L]
        rebuilt = values @ weights.to(values.dtype).transpose(1, 2)
        rebuilt = fold(rebuilt, x.shape[2:], 4, padding=1, stride=2)
        return self.W(rebuilt) + x


def _guidance_head() -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 16), (16, 32), (32, 128)):
        conv = sn_conv(n_in, n_out, 3, stride=2, padding=0, xavier=True)
        layers += [nn.ReflectionPad2d(1), conv, nn.ReLU(inplace=True), nn.BatchNorm2d(n_out)]
    return nn.Sequential(*layers)


class Encoder(ResNet):
    """The residual encoder with attention on its map at /8, and the guidance for it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.guidance_head = _guidance_head()
        self.gca = GuidedAttention()

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        scale: Tensor,  # [N, L]
        own: Tensor,  # [N, L]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the six maps that `Decoder` takes, and the guidance [N, 128, h, w]."""
        guidance = self.guidance_head(x[:, :3])
        *maps, x3 = self.down_to_8(x)
        return self.down_to_32([*maps, self.gca(guidance, x3, scale, own)]), guidance


class Decoder(Doublings):
    """The way up of all networks with attention on its map at /8, and one alpha only."""

    def __init__(self) -> None:
        super().__init__(GuidedAttention)
        self.conv2 = nn.Conv2d(CHANNELS[0], 1, 3, padding=1)
        nn.init.xavier_uniform_(self.conv2.weight)

    def forward(
        self,
        features: list[Tensor],  # six maps [N, C, h, w] with C of CHANNELS, at /1 to /32 of H x W
        guidance: Tensor,  # [N, 128, h, w]
        scale: Tensor,  # [N, L]
        own: Tensor,  # [N, L]
    ) -> Tensor:  # float32 [N, 1, H, W]
        x = self.gca(guidance, self.up_to_8(features), scale, own)
        x = self.up_to_1(self.up_to_4(x, features), features)
        return to_alpha(self.conv2(x))


class GCAMatting(MattingNetwork):
    """Predict alpha from an image and its trimap.

    Args:
        in_channels: 6, or 3 for images without a trimap; then the whole image counts as unknown.
    """

    outputs = ("alpha_os1",)

    def __init__(self, in_channels: int = 6) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.encoder = Encoder(in_channels)
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``alpha_os1`` alone, float32 [N, 1, H, W] in 0..1.

        The attention of each image holds (H * W / 256)**2 float32 numbers: 4 MB at 512 x 512, 1 GB at 2048 x 2048.

        Args:
            x: [N, in_channels, H, W], H and W multiples of 32: RGB normalised by ImageNet's mean and standard
                deviation, then the one-hot trimap (background, unknown, foreground).

        Raises:
            TypeError: x is not floating point.
            ValueError: x has another shape, or H or W is not a multiple of 32.
        """
        require_input(x, self.in_channels)
        scale, own = key_weights(unknown_map(x))
        features, guidance = self.encoder(x, scale, own)
        return {"alpha_os1": self.decoder(features, guidance, scale, own)}
