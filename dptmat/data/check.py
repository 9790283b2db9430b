"""Which photographs are damaged: each decoded once, strictly."""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import simplejpeg
from PIL import Image

from dptmat.data.index import ImageIndex
from dptmat.device import count_cores
from dptmat.errors import UserError, first_line
from dptmat.pipelines.paths import claims_too_much, refuse_early

_logger = logging.getLogger(__name__)

_CHECKED_TOGETHER = 256  # photographs that a thread checks before it reports

Damage = Iterable[tuple[str, str]]  # path and reason of each bad file


def check_photographs(index: ImageIndex) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Decode every photograph once on all cores, JPEG files strictly: damage that decoders pass over counts.

    libjpeg-turbo conceals most damage in the middle of a file; here its warnings are errors. Damage that happens to
    make valid codes shows in no decoder. Files of other formats are decoded by DALI, as in training, or, where it is
    not installed, by Pillow.

    Yields:
        (number of photographs newly checked, list of (path, reason) of the bad ones among them).
    """
    find_unreadable = _choose_decoder()
    starts = range(0, len(index), _CHECKED_TOGETHER)
    with ThreadPoolExecutor(count_cores()) as threads:
        yield from threads.map(lambda start: _check(index, start, find_unreadable), starts)


def _choose_decoder() -> Callable[[list[str]], Damage]:
    try:
        from dptmat.pipelines.probe import find_unreadable
    except UserError:
        _logger.warning("NVIDIA DALI is not installed here: Pillow decodes the files that are no JPEGs in its place")
        return _find_unreadable_by_pillow
    return lambda paths: find_unreadable(paths, None)


def _check(
    index: ImageIndex, start: int, find_unreadable: Callable[[list[str]], Damage]
) -> tuple[int, list[tuple[str, str]]]:
    """Check up to ``_CHECKED_TOGETHER`` photographs: their number and (path, reason) of the bad ones, in order."""
    paths = [index[i] for i in range(start, min(start + _CHECKED_TOGETHER, len(index)))]
    strict = {path: _jpeg_damage(path) for path in paths}
    others = dict(find_unreadable([path for path in paths if strict[path] is None]))
    reasons = ((path, others.get(path) if strict[path] is None else strict[path]) for path in dict.fromkeys(paths))
    return len(paths), [(path, reason) for path, reason in reasons if reason]


def _jpeg_damage(path: str) -> str | None:
    """Tell what is wrong with a JPEG file; "" for nothing, None if the file is no JPEG or cannot be read."""
    if not os.path.isfile(path):
        return None
    try:
        content = Path(path).read_bytes()
    except OSError:
        return None
    if not content.startswith(b"\xff\xd8"):
        return None
    if reason := claims_too_much(path):
        return reason
    try:
        simplejpeg.decode_jpeg(content)
    except ValueError as error:
        return str(error)
    return ""


def _find_unreadable_by_pillow(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        if reason := refuse_early(path):
            yield path, reason
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    image.load()
        except Exception as error:  # Pillow's formats raise many types for a damaged file
            yield path, f"cannot be decoded ({first_line(error)})"
