"""Which photographs are damaged: each decoded once as training does, and JPEG files strictly as well."""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import simplejpeg

from dptmat.data.index import ImageIndex
from dptmat.data.jpeg import PROGRESSIVE, SCAN, segments
from dptmat.device import count_cores
from dptmat.errors import UserError
from dptmat.pipelines.encoded import BadFileError, decode_by_pillow, read_encoded

_logger = logging.getLogger(__name__)

_CHECKED_TOGETHER = 256  # photographs that a thread checks before it reports
_DAMAGE = "Corrupt JPEG data", "Premature end of JPEG file"  # how libjpeg begins to tell of damaged pixels

Unreadable = Callable[[list[str]], Iterable[tuple[str, str]]]  # gives path and reason of each file that fails


def check_photographs(index: ImageIndex) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Decode every photograph once on all cores, JPEG files strictly as well: damage that decoders pass over counts.

    Bad is what training refuses, and what libjpeg-turbo finds damaged in the middle of a file, where decoders go on
    with wrong pixels. What it says of a file whose pixels are right does not count. Damage that happens to make valid
    codes shows in no decoder, and none at all is seen in a JPEG file whose chroma is sampled in an uncommon way. Where
    DALI is not installed, Pillow takes its place.

    Yields:
        (number of photographs newly checked, list of (path, reason) of the bad ones among them).
    """
    find_unreadable = _choose_decoder()
    starts = range(0, len(index), _CHECKED_TOGETHER)
    with ThreadPoolExecutor(count_cores()) as threads:
        yield from threads.map(lambda start: _check(index, start, find_unreadable), starts)


def _choose_decoder() -> Unreadable:
    try:
        from dptmat.pipelines.probe import find_unreadable
    except UserError:
        _logger.warning("NVIDIA DALI is not installed here: Pillow decodes the files in its place")
        return _find_unreadable_by_pillow
    return lambda paths: find_unreadable(paths, None)


def _check(index: ImageIndex, start: int, find_unreadable: Unreadable) -> tuple[int, list[tuple[str, str]]]:
    """Check up to ``_CHECKED_TOGETHER`` photographs: their number and (path, reason) of the bad ones, in order."""
    paths = [index[i] for i in range(start, min(start + _CHECKED_TOGETHER, len(index)))]
    reasons = dict(find_unreadable(paths))
    for path in paths:
        if path not in reasons and (damage := _jpeg_damage(path)):
            reasons[path] = damage
    return len(paths), [(path, reasons[path]) for path in dict.fromkeys(paths) if path in reasons]


def _jpeg_damage(path: str) -> str:
    """Tell what libjpeg finds damaged in the pixels of a file that decodes: "" for nothing, or if it is no JPEG."""
    try:
        content = read_encoded(path)
    except BadFileError as bad:  # it has vanished or changed since it was decoded
        return str(bad)
    if not content.startswith(b"\xff\xd8"):
        return ""
    said = _decode_strictly(content)
    if said and not said.startswith(_DAMAGE):  # it tells the first thing alone, and harmless ones are in the head
        said = _decode_strictly(_without_oddities(content))
    return said if said.startswith(_DAMAGE) else ""


def _decode_strictly(content: bytes) -> str:
    try:
        simplejpeg.decode_jpeg(content)
    except ValueError as error:
        return str(error)
    return ""


def _without_oddities(content: bytes) -> bytes:
    """Put right what cameras write into heads and decoders ignore: JFIF's version, and a sequential scan's range."""
    mended = bytearray(content)
    if (jfif := content.find(b"JFIF\0", 0, 64)) > 0:
        mended[jfif + 5] = 1
    found = dict(segments(content))
    if SCAN in found and PROGRESSIVE not in found:
        end = found[SCAN] + 2 + int.from_bytes(content[found[SCAN] + 2 : found[SCAN] + 4], "big")
        mended[end - 3 : end] = bytes([0, 63, 0])
    return bytes(mended)


def _find_unreadable_by_pillow(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            read_encoded(path)
            decode_by_pillow(path)
        except BadFileError as bad:
            yield path, str(bad)
        except UserError as refusal:
            yield path, str(refusal).removeprefix(f"{path} ")
