"""Images, trimaps and alphas on disk: read as the library's arrays, strictly, paired by name, and written."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dptmat.errors import UserError
from dptmat.files import write_whole

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LEVELS = np.array([0, 128, 255], np.uint8)  # a trimap's values in image files: background, unknown, foreground


def read_image(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Read a picture of any kind as red, green, blue: uint8 [H, W, 3].

    One channel of 16 bits is rounded to the nearest of 8 bits; of three such channels Pillow gives the upper 8 bits.

    Args:
        path: The file.
        upright: Whether to turn it as its EXIF orientation says; False for the pixels as they are stored.

    Raises:
        UserError: The file is missing, damaged, or no picture.
    """
    return np.asarray(_eight_bit(_open(path, upright), str(path)).convert("RGB"))


def read_alpha(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Read an alpha matte: uint8 [H, W], 255 is opaque.

    The file has one channel of 1, 8 or 16 bits, or three equal ones; 16 bits become 8 as for `read_image`.

    Raises:
        UserError: The file is missing, damaged, no picture, has colours, or is partly transparent.
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
    """Width and height in pixels of a picture, upright, from its head alone.

    Raises:
        UserError: The file is missing, damaged, or no picture.
    """
    with _told(path), Image.open(path) as picture:
        turned = picture.getexif().get(0x0112, 1) >= 5  # orientations on their side
        return picture.size[::-1] if turned else picture.size


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a PNG file, at once and whole.

    Args:
        path: The file to make or to replace; its folder exists.
        picture: uint8 or uint16: [H, W] grey, [H, W, 3] red, green, blue, or [H, W, 4] with opacity.
    """
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    _, encoded = cv2.imencode(".png", picture)  # ten times as fast as Pillow, for some per cent more bytes
    write_whole(path, lambda file: file.write(encoded))


def require_same_size(name: str, **pictures: np.ndarray) -> None:
    """Refuse pictures of one sample that differ in height or width; the message has the name and all sizes.

    Raises:
        UserError: They do.
    """
    if len({picture.shape[:2] for picture in pictures.values()}) > 1:
        sizes = ", ".join(f"{what} {p.shape[1]} x {p.shape[0]}" for what, p in pictures.items())
        raise UserError(f"{name}: sizes differ: {sizes} pixels; make them one width and height")


def list_pictures(option: str, where: str | Path) -> dict[str, Path]:
    """Find pictures: {name without ending: path}, sorted by name.

    Args:
        option: How messages call ``where``, such as "--alpha".
        where: A folder (without its subfolders), one picture, or a text file with a path per line; relative ones are
            relative to the file's folder.

    Raises:
        UserError: It does not exist, holds no picture, or two pictures of one name.
    """
    where = Path(where)
    if where.is_dir():
        found = [path for path in where.iterdir() if path.name.lower().endswith(EXTENSIONS)]
    elif not where.exists():
        raise UserError(f"{option} {where} does not exist; give a folder of pictures")
    elif where.name.lower().endswith(EXTENSIONS):
        found = [where]
    else:
        found = [where.parent / line for line in read_lines(option, where)]
    if not found:
        raise UserError(f"{option} {where} holds no picture (looked for {', '.join(EXTENSIONS)})")
    pictures = {}
    for path in sorted(found, key=lambda path: path.name):
        if path.stem in pictures:
            raise UserError(f"{option} {where} holds both {pictures[path.stem].name} and {path.name}; keep one")
        pictures[path.stem] = path
    return pictures


def read_lines(option: str, path: str | Path) -> list[str]:
    """Read a text file of paths or names, one a line, without the empty lines.

    Raises:
        UserError: It cannot be read; the message calls it as ``option`` says.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")  # as editors on Windows begin it
    except OSError as error:
        raise UserError(f"{option} {path} cannot be read: {error.strerror}") from error
    return [line for line in text.split("\n") if line.strip()]


def pair(**folders: str | Path) -> list[dict[str, str | Path]]:
    """Pair the pictures of folders by their names without ending; the first folder says which there are.

    Where every one of them is a single picture, these are partners whatever their names.

    Args:
        folders: By option without dashes, such as ``alpha="test/alpha"``; each as ``where`` of `list_pictures`.

    Returns:
        A dictionary for each picture of the first folder, sorted by name: ``name``, and for each folder the path.

    Raises:
        UserError: A picture has no partner in one of the other folders.
    """
    listed = {key: list_pictures(f"--{key}", where) for key, where in folders.items()}
    (first, names), *others = listed.items()
    if all(list(pictures.values()) == [Path(folders[key])] for key, pictures in listed.items()):
        (name,) = names
        return [{"name": name} | {key: Path(where) for key, where in folders.items()}]
    for key, partners in others:
        missing = [name for name in names if name not in partners]
        if missing:
            raise UserError(
                f"--{key} {folders[key]} has no partner of {_few(missing)} of --{first} {folders[first]}; "
                "partners have the same name, whatever their ending"
            )
    return [{"name": name} | {key: pictures[name] for key, pictures in listed.items()} for name in names]


def require_apart(out: str | Path, inputs: Iterable[Path]) -> None:
    """Refuse to write into a folder that holds a file which is read; links to the folder count.

    Raises:
        UserError: One of the inputs lies in ``out``.
    """
    out = Path(out).resolve()
    for folder in {path.parent for path in inputs}:
        if folder.resolve() == out:
            raise UserError(f"{folder} is read and would be written to as well; give another folder as --out")


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Tell in a sentence what Pillow finds wrong with a file."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture that can be read") from error
    except Exception as error:  # Pillow's formats raise many types for a damaged file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read: {reason}") from error


def _open(path: str | Path, upright: bool = True) -> Image.Image:
    with _told(path), Image.open(path) as picture:
        picture.load()
        return ImageOps.exif_transpose(picture) if upright else picture.copy()


def _eight_bit(picture: Image.Image, name: str) -> Image.Image:
    """Round one channel of 16 bits, which Pillow may hold in 32, to 8 bits; Pillow itself would cut it off at 255."""
    if picture.mode == "F":
        raise UserError(f"{name} holds floating-point numbers; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    deep = np.asarray(picture).astype(np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise UserError(f"{name} has values from {deep.min()} to {deep.max()}; expected 8 or 16 bits")
    return Image.fromarray(((deep + 128) // 257).astype(np.uint8))


def _one_channel(picture: Image.Image, name: str) -> np.ndarray:
    """Values of a grey picture, uint8 [H, W]."""
    picture = _eight_bit(picture, name)
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if picture.getextrema()[3][0] < 255:
            raise UserError(f"{name} is partly transparent; expected one grey channel: save the matte by itself")
    if picture.mode not in ("L", "1"):
        colours = np.asarray(picture.convert("RGB")).astype(np.int16)
        if np.ptp(colours, axis=2).max() > 8:  # JPEG compression alone can part the channels by some levels
            raise UserError(f"{name} has colours; expected one grey channel, or three equal ones")
    return np.asarray(picture.convert("L"))
