"""Images, trimaps and alphas on disk: read as the library's arrays, strictly, and written."""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dptmat.data.color_profiles import to_srgb
from dptmat.errors import UserError, first_line
from dptmat.files import write_whole

_logger = logging.getLogger(__name__)

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".pnm",
)  # fmt: skip
# By content, whatever the name says: Pillow would run a program of the system on some others, such as EPS.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "TGA")
LEVELS = np.array([0, 128, 255], np.uint8)  # a trimap's values in image files: background, unknown, foreground


def read_image(path: str | Path, *, upright: bool = True, srgb: bool = True) -> np.ndarray:
    """Read an image of any kind as red, green, blue: uint8 [H, W, 3].

    One channel of 16 bits is rounded to the nearest of 8 bits; of three such channels Pillow gives the upper 8 bits.
    Colours are converted to sRGB by the colour profile that is in the file (`dptmat.data.color_profiles.to_srgb`). A
    profile that cannot be used is logged, and the colours are taken for sRGB, as where there is none.

    Args:
        path: The file.
        upright: Whether to turn it as its EXIF orientation says; False for the pixels as they are stored.
        srgb: Whether to convert the colours; False for the values as they are stored.

    Raises:
        UserError: The file is missing, damaged, or no image, or its values are not in the range of their bits.
    """
    image = _require_range(_open(path, upright), str(path))
    profile = image.info.get("icc_profile") if srgb else None
    image = _eight_bit(image, str(path))
    if profile:
        try:
            image = to_srgb(image, profile)
        except Exception as error:  # Pillow and LittleCMS raise many types
            line = "%s: its colour profile cannot be used: %s; its colours are taken for sRGB"
            _logger.warning(line, path, first_line(error))
    with _told(path):
        return np.asarray(image.convert("RGB"))


def read_alpha(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Read an alpha matte: uint8 [H, W], 255 is opaque.

    The file has one channel of 1, 8 or 16 bits, or three equal ones; 16 bits become 8 as for `read_image`.

    Raises:
        UserError: The file is missing, damaged, no image, has colours, is partly transparent, or its values are not in
            the range of their bits.
    """
    return _one_channel(_require_range(_open(path, upright), f"alpha {path}"), f"alpha {path}")


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask: uint8 [H, W], foreground from 128; the file is as for `read_alpha`.

    Raises:
        UserError: As for `read_alpha`; or no value reaches 128 though some are above 0, as where the foreground is 1.
    """
    mask = _one_channel(_open(path), f"mask {path}")
    if 0 < mask.max() < 128:
        raise UserError(f"mask {path} has no value above {mask.max()}; foreground is from 128: save it as 255")
    return mask


def read_trimap(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Read a trimap: uint8 [H, W], 0 background, 1 unknown, 2 foreground.

    The file holds 0, 128 and 255 in one channel, in a palette, or in three equal channels.

    Raises:
        UserError: As for `read_alpha`; or it holds other values, which the message counts.
    """
    levels = _one_channel(_open(path, upright), f"trimap {path}")
    values, counts = np.unique(levels, return_counts=True)
    other = [(value, count) for value, count in zip(values, counts, strict=True) if value not in LEVELS]
    if other:
        few = ", ".join(f"{value} ({count} pixels)" for value, count in other[:5])
        more = f" and {len(other) - 5} further values" if len(other) > 5 else ""
        raise UserError(f"trimap {path} holds {few}{more}; expected 0, 128 and 255 alone: save these as PNG")
    return np.searchsorted(LEVELS, levels).astype(np.uint8)


def read_size(path: str | Path) -> tuple[int, int]:
    """Read the width and height in pixels of an image, upright, from its head alone.

    Raises:
        UserError: The file is missing, damaged, or no image.
    """
    with _told(path), _open_regular(path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # orientations on their side
        return image.size[::-1] if turned else image.size


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a PNG file atomically.

    Args:
        path: The file to make or to replace; its folder exists.
        image: uint8 or uint16: [H, W] grey, [H, W, 3] red, green, blue, or [H, W, 4] with opacity.

    Raises:
        OSError: The file cannot be written.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    _, encoded = cv2.imencode(".png", image)  # ten times as fast as Pillow, for some per cent more bytes
    write_whole(path, lambda file: file.write(encoded.tobytes()))


def require_same_size(name: str, **images: np.ndarray) -> None:
    """Refuse images of one sample that differ in height or width; the message has the name and all sizes.

    Raises:
        UserError: They do.
    """
    if len({image.shape[:2] for image in images.values()}) > 1:
        sizes = ", ".join(f"{what} {p.shape[1]} x {p.shape[0]}" for what, p in images.items())
        raise UserError(f"{name}: sizes differ: {sizes} pixels; make them one width and height")


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Tell in a sentence what Pillow finds wrong with a file."""
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that can be read") from error
    except Exception as error:  # Pillow's formats raise many types for a damaged file
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{path} cannot be read: {reason}") from error


def _open_regular(path: str | Path) -> Image.Image:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe would keep its reader waiting
        raise UserError(f"{path} is a pipe, a device or a socket; give an image file")
    Image.init()  # lets Pillow know all its formats, of which it knows but a few at first
    return Image.open(path, formats=_FORMATS)


def _require_range(image: Image.Image, name: str) -> Image.Image:
    """Refuse what was saved in 8 bits as 0 and 1 where 255 is meant: it would be taken for next to nothing."""
    if image.mode in ("L", "P", "RGB") and np.asarray(image.convert("L")).max(initial=0) == 1:
        raise UserError(f"{name} has no value above 1; white is 255 in 8 bits: save it multiplied by 255")
    return image


def _open(path: str | Path, upright: bool = True) -> Image.Image:
    with _told(path), _open_regular(path) as image:
        image.load()
        return ImageOps.exif_transpose(image) if upright else image.copy()


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """Round one channel of 16 bits, which Pillow may hold in 32, to 8 bits; Pillow itself would cut it off at 255."""
    if image.mode == "F":
        raise UserError(f"{name} holds floating-point numbers; save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    deep = np.asarray(image).astype(np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise UserError(f"{name} has values from {deep.min()} to {deep.max()}; expected 8 or 16 bits")
    if 0 < deep.max() <= 255:
        raise UserError(
            f"{name} has 16 bits or more per pixel and no value above {deep.max()}, where white is 65535; save it with "
            "8 bits"
        )
    return Image.fromarray(((deep + 128) // 257).astype(np.uint8))


def _one_channel(image: Image.Image, name: str) -> np.ndarray:
    """Return the values of a grey image, uint8 [H, W]."""
    image = _eight_bit(image, name)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            raise UserError(f"{name} is partly transparent; expected one grey channel: save the matte by itself")
    if image.mode not in ("L", "1"):
        colors = np.asarray(image.convert("RGB")).astype(np.int16)
        if np.ptp(colors, axis=2).max() > 8:  # JPEG compression alone can part the channels by some levels
            raise UserError(f"{name} has colours; expected one grey channel, or three equal ones")
    return np.asarray(image.convert("L"))
