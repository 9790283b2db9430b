"""Colour profiles (ICC) that images bring with them: found in a file's bytes, judged, and converted to sRGB."""

import struct
import zlib
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from dptmat.data.jpeg import FRAMES, segments

_SAME = 2  # levels of 255 by which the profiles for sRGB that are about differ: some round its curve
_LARGEST = 1 << 20  # bytes of a PNG's profile, beyond which Pillow does not unpack it
_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}  # the colours of a profile, by the mode of its image
_PROFILE = 0xE2  # marker of a JPEG file's segments that hold one, among others
_BLACK_POINT_COMPENSATION: Any = 0x2000  # a flag of LittleCMS, which Pillow before 10.3 knows by no name


def has_other_profile(content: bytes) -> bool:
    """Tell whether an image has a colour profile by which its colours change in sRGB; no pixel is decoded.

    A file without a profile takes a microsecond or two. Verdicts are kept: further files with one profile take little
    more.

    Args:
        content: A JPEG, PNG, WebP or TIFF file, or its beginning up to the pixels; a TIFF file must be whole.

    Returns:
        False also where there is no profile, where it is broken, and where ``content`` is something else.
    """
    try:
        profile, mode = _find_profile(content)
        return bool(profile) and _judge(profile, mode) is not None
    except Exception:  # struct, zlib, Pillow and LittleCMS raise many types for what is damaged
        return False


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image to sRGB by its colour profile.

    By the relative colorimetric intent with black-point compensation, as most photo editors do unless told otherwise.
    A profile of colours is applied to a grey image as to one of three equal channels.

    Args:
        image: Of any mode of 8 bits or less.
        profile: The ICC profile.

    Returns:
        The image itself if the profile is one for sRGB, else an image of the mode RGB.

    Raises:
        Exception: The profile is broken, or not for such images; of many types.
    """
    mode = _plain_mode(image.mode)
    transform = _judge(profile, mode)
    return image if transform is None else transform.apply(image.convert(mode).convert(transform.input_mode))


@lru_cache(maxsize=64)
def _judge(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Make what converts images of a mode from a profile to sRGB; None if that changes nothing."""
    space = profile[16:20]
    if mode == "L" and space == b"RGB ":
        mode = "RGB"
    if space != _SPACES[mode]:
        raise ValueError(f"it is one of {space.decode(errors='replace').strip()!r}, but the image of {mode!r}")
    transform = ImageCms.ImageCmsTransform(
        ImageCms.ImageCmsProfile(BytesIO(profile)),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=_BLACK_POINT_COMPENSATION,
    )
    levels = np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * len(mode))
    colors = Image.frombytes(mode, (1, levels[0].size), np.stack(levels, axis=-1).tobytes())
    before, after = (np.asarray(x.convert("RGB")).astype(int) for x in (colors, transform.apply(colors)))
    return None if np.abs(before - after).max() <= _SAME and mode != "CMYK" else transform


def _plain_mode(mode: str) -> str:
    """Return the mode among _SPACES that an image of another mode is brought to."""
    return mode if mode == "CMYK" else "L" if mode[:1] in ("1", "L", "I") and mode != "LAB" else "RGB"


def _find_profile(content: bytes) -> tuple[bytes, str]:
    """Find the profile in an image file, empty if there is none, and the mode of the image among _SPACES."""
    if content.startswith(b"\xff\xd8"):
        return _find_in_jpeg(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _find_in_png(content)
    if content[8:16] == b"WEBPVP8X" and content[20] & 0x20 and content[30:34] == b"ICCP":
        return content[38 : 38 + struct.unpack_from("<I", content, 34)[0]], "RGB"
    if content.startswith((b"II*\0", b"MM\0*")):
        with Image.open(BytesIO(content), formats=["TIFF"]) as image:
            return image.info.get("icc_profile") or b"", _plain_mode(image.mode)
    return b"", ""


def _find_in_jpeg(content: bytes) -> tuple[bytes, str]:
    """Join the parts of a profile, which stand in segments before that of the image's size."""
    parts: list[bytes] = []
    for marker, at in segments(content):
        if marker in FRAMES:
            if not parts or min(parts)[1] != len(parts):
                break
            return b"".join(part[2:] for part in sorted(parts)), {1: "L", 3: "RGB", 4: "CMYK"}[content[at + 9]]
        if marker == _PROFILE and content.startswith(b"ICC_PROFILE\0", at + 4):
            end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
            parts.append(content[at + 16 : end])  # its number, the number of parts, the part
    return b"", ""


def _find_in_png(content: bytes) -> tuple[bytes, str]:
    """Unpack a profile from its chunk, which stands before the pixels."""
    at = 8
    while (kind := content[at + 4 : at + 8]) not in (b"IDAT", b""):
        length = int.from_bytes(content[at : at + 4], "big")
        if kind == b"iCCP":
            packed = content[at + 8 : at + 8 + length].partition(b"\0")[2][1:]  # after its name and the method
            return zlib.decompressobj().decompress(packed, _LARGEST), "L" if content[25] in (0, 4) else "RGB"
        at += 12 + length
    return b"", ""
