"""Cut-outs of photographs and alphas on disk: foregrounds in their own colours, to train on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from dptmat.data.cases import Case, pair, require_folders_apart
from dptmat.data.image_io import read_alpha, read_image, require_same_size, write_png
from dptmat.device import count_cores
from dptmat.errors import UserError
from dptmat.tasks.predict import cut_out
from dptmat.tasks.score import map_ahead, reason_of

_ESTIMATION = Lock()  # pymatting uses all cores by itself, and with some of numba's layers of threads one at a time
_AT_ONCE = 4  # photographs at most that are worked on simultaneously: each takes some 150 bytes per pixel


def find_cases(image: str | Path, alpha: str | Path, out: str | Path) -> list[Case]:
    """Find photographs and their alphas.

    Args:
        image, alpha: Each as ``where`` of `dptmat.data.cases.list_images`; paired by name.
        out: The folder that will be written to.

    Raises:
        UserError: A photograph has no alpha, or ``out`` is a file or holds one of the files.
    """
    cases = pair(image=image, alpha=alpha, leave_out=out)
    require_folders_apart([Path(out)], cases)
    return cases


def _path(out: str | Path, case: Case) -> Path:
    return Path(out) / f"{case.name}.png"


def cut_out_photographs(cases: list[Case], out: str | Path) -> Iterator[tuple[str, str | None]]:
    """Write cut-outs OUT/NAME.png, as of `dptmat.tasks.predict.cut_out`, which replace what is there, on all cores.

    A photograph that cannot be cut out is told, and the others are.

    Yields:
        (name, None), or (name, reason) of one that is left out, in the order of ``cases``.

    Raises:
        OSError: A file cannot be written.
    """
    at_once = min(count_cores(), _AT_ONCE)
    with ThreadPoolExecutor(at_once) as threads:
        yield from map_ahead(threads, partial(_cut_one, out), cases, at_once)


def _cut_one(out: str | Path, case: Case) -> tuple[str, str | None]:
    try:
        image, alpha = read_image(case.path("image")), read_alpha(case.path("alpha"))
        require_same_size(case.name, image=image, alpha=alpha)
        with _ESTIMATION:
            cutout = cut_out(image, alpha / np.float32(255))
    except UserError as error:
        return case.name, reason_of(error, case)
    except MemoryError:
        return case.name, "the memory does not suffice for an image of this size; make it smaller"
    write_png(_path(out, case), cutout)
    return case.name, None
