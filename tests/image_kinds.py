"""Image files of every kind that users have, which Pillow and OpenCV write."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_noise = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
PIXELS = cv2.resize(_noise, (61, 83), interpolation=cv2.INTER_CUBIC)  # uint8 [83, 61, 3] RGB
_image = Image.fromarray(PIXELS)
_gray = _image.convert("L")
_rgba = Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _save(image: Image.Image, **options: object) -> Callable[[Path], object]:
    return lambda path: image.save(path, **options)


def _write(pixels: np.ndarray) -> Callable[[Path], object]:
    return lambda path: cv2.imwrite(str(path), pixels)


def _more(image: Image.Image) -> dict:
    return {"save_all": True, "append_images": [image.rotate(90)]}


_deep = PIXELS[..., ::-1].astype(np.uint16) * 257  # blue, green, red

# By file name: what writes it. DALI decodes these.
DALI = {
    "444.jpg": _save(_image, quality=90, subsampling=0),
    "422.jpe": _save(_image, quality=90, subsampling=1),
    "420.jfif": _save(_image, quality=90, subsampling=2),
    "progressive.jpg": _save(_image, progressive=True),
    "restarts.jpg": _save(_image, restart_marker_blocks=3),
    "gray.jpg": _save(_gray),
    "cmyk.jpg": _save(_image.convert("CMYK")),
    "plain.png": _save(_image),
    "named.JPEG": _save(_image, format="PNG"),
    "gray.png": _save(_gray),
    "gray_alpha.png": _save(_image.convert("LA")),
    "alpha.png": _save(_rgba),
    "palette.png": _save(_image.quantize(32)),
    "transparent_palette.png": _save(_image.quantize(32), transparency=0),
    "one_bit.png": _save(_image.convert("1")),
    "sixteen_bit.png": _write(_deep),
    "sixteen_bit_gray.png": _write(_deep[..., 0]),
    "animated.png": _save(_image, **_more(_image)),
    "one_pixel.png": _save(_image.crop((0, 0, 1, 1))),
    "sliver.png": _save(_image.crop((0, 0, 61, 1))),
    "plain.bmp": _save(_image),
    "palette.bmp": _save(_image.quantize(32)),
    "one_bit.bmp": _save(_image.convert("1")),
    "lossy.webp": _save(_image),
    "lossless.webp": _save(_image, lossless=True),
    "alpha.webp": _save(_rgba, lossless=True),
    "animated.webp": _save(_image, **_more(_image)),
    "turned_alpha.webp": _save(_rgba, exif=_orientation(6), lossless=True),
    "plain.tif": _save(_image),
    "lzw.tiff": _save(_image, compression="tiff_lzw"),
    "deflate.tif": _save(_image, compression="tiff_adobe_deflate"),
    "packbits.tif": _save(_image, compression="packbits"),
    "jpeg.tif": _save(_image, compression="jpeg"),
    "alpha.tif": _save(_rgba),
    "cmyk.tif": _save(_image.convert("CMYK")),
    "one_bit.tif": _save(_image.convert("1"), compression="group4"),
    "sixteen_bit.tif": _write(_deep),
    "sixteen_bit_gray.tif": _write(_deep[..., 0]),
    "pages.tif": _save(_image, **_more(_image)),
    "plain.jp2": _save(_image),
    "gray.jp2": _save(_gray),
    "alpha.jp2": _save(_rgba),
    "plain.ppm": _save(_image),
    "gray.pgm": _save(_gray),
    "sixteen_bit.ppm": _write(_deep),
    "text.ppm": lambda path: path.write_text("P3\n2 1\n255\n255 0 0 0 255 0\n"),
    **{f"turned_{i}.jpg": _save(_image, exif=_orientation(i)) for i in range(1, 9)},
    **{f"turned_{i}.png": _save(_image, exif=_orientation(i)) for i in range(1, 9)},
    **{f"turned_{i}.webp": _save(_image, exif=_orientation(i)) for i in range(1, 9)},
    **{f"turned_{i}.tif": _save(_image, exif=_orientation(i)) for i in range(1, 9)},
    **{f"turned_lzw_{i}.tif": _save(_image, exif=_orientation(i), compression="tiff_lzw") for i in range(1, 9)},
    **{f"turned_gray_{i}.tif": _save(_gray, exif=_orientation(i)) for i in range(1, 9)},
}
# DALI refuses these, and Pillow decodes them.
PILLOW = {
    **{f"turned_lossless_{i}.webp": _save(_image, exif=_orientation(i), lossless=True) for i in range(1, 9)},
}


def write_kinds(folder: Path, kinds: dict[str, Callable[[Path], object]]) -> list[str]:
    """Write the files of ``kinds``: their paths."""
    for name, write in kinds.items():
        write(folder / name)
    return [str(folder / name) for name in kinds]
