"""Trimaps as files, made of alphas or masks by widths."""

import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dptmat.contact_sheets import stack_strips, trimap_strip
from dptmat.data.cases import Case, pair, require_file_apart, require_folders_apart
from dptmat.data.image_io import LEVELS, read_alpha, read_image, read_mask, require_same_size, write_png
from dptmat.data.trimaps import from_mask, from_matte
from dptmat.device import count_cores
from dptmat.errors import UserError
from dptmat.tasks.score import AT_ONCE, map_ahead, reason_of

_logger = logging.getLogger(__name__)

MOST_SHOWN = 24  # trimaps on a sheet
_BETWEEN = 20  # of 255: how far from black and white a mask's pixel must be to count as between; JPEG strays less


@dataclass(frozen=True)
class Width:
    """A width in pixels, or relative to the longer side of an image."""

    number: float
    relative: bool = False  # whether the number is a share, 0..1

    def pixels(self, shape: tuple[int, ...]) -> float:
        """Return it in pixels of an image of this height and width."""
        return self.number * max(shape[:2]) if self.relative else self.number


def read_width(parameter: str, text: str) -> Width:
    """Read a width: "10", of pixels, or "2%", of an image's longer side.

    Raises:
        UserError: It is neither, or more than 100%.
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?%?", text) or (text.endswith("%") and float(text[:-1]) > 100):
        raise UserError(
            f"`{parameter}` must be a number of pixels from 0, such as 10, or of per cent of the longer side, from 0% "
            f"to 100%, such as 2%; got {text!r}"
        )
    return Width(float(text[:-1]) / 100, True) if text.endswith("%") else Width(float(text))


@dataclass(frozen=True)
class Made:
    """What became of an image: a trimap, or the reason why there is none."""

    name: str
    reason: str | None = None
    unknown: float = 0.0  # share of its pixels, 0..1
    strip: np.ndarray | None = None  # of the sheet: uint8 [H, W, 3]


def find_cases(
    out: str | Path, *, alpha: str | Path | None = None, mask: str | Path | None = None, image: str | Path | None = None
) -> list[Case]:
    """Find the alphas or the masks to make trimaps of, and their images.

    Args:
        out: The folder that will be written to.
        alpha, mask: Just one of them: a folder, an image, or a list, as ``where`` of `dptmat.data.cases.list_images`.
        image: Likewise; of the same names, or None.

    Returns:
        A case for each, sorted by name, with ``alpha``, that may be a mask, and ``image``.

    Raises:
        UserError: Both are given or none, one has no image, or ``out`` is a file or holds one of them.
    """
    if (alpha is None) == (mask is None):
        raise UserError("give one of `alpha`, true alphas, and `mask`, masks of the foreground")
    called = {"alpha": "alpha" if mask is None else "mask"}
    cases = pair(called, alpha=alpha if mask is None else mask, image=image, leave_out=out)
    require_folders_apart([Path(out)], cases)
    return cases


def _path(out: str | Path, case: Case) -> Path:
    """Return the trimap's file."""
    return Path(out) / f"{case.name}.png"


def require_sheet_apart(sheet: str | Path, cases: Iterable[Case], out: str | Path) -> None:
    """Refuse to draw the sheet over what is read or over a trimap.

    Raises:
        UserError: It is so.
    """
    require_file_apart("sheet", sheet, ((case.name, (*case.paths.values(), _path(out, case))) for case in cases))


