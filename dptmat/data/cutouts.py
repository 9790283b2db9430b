"""Foregrounds with their mattes: beside them as files, or in their own alpha channels, as cut-outs have them."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dptmat.data.cases import Case, pair
from dptmat.data.image_io import has_opacity, read_alpha, read_cutout, read_image, read_opacity
from dptmat.device import count_cores
from dptmat.errors import UserError, few

_logger = logging.getLogger(__name__)


def pair_foregrounds(
    fg: str | Path,
    alpha: str | Path | None = None,
    *,
    trimap: str | Path | None = None,
    leave_out: str | Path | None = None,
) -> list[Case]:
    """Pair foregrounds with their mattes; without ``alpha`` these are the foregrounds' own alpha channels.

    Where both are there the files of ``alpha`` count, which is logged. A file that cannot be read is left to its
    reader.

    Args:
        fg, alpha, trimap: Each as ``where`` of `dptmat.data.cases.list_images`; or None, but for ``fg``.
        leave_out: As for `dptmat.data.cases.list_images`.

    Returns:
        A case for each foreground, sorted by name; of a cut-out without ``alpha``.

    Raises:
        UserError: A partner is missing; or there is no ``alpha``, and a file has no alpha channel either.
    """
    cases = pair(fg=fg, alpha=alpha, trimap=trimap, leave_out=leave_out)
    with ThreadPoolExecutor(count_cores()) as threads:
        opacity = list(threads.map(opacity_of, (case.path("fg") for case in cases)))
    count = len(cases)
    if alpha is not None:
        if True in opacity:
            line = "`fg` %s: the alpha channels of %s of %s files do not count, since `alpha` is given"
            _logger.warning(line, fg, opacity.count(True), count)
        return cases
    lacking = [str(case.fg) for case, has in zip(cases, opacity, strict=True) if has is False]
    if len(lacking) == count:
        raise UserError(
            f"`alpha` is missing, and no file of `fg` {fg} has an alpha channel; give the mattes as `alpha`, or "
            "cut-outs as PNG or WebP with transparency"
        )
    if lacking:
        raise UserError(
            f"`fg` {fg}: {len(lacking)} of {count} files have no alpha channel, {few(lacking)}; save them as PNG or "
            "WebP with transparency, or give the mattes of all as `alpha`"
        )
    return cases


def opacity_of(path: Path) -> bool | None:
    """Tell from the head of a file whether it has an alpha channel; None if it cannot be read."""
    try:
        return has_opacity(path)
    except UserError:
        return None


def read_matte(case: Case) -> np.ndarray:
    """Read the matte of a foreground: uint8 [H, W].

    Raises:
        UserError: It cannot be read.
    """
    return read_opacity(case.path("fg")) if case.alpha is None else read_alpha(case.alpha)


def read_foreground(case: Case, *, srgb: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Read the colours of a foreground, uint8 [H, W, 3], and its matte, uint8 [H, W], which may differ in size.

    An alpha channel beside a file of alpha is passed over.

    Args:
        case: As of `pair_foregrounds`.
        srgb: As for `dptmat.data.image_io.read_image`.

    Raises:
        UserError: One cannot be read.
    """
    if case.alpha is None:
        return read_cutout(case.path("fg"), srgb=srgb)
    return read_image(case.path("fg"), srgb=srgb, quiet=True), read_alpha(case.alpha)


@dataclass(frozen=True)
class Layer:
    """The colours or the matte of a cut-out, as a file of its own: a `dptmat.pipelines.source.Stored`."""

    path: str
    is_matte: bool

    fetch_many: ClassVar[None] = None

    @property
    def name(self) -> str:
        return os.path.abspath(self.path)

    def read(self, most: int) -> bytes:
        """Decode the cut-out, and return the layer as a file without compression, or its first bytes.

        Raises:
            OSError: It cannot be decoded.
        """
        try:
            pixels = read_opacity(self.path) if self.is_matte else read_cutout(self.path)[0]
        except UserError as refusal:
            raise OSError(str(refusal).removeprefix(f"{self.path} ")) from refusal
        height, width = pixels.shape[:2]
        return (b"P%d\n%d %d\n255\n" % (5 if self.is_matte else 6, width, height) + pixels.tobytes())[:most]


def layers_of(path: str, kind: str) -> tuple[str | Layer, Layer]:
    """Return the colours and the matte of a cut-out, as training reads them.

    Args:
        path: Its file.
        kind: What it is, as `dptmat.file_kinds.name_kind` calls it.
    """
    # DALI takes the colours of a TIFF file as they are stored: multiplied by alpha, or, if they are grey, as garbage.
    return Layer(path, is_matte=False) if kind == "a TIFF file" else path, Layer(path, is_matte=True)
