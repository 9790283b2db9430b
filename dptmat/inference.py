"""Alpha of an image of any size by a trained network: padding, tiles for what is large, and one alpha at the end.

Source: the published scripts of MatteFormer, MG-Matting and GCA-Matting.
Differs: everything runs on the network's device, and the tiles are ours.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil, inf, prod, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dptmat.defaults import MEAN, STD
from dptmat.device import is_out_of_memory
from dptmat.errors import UserError
from dptmat.fusion import fuse_alphas
from dptmat.models.gca import GCAMatting
from dptmat.models.layers import MattingNetwork
from dptmat.models.matteformer import MatteFormer
from dptmat.tiles import GRID, predict_tiles, require_tile

_logger = logging.getLogger(__name__)

TILE = 2016  # pixels
# The scores of GCA's attention take 0.4 GB for 1568 x 1568 pixels, which are more than 1920 x 1080, and 1 GB for TILE.
GCA_TILE = 1568
MATTEFORMER_SIDE = 640  # MatteFormer looks for uncertain pixels at 640 x 640, whatever the size of the image


def predict_alpha(
    network: nn.Module,
    image: np.ndarray | Tensor,  # uint8 [H, W, 3]
    trimap: np.ndarray | Tensor | None,  # uint8 [H, W]
    *,
    margin: int = 0,
    tile: int | None = None,
    tiles_at_once: int = 1,
    override: bool | None = None,
    autocast: torch.dtype | None = None,
) -> Tensor:  # float32 [H, W]
    """Predict the alpha of one image, in evaluation mode and without gradients.

    The image is padded by reflection to multiples of 32 and the result cropped. The three alphas of a network are
    fused (`dptmat.fusion`), for MatteFormer at 640 x 640, for all others at the padded size.

    If the padded image has more than tile * tile pixels, it is cut into tiles that overlap by 224 pixels or more. The
    64 pixels along a cut are dropped, and the alphas of neighbours blended over the rest of the overlap before the
    fusion. A network that looks no further than 64 pixels gives what it gives for the whole image: the same outside
    the overlaps, and to rounding (1e-6) inside. The networks of this library look further, and some at the whole image
    (pooling in MG-Matting, attention in GCA, prior tokens in MatteFormer), so theirs is an approximation. Beside the
    activations of ``tiles_at_once`` tiles the device holds about 50 bytes for each pixel of the image.

    Args:
        network: A network of `create_model`, on any device, compiled or not.
        image: uint8 [H, W, 3], red, green, blue, H and W from 1.
        trimap: uint8 [H, W]: 0 background, 1 unknown, 2 foreground; or None for all unknown. A network with 4
            channels sees its foreground as the mask (ViTMatte the trimap as 0, 0.5 and 1), one with 3 channels sees
            nothing of it.
        margin: Pixels to add at every side before the padding to multiples of 32: 0 as in the published validation
            runs, 32 as in the published demos.
        tile: Largest side of a tile in pixels, a multiple of 224 from 448; 0 never cuts. By default 2016, and 1568
            for GCA, whose memory grows with the square of the area.
        tiles_at_once: Tiles of one size that go through the network as a batch, from 1.
        override: Whether alpha becomes 0 in the trimap's background and 1 in its foreground. By default it does unless
            the network has 3 channels, so that it takes no trimap; the published demo of MG-Matting leaves it out.
        autocast: torch.bfloat16 or torch.float16 to run the network in that precision; None for float32.

    Returns:
        float32 [H, W] in 0..1, on the device of the network.

    Raises:
        TypeError: image or trimap is not uint8.
        ValueError: A shape is wrong, image and trimap differ in size, the trimap holds a value above 2, or an option
            is out of its range; as a UserError for ``tile``.
    """
    pixels = _require_image(image)
    states = _require_trimap(trimap, pixels)
    original = original_of(network)
    if tile is None:
        tile = _default_tile(network)
    if override is None:
        override = original.in_channels != 3
    _require_options(margin, tile, tiles_at_once, autocast)

    device = next(network.parameters()).device
    states = states.to(device)
    with torch.inference_mode(), _evaluating(network), torch.autocast(device.type, autocast, autocast is not None):
        guided = pad_by_reflection(_add_guidance(pixels.to(device), states, original), margin)
        normalize = partial(_normalize, largest=2 if _takes_levels(original) else 1)
        if not tile or guided[..., 0].numel() <= tile**2:
            alphas = network(normalize(guided))
        else:
            alphas = predict_tiles(network, guided, tile, tiles_at_once, normalize)
        alpha = fuse_alphas(alphas, MATTEFORMER_SIDE if isinstance(original, MatteFormer) else None)
        alpha = alpha[0, 0].narrow(0, margin, len(states)).narrow(1, margin, states.shape[1]).clone()
        return alpha.masked_fill_(states == 0, 0).masked_fill_(states == 2, 1) if override else alpha


def predict_within_memory(
    network: nn.Module,
    image: np.ndarray | Tensor,  # uint8 [H, W, 3]
    trimap: np.ndarray | Tensor | None,  # uint8 [H, W]
    *,
    name: str = "",
    tile: int | None = None,
    **options: Any,
) -> Tensor:  # float32 [H, W]
    """Predict the alpha of one image as `predict_alpha` does, in smaller tiles where the memory of the device runs out.

    The next tiles have half the side of what was too large, rounded down to a multiple of 224, and 448 at last. Each
    time this is logged as a warning, since smaller tiles change alpha a little.

    Args:
        network, image, trimap, tile, options: As for `predict_alpha`.
        name: Of the image, for the warnings.

    Returns:
        float32 [H, W] in 0..1, on the device of the network.

    Raises:
        TypeError, ValueError: As for `predict_alpha`.
        UserError: The memory does not suffice for tiles of 448 pixels either.
        RuntimeError: PyTorch fails for another reason.
    """
    height, width = _require_image(image).shape[:2]
    device = next(network.parameters()).device
    while True:
        try:
            return predict_alpha(network, image, trimap, tile=tile, **options)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Only here, where the error is gone, are the activations gone that its traceback held.
        tried = _default_tile(network) if tile is None else tile or inf
        margin = options.get("margin", 0)
        tried = min(tried, sqrt(prod(ceil((side + 2 * margin) / 32) * 32 for side in (height, width))))
        tile = max(2 * GRID, int(tried / 2) // GRID * GRID)
        if tile >= tried:
            raise UserError(
                f"an image of {width} x {height} pixels does not fit into the memory of {device}, not even in tiles of "
                f"{2 * GRID} x {2 * GRID}; free some of it, take another device, or make the image smaller"
            )
        torch.cuda.empty_cache()
        line = "%s%s is out of memory; going on in tiles of %d x %d pixels"
        _logger.warning(line, f"{name}: " if name else "", device, tile, tile)


def original_of(network: Any) -> MattingNetwork:
    """Return the network of `create_model` that ``torch.compile`` may have wrapped."""
    return getattr(network, "_orig_mod", network)


def _default_tile(network: nn.Module) -> int:
    return GCA_TILE if isinstance(original_of(network), GCAMatting) else TILE


def pad_by_reflection(
    image: Tensor,  # [H, W, C]
    margin: int = 0,
) -> Tensor:  # [H + 2 margin, W + 2 margin, C], both rounded up
    """Pad an image by margin at every side, then at the bottom and the right to multiples of 32.

    The added pixels are those of ``numpy.pad`` with the mode "reflect": an image smaller than its padding is reflected
    again and again, and a single pixel repeated.
    """
    height, width = (_reflect(side, margin, margin + -(side + 2 * margin) % 32) for side in image.shape[:2])
    return image[height.to(image.device)[:, None], width.to(image.device)]


def _reflect(length: int, before: int, after: int) -> Tensor:
    """Return the source of each pixel of a padded row, int64 [before + length + after]."""
    last = length - 1
    positions = torch.arange(-before, length + after) % max(2 * last, 1)
    return last - (last - positions).abs()


def _add_guidance(
    image: Tensor,  # uint8 [H, W, 3]
    trimap: Tensor,  # uint8 [H, W]
    network: MattingNetwork,
) -> Tensor:  # uint8 [H, W, in_channels]
    if _takes_levels(network):
        return torch.cat([image, trimap[..., None]], dim=2)
    shown: list[int] = {3: [], 4: [2], 6: [0, 1, 2]}[network.in_channels]
    return torch.cat([image, *((trimap == value).byte()[..., None] for value in shown)], dim=2)


def _takes_levels(network: nn.Module) -> bool:
    """Tell whether a fourth channel is the trimap as 0, 0.5 and 1; networks of others need not say so."""
    return bool(getattr(network, "trimap_levels", False))


def _normalize(
    image: Tensor,  # uint8 [h, w, C]
    largest: int,  # value of the guidance, which becomes 1
) -> Tensor:  # float32 [1, C, h, w]
    x = image.permute(2, 0, 1)[None].contiguous().float()
    mean, std = (torch.tensor(values).to(x.device)[:, None, None] for values in (MEAN, STD))
    x[:, :3].div_(255).sub_(mean).div_(std)
    x[:, 3:].div_(largest)
    return x


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:  # not network.train(): some of its modules may be frozen
            module.training = True


def _require_uint8(name: str, value: object, shape: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return torch.from_numpy(value.copy())  # PyTorch takes no negative strides, and warns of read-only arrays
    if not isinstance(value, Tensor) or value.dtype != torch.uint8:
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, (np.ndarray, Tensor)) else type(value).__name__
        raise TypeError(f"{name} must be a NumPy array or a tensor, uint8 {shape}, got {got}; convert it to 8 bits")
    return value


def _require_image(image: object) -> Tensor:
    pixels = _require_uint8("image", image, "[H, W, 3]")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.numel():
        raise ValueError(f"image must be [H, W, 3] with a pixel or more, got {list(pixels.shape)}; decode it to RGB")
    return pixels


def _require_trimap(trimap: object, image: Tensor) -> Tensor:
    if trimap is None:
        return torch.ones_like(image[..., 0])
    states = _require_uint8("trimap", trimap, "[H, W]")
    if states.shape != image.shape[:2]:
        sizes = f"{list(states.shape)} for an image of {list(image.shape)}"
        raise ValueError(f"trimap must be [H, W] of its image, got {sizes}; give one channel, of the same size")
    if states.max() > 2:
        values = f"0 background, 1 unknown and 2 foreground, got {int(states.max())}"
        raise ValueError(f"trimap must hold {values}; map 0, 128 and 255 of a file to 0, 1 and 2 first")
    return states


def _require_options(margin: int, tile: int, tiles_at_once: int, autocast: torch.dtype | None) -> None:
    if margin < 0:
        raise ValueError(f"margin must be 0 pixels or more, got {margin}; use 32 for that of the published demos")
    require_tile(tile)
    if tiles_at_once < 1:
        raise ValueError(f"tiles_at_once must be 1 or more, got {tiles_at_once}; use 1 for the least memory")
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f"autocast must be torch.bfloat16, torch.float16 or None, got {autocast}; None is float32")
