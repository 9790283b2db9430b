"""Images, trimaps and alphas on disk: read as the library's arrays, strictly, and written."""

import io
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from dptmat.data.color_profiles import to_srgb
from dptmat.errors import UserError, first_line
from dptmat.file_kinds import name_kind_of
from dptmat.files import write_whole

_logger = logging.getLogger(__name__)

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".pnm",
)  # fmt: skip
LARGEST = 178_956_970  # pixels of an image: the limit of Pillow, beyond which it fears for the memory
# By content, whatever the name says: Pillow would run a program of the system on some others, such as EPS.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000")
# As `name_kind` calls them.
READABLE = (
    "a JPEG file", "a PNG file", "a BMP file", "a WebP file", "a TIFF file", "a PPM file", "a JPEG 2000 file",
)  # fmt: skip
LEVELS = np.array([0, 128, 255], np.uint8)  # a trimap's values in image files: background, unknown, foreground


def read_image(path: str | Path, *, upright: bool = True, srgb: bool = True, quiet: bool = False) -> np.ndarray:
    """Read an image of any kind as red, green, blue: uint8 [H, W, 3].

    One channel of 16 bits is rounded to the nearest of 8 bits; of three such channels Pillow gives the upper 8 bits.
    Colours are converted to sRGB by the colour profile that is in the file (`dptmat.data.color_profiles.to_srgb`). A
    profile that cannot be used is logged, and the colours are taken for sRGB, as where there is none. Of an image that
    is partly transparent the colours are read, which is logged too.

    Args:
        path: The file.
        upright: Whether to turn it as its EXIF orientation says; False for the pixels as they are stored.
        srgb: Whether to convert the colours; False for the values as they are stored.
        quiet: Whether to say nothing of transparency.

    Raises:
        UserError: The file is missing, damaged, or no image, or its values are not in the range of their bits.
    """
    image = _require_range(_open(path, upright), str(path))
    if not quiet and _is_transparent(image):
        _logger.warning("%s is partly transparent: its colours are taken as if it were not", path)
    return _colors(image, path, srgb=srgb)


