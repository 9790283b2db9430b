"""What the page computes: a trimap of what was painted and loaded, an alpha, and the cut-out on another background."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from dptmat.data.image_io import read_image, read_mask, read_size, read_trimap, require_one_size
from dptmat.data.trimaps import from_mask
from dptmat.errors import UserError
from dptmat.inference import predict_within_memory
from dptmat.tasks.score import NOT_FINITE, takes_trimap

MOST_PIXELS = 64_000_000  # of a photograph: more than the largest of most phones, 8192 x 6144
SHOWN = 1280  # pixels: the longer side of what the browser shows, and in which strokes are painted
# Colours of the brushes, in the order of a trimap's values: background, unknown, foreground.
BRUSHES = np.array([[40, 80, 220], [250, 190, 0], [20, 170, 60]], np.uint8)
_UNPAINTED = 3
_SQUARE = 16  # pixels of the chequerboard behind what is transparent


def read_photograph(path: str | Path) -> np.ndarray:
    """Read a photograph as `dptmat.data.image_io.read_image` does: uint8 [H, W, 3].

    Raises:
        UserError: It cannot be read, or has more than MOST_PIXELS.
    """
    width, height = read_size(path)
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{path} has {width} x {height} pixels; the page takes up to {MOST_PIXELS / 1e6:.0f} million: make it "
            "smaller, or use dptmat predict"
        )
    return read_image(path)


def load_trimap(path: str | Path, shape: tuple[int, ...], width: float | None = None) -> np.ndarray:
    """Read a trimap, or make one of a mask: uint8 [H, W] with 0, 1, 2.

    Args:
        path: The file.
        shape: Of the photograph: its height, its width.
        width: If it is a mask: of the unknown band to either side of its outline, in per cent of the longer side.

    Raises:
        UserError: It cannot be read, is of another size, or says of all pixels that they are known, or unknown.
    """
    given = read_trimap(path) if width is None else read_mask(path)
    sizes = {"photograph": shape, "trimap" if width is None else "mask": given.shape}
    require_one_size(str(path), **{kind: (size[1], size[0]) for kind, size in sizes.items()})
    trimap = given if width is None else from_mask(given, width / 100 * max(shape[:2]))
    if width is None and not (trimap == 1).any():
        raise UserError(f"{path} leaves nothing unknown, as a mask does; say that it is a mask")
    if width is not None and len(np.unique(given >= 128)) == 1:
        raise UserError(f"{path} has no outline: it is foreground everywhere, or nowhere")
    if not (trimap != 1).any():
        raise UserError(f"{path} leaves nothing known{'' if width is None else '; take a narrower band'}")
    return trimap


def paint(
    trimap: np.ndarray,  # uint8 [H, W]: 0, 1, 2
    strokes: np.ndarray | None,  # uint8 [h, w, 4]: red, green, blue, opacity; of any size
) -> np.ndarray:  # uint8 [H, W]
    """Paint strokes in the colours of BRUSHES over a trimap: the nearest colour counts, from half its opacity."""
    if strokes is None or not strokes[..., 3].any():
        return trimap
    colors = strokes[..., :3].astype(np.int32)
    distances = np.stack([((colors - brush) ** 2).sum(-1) for brush in BRUSHES.astype(np.int32)])
    states = np.where(strokes[..., 3] >= 128, distances.argmin(0), _UNPAINTED).astype(np.uint8)
    height, width = trimap.shape
    enlarged = cv2.resize(states, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.where(enlarged == _UNPAINTED, trimap, enlarged).astype(np.uint8)


def require_marks(trimap: np.ndarray) -> np.ndarray:
    """Return a trimap that says something, and not all.

    Raises:
        UserError: It does not.
    """
    if (trimap == 1).all():
        raise UserError("Nothing is marked yet: paint some of the foreground and of the background, or load a trimap.")
    if not (trimap == 1).any():
        raise UserError("Everything is marked: leave the edge of the foreground unknown, which is what is computed.")
    return trimap


def matte(
    network: nn.Module,
    image: np.ndarray,  # uint8 [H, W, 3]
    trimap: np.ndarray | None,  # uint8 [H, W]
    *,
    tile: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:  # float32 [H, W] in 0..1
    """Predict alpha as `dptmat.tasks.predict.predict` does.

    Args:
        network, image, tile: As for `dptmat.inference.predict_alpha`.
        trimap: Left out of sight of a network that takes none.
        dtype: What the network computes in.

    Raises:
        UserError: The memory does not suffice, or alpha is not finite.
    """
    autocast = None if dtype == torch.float32 else dtype
    alpha = predict_within_memory(
        network, image, trimap if takes_trimap(network) else None, tile=tile, autocast=autocast
    )
    if not alpha.isfinite().all():
        raise UserError(NOT_FINITE[autocast is None])
    return alpha.cpu().numpy()


def over(
    cutout: np.ndarray,  # uint8 [H, W, 4]: the foreground's colours and alpha
    background: np.ndarray,  # uint8 [H, W, 3], or [3] for a plain colour
) -> np.ndarray:  # uint8 [H, W, 3]
    """Lay a cut-out over a background: a F + (1 - a) B, rounded to the nearest level."""
    result = np.empty((*cutout.shape[:2], 3), np.uint8)
    for rows in range(0, len(cutout), 256):  # a part at a time: 64 million pixels would take gigabytes
        part = cutout[rows : rows + 256].astype(np.uint32)
        alpha, behind = part[..., 3:], background if background.ndim == 1 else background[rows : rows + 256]
        result[rows : rows + 256] = (alpha * part[..., :3] + (255 - alpha) * behind + 127) // 255
    return result


def fill(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scale a picture so that it fills a height and a width, and crop what is too much at both sides.

    Args:
        picture: uint8 [h, w, 3].
        shape: The height and the width.
    """
    height, width = shape[:2]
    scale = max(height / picture.shape[0], width / picture.shape[1])
    size = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def shrink(image: np.ndarray) -> np.ndarray:  # uint8 [H, W] or [H, W, C]
    """Shrink an image to SHOWN at its longer side; a small one stays as it is."""
    scale = SHOWN / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def tint(
    image: np.ndarray,  # uint8 [h, w, 3], shrunk
    trimap: np.ndarray,  # uint8 [H, W]
) -> np.ndarray:  # uint8 [h, w, 3]
    """Tint the known parts of a photograph by the colours of their brushes; what is unknown keeps its own."""
    states = cv2.resize(trimap, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.where((states == 1)[..., None], image, image // 2 + BRUSHES[states] // 2)


def chequer(cutout: np.ndarray) -> np.ndarray:  # uint8 [h, w, 4] -> [h, w, 3]
    """Show what is transparent by a chequerboard."""
    rows, columns = (np.arange(side) // _SQUARE for side in cutout.shape[:2])
    board = np.where((rows[:, None] + columns) % 2, 205, 245).astype(np.uint8)
    return over(cutout, np.repeat(board[..., None], 3, axis=2))
