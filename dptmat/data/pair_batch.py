"""From two photographs of a sample to the network's input and targets: alpha, its move, trimap, colours, composite.

Source: Li et al., Disentangled Pre-training for Image Matting, WACV 2024; what is moved together, and changes of colour
in HSV, are those of its published code.
Differs: there red and blue are exchanged where colours are changed, which turns the hue the other way round.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dptmat.data.matte_batch import ComposedBatch, compose, jitter, planes
from dptmat.data.pair_batch_cpu import fill_pairs, make_room
from dptmat.kernels import random_alpha, random_trimap
from dptmat.kernels.philox import SECOND
from dptmat.kernels.trimap import FOREGROUND, UNKNOWN
from dptmat.kernels.warp import warp
from dptmat.pipelines.batches import Pairs


@dataclass(frozen=True)
class AlphaRecipe:
    """How trimap and alpha of a sample are made; the settings of a run have their defaults."""

    seed: int
    cell: int  # side of a trimap's cell in pixels
    unknown: float  # share of the cells
    foreground: float  # share of the cells
    alpha_mode: str  # "pixel" or "block"
    alpha_levels: int  # 256, or 255: without the one at which an unknown pixel would be foreground
    move_alpha: bool  # whether alpha is moved with the foreground


class Scene(NamedTuple):
    """What is composed; float32 in 0..1."""

    fg: Tensor  # [N, 3, H, W]
    bg: Tensor  # [N, 3, H, W]
    alpha: Tensor  # [N, 1, H, W]
    trimap: Tensor  # uint8 [N, 1, H, W]: 0 background, 1 unknown, 2 foreground


def make_pair_batch(pairs: Pairs, recipe: AlphaRecipe, out: ComposedBatch | None = None) -> ComposedBatch:
    """Compose one batch on the device of its photographs, without waiting for it; the input is in channels_last.

    On the CPU over ``out`` if given, a batch of an earlier call with the same sizes that nobody needs any more.
    """
    if pairs.fg.device.type == "cpu":
        out = out or make_room(*pairs.fg.shape[:3])
        fill_pairs(pairs, recipe, out)
        for tensor in (out.input, out.alpha, out.contrast, out.trimap):
            torch.autograd.graph.increment_version(tensor)  # a backward pass through what was there raises
        return out
    return compose_scene(make_scene(pairs, recipe))


def compose_scene(scene: Scene) -> ComposedBatch:
    """Compose what `make_scene` has made, by operators of any device."""
    image, contrast = compose(*scene)
    return ComposedBatch(image, scene.alpha, contrast, scene.trimap)


def make_scene(pairs: Pairs, recipe: AlphaRecipe) -> Scene:
    """Make alphas and trimaps, move what is to be moved, and change the colours."""
    levels, trimap = draw_alpha(pairs.ids, (pairs.fg.shape[1], pairs.fg.shape[2]), recipe)
    fg, alpha, trimap = planes(pairs.fg), levels[:, None].float() / 255, trimap[:, None]
    if recipe.move_alpha:
        fg = warp(fg, pairs.move, pairs.interpolation[:, 0])
        alpha = warp(alpha, pairs.move, pairs.interpolation[:, 1])
        trimap = UNKNOWN + (alpha == 1).byte() - (alpha == 0).byte()
    bg, color = planes(pairs.bg)[pairs.pairing], pairs.color[:, 0]
    color_behind = pairs.color[:, 1][pairs.pairing]
    return Scene(change(fg, color, alpha), change(bg, color_behind, torch.ones_like(alpha)), alpha, trimap)


def draw_alpha(
    ids: Tensor,  # int64 [N]
    size: tuple[int, int],
    recipe: AlphaRecipe,
) -> tuple[Tensor, Tensor]:
    """Draw alpha and trimap before they are moved: uint8 [N, H, W] each.

    Where an unknown pixel must not be 255, one that is gets another byte b, as 255 b / 256, rounded down.
    """
    trimap = random_trimap(ids, recipe.seed, size, recipe.cell, recipe.unknown, recipe.foreground)
    alpha = random_alpha(trimap, ids, recipe.seed, recipe.alpha_mode, recipe.cell)
    if recipe.alpha_levels == 255:
        another = random_alpha(trimap, ids + SECOND, recipe.seed, recipe.alpha_mode, recipe.cell).int() * 255 >> 8
        alpha = torch.where((alpha == 255) & (trimap != FOREGROUND), another.byte(), alpha)
    return alpha, trimap


def change(
    picture: Tensor,  # float32 [N, 3, H, W] in 0..1
    color: Tensor,  # float32 [N, 3, 3] or [N, 3]
    alpha: Tensor,  # float32 [N, 1, H, W]
) -> Tensor:  # float32 [N, 3, H, W] in 0..1
    """Change the colours by matrices, or by changes of hue, saturation and value as `jitter` takes them."""
    if color.ndim == 3:
        return torch.einsum("nck,nkhw->nchw", color, picture).clamp(0, 1)
    hue, saturation, value = color[..., None, None, None].unbind(1)
    changed = jitter(picture, alpha, {"hue": hue, "saturation": saturation, "value": value})
    return torch.where((color != 0).any(1)[:, None, None, None], changed, picture)  # left as it is: to the last bit
