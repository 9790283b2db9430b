"""Which photographs are damaged: each decoded once as training does, and JPEG files strictly as well."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import simplejpeg

from dptmat.data.jpeg import PROGRESSIVE, SCAN, segments
from dptmat.device import count_cores
from dptmat.errors import UserError
from dptmat.pipelines.encoded import BadFileError, decode_by_pillow, hold, read_encoded
from dptmat.pipelines.source import Photo, Photographs, name_of

_logger = logging.getLogger(__name__)

_CHECKED_TOGETHER = 64  # photographs that a thread holds in memory, and checks before it reports
_DAMAGE = "Corrupt JPEG data", "Premature end of JPEG file"  # how libjpeg begins to tell of damaged pixels

Unreadable = Callable[[Sequence[Photo]], Iterable[tuple[str, str]]]  # gives name and reason of each one that fails


def check_photographs(index: Photographs) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Decode every photograph once on all cores, JPEG files strictly as well: damage that decoders pass over counts.

    Bad is what training refuses, and what libjpeg-turbo finds damaged in the middle of a file, where decoders go on
    with wrong pixels. What it says of a file whose pixels are right does not count. Damage that happens to make valid
    codes shows in no decoder, and none at all is seen in a JPEG file whose chroma is sampled in an uncommon way. Where
    DALI is not installed, Pillow takes its place.

    Yields:
        (number of photographs newly checked, list of (name, reason) of the bad ones among them).

    Raises:
        StoreAwayError: Their store does not answer.
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
    return lambda photos: find_unreadable(photos, None)


def _check(index: Photographs, start: int, find_unreadable: Unreadable) -> tuple[int, list[tuple[str, str]]]:
    """Check up to ``_CHECKED_TOGETHER`` photographs: their number and (name, reason) of the bad ones, in order."""
    photos = hold([index[i] for i in range(start, min(start + _CHECKED_TOGETHER, len(index)))])
    reasons = dict(find_unreadable(photos))
    for photo in photos:
        if photo.name not in reasons and (damage := jpeg_damage(photo.read())):
            reasons[photo.name] = damage
    names = dict.fromkeys(photo.name for photo in photos)
    return len(photos), [(name, reasons[name]) for name in names if name in reasons]


def jpeg_damage(content: bytes) -> str:
    """Tell what libjpeg finds damaged in the pixels of a file that decodes: "" for nothing, or if it is no JPEG."""
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


def _find_unreadable_by_pillow(photos: Iterable[Photo]) -> Iterator[tuple[str, str]]:
    for photo in photos:
        name = name_of(photo)
        try:
            read_encoded(photo)
            decode_by_pillow(photo)
        except BadFileError as bad:
            yield name, str(bad)
        except UserError as refusal:
            yield name, str(refusal).removeprefix(f"{name} ")
