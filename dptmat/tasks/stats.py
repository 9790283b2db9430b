"""What photographs are like, by some that are spread over all: sizes, kinds, modes, bytes, and how fast they decode."""

import io
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from dptmat.data.spread import spread
from dptmat.device import count_cores
from dptmat.errors import UserError, few, first_line
from dptmat.file_kinds import HEAD, name_kind
from dptmat.pipelines.encoded import BadFileError, Held, hold, read_encoded
from dptmat.pipelines.source import Photographs

QUANTILES = {"least": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "most": 1.0}
_ORIENTATION = 0x0112  # tag of EXIF
_DECODED = 512  # photographs at most by which the rate is measured
_DECODED_BYTES = 256 << 20  # that are held for it
_READ_TOGETHER = 32  # photographs
_SECONDS = 5  # after which it is known well enough
_TOGETHER = 8  # photographs for each core between two looks at the clock


@dataclass
class Stats:
    """Of some of the photographs; the arrays have one number for each that could be read."""

    photographs: int  # in all
    looked_at: int
    width: np.ndarray  # int64 [N], pixels, upright
    height: np.ndarray
    bytes: np.ndarray  # int64 [N], of the files
    kinds: Counter[str] = field(default_factory=Counter)  # such as "JPEG", "JPEG, progressive"
    modes: Counter[str] = field(default_factory=Counter)  # as Pillow calls them: "RGB", "L"
    bad: Counter[str] = field(default_factory=Counter)  # reasons why some cannot be read
    images_per_second: float = float("nan")  # decoded on all cores, from memory; NaN: none could be
    cores: int = 1

    @property
    def shorter(self) -> np.ndarray:
        """The shorter side of each, int64 [N]."""
        return np.minimum(self.width, self.height)

    @property
    def ratio(self) -> np.ndarray:
        """How many times as long the longer side is, float64 [N], from 1 on."""
        return np.maximum(self.width, self.height) / self.shorter


