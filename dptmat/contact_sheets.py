"""Contact sheets: what the network sees and what it gives back, and made trimaps, as one image each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from dptmat import defaults
from dptmat.data.image_io import LEVELS
from dptmat.errors import UserError
from dptmat.files import write_output, write_whole
from dptmat.pipelines.batches import Views

_MEAN, _STD = np.array(defaults.MEAN, np.float32), np.array(defaults.STD, np.float32)
_CAPTION = 24  # height in pixels of the line of captions
_GREEN = 0, 150, 70
_DETAIL = 98  # pixels of a detail, that fill a tile twice as large
_TILE = 200  # pixels: the side of the square that an image of a file is shrunk into


class Composites(Protocol):
    """What is drawn: a ``Batch`` or a ``ComposedBatch``."""

    @property
    def input(self) -> Tensor: ...  # [N, 6, H, W]: normalized composite, one-hot trimap

    @property
    def alpha(self) -> Tensor: ...  # [N, 1, H, W], 0..1

    @property
    def trimap(self) -> Tensor: ...  # uint8 [N, 1, H, W]: 0 background, 1 unknown, 2 foreground


def show_views(
    views: Views,
    pairing: Tensor,  # int64 [N]
) -> tuple[Tensor, Tensor]:
    """Give foregrounds and backgrounds of the samples that were made of views: float32 [N, 3, H, W] in 0..1 each."""
    rotated = torch.einsum("nck,nhwk->nchw", views.color, views.views.float() / 255).clamp(0, 1)
    return rotated, rotated[pairing]


def preview_sheet(
    fg: Tensor,  # float32 [N, 3, H, W] in 0..1
    bg: Tensor,  # float32 [N, 3, H, W] in 0..1
    batch: Composites,
    rows: int,
) -> np.ndarray:  # uint8 [H, W, 3] RGB
    """Draw foreground, background, trimap, alpha and composite of the first samples.

    Args:
        fg: Foregrounds.
        bg: Backgrounds.
        batch: The samples made of them.
        rows: How many of them to draw, a row each.
    """
    return _sheet(
        {
            "foreground": _bytes(fg),
            "background": _bytes(bg),
            "trimap": _trimap(batch),
            "alpha": _eight_bit(batch.alpha),
            "composite": _composite(batch),
        },
        rows,
    )


def samples_sheet(batch: Composites, rows: int) -> np.ndarray:  # uint8 [H, W, 3] RGB
    """Draw composite, trimap and alpha of the first ``rows`` samples, a row each."""
    return _sheet({"composite": _composite(batch), "trimap": _trimap(batch), "alpha": _eight_bit(batch.alpha)}, rows)


def predictions_sheet(
    batch: Composites,
    prediction: Tensor,  # [rows, 1, H, W], 0..1
) -> np.ndarray:  # uint8 [H, W, 3] RGB
    """Draw composite, true alpha and predicted alpha of the first samples, a row each."""
    return _sheet(
        {
            "composite": _composite(batch),
            "true alpha": _eight_bit(batch.alpha),
            "predicted alpha": _eight_bit(prediction),
        },
        len(prediction),
    )


def trimap_strip(
    caption: str,
    matte: np.ndarray,  # uint8 [H, W]: the alpha or mask that the trimap was made from
    trimap: np.ndarray,  # uint8 [H, W]: 0 background, 1 unknown, 2 foreground
    image: np.ndarray | None = None,  # uint8 [H, W, 3] RGB
) -> np.ndarray:  # uint8 [_CAPTION + _TILE, 3 * _TILE, 3] RGB
    """Draw a matte, its trimap, and the image, or else the matte, with the known parts tinted: blue and green.

    What has no tint is unknown: whatever is neither wholly foreground nor wholly background must lie there.
    """
    below = _colored(matte) if image is None else image
    tint = np.array([[40, 40, 200], [0, 0, 0], [40, 200, 40]], np.uint8)[trimap]
    tinted = np.where((trimap == 1)[..., None], below, below // 2 + tint // 2)
    return _strip(caption, (matte, LEVELS[trimap], tinted))


def matte_strip(
    caption: str,
    colors: np.ndarray,  # uint8 [H, W, 3] RGB
    alpha: np.ndarray,  # uint8 [H, W]
) -> np.ndarray:  # uint8 [_CAPTION + _TILE, 3 * _TILE, 3] RGB
    """Draw a foreground over a plain green, its matte, and a detail of the former, where halos show.

    The detail is where alpha is between most often, 100 pixels wide, shown twice as large.
    """
    share = alpha[..., None] / np.float32(255)
    over = share * colors + (1 - share) * np.array(_GREEN, np.float32)
    between = cv2.boxFilter(((alpha > 0) & (alpha < 255)).astype(np.float32), -1, (_DETAIL, _DETAIL))
    y, x = np.unravel_index(between.argmax(), between.shape)
    places = (y, alpha.shape[0]), (x, alpha.shape[1])
    top, left = (max(0, min(int(at) - _DETAIL // 2, side - _DETAIL)) for at, side in places)
    detail = over[top : top + _DETAIL, left : left + _DETAIL].repeat(2, axis=0).repeat(2, axis=1)
    return _strip(caption, (over.astype(np.uint8), alpha, detail.astype(np.uint8)))


def _strip(caption: str, images: Sequence[np.ndarray]) -> np.ndarray:
    tiles = [_fitted(_colored(each)) for each in images]
    return np.concatenate([_head(caption, len(tiles) * _TILE), np.concatenate(tiles, axis=1)])


def stack_strips(strips: Sequence[np.ndarray]) -> np.ndarray:  # uint8 [H, W, 3] of one size -> [H', W', 3]
    """Lay strips below each other, in two columns where there are more than four."""
    columns = 1 if len(strips) <= 4 else 2
    rows = -(-len(strips) // columns)
    filled = [*strips, *[np.full_like(strips[0], 255)] * (rows * columns - len(strips))]
    return np.concatenate([np.concatenate(filled[i * rows : (i + 1) * rows]) for i in range(columns)], axis=1)


def _fitted(image: np.ndarray) -> np.ndarray:  # uint8 [H, W, 3] -> [_TILE, _TILE, 3]
    """Shrink an image to fit a tile, in the middle of grey; a small one keeps its size."""
    scale = min(1.0, (_TILE - 4) / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    tile = np.full((_TILE, _TILE, 3), 160, np.uint8)
    top, left = (_TILE - height) // 2, (_TILE - width) // 2
    tile[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return tile


def write_sheet(
    path: str | Path,
    sheet: np.ndarray,  # uint8 [H, W, 3] RGB
    *,
    named: bool = False,
) -> None:
    """Write a sheet in the format of the path's ending; a link is followed if it is ``named`` by a user.

    Raises:
        UserError: The ending is not that of an image.
        OSError: The file cannot be written.
    """
    require_format(path)
    _, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    (write_output if named else write_whole)(path, lambda file: file.write(encoded.tobytes()))


def require_format(path: str | Path) -> None:
    """Refuse a path that does not end as a picture does.

    Raises:
        UserError: It does not.
    """
    if not Path(path).suffix or not cv2.haveImageWriter(Path(path).suffix):
        raise UserError(f"{path} is not the name of an image that OpenCV writes; use one that ends in .png")


def _composite(batch: Composites) -> np.ndarray:  # uint8 [N, H, W, 3]
    """Turn the network's colours back into bytes."""
    normalized = batch.input[:, :3].float().cpu().numpy().transpose(0, 2, 3, 1)
    return np.clip((normalized * _STD + _MEAN) * 255 + 0.5, 0, 255).astype(np.uint8)