def make_trimaps(
    cases: list[Case], out: str | Path, *, masks: bool, inward: Width, outward: Width, sheet: bool = False
) -> Iterator[Made]:
    """Make trimaps OUT/NAME.png with 0, 128 and 255, which replace what is there, on all cores.

    What a trimap would be useless for is told, and the others are made: an empty or a full matte, a width that leaves
    nothing unknown or nothing known, a trimap in place of a matte.

    Args:
        cases: As of `find_cases`.
        out: The folder OUT; made if missing.
        masks: Whether they are masks, foreground from 128, and no alphas.
        inward, outward: As for `dptmat.data.trimaps.from_matte`.
        sheet: Whether to draw up to `MOST_SHOWN` of them, evenly spread, for `draw_sheet`.

    Returns:
        An iterator that makes them as it goes, in the order of ``cases``.

    Raises:
        OSError: A file cannot be written.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    shown = min(len(cases), MOST_SHOWN) if sheet else 0
    drawn = {cases[i * len(cases) // shown].name for i in range(shown)}
    make = partial(_make_one, out, masks, inward, outward, drawn)
    at_once = min(count_cores(), AT_ONCE)
    with ThreadPoolExecutor(at_once) as threads:
        yield from map_ahead(threads, make, cases, at_once)


def draw_sheet(made: Iterable[Made]) -> np.ndarray | None:  # uint8 [H, W, 3]
    """Draw what was made as one image: matte, trimap, and its known parts tinted; None if nothing was."""
    strips = [each.strip for each in made if each.strip is not None]
    return stack_strips(strips) if strips else None


def _make_one(out: str | Path, masks: bool, inward: Width, outward: Width, drawn: set[str], case: Case) -> Made:
    """Make a trimap and write it."""
    kind, path = "mask" if masks else "alpha", case.path("alpha")
    try:
        matte = (read_mask if masks else read_alpha)(path)
        image = None if case.image is None else read_image(case.image)
        require_same_size(case.name, **{kind: matte}, **({} if image is None else {"image": image}))
        _require_matte(matte, f"{kind} {path}", masks)
        widths = inward.pixels(matte.shape), outward.pixels(matte.shape)
        trimap = (from_mask if masks else from_matte)(matte, *widths)
        _require_useful(trimap, f"{kind} {path}", widths)
    except UserError as error:
        return Made(case.name, reason_of(error, case))
    except MemoryError:
        return Made(case.name, "the memory does not suffice for an image of this size; make it smaller")
    _warn_of_what_is_lost(case.name, f"{kind} {path}", matte, trimap)
    unknown = float((trimap == 1).mean())
    write_png(_path(out, case), LEVELS[trimap])
    if case.name not in drawn:
        return Made(case.name, None, unknown)
    caption = f"{case.name[-40:]}: {unknown:.1%} unknown"
    return Made(case.name, None, unknown, trimap_strip(caption, matte, trimap, image))


def _require_matte(matte: np.ndarray, called: str, masks: bool) -> None:
    """Refuse what has no outline, and a trimap."""
    most, least = int(matte.max()), int(matte.min())
    if most < (128 if masks else 1):
        raise UserError(f"{called} is empty: no pixel is foreground; leave it out")
    if least >= (128 if masks else 255):
        raise UserError(f"{called} is full: every pixel is foreground; leave it out")
    between = matte[(matte > 0) & (matte < 255)]
    if between.size and (between == 128).all():
        raise UserError(f"{called} is a trimap already: between black and white it holds 128 alone; use it as it is")


def _require_useful(trimap: np.ndarray, called: str, widths: tuple[float, float]) -> None:
    told = "{:g} pixels inward and {:g} outward".format(*widths)
    if (trimap == 1).all():
        raise UserError(f"{called} leaves nothing known with {told}; take less")
    if not (trimap == 1).any():
        raise UserError(f"{called} leaves nothing unknown with {told}; take more")


def _warn_of_what_is_lost(name: str, called: str, matte: np.ndarray, trimap: np.ndarray) -> None:
    """Tell of a trimap that has no foreground or no background, and of a mask that is rather a matte."""
    for level, part in ((2, "foreground"), (0, "background")):
        if not (trimap == level).any():
            line = "%s: the trimap has no %s: in %s nothing is farther than the width from what is none"
            _logger.warning(line, name, part, called)
    between = (matte > _BETWEEN) & (matte < 255 - _BETWEEN) & (trimap != 1)
    if between.any():
        line = "%s: %s grey pixels of %s become known; if it is an alpha matte, give it as `alpha`"
        _logger.warning(line, name, np.count_nonzero(between), called)
