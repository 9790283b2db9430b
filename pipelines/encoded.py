"""The bytes of an image as the decoder takes them, and what is wrong with it that shows before it decodes."""

import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

from PIL import Image

from dptmat.data.image_io import LARGEST, READABLE, decode_photograph
from dptmat.data.jpeg import FRAMES, SCAN, segments
from dptmat.errors import StoreAwayError, first_line
from dptmat.file_kinds import HEAD, name_kind
from dptmat.pipelines.source import Photo, Stored, name_of

# Filters of warnings belong to all threads: of two that change them together, one would leave its own behind.
_WARNINGS = threading.Lock()
_MOST_BYTES = 1 << 30  # of a file; 179 million pixels take half as many without any compression


class BadFileError(Exception):
    """A file that is no photograph; the message says why in a few words."""


def read_encoded(photo: Photo) -> bytes:
    """Read a photograph, and judge what its bytes tell before they are decoded, by `judge`.

    It is what training reads and what `find_unreadable` asks, so that they agree.

    Raises:
        BadFileError: It cannot be read, or is no image that a decoder should be given.
        StoreAwayError: Its store does not answer.
    """
    return judge(_read(photo))


def judge(content: bytes) -> bytes:
    """Judge what the bytes of an image tell before they are decoded, and return them.

    A JPEG file must have its end-of-image marker: a hardware decoder may take the rest of a file that is cut short for
    grey, without a word.

    Raises:
        BadFileError: They are no image, claim too many pixels, or are of a JPEG file that was cut short.
    """
    kind = name_kind(content[:HEAD])
    if kind not in READABLE:
        raise BadFileError(f"it is {kind}" if kind else "it is no image that can be read")
    if reason := _jpeg_fault(content) if kind == "a JPEG file" else _claims_too_much(content):
        raise BadFileError(reason)
    return content


def decode_by_pillow(photo: Photo, *, srgb: bool = False) -> bytes:
    """Decode a photograph by Pillow, and make of it a file without compression that any decoder takes.

    Args:
        photo: The photograph.
        srgb: Whether to convert its colours to sRGB, if it has another colour profile.

    Raises:
        UserError: Pillow cannot decode it either.
        BadFileError: It cannot be read.
        StoreAwayError: Its store does not answer.
    """
    image = decode_photograph(_read(photo), name_of(photo), srgb=srgb)
    height, width = image.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()


class Held:
    """A photograph whose bytes are in memory, or the error that reading it has ended with: a `Stored`.

    Args:
        name: What the photograph is known by.
        content: Its bytes, or the error.
    """

    fetch_many = None

    def __init__(self, name: str, content: bytes | Exception) -> None:
        self.name, self._content = name, content

    def read(self, most: int = _MOST_BYTES) -> bytes:
        """Return the bytes, or the first of them; raises the error."""
        if isinstance(self._content, Exception):
            raise self._content
        return self._content[:most] if most < len(self._content) else self._content


def hold(photos: Sequence[Photo]) -> list[Held]:
    """Read some photographs into memory, each once.

    Raises:
        StoreAwayError: Their store does not answer.
    """
    fetched: dict[int, bytes | Exception] = {**fetch(photos)}
    for i, photo in enumerate(photos):
        if i not in fetched:
            try:
                fetched[i] = _read(photo)
            except BadFileError as bad:
                fetched[i] = bad
        elif isinstance(error := fetched[i], StoreAwayError):
            raise error
    return [Held(name_of(photo), fetched[i]) for i, photo in enumerate(photos)]


def fetch(photos: Sequence[Photo]) -> dict[int, bytes | OSError]:
    """Read those photographs that are better read together than one by one, by their places among all."""
    groups: dict[Callable, list[tuple[int, Stored]]] = {}
    for i, photo in enumerate(photos):
        if not isinstance(photo, str) and photo.fetch_many:
            groups.setdefault(photo.fetch_many, []).append((i, photo))
    fetched: dict[int, bytes | OSError] = {}
    for fetch_many, group in groups.items():
        try:
            results = fetch_many([photo for _, photo in group])
        except OSError as error:
            results = [error] * len(group)
        fetched |= zip((i for i, _ in group), results, strict=True)
    return fetched


def find_unopened(photos: Iterable[Photo]) -> Iterator[tuple[str, str]]:
    """Look whether each photograph is there and can be read, without decoding it.

    Yields:
        (name, reason) of each one that is not, the reason in a few words.

    Raises:
        StoreAwayError: Their store does not answer.
    """
    for photo in photos:
        try:
            _read(photo, 1)
        except BadFileError as bad:
            yield name_of(photo), str(bad)


def _read(photo: Photo, most: int = _MOST_BYTES) -> bytes:
    """Read a photograph up to so many bytes.

    Raises:
        BadFileError: It cannot be read, is empty, or is larger than any photograph.
        StoreAwayError: Its store does not answer.
    """
    try:
        content = _read_file(photo, most) if isinstance(photo, str) else photo.read(most)
    except StoreAwayError:
        raise
    except OSError as error:
        raise BadFileError(error.strerror or first_line(error)) from error
    except ValueError as error:  # a name with a NUL
        raise BadFileError(first_line(error)) from error
    if not content:
        raise BadFileError("the file is empty")
    return content


def _read_file(path: str, most: int) -> bytes:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BadFileError("not a file")  # to open a pipe would wait for its other end
    if status.st_size > _MOST_BYTES:
        raise BadFileError(f"it is larger than {_MOST_BYTES:,} bytes")
    # Not mapped: a file that shrinks, or a disk that fails, under a mapping ends the process by SIGBUS.
    with open(path, "rb", buffering=0) as file:
        return file.read(min(most, status.st_size)) or b""


def _jpeg_fault(content: bytes) -> str:
    """Walk over a JPEG file up to its first scan: what is wrong with it, or ""."""
    marker = position = 0
    try:
        for marker, position in segments(content):
            if marker in FRAMES and (claim := _claim(content[position + 5 : position + 9])):
                return claim
    except IndexError:
        return "it was cut short, before its first scan"
    if marker != SCAN:
        return ""  # no JPEG file after all: the decoder says it
    # The marker of a thumbnail, which is in a segment, does not count; entropy-coded data cannot hold it.
    if content.endswith(b"\xff\xd9") or content.find(b"\xff\xd9", position) > 0:
        return ""
    return "it was cut short: it ends before its end-of-image marker"


def _claim(size: bytes) -> str:
    """Judge the height and width of a frame, two bytes each."""
    return _too_many() if int.from_bytes(size[:2], "big") * int.from_bytes(size[2:], "big") > LARGEST else ""


def _too_many() -> str:
    return f"claims more than {LARGEST:,} pixels"


def _claims_too_much(content: bytes) -> str:
    """Return what is wrong with the size in the head of an image: "" for nothing, or if Pillow cannot tell it."""
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)):
                return ""
    except Image.DecompressionBombError:
        return _too_many()
    except Exception:  # whatever else is wrong, the decoder says it
        return ""
