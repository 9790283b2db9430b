"""Photographs as they are packed: decoded, upright, shrunk as pre-training shrinks them, and written as small JPEGs."""

import numpy as np
import simplejpeg
from PIL import Image

from dptmat.data.check import jpeg_damage
from dptmat.data.image_io import decode_photograph
from dptmat.data.jpeg import FRAMES, segments
from dptmat.errors import UserError
from dptmat.pipelines.encoded import BadFileError
from dptmat.pipelines.resample import LONGEST_ASPECT, shrink

_EXIF, _ORIENTATION = 0xE1, 0x0112
_COMMON = {0xC0, 0xC1, 0xC2}  # frames of JPEG files that libjpeg-turbo decodes: baseline, extended, progressive
_FORMS = {1: "GRAY", 3: "RGB"}  # by the number of channels


def decode_upright(content: bytes, name: str) -> np.ndarray:
    """Decode a photograph and judge its pixels as `dptmat index` does, and turn it as its EXIF orientation says.

    Colours are as they are stored, as pre-training takes them; a colour profile is not applied.

    Args:
        content: The bytes of its file, which `dptmat.pipelines.encoded.judge` has passed.
        name: How messages call it.

    Returns:
        uint8 [H, W, 3] RGB, or [H, W, 1] for one that is grey.

    Raises:
        BadFileError: It is no photograph, or damaged.
    """
    pixels = _decode_jpeg(content)
    if pixels is not None:
        return pixels
    try:
        pixels = decode_photograph(content, name, srgb=False)
    except UserError as refusal:
        raise BadFileError(str(refusal).removeprefix(f"{name} ")) from refusal
    is_gray = (pixels[..., :1] == pixels[..., 1:]).all()
    return pixels[..., :1] if is_gray else pixels


def shrink_to(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Shrink a photograph as pre-training of that ``--size`` would, and never enlarge one: uint8 [H, W, C]."""
    height, width = pixels.shape[:2]
    if min(height, width) <= short_side and max(height, width) <= LONGEST_ASPECT * short_side:
        return pixels
    return shrink(np.require(pixels, requirements=["C", "W"]), short_side)


def encode(pixels: np.ndarray, quality: int, sampling: str) -> bytes:
    """Write a photograph as a baseline JPEG of one scan, without a profile, EXIF or restart markers.

    Args:
        pixels: uint8 [H, W, 3] RGB, or [H, W, 1] grey, which stays so.
        quality: As libjpeg counts it, 1..100.
        sampling: "420" or "444", the chroma's.
    """
    form = _FORMS[pixels.shape[2]]
    sampling = "Gray" if form == "GRAY" else sampling
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, form, sampling, fastdct=False)


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """Decode a grey or RGB JPEG file, upright; None for any other file, and for JPEG files of uncommon kinds."""
    if not content.startswith(b"\xff\xd8"):
        return None
    channels, orientation = _read_head(content)
    if channels not in _FORMS:
        return None
    try:
        pixels = _decode(content, channels, strict=True)
    except ValueError:  # also of what does no harm
        if damage := jpeg_damage(content):
            raise BadFileError(damage) from None
        try:
            pixels = _decode(content, channels, strict=False)
        except ValueError:
            return None
    return _turn(pixels, orientation)


def _decode(content: bytes, channels: int, strict: bool) -> np.ndarray:
    return simplejpeg.decode_jpeg(content, _FORMS[channels], fastdct=False, fastupsample=False, strict=strict)


def _read_head(content: bytes) -> tuple[int, int]:
    """Read the number of channels and the orientation of a JPEG file: 0 channels if it is of an uncommon kind."""
    channels, orientation = 0, 1
    for marker, position in segments(content):
        if marker == _EXIF and content[position + 4 : position + 10] == b"Exif\0\0" and orientation == 1:
            length = int.from_bytes(content[position + 2 : position + 4], "big")
            orientation = _read_orientation(content[position + 4 : position + 2 + length])
        elif marker in FRAMES:
            is_common = marker in _COMMON and content[position + 4] == 8  # bits
            channels = content[position + 9] if is_common else 0
    return channels, orientation


def _read_orientation(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # Pillow raises many types for what is damaged; decoders then take it for upright
        return 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels as EXIF's orientation, 1..8, says: mirrored, upside down, on a side."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]
