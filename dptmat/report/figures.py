"""The images of a page as data URIs: a test image with its mattes and error map, and the contact sheets of a run."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dptmat.data.image_io import LEVELS, read_alpha, read_image, read_trimap, require_same_size
from dptmat.errors import UserError
from dptmat.report.inside import is_inside

WIDEST = 640  # pixels: the width from which a test image and its mattes are scaled down
SHEET_WIDEST = 1280  # pixels: the same for a contact sheet, which holds up to five images side by side
LARGEST_ERROR = 0.5  # of alpha: where the colors of an error map end
_KNOWN = 255  # the level of an error map, else 0..254, that stands for the known region
_OUTSIDE = "it is in none of the folders whose images may be shown"
_READERS = {  # by the names of scores.json, with captions
    "image": (read_image, "image"),
    "trimap": (read_trimap, "trimap"),
    "alpha": (read_alpha, "truth"),
    "prediction": (read_alpha, "prediction"),
}
KINDS = tuple(_READERS)


@dataclass(frozen=True)
class Figure:
    """An image of the page, or why it is missing."""

    caption: str
    uri: str = ""
    width: int = 0  # pixels
    height: int = 0
    missing: str = ""
    outside: str = ""  # the path that it is missing for, in a folder of which nothing may be shown


def read_figures(
    entry: dict[str, Any], folder: Path, allowed: Sequence[str | Path], *, whole: bool = False
) -> dict[str, Figure]:
    """Read what the page shows of a test image: image, trimap, alpha, prediction and the map of its error.

    Args:
        entry: Of ``scores.json``: paths, or None, by these names.
        folder: Where the file lies, which relative paths are relative to.
        allowed: Folders; images that are in none of them are missing.
        whole: Whether the errors of the whole image are shown, not those of the unknown region alone.

    Returns:
        By these names, and "error"; what is None in the entry is left out.
    """
    arrays, found = {}, {}
    for kind, (read, caption) in _READERS.items():
        if entry[kind] is None:
            continue
        path = folder / entry[kind]
        if not is_inside(path, allowed):
            found[kind] = Figure(caption, missing=_OUTSIDE, outside=str(path))
            continue
        try:
            arrays[kind] = read(path)
        except UserError as error:
            found[kind] = Figure(caption, missing=str(error))
        else:
            shown = LEVELS[arrays[kind]] if kind == "trimap" else arrays[kind]
            found[kind] = _figure(caption, shown, nearest=kind == "trimap")
    if "alpha" in arrays and "prediction" in arrays:
        try:
            if entry["trimap"] is not None and "trimap" not in arrays:
                raise UserError("it needs the trimap")
            require_same_size(entry["name"], **arrays)
            trimap = None if whole else arrays.get("trimap")
            found["error"] = _error_map(arrays["alpha"], arrays["prediction"], trimap)
        except UserError as error:
            found["error"] = Figure("error map", missing=str(error))
    return found


def comparable(found: dict[str, Figure]) -> bool:
    """Tell whether the prediction can be laid over the truth: both are there, of one size."""
    truth, prediction = found.get("alpha"), found.get("prediction")
    return bool(
        truth and prediction and truth.uri and prediction.uri
        and (truth.width, truth.height) == (prediction.width, prediction.height)
    )  # fmt: skip


def read_sheet(name: str, path: Path, run: Path) -> Figure | None:
    """Read a contact sheet of a run, or None if there is none."""
    if not path.is_file():
        return None
    if not is_inside(path, [run]):
        return Figure(name, missing=_OUTSIDE, outside=str(path))
    try:
        return _figure(name, read_image(path), SHEET_WIDEST)
    except UserError as error:
        return Figure(name, missing=str(error))


def _error_map(alpha: np.ndarray, prediction: np.ndarray, trimap: np.ndarray | None) -> Figure:
    """Draw |prediction - truth|, both uint8 [H, W], in colors where the trimap is unknown; grey elsewhere."""
    unknown = np.ones(alpha.shape, np.float32) if trimap is None else (trimap == 1).astype(np.float32)
    error = np.abs(prediction.astype(np.float32) - alpha) / 255
    share = _scaled(unknown)  # of the unknown in each pixel of the smaller image, whose error is the mean of these
    error = _scaled(error * unknown) / np.maximum(share, 1e-6)
    levels = np.where(share > 0, np.minimum(error / LARGEST_ERROR, 1) * 254, _KNOWN)
    colored = Image.fromarray(np.rint(levels).astype(np.uint8)).convert("P")
    colored.putpalette(COLORS.tobytes())
    return _encoded("error map", colored, "png")


def _palette() -> np.ndarray:
    """Colors of an error map, uint8 [256, 3]: from no error to LARGEST_ERROR and more, and the grey of the known."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)[:, 0]
    colors[_KNOWN] = 140
    return colors


COLORS = _palette()


def _figure(caption: str, array: np.ndarray, widest: int = WIDEST, nearest: bool = False) -> Figure:
    """Encode an image, uint8 [H, W, 3], as JPEG, or a matte, uint8 [H, W], as PNG."""
    scaled = Image.fromarray(_scaled(array, widest, cv2.INTER_NEAREST if nearest else cv2.INTER_AREA))
    return _encoded(caption, scaled, "jpeg" if array.ndim == 3 else "png")


def _scaled(array: np.ndarray, widest: int = WIDEST, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    height, width = array.shape[:2]
    if width <= widest:
        return array
    return cv2.resize(array, (widest, max(round(height * widest / width), 1)), interpolation=interpolation)


def _encoded(caption: str, image: Image.Image, form: str) -> Figure:
    file = io.BytesIO()
    image.save(file, form, optimize=True, quality=85)
    text = base64.b64encode(file.getvalue()).decode()
    return Figure(caption, f"data:image/{form};base64,{text}", image.width, image.height)
