"""Test sets of composites by the rule of Composition-1k: every foreground over backgrounds of its own.

Source: Xu et al., Deep Image Matting, CVPR 2017, and the script that its data set brings. Distinctions-646 is composed
in the same way.
Differs: the script takes the files in the order of the folder's listing; here they are sorted or come from lists.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
from PIL import Image

from dptmat.data.cases import Case, compose, list_images, require_apart, spellings
from dptmat.data.cutouts import pair_foregrounds, read_foreground
from dptmat.data.folders import read_lines
from dptmat.data.image_io import (
    LARGEST,
    LEVELS,
    read_image,
    read_size,
    read_trimap,
    require_same_size,
    write_png,
)
from dptmat.device import count_cores
from dptmat.errors import UserError

MERGED, ALPHA, TRIMAP = "merged", "alpha_copy", "trimaps"  # folders below OUT
_ROWS = 256  # composed at a time: in float64 a whole image takes 24 bytes a pixel, several times over

_Found = TypeVar("_Found", Case, Path)


@dataclass(frozen=True)
class Composition:
    """A foreground and the backgrounds that it is laid over."""

    foreground: Case  # with fg, unless it is a cut-out alpha, and, if it shall be copied, trimap
    backgrounds: list[Path]


def find_compositions(
    fg: str | Path,
    alpha: str | Path | None,
    bg: str | Path,
    out: str | Path,
    *,
    each: int = 20,
    trimap: str | Path | None = None,
    fg_names: str | Path | None = None,
    bg_names: str | Path | None = None,
) -> list[Composition]:
    """Find the foregrounds with their partners, and deal the backgrounds out: the first ``each`` to the first one.

    Args:
        fg, alpha, bg, trimap: Each as ``where`` of `dptmat.data.cases.list_images`; partners have the same name.
            Without ``alpha`` the foregrounds are cut-outs with alpha channels.
        out: The folder that will be written to.
        each: Composites of each foreground.
        fg_names, bg_names: Text files with the names of the images to take, one a line, in order, with or without
            ending; by default all, sorted by name.

    Returns:
        A composition for each foreground, in order.

    Raises:
        UserError: A partner or a name is missing, a foreground is named twice, there are too few backgrounds, a folder
            would be read and written, a foreground, its partner or the head of a background cannot be read, a
            foreground and its partners differ in size, or a background would have to be enlarged beyond the largest
            size that is read.
    """
    found = {case.name: case for case in pair_foregrounds(fg, alpha, trimap=trimap, leave_out=out)}
    foregrounds = _in_order("fg", fg, found, fg_names)
    names = [foreground.name for foreground in foregrounds]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"`fg_names` {fg_names} names {twice} more than once; give each foreground one line")
    backgrounds = _in_order("bg", bg, list_images("bg", bg, leave_out=out), bg_names)
    if len(backgrounds) < len(foregrounds) * each:
        where = f"`bg` {bg} holds" if bg_names is None else f"`bg_names` {bg_names} has"
        needed = f"{len(foregrounds)} foregrounds with `each` {each} need {len(foregrounds) * each}"
        remedy = "add some or lower `each`" if len(backgrounds) >= len(foregrounds) else "add some"
        raise UserError(f"{where} {len(backgrounds)} backgrounds; {needed}: {remedy}")
    read = [path for foreground in foregrounds for path in foreground.paths.values()] + backgrounds
    require_apart((Path(out, folder, name).parent for folder in (MERGED, ALPHA, TRIMAP) for name in names), read)
    compositions = [Composition(case, backgrounds[i * each : (i + 1) * each]) for i, case in enumerate(foregrounds)]
    _require_readable(compositions)
    return compositions


def _require_readable(compositions: list[Composition]) -> None:
    """Read all foregrounds and the heads of all backgrounds, on all cores, before anything is written.

    Raises:
        UserError: One cannot be read, a foreground and its partners differ in size, or a background would become too
            large; how many more there are is said.
    """
    with ThreadPoolExecutor(count_cores()) as threads:
        problems = [problem for found in threads.map(_problems, compositions) for problem in found]
    if problems:
        raise UserError(problems[0] + (f" ({len(problems) - 1} further files are bad)" if len(problems) > 1 else ""))


def _problems(composition: Composition) -> list[str]:
    """Say what is wrong with a foreground and its partners, and with the sizes of its backgrounds."""
    try:
        height, width = _read_layers(composition.foreground)["alpha"].shape
    except UserError as error:
        return [str(error)]
    problems = []
    for path in composition.backgrounds:
        try:
            sides = _enlarged(*read_size(path, upright=False), width, height)
            if prod(sides) > LARGEST:
                name = composition.foreground.name
                raise UserError(
                    f"{path} would be enlarged to {sides[0]} x {sides[1]} pixels to cover {name}; the most are "
                    f"{LARGEST:,}: leave it out"
                )
        except UserError as error:
            problems.append(str(error))
    return problems


def _in_order(kind: str, folder: str | Path, found: dict[str, _Found], names: str | Path | None) -> list[_Found]:
    """Take what is found by name, in the order of a list of names if there is one; they may have endings."""
    if names is None:
        return list(found.values())
    chosen = []
    known = spellings(found)
    for line in read_lines(f"`{kind}_names` {names}", names):
        path = PurePath(line.strip())
        spelled = [compose(name) for name in (str(path), path.with_suffix("").as_posix(), path.stem)]
        name = next((name for name in spelled if name in known), None)
        if name is None:
            raise UserError(f"`{kind}_names` {names} has {path}, which is not in `{kind}` {folder}")
        chosen.append(known[name])
    if not chosen:
        raise UserError(f"`{kind}_names` {names} is empty; expected a name per line")
    return chosen


def compose_test_set(compositions: list[Composition], out: str | Path) -> Iterator[str]:
    """Write OUT/merged/NAME_i.png, OUT/alpha_copy/NAME_i.png and, with trimaps, OUT/trimaps/NAME_i.png, i from 0.

    Composes on all cores. Foregrounds with their mattes are upright; backgrounds are taken as they are stored, without
    their EXIF orientation, and the colours of both without their colour profiles, as the script does.

    Args:
        compositions: As of `find_compositions`.
        out: The folder OUT; made if missing.

    Yields:
        NAME_i of each composite, once it is written.

    Raises:
        UserError: An image cannot be read.
        OSError: A file cannot be written.
    """
    with ThreadPoolExecutor(count_cores()) as threads:
        for composition in compositions:
            yield from _compose_one(composition, Path(out), threads)


def _compose_one(composition: Composition, out: Path, threads: ThreadPoolExecutor) -> Iterator[str]:
    """Lay a foreground over each of its backgrounds."""
    foreground = composition.foreground
    layers = _read_layers(foreground)

    def write(i: int, background: Path) -> str:
        name = f"{foreground.name}_{i}"
        bg = fit_background(read_image(background, upright=False, srgb=False), layers["fg"].shape[:2])
        written = {MERGED: composite_as_published(layers["fg"], bg, layers["alpha"]), ALPHA: layers["alpha"]}
        if "trimap" in layers:
            written[TRIMAP] = layers["trimap"]
        for folder, image in written.items():
            write_png(Path(out, folder, f"{name}.png"), image)
        return name

    yield from threads.map(write, range(len(composition.backgrounds)), composition.backgrounds)


def _read_layers(foreground: Case) -> dict[str, np.ndarray]:
    """Read a foreground, its alpha and, if it has one, its trimap in the levels of files: uint8, of one size.

    Raises:
        UserError: One cannot be read, or they differ in size.
    """
    layers = dict(zip(("fg", "alpha"), read_foreground(foreground, srgb=False), strict=True))
    if foreground.trimap:
        layers["trimap"] = LEVELS[read_trimap(foreground.trimap)]
    require_same_size(foreground.name, **layers)
    return layers


def fit_background(bg: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a background, uint8 [h, w, 3], to cover (height, width) if it is smaller, and crop it from the top left.

    It keeps its aspect and is resampled by Pillow's bicubic filter, to whole pixels rounded up.
    """
    height, width = size
    enlarged = _enlarged(bg.shape[1], bg.shape[0], width, height)
    if enlarged != (bg.shape[1], bg.shape[0]):
        bg = np.asarray(Image.fromarray(bg).resize(enlarged, Image.Resampling.BICUBIC))
    return bg[:height, :width]


def _enlarged(bg_width: int, bg_height: int, width: int, height: int) -> tuple[int, int]:
    """Return the width and height that a background gets to cover a foreground."""
    ratio = max(width / bg_width, height / bg_height)
    return (ceil(bg_width * ratio), ceil(bg_height * ratio)) if ratio > 1 else (bg_width, bg_height)


def composite_as_published(fg: np.ndarray, bg: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Compose as the test set was: alpha / 255 * fg + (1 - alpha / 255) * bg in float64, cut down to whole numbers.

    Args:
        fg, bg: uint8 [H, W, 3].
        alpha: uint8 [H, W].

    Returns:
        uint8 [H, W, 3]; where alpha is 255 exactly fg, where it is 0 exactly bg.
    """
    result = np.empty_like(fg)
    for start in range(0, len(fg), _ROWS):
        rows = slice(start, start + _ROWS)
        a = alpha[rows, :, None] / 255
        result[rows] = a * fg[rows] + (1 - a) * bg[rows]
    return result
