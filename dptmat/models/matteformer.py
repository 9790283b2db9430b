"""MatteFormer: a Swin encoder whose windows also attend to prior tokens, one for each region of the trimap.

Source: Park et al., MatteFormer: Transformer-Based Image Matting via Prior-Tokens, CVPR 2022; Liu et al., Swin
Transformer, ICCV 2021. Published checkpoints load after their keys are renamed; the modules carry their names.
Differs: the prior tokens' keys and values are computed once per image instead of once per window, attention is
PyTorch's, alpha is float32. ``in_channels=3`` is ours, for ablations: one region, the whole image as unknown. So are
the sizes beyond Swin-T, for which nothing is published.
Kept from Swin, but against timm's version: windows are shifted and masked also where one window covers the map.

Letters: N images, H x W the size of the input, h x w of a stage's map, C channels, W windows per image, P prior tokens.
"""

from collections import OrderedDict
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from dptmat.models.decoder import CHANNELS, Decoder
from dptmat.models.layers import MattingNetwork, require_input, shortcut_branch

WINDOW = 7  # side of a window, in positions of the map
SHIFT = 3
HEAD = 32  # channels per attention head


def region_masks(
    x: Tensor,  # float [N, 3 or 6, H, W]
) -> Tensor:  # [N, 3, H/4, W/4]
    """Take the masks of unknown, background and foreground from the input, in the order of the prior tokens."""
    x = x[:, :, ::4, ::4]  # nearest: the top-left pixel of each cell
    if x.shape[1] == 3:
        unknown = torch.ones_like(x[:, :1])
        return torch.cat([unknown, torch.zeros_like(x[:, :2])], dim=1)
    background, unknown, foreground = x[:, 3:].unbind(1)
    return torch.stack([unknown, background, foreground], dim=1)


def region_tokens(
    x: Tensor,  # [N, h, w, C]
    masks: Tensor,  # [N, 3, h, w]
) -> Tensor:  # float32 [N, 3, C]
    """Average a map over each region; an absent region gives zeros."""
    with torch.autocast(x.device.type, enabled=False):  # sums over thousands of positions overflow or lose float16
        masks = masks.flatten(2).float()
        # Equal to adding 1e-9, which ONNX's optimisers take for adding nothing.
        return masks @ x.flatten(1, 2).float() / masks.sum(2, keepdim=True).clamp(min=1e-9)


