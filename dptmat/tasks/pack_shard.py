"""One shard of a packed data set: a pure function of its photographs and the settings, wherever it is called."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, NamedTuple

from dptmat.data.reencode import decode_upright, encode, shrink_to
from dptmat.data.shard_writer import TarWriter, render_idx, render_names
from dptmat.data.storage import Store
from dptmat.errors import StoreAwayError, UserError
from dptmat.file_kinds import HEAD, name_kind
from dptmat.pipelines.encoded import BadFileError, Held, find_unopened, hold, read_encoded
from dptmat.pipelines.source import Photo

_TOGETHER = 32  # photographs that are read together, while as many are packed
_WAITS = 1, 2, 4, 8, 16, 30, 60  # seconds for a store or a file system to come back
_ENDINGS = {
    "a JPEG file": "jpg", "a PNG file": "png", "a BMP file": "bmp", "a WebP file": "webp", "a TIFF file": "tif",
    "a PPM file": "ppm", "a JPEG 2000 file": "jp2",
}  # fmt: skip
SAMPLINGS = "420", "444"
DONE = ".json"  # ending of what is written last of a shard


@dataclass(frozen=True)
class PackSettings:
    """How photographs are packed: all that the content of the shards depends on, but for the photographs."""

    short_side: int = 224
    """Pixels on the shorter side of what is packed: the ``size`` of the training to come. Nothing is enlarged."""
    quality: int = 90
    """Of the JPEGs, 1..100."""
    sampling: str = "420"
    """Of their chroma: "420" for one value for 2 x 2 pixels, "444" for one for each."""
    per_shard: int = 16384
    """Photographs, bad ones included, that make one shard."""
    reencode: bool = True
    """False to copy the bytes of the files as they are."""
    min_side: int = 0
    """Photographs with fewer pixels on their shorter side are left out."""

    def __post_init__(self) -> None:
        limits = {"short_side": (1, 65500), "quality": (1, 100), "per_shard": (1, 10**6), "min_side": (0, 10**6)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"`{name}` must be from {low} to {high}; got {getattr(self, name)}")
        if self.sampling not in SAMPLINGS:
            raise UserError(f"`sampling` must be {' or '.join(SAMPLINGS)}; got {self.sampling}")


@dataclass(frozen=True)
class Part:
    """What a shard is made of; it can be sent to another process or machine."""

    number: int
    first: int  # number of its first photograph among all
    photos: list[Photo] = field(repr=False)
    settings: PackSettings
    plan: str  # fingerprint of all that is packed, and how
    versions: dict[str, str]
    out: Store
    witness: Photo  # could be read at first: where it cannot any more, what is missing says nothing

    @property
    def name(self) -> str:
        return name_shard(self.number)


class Packing(NamedTuple):
    """What has come of the photographs of a shard."""

    tar: TarWriter
    kept: list[Photo]
    bad: list[tuple[int, str, str]]  # number, name and reason
    small: list[int]  # numbers


def name_shard(number: int) -> str:
    """Return the name of a shard without an ending."""
    return f"{number:06d}"


def pack_part(part: Part, report: Callable[[int], object] = lambda count: None) -> None:
    """Write a shard: NNNNNN.tar, .idx and .paths, and at last NNNNNN.json, which tells that it is done.

    Args:
        part: What it is made of.
        report: Is told of how many photographs have been looked at, again and again.

    Raises:
        StoreAwayError: The photographs, or the store that is written to, cannot be reached, for minutes.
        OSError: The shard cannot be written.
    """
    packing: Packing | None = None

    def write(file: BinaryIO) -> None:
        nonlocal packing
        packing = _write_tar(file, part, report)

    part.out.write(f"{part.name}.tar", write)
    if packing is None:
        raise RuntimeError("the store has not written")
    idx, paths = render_idx(packing.tar.members), render_names(photo_name(photo) for photo in packing.kept)
    done = json.dumps(_describe(part, packing), indent=1).encode() + b"\n"
    part.out.write(f"{part.name}.idx", lambda file: file.write(idx))
    part.out.write(f"{part.name}.paths", lambda file: file.write(paths))
    part.out.write(f"{part.name}{DONE}", lambda file: file.write(done))


def photo_name(photo: Photo) -> str:
    """Return what a photograph is called beside its shard; paths are absolute already."""
    return photo if isinstance(photo, str) else photo.name


def _describe(part: Part, packing: Packing) -> dict[str, Any]:
    return {
        "images": len(packing.tar.members),
        "bytes": packing.tar.bytes,
        "digest": packing.tar.digest(),
        "sources": [part.first, part.first + len(part.photos)],
        "small": packing.small,
        "bad": packing.bad,
        "plan": part.plan,
        "settings": asdict(part.settings),
        "versions": part.versions,
    }


def _write_tar(file: BinaryIO, part: Part, report: Callable[[int], object]) -> Packing:
    packing = Packing(TarWriter(file), [], [], [])
    for start, held in _read_ahead(part):
        for number, photo in enumerate(held, start):
            try:
                member = _pack(photo, part.settings)
            except BadFileError as bad:
                packing.bad.append((part.first + number, photo_name(part.photos[number]), str(bad)))
                continue
            if member:
                packing.tar.add(part.first + number, *member)
                packing.kept.append(part.photos[number])
            else:
                packing.small.append(part.first + number)
        report(len(held))
    packing.tar.close()
    return packing


def _pack(photo: Held, settings: PackSettings) -> tuple[str, bytes] | None:
    """Return ending and content of what is packed of a photograph: None for one that is too small.

    Raises:
        BadFileError: It is no photograph, or damaged.
    """
    content = read_encoded(photo)
    pixels = decode_upright(content, photo.name)
    if min(pixels.shape[:2]) < settings.min_side:
        return None
    if not settings.reencode:
        return _ENDINGS[name_kind(content[:HEAD])], content
    small = shrink_to(pixels, settings.short_side)
    if max(small.shape[:2]) > 65500:  # cannot be but for settings that allow it
        raise BadFileError("it is longer than the 65,500 pixels that a JPEG file may have")
    return "jpg", encode(small, settings.quality, settings.sampling)


def _read_ahead(part: Part) -> Iterator[tuple[int, list[Held]]]:
    """Yield groups of photographs in memory, each after the number of its first one; the next is read meanwhile."""
    starts = range(0, len(part.photos), _TOGETHER)
    with ThreadPoolExecutor(1) as reader:

        def begin(start: int) -> Any:
            return reader.submit(_read, part.photos[start : start + _TOGETHER], part.witness)

        ahead = begin(0)
        for start in starts:
            held = ahead.result()
            ahead = begin(start + _TOGETHER)
            yield start, held


def _read(photos: list[Photo], witness: Photo) -> list[Held]:
    """Read photographs; where their store or file system is away, wait for it.

    Raises:
        StoreAwayError: It does not come back.
    """
    for pause in (*_WAITS, 0):
        try:
            held = hold(photos)
            if next(find_unopened(held), None) is None or next(find_unopened([witness]), None) is None:
                return held
        except StoreAwayError:
            if not pause:
                raise
        time.sleep(pause)
    raise StoreAwayError(
        f"{photo_name(witness)} cannot be read any more: is its file system still there? what is packed stays"
    )