def decode_photograph(content: bytes, name: str, *, srgb: bool) -> np.ndarray:
    """Decode an upright photograph for training as `read_image` does, but as DALI takes it: nothing is said or refused
    of its opacity and range.

    Args:
        content: The bytes of its file.
        name: How messages call it.
        srgb: As for `read_image`.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        UserError: It is damaged, or no image.
    """
    with _told(name), _decoded(io.BytesIO(content)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    return _colors(upright, name, srgb=srgb)


def _colors(image: Image.Image, path: str | Path, *, srgb: bool) -> np.ndarray:
    """Return the colours of an image, uint8 [H, W, 3], in sRGB if that is wanted."""
    profile = image.info.get("icc_profile") if srgb and image.mode != "LAB" else None  # which needs none
    image = _eight_bit(image, str(path))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, of which Pillow would warn
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


def has_opacity(path: str | Path) -> bool:
    """Tell from the head of an image whether it has an alpha channel, or a colour or palette that is transparent.

    Raises:
        UserError: The file is missing, damaged, or no image.
    """
    with _opened(path) as image:
        return _has_opacity(image)


def read_opacity(path: str | Path) -> np.ndarray:
    """Read the alpha channel of a cut-out: uint8 [H, W], 255 is opaque; of 16 bits the upper 8.

    Raises:
        UserError: The file is missing, damaged, no image, has no alpha channel, or one without a value above 1.
    """
    return _opacity(_open(path), path)


def read_cutout(path: str | Path, *, srgb: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Read a cut-out: its colours as `read_image`, not multiplied by alpha, and alpha as `read_opacity`.

    Raises:
        UserError: As for both.
    """
    image = _open(path)
    return _colors(image, path, srgb=srgb), _opacity(image, path)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask: uint8 [H, W], foreground from 128; the file is as for `read_alpha`.

    Raises:
        UserError: As for `read_alpha`; or no value reaches 128 though some are above 0, as where the foreground is 1.
    """
    image = _open(path)
    mask = _one_channel(image, f"mask {path}")
    if 0 < mask.max() < 128:
        most, half, white = (mask.max(), 128, 255) if _is_shallow(image) else (np.asarray(image).max(), 32768, 65535)
        raise UserError(f"mask {path} has no value above {most}; foreground is from {half}: save it as {white}")
    return mask


def read_trimap(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Read a trimap: uint8 [H, W], 0 background, 1 unknown, 2 foreground.

    The file holds 0, 128 and 255 in one channel, in a palette, or in three equal channels.

    Raises:
        UserError: As for `read_alpha`; or it holds other values, which the message counts.
    """
    image = _open(path, upright)
    levels = _one_channel(image, f"trimap {path}")
    other = ~np.isin(levels, LEVELS)
    if other.any():
        # As they are in the file, where there are 16 bits.
        values, counts = np.unique((levels if _is_shallow(image) else np.asarray(image))[other], return_counts=True)
        few = ", ".join(f"{v} ({n} pixels)" for v, n in zip(values[:5], counts[:5], strict=True))
        more = f" and {len(values) - 5} further values" if len(values) > 5 else ""
        expected = "0, 128 and 255" if _is_shallow(image) else "0, 32896 and 65535"
        raise UserError(f"trimap {path} holds {few}{more}; expected {expected} alone: save these as PNG")
    return np.searchsorted(LEVELS, levels).astype(np.uint8)


def read_size(path: str | Path, *, upright: bool = True) -> tuple[int, int]:
    """Read the width and height in pixels of an image from its head alone, as of what `read_image` gives.

    Raises:
        UserError: The file is missing, damaged, or no image.
    """
    with _opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow turns TIFF always, and, as its version is, has turned its size
            width, height, upright = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH], True
        turned = upright and image.getexif().get(0x0112, 1) >= 5  # orientations on their side
        return (height, width) if turned else (width, height)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a PNG file atomically.

    Args:
        path: The file to make or to replace; its folder is made if it is missing.
        image: uint8 or uint16: [H, W] grey, [H, W, 3] red, green, blue, or [H, W, 4] with opacity.

    Raises:
        OSError: The file cannot be written.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    _, encoded = cv2.imencode(".png", image)  # ten times as fast as Pillow, for some per cent more bytes
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(encoded.tobytes()))


def require_same_size(name: str, **images: np.ndarray) -> None:
    """Refuse images of one sample that differ in height or width; the message has the name and all sizes.

    Raises:
        UserError: They do.
    """
    require_one_size(name, **{kind: (image.shape[1], image.shape[0]) for kind, image in images.items()})


def require_one_size(name: str, **sizes: tuple[int, int]) -> None:
    """Refuse sizes, (width, height), of the images of one sample that differ, as `require_same_size` does.

    Raises:
        UserError: They do.
    """
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{kind} {width} x {height}" for kind, (width, height) in sizes.items())
        raise UserError(f"{name}: sizes differ: {told} pixels; make them one width and height")


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Tell in a sentence what Pillow finds wrong with a file."""
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(_no_image(path)) from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} claims more than {LARGEST:,} pixels; make it smaller") from error
    except MemoryError as error:
        raise UserError(f"{path} cannot be read: the memory does not suffice; make it smaller") from error
    except Exception as error:  # Pillow's formats raise many types for a damaged file
        reason = getattr(error, "strerror", None) or first_line(error)
        if "truncated" in reason.lower():
            reason = f"it ends before its end, as a broken download does ({reason})"
        raise UserError(f"{path} cannot be read: {reason}") from error


def _no_image(path: str | Path) -> str:
    """Say of a file that Pillow does not know what it is instead."""
    kind = name_kind_of(path)
    if kind in READABLE:
        return f"{path} cannot be read: it begins as {kind}, but is damaged"
    return f"{path} is not an image that can be read" + (f": it is {kind}" if kind else "")


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image of one of the formats that are read, and close it; what is wrong is told in a sentence."""
    with _told(path):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe would keep its reader waiting
            raise UserError(f"{path} is a pipe, a device or a socket; give an image file")
        # Of a path, not of a file, Pillow maps some TIFF files into memory, and then swaps their sides twice.
        with open(path, "rb") as file, _decoded(file) as image:
            yield image


def _decoded(file: BinaryIO) -> Image.Image:
    Image.init()  # lets Pillow know all its formats, of which it knows but a few at first
    return Image.open(file, formats=_FORMATS)


def _open(path: str | Path, upright: bool = True) -> Image.Image:
    with _opened(path) as image:
        image.load()
        return ImageOps.exif_transpose(image) if upright else image.copy()


def _require_range(image: Image.Image, name: str) -> Image.Image:
    """Refuse what was saved in 8 bits as 0 and 1 where 255 is meant: it would be taken for next to nothing."""
    if image.mode in ("L", "P", "RGB") and np.asarray(image.convert("L")).max(initial=0) == 1:
        raise UserError(f"{name} has no value above 1; white is 255 in 8 bits: save it multiplied by 255")
    return image


def _is_shallow(image: Image.Image) -> bool:
    """Tell whether an image has 8 bits or less per channel, as Pillow holds it."""
    return not image.mode.startswith("I")


def _has_opacity(image: Image.Image) -> bool:
    return _is_shallow(image) and (image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info)


def _is_transparent(image: Image.Image) -> bool:
    return _has_opacity(image) and bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)


def _opacity(image: Image.Image, path: str | Path) -> np.ndarray:
    if not _has_opacity(image):
        raise UserError(f"{path} has no alpha channel; save the cut-out with one, as PNG or WebP")
    opacity = np.asarray(image.convert("RGBA").getchannel("A"))
    if opacity.max(initial=0) == 1:
        raise UserError(f"{path} has no value above 1 in its alpha channel, where opaque is 255; save it again")
    return opacity


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """Round one channel of 16 bits, which Pillow may hold in 32, to 8 bits; Pillow itself would cut it off at 255."""
    if image.mode == "F":
        raise UserError(f"{name} holds floating-point numbers; save it with 8 or 16 bits")
    if _is_shallow(image):
        return image
    deep = np.asarray(image).astype(np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise UserError(f"{name} has values from {deep.min()} to {deep.max()}; expected 8 or 16 bits")
    if 0 < deep.max() <= 255:
        remedy = "save it with 8 bits" if deep.max() > 1 else "save it multiplied by 65535"
        raise UserError(
            f"{name} has 16 bits or more per pixel and no value above {deep.max()}, where white is 65535; {remedy}"
        )
    return Image.fromarray(((deep + 128) // 257).astype(np.uint8))


def _one_channel(image: Image.Image, name: str) -> np.ndarray:
    """Return the values of a grey image, uint8 [H, W]."""
    image = _eight_bit(image, name)
    if _is_transparent(image):
        raise UserError(f"{name} is partly transparent; expected one grey channel: save the matte by itself")
    if image.mode not in ("L", "1"):
        colors = np.asarray(image.convert("RGB")).astype(np.int16)
        if np.ptp(colors, axis=2).max() > 8:  # JPEG compression alone can part the channels by some levels
            raise UserError(f"{name} has colours; expected one grey channel, or three equal ones")
    return np.asarray(image.convert("L"))