def cut_windows(
    x: Tensor,  # [N, h, w, C], h and w multiples of side
    side: int = WINDOW,
) -> Tensor:  # [N, W, side**2, C]
    """Cut a map into windows, row by row."""
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # [N, h/7, 7, w/7, 7, C]
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join_windows(
    windows: Tensor,  # [N, W, side**2, C]
    height: int,
    width: int,
    side: int = WINDOW,
) -> Tensor:  # [N, height, width, C]
    """Put windows back into a map: the inverse of `cut_windows`."""
    x = windows.unflatten(2, (side, side)).unflatten(1, (height // side, width // side))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def whole_windows(length: int, side: int = WINDOW) -> int:
    """Round the side of a map up to whole windows."""
    return (length + side - 1) // side * side


def make_shift_mask(height: int, width: int, device: torch.device) -> Tensor:
    """Make the term that keeps positions apart which only the roll of a map has made neighbours.

    Args:
        height: Rows of the padded map, a multiple of WINDOW.
        width: Columns of it.
        device: Where the result lies.

    Returns:
        float32 [W, 49, 49]: -100 between positions of different origin, else 0.
    """

    def stripe(size: int) -> Tensor:
        i = torch.arange(size, device=device)
        return (i >= size - WINDOW).int() + (i >= size - SHIFT).int()

    with torch.inference_mode(False):  # a mask that is kept may serve a training later
        labels = 3 * stripe(height)[:, None] + stripe(width)
        labels = cut_windows(labels[None, :, :, None])[0, :, :, 0]  # [W, 49]
        return -100.0 * (labels[:, :, None] != labels[:, None, :]).float()


kept_shift_mask = lru_cache(maxsize=8)(make_shift_mask)  # those of the last two sizes of input, four stages each


def stochastic_depth(residual: Tensor, rate: float, drawn: int) -> Tensor:
    """Zero residuals at random, and scale the others so that the mean stays.

    Args:
        residual: [N, ...].
        rate: Probability of a zero, 0..1.
        drawn: Number of leading dimensions of which every index has a draw of its own.
    """
    shape = residual.shape[:drawn] + (1,) * (residual.ndim - drawn)
    return residual * residual.new_empty(shape).bernoulli_(1 - rate) / (1 - rate)


class PriorAttention(nn.Module):
    """Attention within windows, whose keys and values also hold the prior tokens of the image."""

    relative_position_index: Tensor  # int64 [49, 49 + P], a buffer

    def __init__(self, channels: int, priors: int) -> None:
        super().__init__()
        self.heads = channels // HEAD
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        offsets = (2 * WINDOW - 1) ** 2  # 169 differences of two positions, then a row for each prior token
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets + priors, self.heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        row, column = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
        row, column = row.flatten(), column.flatten()
        down = row[:, None] - row + WINDOW - 1  # query minus key, from 0
        right = column[:, None] - column + WINDOW - 1
        spatial = down * (2 * WINDOW - 1) + right
        prior = torch.arange(offsets, offsets + priors).expand(WINDOW**2, priors)
        self.register_buffer("relative_position_index", torch.cat([spatial, prior], dim=1))

    def _bias(self, shift_mask: Tensor | None, windows: int) -> Tensor:  # [W, heads, 49, 49 + P]
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if shift_mask is None:
            return bias.expand(windows, -1, -1, -1)
        return bias + pad(shift_mask, (0, bias.shape[2] - WINDOW**2))[:, None]  # prior tokens are never masked

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [N, W, L, 3C] -> 3 times [N, W, heads, L, HEAD]
        return qkv.unflatten(3, (3, self.heads, HEAD)).permute(3, 0, 1, 4, 2, 5).unbind(0)

    def forward(
        self,
        x: Tensor,  # [N, W, 49, C]
        priors: Tensor,  # [N, P, C]
        shift_mask: Tensor | None,  # [W, 49, 49]
    ) -> tuple[Tensor, Tensor]:
        """Return what x [N, W, 49, C] and the prior tokens [N, P, C] are updated by."""
        windows = x.shape[1]
        query, key, value = self._heads(self.qkv(x))
        qkv = self.qkv(priors)
        _, prior_key, prior_value = self._heads(qkv[:, None])
        key = torch.cat([key, prior_key.expand(-1, windows, -1, -1, -1)], dim=3)
        value = torch.cat([value, prior_value.expand(-1, windows, -1, -1, -1)], dim=3)
        # Windows and heads share a dimension, so that the bias and the mask serve every image without a copy.
        bias = self._bias(shift_mask, windows).flatten(0, 1)[None]  # [1, W * heads, 49, 49 + P]
        attended = scaled_dot_product_attention(query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2), bias)
        attended = attended.unflatten(1, (windows, self.heads)).transpose(2, 3).flatten(3)  # [N, W, 49, C]
        return self.proj(attended), self.proj(qkv.chunk(3, dim=2)[2])


class Block(nn.Module):
    """One transformer block, for the positions of a map and for the stage's prior tokens alike."""

    def __init__(self, channels: int, priors: int, drop_path_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = PriorAttention(channels, priors)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(channels, 4 * channels), gelu=nn.GELU(), fc2=nn.Linear(4 * channels, channels))
        )
        self.drop_path_rate = drop_path_rate

    def _attend(self, x: Tensor, priors: Tensor, shift_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        height, width = x.shape[1:3]
        padded = whole_windows(height), whole_windows(width)
        x = pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))  # padded positions are keys like all others
        if shift_mask is not None:
            x = x.roll((-SHIFT, -SHIFT), (1, 2))
        windows, priors = self.attn(cut_windows(x), priors, shift_mask)
        x = join_windows(windows, *padded)
        if shift_mask is not None:
            x = x.roll((SHIFT, SHIFT), (1, 2))
        return x[:, :height, :width], priors

    def _drop(self, residual: Tensor, drawn: int) -> Tensor:
        if self.training and self.drop_path_rate > 0:
            return stochastic_depth(residual, self.drop_path_rate, drawn)
        return residual

    def forward(
        self,
        x: Tensor,  # [N, h, w, C]
        priors: Tensor,  # [N, P - 3, C], of the stage's earlier blocks
        regions: Tensor,  # [N, 3, h, w]
        shift_mask: Tensor | None,  # [W, 49, 49] where windows are shifted
    ) -> tuple[Tensor, Tensor]:
        """Return x and the prior tokens [N, P, C], this block's three among them, both updated."""
        priors = torch.cat([priors, region_tokens(x, regions)], dim=1)
        attended, values = self._attend(self.norm1(x), self.norm1(priors), shift_mask)
        x = x + self._drop(attended, 1)
        x = x + self._drop(self.mlp(self.norm2(x)), 1)
        priors = priors + self._drop(values, 2)
        priors = priors + self._drop(self.mlp(self.norm2(priors)), 2)
        return x, priors


