"""The bytes of an image file as the decoder takes them, and what is wrong with a file that shows before it decodes."""

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator

from PIL import Image

from dptmat.data.image_io import LARGEST, READABLE, read_photograph
from dptmat.data.jpeg import FRAMES, SCAN, segments
from dptmat.errors import first_line
from dptmat.file_kinds import HEAD, name_kind

# Filters of warnings belong to all threads: of two that change them together, one would leave its own behind.
_WARNINGS = threading.Lock()
_MOST_BYTES = 1 << 30  # of a file; 179 million pixels take half as many without any compression


class BadFileError(Exception):
    """A file that is no photograph; the message says why in a few words."""


def read_encoded(path: str) -> bytes:
    """Read a file, and judge what its bytes tell before they are decoded.

    It is what training reads and what `find_unreadable` asks, so that they agree. A JPEG file must have its
    end-of-image marker: a hardware decoder may take the rest of a file that is cut short for grey, without a word.

    Raises:
        BadFileError: It cannot be read, is no image, claims too many pixels, or is a JPEG file that was cut short.
    """
    content = _read(path)
    kind = name_kind(content[:HEAD])
    if kind not in READABLE:
        raise BadFileError(f"it is {kind}" if kind else "it is no image that can be read")
    if reason := _jpeg_fault(content) if kind == "a JPEG file" else _claims_too_much(content):
        raise BadFileError(reason)
    return content


def decode_by_pillow(path: str, *, srgb: bool = False) -> bytes:
    """Decode a file by Pillow, and make of it one without compression that any decoder takes.

    Args:
        path: The file.
        srgb: Whether to convert its colours to sRGB, if it has another colour profile.

    Raises:
        UserError: Pillow cannot decode it either.
    """
    image = read_photograph(path, srgb=srgb)
    height, width = image.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()


def find_unopened(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Look whether each file is there and can be read, without decoding it.

    Yields:
        (path, reason) of each one that is not, the reason in a few words.
    """
    for path in paths:
        try:
            _read(path, 1)
        except BadFileError as bad:
            yield path, str(bad)


def _read(path: str, most: int = _MOST_BYTES) -> bytes:
    """Read a file up to so many bytes.

    Raises:
        BadFileError: It cannot be read, is empty, or is larger than any photograph.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BadFileError("not a file")  # to open a pipe would wait for its other end
        if status.st_size > _MOST_BYTES:
            raise BadFileError(f"it is larger than {_MOST_BYTES:,} bytes")
        # Not mapped: a file that shrinks, or a disk that fails, under a mapping ends the process by SIGBUS.
        with open(path, "rb", buffering=0) as file:
            content = file.read(min(most, status.st_size)) or b""
    except OSError as error:
        raise BadFileError(error.strerror or first_line(error)) from error
    except ValueError as error:  # a name with a NUL
        raise BadFileError(first_line(error)) from error
    if not content:
        raise BadFileError("the file is empty")
    return content


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