def _bytes(
    picture: Tensor,  # float32 [N, 3, H, W] in 0..1
) -> np.ndarray:  # uint8 [N, H, W, 3]
    return (picture.cpu().numpy().transpose(0, 2, 3, 1) * 255 + 0.5).astype(np.uint8)


def _trimap(batch: Composites) -> np.ndarray:  # uint8 [N, H, W]: 0, 128, 255
    return LEVELS[batch.trimap.cpu().numpy()[:, 0]]


def _eight_bit(
    alpha: Tensor,  # [N, 1, H, W], 0..1
) -> np.ndarray:  # uint8 [N, H, W]
    return (alpha.detach().float().cpu().numpy()[:, 0] * 255 + 0.5).astype(np.uint8)


def _sheet(
    columns: dict[str, np.ndarray],  # by caption, uint8 [N, H, W] or [N, H, W, 3]
    rows: int,
) -> np.ndarray:  # uint8 [H, W, 3]
    """Put the first tiles of the columns side by side, with captions above."""
    strips = []
    for caption, tiles in columns.items():
        strip = _colored(np.concatenate(list(tiles[:rows])))
        strips.append(np.concatenate([_head(caption, strip.shape[1]), strip]))
    return np.concatenate(strips, axis=1)


def _colored(image: np.ndarray) -> np.ndarray:  # uint8 [H, W] or [H, W, 3] -> [H, W, 3]
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def _head(caption: str, width: int) -> np.ndarray:  # uint8 [_CAPTION, width, 3]
    """Write a caption in black on white."""
    head = np.full((_CAPTION, width, 3), 255, np.uint8)
    text = caption.encode(errors="replace").decode()  # names of files need not be valid text
    cv2.putText(head, text, (4, _CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return head
