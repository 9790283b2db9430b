"""Contact sheets: what the network sees and what it gives back, as one picture each."""

from pathlib import Path

import cv2
import numpy as np

from dptmat import defaults
from dptmat.data.image_io import LEVELS
from dptmat.errors import UserError

_MEAN, _STD = np.array(defaults.MEAN, np.float32), np.array(defaults.STD, np.float32)
_CAPTION = 24  # height in pixels of the line of captions


def preview_sheet(views, batch, rows):
    """Foreground, background, trimap, alpha and composite of the first samples, a row each: uint8 [H, W, 3] RGB."""
    rotated = np.einsum("nck,nhwk->nhwc", views.color.cpu().numpy(), views.views.cpu().numpy().astype(np.float32))
    foreground = np.clip(rotated + 0.5, 0, 255).astype(np.uint8)
    return _sheet(
        {
            "foreground": foreground,
            "background": foreground[batch.pairing.cpu().numpy()],
            "trimap": LEVELS[batch.trimap.cpu().numpy()[:, 0]],
            "alpha": _eight_bit(batch.alpha),
            "composite": _composite(batch),
        },
        rows,
    )


def samples_sheet(batch, rows):
    """Composite, trimap and alpha of the first samples, a row each: uint8 [H, W, 3] RGB."""
    return _sheet(
        {
            "composite": _composite(batch),
            "trimap": LEVELS[batch.trimap.cpu().numpy()[:, 0]],
            "alpha": _eight_bit(batch.alpha),
        },
        rows,
    )


def predictions_sheet(batch, prediction):
    """Composite, true alpha and predicted alpha of the first samples, a row each: uint8 [H, W, 3] RGB."""
    return _sheet(
        {
            "composite": _composite(batch),
            "true alpha": _eight_bit(batch.alpha),
            "predicted alpha": _eight_bit(prediction),
        },
        len(prediction),
    )


def write_picture(path, picture):
    """Write uint8 [H, W, 3] RGB in the format of the path's ending.

    Raises:
        UserError: The ending is not that of a picture.
        OSError: The file cannot be written.
    """
    try:
        _, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise UserError(f"--out {path} is not a picture that OpenCV writes; use a name that ends in .png") from error
    Path(path).write_bytes(encoded)


def _composite(batch):
    """The network's colours back as uint8 [N, H, W, 3]."""
    normalised = batch.input[:, :3].float().cpu().numpy().transpose(0, 2, 3, 1)
    return np.clip((normalised * _STD + _MEAN) * 255 + 0.5, 0, 255).astype(np.uint8)


def _eight_bit(alpha):
    """Alpha [N, 1, H, W] in 0..1 as uint8 [N, H, W]."""
    return (alpha.detach().float().cpu().numpy()[:, 0] * 255 + 0.5).astype(np.uint8)


def _sheet(columns, rows):
    """The first ``rows`` tiles of columns of [N, H, W] or [N, H, W, 3], side by side with captions above."""
    strips = []
    for caption, tiles in columns.items():
        strip = np.concatenate(list(tiles[:rows]))
        strip = np.repeat(strip[..., None], 3, axis=-1) if strip.ndim == 2 else strip
        head = np.full((_CAPTION, strip.shape[1], 3), 255, np.uint8)
        cv2.putText(head, caption, (4, _CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        strips.append(np.concatenate([head, strip]))
    return np.concatenate(strips, axis=1)
