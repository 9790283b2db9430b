"""The alphas of pictures on disk by a trained network, and cutouts with the foreground's own colours."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dptmat.data.image_io import (
    pair,
    read_image,
    read_mask,
    read_trimap,
    require_apart,
    require_same_size,
    write_png,
)
from dptmat.data.trimaps import from_mask
from dptmat.device import choose_dtype
from dptmat.errors import UserError
from dptmat.inference import predict_within_memory
from dptmat.tiles import require_tile

CUTOUT = "cutout"  # folder of the cutouts, below that of the alphas


def find_samples(
    network: nn.Module, image: str | Path, trimap: str | Path | None, out: str | Path
) -> list[dict[str, str | Path]]:
    """Find the pictures to predict and their trimaps.

    Args:
        network: A network of `create_model`; one with 3 channels takes no trimap.
        image, trimap: Each a folder, a picture, or a list, as ``where`` of `dptmat.data.image_io.list_pictures`;
            trimaps may be masks. They are paired by name.
        out: The folder that will be written to.

    Returns:
        A dictionary for each picture, sorted by name: ``name``, ``image`` and, unless there is none, ``trimap``.

    Raises:
        UserError: A picture has no trimap, the network takes none and there is one or the other way round, or ``out``
            holds one of the pictures.
    """
    takes_trimap = network.in_channels != 3
    if takes_trimap and trimap is None:
        raise UserError("--trimap is missing: this network takes one; for masks give --trimap MASKS --dilate PIXELS")
    if trimap is not None and not takes_trimap:
        raise UserError(f"--trimap {trimap}: this network takes the image alone; leave it out")
    samples = pair(image=image, trimap=trimap) if takes_trimap else pair(image=image)
    read = [path for sample in samples for key, path in sample.items() if key != "name"]
    for folder in (Path(out), Path(out, CUTOUT)):
        require_apart(folder, read)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {folder} is a file; give the name of a folder")
    return samples


def predict(
    network: nn.Module,
    samples: list[dict[str, str | Path]],
    out: str | Path,
    *,
    bits: int = 8,
    cutout: bool = False,
    dilate: int | None = None,
    tile: int | None = None,
    amp: str = "off",
    report: Callable[[str], object] = print,
) -> Iterator[tuple[str, str | None]]:
    """Predict the alphas of pictures: OUT/NAME.png, and OUT/cutout/NAME.png, which replace what is there.

    A picture that cannot be predicted is told, and the others are predicted.

    Args:
        network: A network of `create_model`, on any device.
        samples: As of `find_samples`.
        out: The folder OUT; made if missing.
        bits: 8 or 16, of the grey PNG files. Alpha is rounded to the nearest level, where the published scripts cut it
            down, which makes it half a level too small on average.
        cutout: Whether to write cutouts: the foreground's colours as `cut_out` estimates them, with alpha, 8 bits each.
        dilate: If the samples' trimaps are masks: width in pixels of the unknown band to either side of their outline.
        tile: As for `dptmat.inference.predict_alpha`; tiles become smaller where the memory runs out.
        amp: Mixed precision: "off", "auto", "bf16" or "fp16", as for `dptmat.device.choose_dtype`.
        report: Is given a line on what a user would want to know of a picture that is predicted.

    Returns:
        An iterator that predicts as it goes: (name, None) for a picture that is predicted, (name, reason) for one that
        is not.

    Raises:
        UserError: ``tile`` is out of its range, or the network's device does not compute in the precision of ``amp``.
        OSError: A file cannot be written.
    """
    require_tile(tile)
    dtype = choose_dtype(amp, next(network.parameters()).device)
    autocast = None if dtype == torch.float32 else dtype
    Path(out, CUTOUT if cutout else "").mkdir(parents=True, exist_ok=True)

    def predict_one(sample):
        name = sample["name"]

        def tell(line):
            report(f"{name}: {line}")

        try:
            image, trimap = _read(sample, dilate, tell)
            alpha = predict_within_memory(network, image, trimap, tile=tile, autocast=autocast, name=name)
            if not alpha.isfinite().all():
                raise UserError("the network's alpha is not finite everywhere; use --amp off, or another checkpoint")
        except UserError as error:
            return name, str(error)
        alpha = alpha.cpu().numpy()
        write_png(Path(out, f"{name}.png"), quantise(alpha, bits))
        if cutout:
            write_png(Path(out, CUTOUT, f"{name}.png"), cut_out(image, alpha))
        return name, None

    return map(predict_one, samples)


def quantise(alpha: np.ndarray, bits: int) -> np.ndarray:
    """Round alpha, float32 in 0..1, to the nearest level of 8 bits (uint8, 255 is 1) or of 16 (uint16, 65535 is 1)."""
    dtype = np.uint8 if bits == 8 else np.uint16
    return (alpha * np.float32(np.iinfo(dtype).max) + np.float32(0.5)).astype(dtype)


def cut_out(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the foreground's own colours, so that nothing of the old background shines through over a new one.

    Args:
        image: uint8 [H, W, 3], red, green, blue.
        alpha: float32 [H, W] in 0..1.

    Returns:
        uint8 [H, W, 4]: the colours, not multiplied by alpha, and alpha. Where alpha is 0 the colours have no meaning.

    Source: Germer et al., Fast Multi-Level Foreground Estimation, ICPR 2020, by the package pymatting.
    """
    from pymatting import estimate_foreground_ml  # compiles for some seconds when it is first imported

    colours = image / np.float32(255)
    if alpha.size > 1:  # pymatting divides by the logarithm of the longer side
        colours = estimate_foreground_ml(colours, alpha)
    return quantise(np.dstack([colours, alpha]), 8)


def _read(sample: dict, dilate: int | None, tell: Callable[[str], object]) -> tuple[np.ndarray, np.ndarray | None]:
    image = read_image(sample["image"])
    if "trimap" not in sample:
        return image, None
    if dilate is not None:
        trimap = from_mask(read_mask(sample["trimap"]), dilate)
    else:
        trimap = read_trimap(sample["trimap"])
        if not (trimap == 1).any():
            tell(f"{sample['trimap']} leaves nothing unknown; if it is a mask, give --dilate PIXELS")
    require_same_size(sample["name"], image=image, trimap=trimap)
    return image, trimap
