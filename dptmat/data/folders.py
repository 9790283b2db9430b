"""What users point at: the images in a folder and below it, and the lines of a text file of paths."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dptmat.data.image_io import EXTENSIONS, READABLE
from dptmat.errors import UserError, few
from dptmat.file_kinds import HEAD, name_kind, name_kind_of

_logger = logging.getLogger(__name__)

_OTHER_IMAGES = {".heic", ".heif", ".avif", ".gif", ".jxl", ".tga", ".exr", ".dng", ".psd"}  # there are more
# Folders that systems and programs put among a user's files; so are files whose names begin with a dot.
_LITTER = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")


def is_litter(name: str) -> bool:
    """Tell whether a file or folder of this name was put there by a system, such as ._image.jpg or @eaDir."""
    return name.startswith(".") or name in _LITTER


def walk_images(folder: str | Path, called: str, leave_out: str | Path | None = None) -> Iterator[str]:
    """Yield the paths of the images in a folder and below, relative to it, in no order.

    Symbolic links are followed, but no folder is looked at twice. What `is_litter` is left out, also what is below
    folders that cannot be read, and images of kinds that are not read: each is logged.

    Args:
        folder: The folder.
        called: How messages call it.
        leave_out: A folder below it whose content does not count, such as one that is written to.

    Raises:
        OSError: The folder itself cannot be read.
    """
    os.listdir(folder)  # where the folder itself cannot be read, its error is the one to tell
    litter, others = 0, Counter[str]()
    for prefix, names in _walk(folder, called, leave_out):
        for name in names:
            if name.lower().endswith(EXTENSIONS):
                litter += is_litter(name)
                if not is_litter(name):
                    yield prefix + name
            elif not is_litter(name):
                others[os.path.splitext(name)[1].lower() or "no ending"] += 1
    if litter:
        _logger.warning("%s: %s files whose names begin with a dot are left out", called, litter)
    if others:
        endings = few([f"{ending} ({count})" for ending, count in others.most_common()])
        remedy = "; convert images to PNG or JPEG" if _OTHER_IMAGES & others.keys() else ""
        _logger.info("%s: %s files of other endings are left out: %s%s", called, others.total(), endings, remedy)


def has_images(folder: str | Path) -> bool:
    """Tell whether there is an image file in a folder or below; the walk ends at the first one."""
    files = (name for _, names in _walk(folder, str(folder), None) for name in names)
    return any(name.lower().endswith(EXTENSIONS) and not is_litter(name) for name in files)


def _walk(folder: str | Path, called: str, leave_out: str | Path | None) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder once, as what its files' paths begin with, and the names of its files."""
    without = os.path.realpath(leave_out) if leave_out else ""
    if without == os.path.realpath(folder):
        without = ""
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=_name_unreadable):
        # Sorted: where two links lead to one folder, the first counts on every machine.
        folders[:] = sorted(name for name in folders if not is_litter(name))
        status = os.stat(here)
        left_out = bool(without) and os.path.realpath(here) == without
        if left_out and any(name.lower().endswith(EXTENSIONS) for name in names):
            _logger.warning("%s: %s is written to: what it holds is left out", called, here)
        if left_out or (status.st_dev, status.st_ino) in seen:  # a symbolic link that leads back up
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        prefix = os.path.relpath(here, folder)
        yield "" if prefix == os.curdir else os.path.join(prefix, ""), names


def _name_unreadable(error: OSError) -> None:
    _logger.warning("left out: folder %s: %s", error.filename, error.strerror)


def is_image(path: str | Path) -> bool:
    """Tell whether a file that a user names is to be read as an image, by its ending or its first bytes.

    Only a regular file is looked into: of a pipe nothing is lost.
    """
    return str(path).lower().endswith(EXTENSIONS) or (os.path.isfile(path) and name_kind_of(path) in READABLE)


def read_lines(called: str, path: str | Path) -> list[str]:
    """Read a text file of paths or names, one a line, without empty lines and without spaces at their ends.

    Args:
        called: How messages call the file, such as "`image` list.txt".
        path: The file; a pipe is read as well.

    Raises:
        UserError: It cannot be read, or it is no such file.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            _require_text(called, head)
            content = head + file.read()
    except OSError as error:
        raise UserError(f"{called} cannot be read: {error.strerror}") from error
    if b"\0" in content:
        raise UserError(f"{called} is not a text file; a list holds one path per line")
    text = content.decode("utf-8-sig", errors="surrogateescape")  # editors on Windows begin it with a mark
    return [line.rstrip() for line in text.split("\n") if line.strip()]


def _require_text(called: str, head: bytes) -> None:
    """Refuse what is no list by its first bytes, and say what it is and what to do."""
    kind = name_kind(head)
    if kind in ("text", "empty") or (not kind and not _is_binary(head)):
        return
    if not kind:
        raise UserError(
            f"{called} is neither an image that dptmat reads nor a text file; a list holds one path per line"
        )
    if kind in READABLE:
        raise UserError(f"{called} is {kind}, where a text file with one name per line is expected")
    forms = "PNG" if "trimap`" in called else "PNG or JPEG"  # which changes the values of a trimap
    remedy = f"convert it to {forms}"
    if "UTF-16" in kind:
        remedy = "save it as UTF-8, one path per line"
    elif "archive" in kind:
        remedy = "unpack it"
    elif kind == "a film":
        remedy = f"save its frames as {forms}"
    elif "," in kind or "(" in kind or kind == "an XML file":  # no image at all
        raise UserError(f"{called} is {kind}; give an image, a folder of images, or a text file of paths")
    raise UserError(f"{called} is {kind}, which dptmat does not read; {remedy}")


def _is_binary(head: bytes) -> bool:
    return any(byte < 32 and byte not in b"\t\n\r" for byte in head)