class PatchMerging(nn.Module):
    """Halve a map: [N, h, w, C] -> [N, h/2, w/2, 2C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        cells = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(cells, dim=3)))


class Stage(nn.Module):
    """Blocks on one map size; the windows of every other block are shifted."""

    def __init__(self, channels: int, drop_path_rates: list[float], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, 3 * b + 3, rate) for b, rate in enumerate(drop_path_rates))
        self.downsample = downsample
        self.grad_checkpointing = False

    def forward(
        self,
        x: Tensor,  # [N, h, w, C]
        regions: Tensor,  # [N, 3, h, w]
    ) -> Tensor:  # [N, h, w, C]
        # What is traced makes its own mask, and what has no values (a fake tensor) must leave none behind.
        traced = torch.compiler.is_compiling() or type(x) is not Tensor
        get_mask = make_shift_mask if traced else kept_shift_mask
        height, width = x.shape[1:3]
        shift_mask = get_mask(whole_windows(height), whole_windows(width), x.device)
        priors = x.new_empty(x.shape[0], 0, x.shape[3], dtype=torch.float32)  # the prior memory starts empty
        for b, block in enumerate(self.blocks):
            inputs = x, priors, regions, shift_mask if b % 2 else None
            x, priors = checkpoint(block, *inputs, use_reentrant=False) if self.grad_checkpointing else block(*inputs)
        return x


class PatchEmbedding(nn.Module):
    """Cells of 4x4 pixels as tokens: [N, in_channels, H, W] -> [N, H/4, W/4, channels]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 4, stride=4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Encoder(nn.Module):
    """Swin with prior tokens and the shortcut branches of its maps."""

    def __init__(self, in_channels: int, width: int, blocks: tuple[int, ...], drop_path_rate: float) -> None:
        super().__init__()
        channels = (width, 2 * width, 4 * width, 8 * width)
        rates = [drop_path_rate * i / (sum(blocks) - 1) for i in range(sum(blocks))]
        self.patch_embed = PatchEmbedding(in_channels, channels[0])
        self.layers = nn.ModuleList()
        for s, (c, n) in enumerate(zip(channels, blocks, strict=True)):
            first = sum(blocks[:s])
            self.layers.append(Stage(c, rates[first : first + n], PatchMerging(c) if s < 3 else nn.Identity()))
            self.add_module(f"norm{s}", nn.LayerNorm(c))
        sources = (in_channels, channels[0], *channels)
        self.shortcut = nn.ModuleList(map(shortcut_branch, sources, CHANNELS))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the six maps that `Decoder` takes, from [N, in_channels, H, W]."""
        regions = region_masks(x)
        tokens = self.patch_embed(x)
        embedded = tokens.permute(0, 3, 1, 2)
        maps = [x, interpolate(embedded, scale_factor=2, mode="bilinear", align_corners=True)]
        for s, stage in enumerate(self.layers):
            tokens = stage(tokens, regions)
            maps.append(self.get_submodule(f"norm{s}")(tokens).permute(0, 3, 1, 2))
            tokens = stage.get_submodule("downsample")(tokens)
            regions = regions[:, :, ::2, ::2]
        return [branch(m) for branch, m in zip(self.shortcut, maps, strict=True)]


class MatteFormer(MattingNetwork):
    """Predict alpha from an image and its trimap.

    Args:
        in_channels: 6, or 3 for images without a trimap; then the whole image counts as unknown.
        drop_path_rate: Stochastic depth of the last block, 0..1; it rises linearly from 0 at the first.
        width: Channels of the first stage, a multiple of 32; they double with every stage.
        blocks: Blocks of the four stages.
    """

    def __init__(
        self,
        in_channels: int = 6,
        drop_path_rate: float = 0.3,
        *,
        width: int = 96,
        blocks: tuple[int, ...] = (2, 2, 6, 2),
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.encoder = Encoder(in_channels, width, blocks, drop_path_rate)
        self.decoder = Decoder()

    def grad_checkpointing(self) -> None:
        """Keep only what enters a transformer block, and compute the rest again in the backward pass."""
        for module in self.encoder.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = True

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters of the patches and of each block, from the input on; a merging is of the next block."""
        layers = [list(self.encoder.patch_embed.parameters())]
        merging: list[nn.Parameter] = []
        for stage in (module for module in self.encoder.modules() if isinstance(module, Stage)):
            for block in stage.blocks:
                layers.append([*merging, *block.parameters()])
                merging = []
            merging = list(stage.downsample.parameters())
        return layers

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``alpha_os1``, ``alpha_os4`` and ``alpha_os8``, each float32 [N, 1, H, W] in 0..1.

        Args:
            x: [N, in_channels, H, W], H and W multiples of 32: RGB normalised by ImageNet's mean and standard
                deviation, then the one-hot trimap (background, unknown, foreground).

        Raises:
            TypeError: x is not floating point.
            ValueError: x has another shape, or H or W is not a multiple of 32.
        """
        require_input(x, self.in_channels)
        return self.decoder(self.encoder(x))


def matteformer(in_channels: int = 6, drop_path_rate: float = 0.3) -> MatteFormer:
    """Make the published MatteFormer, with Swin-T as its encoder."""
    return MatteFormer(in_channels, drop_path_rate, width=96, blocks=(2, 2, 6, 2))


def matteformer_small(in_channels: int = 6, drop_path_rate: float = 0.3) -> MatteFormer:
    """Make a MatteFormer with Swin-S as its encoder."""
    return MatteFormer(in_channels, drop_path_rate, width=96, blocks=(2, 2, 18, 2))


def matteformer_base(in_channels: int = 6, drop_path_rate: float = 0.3) -> MatteFormer:
    """Make a MatteFormer with Swin-B as its encoder."""
    return MatteFormer(in_channels, drop_path_rate, width=128, blocks=(2, 2, 18, 2))
