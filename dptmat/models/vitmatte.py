"""ViTMatte: a plain vision transformer on the whole image, and a small convolutional decoder that keeps its detail.

Source: Yao et al., ViTMatte: Boosting Image Matting with Pre-trained Plain Vision Transformers, Information Fusion
2024; Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022 (the encoder). Published
checkpoints load after their keys are renamed; the modules carry their names.
Differs: the scores of attention over the whole map are made for some queries at a time, so that their memory does not
grow with the square of the area; alpha is float32. The published input has 4 channels, the last one the trimap as 0,
0.5 and 1; here it usually has 6, of which that is a special case.

Letters: N images, H x W the size of the input, h x w = H/16 x W/16 the map, D channels, B images or their windows.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pad, relu, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from dptmat.models.layers import MattingNetwork, require_input
from dptmat.models.matteformer import cut_windows, join_windows, whole_windows

PATCH = 16  # pixels along a side
WINDOW = 14  # side of a window, in positions of the map
MAP = 32  # side of the map of a published training crop, 512 pixels, for which tables of the whole map are made
HEAD = 64  # channels per attention head
GLOBAL = (2, 5, 8, 11)  # the blocks that attend over the whole map, and end in a neck
DEPTH = 12
SCORES = 2**24  # that attention holds at once: 64 MB in float32


def resized_table(
    table: Tensor,  # [2n - 1, HEAD]
    side: int,
) -> Tensor:  # [2 * side - 1, HEAD]
    """Resize a table of relative positions, made for maps of side n, to another side, linearly."""
    return interpolate(table.T[None], 2 * side - 1, mode="linear", align_corners=False)[0].T


def position_bias(
    query: Tensor,  # [B, heads, Q, HEAD], not scaled
    position: Tensor,  # int64 [Q], of each query along one axis of the map
    table: Tensor,  # [2 * side - 1, HEAD]
    side: int,
) -> Tensor:  # [B, heads, Q, side]
    """Score every query with each place along an axis, by the distance from its own."""
    distance = position[:, None] - torch.arange(side, device=position.device) + side - 1  # from 0
    return (query @ table.T).gather(3, distance.expand(*query.shape[:2], -1, -1))


class Attention(nn.Module):
    """Attention over all positions of a map, with a bias for the distance in rows and another for that in columns."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.heads = channels // HEAD
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, HEAD))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, HEAD))

    def forward(self, x: Tensor) -> Tensor:  # [B, h, w, D] to the same shape
        height, width = x.shape[1:3]
        rows, columns = resized_table(self.rel_pos_h, height), resized_table(self.rel_pos_w, width)
        qkv = self.qkv(x.flatten(1, 2)).unflatten(2, (3, self.heads, HEAD))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, h * w, HEAD] each
        axes = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        place = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # row and column of each position

        def attend(query: Tensor, place: Tensor) -> Tensor:  # some of the queries, and where they are
            down = position_bias(query, place[0], rows, height)[..., :, None]
            across = position_bias(query, place[1], columns, width)[..., None, :]
            return scaled_dot_product_attention(query, key, value, (down + across).flatten(3))

        attended = in_parts(attend, query, place)
        return self.proj(attended.transpose(1, 2).flatten(2)).unflatten(1, (height, width))