def measure(images: Photographs, most: int = 2000, progress: Callable[[], object] = lambda: None) -> Stats:
    """Look at some photographs, spread evenly over all, and decode a part of these on all cores.

    Sizes, kinds and modes come from the heads of their files.

    Args:
        images: All photographs.
        most: How many to look at, at most; at least 1.
        progress: Called once for each that has been looked at.

    Raises:
        UserError: None can be read.
        StoreAwayError: Their store does not answer.
    """
    numbers = spread(len(images), most)
    stats = Stats(len(images), len(numbers), *np.zeros((3, 0), np.int64))
    rows, kept = [], list[bytes]()
    stride = max(1, len(numbers) // _DECODED)
    room = _DECODED_BYTES
    for place, photo in enumerate(_hold(images, numbers)):
        try:
            content = read_encoded(photo)
            rows.append(_look(content, stats))
            if place % stride == 0 and len(content) <= room:
                kept.append(content)
                room -= len(content)
        except BadFileError as bad:
            stats.bad[str(bad)] += 1
        progress()
    if not rows:
        reasons = few([f"{reason} ({count})" for reason, count in stats.bad.most_common()])
        raise UserError(f"none of {len(numbers)} photographs looked at can be read: {reasons}")
    stats.width, stats.height, stats.bytes = np.array(rows, np.int64).T
    stats.images_per_second, stats.cores = _decode_rate(kept), count_cores()
    return stats


def _hold(images: Photographs, numbers: list[int]) -> Iterator[Held]:
    """Read photographs, some together where they lie in an object store."""
    for start in range(0, len(numbers), _READ_TOGETHER):
        yield from hold(images.take(numbers[start : start + _READ_TOGETHER]))


def _look(content: bytes, stats: Stats) -> tuple[int, int, int]:
    """Return width and height of a photograph and the bytes of its file, and count its kind and mode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:  # reads the head alone
                width, height = _upright_size(image)
                mode, progressive = image.mode, ", progressive" if image.info.get("progressive") else ""
    except Exception as error:  # Pillow raises many types
        raise BadFileError(first_line(error)) from error
    stats.modes[mode] += 1
    stats.kinds[_kind(content) + progressive] += 1
    return width, height, len(content)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an image as its EXIF orientation turns it, without decoding it."""
    (width, height), orientation = image.size, 1
    if isinstance(image, TiffImageFile):  # whose size Pillow has turned or not, as its version is
        width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        orientation = image.tag_v2.get(_ORIENTATION, 1)
    elif "exif" in image.info:  # else Pillow would decode a PNG file to find it
        orientation = image.getexif().get(_ORIENTATION, 1)
    return (height, width) if orientation >= 5 else (width, height)  # on its side


def _kind(content: bytes) -> str:
    return name_kind(content[:HEAD]).removeprefix("a ").removesuffix(" file")


def _decode_rate(contents: list[bytes]) -> float:
    """Decode some photographs to RGB on all cores: how many a second; NaN if there are none."""
    done, cores = 0, count_cores()
    start = time.perf_counter()
    with ThreadPoolExecutor(cores) as threads:
        for first in range(0, len(contents), cores * _TOGETHER):
            done += sum(threads.map(_decode, contents[first : first + cores * _TOGETHER]))
            if time.perf_counter() - start > _SECONDS:
                break
    return done / (time.perf_counter() - start) if done else float("nan")


def _decode(content: bytes) -> bool:
    """Decode a photograph; tell whether it can be."""
    try:
        if content.startswith(b"\xff\xd8"):
            try:
                simplejpeg.decode_jpeg(content)
                return True
            except ValueError:  # such as CMYK
                pass
        with Image.open(io.BytesIO(content)) as image:
            image.convert("RGB")
        return True
    except Exception:  # Pillow raises many types
        return False


def table(stats: Stats, *, epochs: int = 1, size: int = 224) -> str:
    """Write what was measured as lines for people.

    Args:
        stats: What `measure` gives.
        epochs: How often each photograph is to be decoded in a run.
        size: Side in pixels of what a run makes of a photograph; smaller ones have to be enlarged.
    """
    of = ""
    if stats.looked_at < stats.photographs:
        of = f"; what follows is of {stats.looked_at:,}, spread evenly over them"
    small = (stats.shorter < size).mean()
    hours = epochs * stats.photographs / stats.images_per_second / 3600
    scale = stats.photographs / stats.looked_at
    lines = [
        f"photographs     {stats.photographs:,}{of}",
        f"bytes           {'about ' if of else ''}{_in_bytes(stats.bytes.sum() * scale)}, on average "
        f"{_in_bytes(stats.bytes.mean())} each",
        f"kinds           {_shares(stats.kinds)}",
        f"modes           {_shares(stats.modes)}",
        f"below {size:<9} {small:.1%} have a shorter side of fewer than {size} pixels",
        f"decoding        {stats.images_per_second:,.0f} a second on {stats.cores} CPU cores, without reading",
        f"for {epochs:,} {'epoch' if epochs == 1 else 'epochs'}".ljust(16) + f"{_duration(hours)} of decoding alone",
    ]
    if stats.bad:
        reasons = few([f"{reason} ({number})" for reason, number in stats.bad.most_common()])
        lines.insert(1, f"bad             {stats.bad.total():,} of {stats.looked_at:,}: {reasons}")
    return "\n".join([*lines, "", *_quantiles(stats)])


def _quantiles(stats: Stats) -> list[str]:
    """Write a row of quantiles for each thing that was measured."""
    rows = {
        "width": stats.width, "height": stats.height, "shorter side": stats.shorter,
        "longer/shorter": stats.ratio, "kB": stats.bytes / 1000,
    }  # fmt: skip
    head = " " * 16 + "".join(f"{name:>10}" for name in QUANTILES)
    return [head] + [
        f"{name:16}" + "".join(f"{_number(value):>10}" for value in np.quantile(values, list(QUANTILES.values())))
        for name, values in rows.items()
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.2f}"


def _shares(counts: Counter[str]) -> str:
    return few([f"{name} {count / counts.total():.1%}" for name, count in counts.most_common()])


def _in_bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:,.0f} {unit}" if number >= 10 or unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _duration(hours: float) -> str:
    if hours != hours:
        return "an unknown time"
    if hours < 1:
        return f"{hours * 60:.0f} minutes" if hours * 60 >= 1.5 else f"{hours * 3600:.0f} seconds"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
