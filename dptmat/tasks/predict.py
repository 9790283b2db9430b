"""The alphas of images on disk by a trained network, and cutouts with the foreground's own colours."""

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dptmat.data.cases import Case, pair, require_folders_apart
from dptmat.data.image_io import read_image, read_mask, read_trimap, require_same_size, write_png
from dptmat.data.trimaps import from_mask
from dptmat.device import choose_dtype
from dptmat.errors import UserError
from dptmat.inference import predict_within_memory
from dptmat.tasks.score import NOT_FINITE, reason_of
from dptmat.tiles import require_tile

_logger = logging.getLogger(__name__)

CUTOUT = "cutout"  # folder of the cutouts, below that of the alphas


def find_cases(network: nn.Module, image: str | Path, trimap: str | Path | None, out: str | Path) -> list[Case]:
    """Find the images to predict and their trimaps.

    Args:
        network: A network of `create_model`; one with 3 channels takes no trimap.
        image, trimap: Each a folder, an image, or a list, as ``where`` of `dptmat.data.cases.list_images`;
            trimaps may be masks. They are paired by name.
        out: The folder that will be written to.

    Returns:
        A case for each image, sorted by name, with ``image`` and, unless there is none, ``trimap``.

    Raises:
        UserError: An image has no trimap, the network takes none and there is one or the other way round, or ``out``
            holds one of the images.
    """
    takes_trimap = network.in_channels != 3
    if takes_trimap and trimap is None:
        raise UserError("`trimap` is missing: this network takes one; for masks give `trimap` MASKS `dilate` PIXELS")
    if trimap is not None and not takes_trimap:
        raise UserError(f"`trimap` {trimap}: this network takes the image alone; leave it out")
    cases = pair(image=image, trimap=trimap, leave_out=out)
    require_folders_apart([Path(out), Path(out, CUTOUT)], cases)
    return cases


def _path(folder: Path, case: Case) -> Path:
    """Return where a file of a case is written to, below a folder."""
    return folder / f"{case.name}.png"


def predict(
    network: nn.Module,
    cases: Iterable[Case],
    out: str | Path,
    *,
    bits: int = 8,
    cutout: bool = False,
    dilate: int | None = None,
    tile: int | None = None,
    amp: str = "off",
) -> Iterator[tuple[str, str | None]]:
    """Predict the alphas of images: OUT/NAME.png, and OUT/cutout/NAME.png, which replace what is there.

    NAME has the subfolders of the image. Alpha is what `dptmat.tasks.evaluate.evaluate` scores: 0 and 1 where the
    trimap is known, unless the network takes none.

    An image that cannot be predicted is told, and the others are predicted. What a user would want to know of one that
    is predicted is logged.

    Args:
        network: A network of `create_model`, on any device.
        cases: As of `find_cases`.
        out: The folder OUT; made if missing.
        bits: 8 or 16, of the grey PNG files. Alpha is rounded to the nearest level, where the published scripts cut it
            down, which makes it half a level too small on average.
        cutout: Whether to write cutouts: the foreground's colours as `cut_out` estimates them, with alpha, 8 bits each.
        dilate: If the trimaps are masks: width in pixels of the unknown band to either side of their outline.
        tile: As for `dptmat.inference.predict_alpha`; tiles become smaller where the memory runs out.
        amp: Mixed precision, one of `dptmat.defaults.PRECISIONS`.

    Returns:
        An iterator that predicts as it goes: (name, None) for an image that is predicted, (name, reason) for one that
        is not.

    Raises:
        UserError: ``tile`` is out of its range, the network's device does not compute in the precision of ``amp``, or
            alphas and cutouts would have the same names.
        OSError: A file cannot be written.
    """
    require_tile(tile)
    cases = list(cases)
    if cutout and any(case.name.startswith(f"{CUTOUT}/") for case in cases):
        raise UserError(
            f"`image` holds a folder {CUTOUT}, where `out` has the cutouts; rename it, or leave `cutout` out"
        )
    dtype = choose_dtype(amp, next(network.parameters()).device)
    Path(out, CUTOUT if cutout else "").mkdir(parents=True, exist_ok=True)
    options = {"tile": tile, "autocast": None if dtype == torch.float32 else dtype}
    return map(partial(_predict_one, network, Path(out), bits, cutout, dilate, options), cases)


def _predict_one(
    network: nn.Module, out: Path, bits: int, cutout: bool, dilate: int | None, options: dict[str, Any], case: Case
) -> tuple[str, str | None]:
    """Predict an image and write its files: its name, and why it is left out."""
    try:
        image, trimap = _read(case, dilate)
        alpha = predict_within_memory(network, image, trimap, name=case.name, **options)
        if not alpha.isfinite().all():
            raise UserError(NOT_FINITE[options["autocast"] is None])
    except UserError as error:
        return case.name, reason_of(error, case)
    except MemoryError:
        return case.name, "the memory does not suffice for an image of this size; make it smaller"
    values = alpha.cpu().numpy()
    write_png(_path(out, case), quantize(values, bits))
    if cutout:
        write_png(_path(out / CUTOUT, case), cut_out(image, values))
    return case.name, None


def _read(case: Case, dilate: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read image and trimap: uint8 [H, W, 3], and [H, W] with 0, 1, 2."""
    image = read_image(case.path("image"))
    if case.trimap is None:
        return image, None
    trimap = read_trimap(case.trimap) if dilate is None else from_mask(read_mask(case.trimap), dilate)
    if not (trimap == 1).any():
        _warn_of_nothing_unknown(case, trimap, dilate)
    require_same_size(case.name, image=image, trimap=trimap)
    return image, trimap


def _warn_of_nothing_unknown(case: Case, trimap: np.ndarray, dilate: int | None) -> None:
    if np.ptp(trimap) == 0:
        line = "%s: %s leaves nothing unknown: it is %s everywhere, and so is alpha"
        _logger.warning(line, case.name, case.trimap, "foreground" if trimap[0, 0] else "background")
    elif dilate is None:
        line = "%s: %s leaves nothing unknown; if it is a mask, give `dilate` PIXELS"
        _logger.warning(line, case.name, case.trimap)
    else:
        _logger.warning("%s: %s leaves nothing unknown; raise `dilate`", case.name, case.trimap)


def quantize(alpha: np.ndarray, bits: int) -> np.ndarray:
    """Round alpha, float32 in 0..1, to the nearest level of 8 bits (uint8, 255 is 1) or of 16 (uint16, 65535 is 1)."""
    dtype = np.uint8 if bits == 8 else np.uint16
    return (alpha * np.float32(np.iinfo(dtype).max) + np.float32(0.5)).astype(dtype)


def cut_out(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the foreground's own colours, so that nothing of the old background shines through over a new one.

    Args:
        image: uint8 [H, W, 3], red, green, blue.
        alpha: float32 [H, W] in 0..1.

    Returns:
        uint8 [H, W, 4]: the colours, not multiplied by alpha, and alpha. Where alpha is 255 they are the image's own;
        where it is 0 they have no meaning.

    Source: Germer et al., Fast Multi-Level Foreground Estimation, ICPR 2020, by the package pymatting.
    """
    from pymatting import estimate_foreground_ml  # compiles for some seconds when it is first imported

    colors = image / np.float32(255)
    if alpha.size > 1:  # pymatting divides by the logarithm of the longer side
        colors = estimate_foreground_ml(colors, alpha)
    result = quantize(np.dstack([colors, alpha]), 8)
    opaque = result[..., 3] == 255
    result[opaque, :3] = image[opaque]
    return result