def in_parts(
    attend: Callable[[Tensor, Tensor], Tensor],
    query: Tensor,  # [B, heads, L, HEAD]
    place: Tensor,  # int64 [2, L]
) -> Tensor:  # [B, heads, L, HEAD]
    """Attend by as many queries at a time as have SCORES scores; what a window holds goes at once.

    The scores of a part are made again in the backward pass. A map of a size that is left open, as for ONNX, cannot be
    divided, and goes at once too.
    """
    images, heads, length, _ = query.shape
    if isinstance(length, torch.SymInt) or length <= WINDOW**2:
        return attend(query, place)
    queries = max(1, SCORES // (images * heads * length))
    if queries >= length:
        return attend(query, place)
    parts = zip(query.split(queries, 2), place.split(queries, 1), strict=True)
    return torch.cat([checkpoint(attend, *part, use_reentrant=False, preserve_rng_state=False) for part in parts], 2)


class ChannelNorm(nn.LayerNorm):
    """Normalise each position of a map [N, C, h, w] over its channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Neck(nn.Module):
    """Residual bottleneck of convolutions, by which neighbouring windows meet: [N, h, w, D] to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(channels, half, 1, bias=False)
        self.norm1 = ChannelNorm(half, eps=1e-6)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.norm2 = ChannelNorm(half, eps=1e-6)
        self.conv3 = nn.Conv2d(half, channels, 1, bias=False)
        self.norm3 = ChannelNorm(channels, eps=1e-6)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.norm3.weight)  # at the start the neck is its identity path

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 3, 1, 2)
        y = gelu(self.norm1(self.conv1(y)))
        y = gelu(self.norm2(self.conv2(y)))
        return x + self.norm3(self.conv3(y)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """One transformer block, [N, h, w, D] to the same shape: within windows, or over the whole map and with a neck."""

    def __init__(self, channels: int, windows: bool) -> None:
        super().__init__()
        self.windows = windows
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, WINDOW if windows else MAP)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(channels, 4 * channels), gelu=nn.GELU(), fc2=nn.Linear(4 * channels, channels))
        )
        if not windows:
            self.residual = Neck(channels)

    def _attend_in_windows(self, x: Tensor) -> Tensor:
        images, height, width = x.shape[:3]
        padded = whole_windows(height, WINDOW), whole_windows(width, WINDOW)
        x = pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))  # padded positions are keys like all others
        windows = cut_windows(x, WINDOW).flatten(0, 1).unflatten(1, (WINDOW, WINDOW))
        windows = self.attn(windows).flatten(1, 2).unflatten(0, (images, -1))
        return join_windows(windows, *padded, WINDOW)[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        x = x + (self._attend_in_windows if self.windows else self.attn)(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x if self.windows else self.residual(x)


class Encoder(nn.Module):
    """A plain vision transformer: [N, in_channels, H, W] to one map [N, D, h, w]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + 14 * 14, channels))  # the first is that of a class token
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(in_channels, channels, PATCH, stride=PATCH)))
        self.blocks = nn.ModuleList(Block(channels, i not in GLOBAL) for i in range(DEPTH))
        self.grad_checkpointing = False
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _positions(self, height: int, width: int) -> Tensor:  # [1, h, w, D]
        grid = self.pos_embed[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
        return interpolate(grid, (height, width), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        x = x + self._positions(*x.shape[1:3])
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing and self.training else block(x)
        return x.permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution of 3x3 pixels, batch norm and ReLU, [N, n_in, H, W] -> [N, n_out, H / stride, W / stride]."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


class Fusion(nn.Module):
    """Double a map, and join the detail of that size to it."""

    def __init__(self, n_detail: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = ConvNorm(n_detail + n_in, n_out)

    def forward(self, detail: Tensor, x: Tensor) -> Tensor:  # [N, n_detail, 2h, 2w], [N, n_in, h, w]
        x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv(torch.cat([detail, x], dim=1))


class ConvStream(nn.Module):
    """The detail: from x [N, in_channels, H, W] itself to a map of 192 channels at /8."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        sizes = (in_channels, 48, 96, 192)
        self.convs = nn.ModuleList(ConvNorm(*pair, stride=2) for pair in pairwise(sizes))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for conv in self.convs:
            maps.append(conv(maps[-1]))
        return maps


class Decoder(nn.Module):
    """From the map of a transformer at /16 to alpha at full size.

    Args:
        in_channels: Of the network's input, whose detail is joined to the map.
        channels: Of the map.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convstream = ConvStream(in_channels)
        sizes = ((192, channels, 256), (96, 256, 128), (48, 128, 64), (in_channels, 64, 32))
        self.fusion_blks = nn.ModuleList(Fusion(*size) for size in sizes)
        convs = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 1, 1))
        self.matting_head = nn.Sequential(OrderedDict(matting_convs=convs))

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        features: Tensor,  # [N, channels, H/16, W/16]
    ) -> Tensor:  # float32 [N, 1, H, W]
        for fuse, detail in zip(self.fusion_blks, reversed(self.convstream(x)), strict=True):
            features = fuse(detail, features)
        return self.matting_head(features).float().sigmoid()  # half precision next to 1 has few steps


class ViTMatte(MattingNetwork):
    """Predict alpha from an image and its trimap.

    Args:
        in_channels: 6; or 4 for the published input, whose fourth channel is the trimap as 0 (background), 0.5 and 1;
            or 3 for images without a trimap.
        channels: Of the transformer, a multiple of 64.
    """

    outputs = ("alpha_os1",)

    def __init__(self, in_channels: int = 6, *, channels: int = 384) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.trimap_levels = in_channels == 4
        self.encoder = Encoder(in_channels, channels)
        self.decoder = Decoder(in_channels, channels)

    def grad_checkpointing(self) -> None:
        """Keep only what enters a transformer block, and compute the rest again in the backward pass."""
        self.encoder.grad_checkpointing = True

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters of the patches and of each block but for its neck, from the input on."""
        start = [self.encoder.pos_embed, *self.encoder.patch_embed.parameters()]
        blocks = (block.named_parameters() for block in self.encoder.blocks)
        return [start, *([p for name, p in block if not name.startswith("residual.")] for block in blocks)]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``alpha_os1`` alone, float32 [N, 1, H, W] in 0..1.

        Args:
            x: [N, in_channels, H, W], H and W multiples of 32: RGB normalised by ImageNet's mean and standard
                deviation, then the trimap as told for ``in_channels``, 6 of them one-hot (background, unknown,
                foreground).

        Raises:
            TypeError: x is not floating point.
            ValueError: x has another shape, or H or W is not a multiple of 32.
        """
        require_input(x, self.in_channels)
        return {"alpha_os1": self.decoder(x, self.encoder(x))}


def vitmatte_small(in_channels: int = 6) -> ViTMatte:
    """Make the published ViTMatte-S."""
    return ViTMatte(in_channels, channels=384)


def vitmatte_base(in_channels: int = 6) -> ViTMatte:
    """Make the published ViTMatte-B."""
    return ViTMatte(in_channels, channels=768)
