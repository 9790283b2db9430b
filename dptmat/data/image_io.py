"""Images, trimaps and alphas on disk: read as the library's arrays, strictly, paired by name, and written."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dptmat.errors import UserError, few, first_line
from dptmat.files import write_whole

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LEVELS = np.array([0, 128, 255], np.uint8)  # a trimap's values in image files: background, unknown, foreground


def read_image(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Read an image of any kind as red, green, blue: uint8 [H, W, 3].

    One channel of 16 bits is rounded to the nearest of 8 bits; of three such channels Pillow gives the upper 8 bits.

    Args:
        path: The file.
        upright: Whether to turn it as its EXIF orientation says; False for the pixels as they are stored.

    Raises:
        UserError: The file is missing, damaged, or no image.
    """
    return np.asarray(_eight_bit(_open(path, upright), str(path)).convert("RGB"))


def read_alpha(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Read an alpha matte: uint8 [H, W], 255 is opaque.

    The file has one channel of 1, 8 or 16 bits, or three equal ones; 16 bits become 8 as for `read_image`.

    Raises:
        UserError: The file is missing, damaged, no image, has colours, or is partly transparent.
    """
    return _one_channel(_open(path, upright), f"alpha {path}")


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
    with _told(path), Image.open(path) as image:
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


def list_images(parameter: str, where: str | Path) -> dict[str, Path]:
    """Find images: {name without ending: path}, sorted by name.

    Args:
        parameter: How messages call ``where``, such as "alpha".
        where: A folder (without its subfolders), one image, or a text file with a path per line; relative ones are
            relative to the file's folder.

    Raises:
        UserError: It does not exist, holds no image, or two images of one name.
    """
    where, called = Path(where), f"`{parameter}` {where}"
    if where.is_dir():
        found = [path for path in where.iterdir() if path.name.lower().endswith(EXTENSIONS)]
    elif not where.exists():
        raise UserError(f"{called} does not exist; give a folder of images")
    elif where.name.lower().endswith(EXTENSIONS):
        found = [where]
    else:
        found = [where.parent / line for line in read_lines(parameter, where)]
    if not found:
        raise UserError(f"{called} holds no image (looked for {', '.join(EXTENSIONS)})")
    images: dict[str, Path] = {}
    for path in sorted(found, key=lambda path: path.name):
        if path.stem in images:
            raise UserError(f"{called} holds both {images[path.stem].name} and {path.name}; keep one")
        images[path.stem] = path
    return images


def read_lines(parameter: str, path: str | Path) -> list[str]:
    """Read a text file of paths or names, one a line, without the empty lines.

    Raises:
        UserError: It cannot be read; the message calls it ``parameter``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")  # as editors on Windows begin it
    except OSError as error:
        raise UserError(f"`{parameter}` {path} cannot be read: {error.strerror}") from error
    return [line for line in text.split("\n") if line.strip()]


@dataclass(frozen=True)
class Case:
    """The files of one image of a test set or a training set; what it does not have is None."""

    name: str  # without ending
    image: Path | None = None
    trimap: Path | None = None
    alpha: Path | None = None
    prediction: Path | None = None  # an alpha to be scored
    fg: Path | None = None  # colours of the foreground

    @property
    def paths(self) -> dict[str, Path]:
        """The files that there are, by the names of the fields."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "name"}
        return {key: path for key, path in found.items() if path is not None}

    def path(self, kind: str) -> Path:
        """Return the file of a kind, that is a field.

        Raises:
            ValueError: The case has none.
        """
        if kind not in self.paths:
            raise ValueError(f"the case {self.name} has no {kind}; give it one")
        return self.paths[kind]


def pair(parameters: Mapping[str, str] | None = None, /, **folders: str | Path | None) -> list[Case]:
    """Pair the images of folders by their names without ending; the first folder says which there are.

    Where every one of them is a single image, these are partners whatever their names.

    Args:
        parameters: How messages call a folder, where it is not the name of the field.
        folders: By the fields of `Case`, such as ``alpha="test/alpha"``; each as ``where`` of `list_images`, or None
            for nothing of that kind.

    Returns:
        A case for each image of the first folder, sorted by name.

    Raises:
        UserError: An image has no partner in one of the other folders.
    """
    given = {kind: Path(where) for kind, where in folders.items() if where is not None}
    called = {kind: (parameters or {}).get(kind, kind) for kind in given}
    listed = {kind: list_images(called[kind], where) for kind, where in given.items()}
    (first, names), *others = listed.items()
    if all(list(images.values()) == [given[kind]] for kind, images in listed.items()):
        return [Case(given[first].stem, **given)]
    for kind, partners in others:
        missing = [name for name in names if name not in partners]
        if missing:
            raise UserError(
                f"`{called[kind]}` {given[kind]} has no partner of {few(missing)} of `{called[first]}` "
                f"{given[first]}; partners have the same name, whatever their ending"
            )
    return [Case(name, **{kind: images[name] for kind, images in listed.items()}) for name in names]


def require_apart(out: str | Path, inputs: Iterable[Path]) -> None:
    """Refuse to write into a folder that holds a file which is read; links to the folder count.

    Raises:
        UserError: One of the inputs lies in ``out``.
    """
    out = Path(out).resolve()
    for folder in {path.parent for path in inputs}:
        if folder.resolve() == out:
            raise UserError(f"{folder} is read and would be written to as well; give another folder as `out`")


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Tell in a sentence what Pillow finds wrong with a file."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that can be read") from error
    except Exception as error:  # Pillow's formats raise many types for a damaged file
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{path} cannot be read: {reason}") from error


def _open(path: str | Path, upright: bool = True) -> Image.Image:
    with _told(path), Image.open(path) as image:
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
