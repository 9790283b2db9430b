"""The foregrounds of fine-tuning: read once before the run, paired with their alphas, their unknown pixels listed."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from dptmat.data.cases import Case
from dptmat.data.cutouts import layers_of, pair_foregrounds, read_matte
from dptmat.data.image_io import read_size, require_one_size
from dptmat.device import count_cores
from dptmat.errors import UserError
from dptmat.file_kinds import name_kind_of
from dptmat.pipelines.crop_window import CELLS, Foreground

_LISTED = 2048  # unknown pixels of a matte to choose from: one every hundred or so of a large one


def read_foregrounds(
    fg: str | Path, alpha: str | Path | None = None, leave_out: str | Path | None = None
) -> tuple[list[Foreground], list[tuple[Path, str]]]:
    """Read every alpha and the size of its foreground, on all cores.

    Args:
        fg: Colours of the foregrounds: a folder, one file, or a list of files.
        alpha: Their mattes, of the same names; None if the foregrounds are cut-outs with alpha channels.
        leave_out: As for `dptmat.data.cases.list_images`.

    Returns:
        The foregrounds, sorted by name, and (path of the alpha or cut-out, reason) of each that is left out, since it
        has no unknown pixel.

    Raises:
        UserError: A partner is missing, a file cannot be read, sizes differ, or no foreground is left. The message
            names all such files.
    """
    pairs = pair_foregrounds(fg, alpha, leave_out=leave_out)
    with ThreadPoolExecutor(count_cores()) as threads:
        read = list(threads.map(_read, pairs))
    problems = [result for result in read if isinstance(result, UserError)]
    if problems:
        raise UserError("\n".join(map(str, problems)))
    foregrounds = [result for result in read if not isinstance(result, UserError)]
    good = [foreground for foreground in foregrounds if len(foreground.unknown)]
    empty = [
        (case.alpha or case.path("fg"), f"no unknown pixel: alpha is {'opaque' if result.opaque.all() else 'empty'}")
        for case, result in zip(pairs, read, strict=True)
        if not isinstance(result, UserError) and not len(result.unknown)
    ]
    if not good:
        called = f"`fg` {fg}" if alpha is None else f"`alpha` {alpha}"
        raise UserError(f"{called}: no matte has an unknown pixel; give mattes with values between 0 and 255")
    return good, empty


def _read(case: Case) -> Foreground | UserError:
    fg = case.path("fg")
    try:
        alpha = read_matte(case)
        height, width = alpha.shape
        if case.alpha is not None:
            require_one_size(case.name, fg=read_size(fg), alpha=(width, height))
    except UserError as error:
        return error
    # also the edge between an opaque and an empty pixel
    around = np.ones((3, 3), np.uint8)
    unknown = np.flatnonzero((cv2.erode(alpha, around) < 255) & (cv2.dilate(alpha, around) > 0))
    unknown = unknown[np.linspace(0, len(unknown) - 1, min(_LISTED, len(unknown))).round().astype(np.int64)]
    y, x = np.divmod(unknown, width)
    points = np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=1).astype(np.float32)
    covered = cv2.resize((alpha == 255).astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA) > 0.9999
    colors, matte = (str(fg), str(case.alpha)) if case.alpha else layers_of(str(fg), name_kind_of(fg))
    return Foreground(colors, matte, height, width, points, covered)
