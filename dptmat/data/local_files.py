"""Files of a local store: descriptors that threads share, files that are new, and all files below a folder."""

import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from dptmat.files import write_whole


class Descriptor:
    """A file that is open until nobody holds it any more, a thread that reads it just now included."""

    def __init__(self, path: str) -> None:
        # A pipe is opened without waiting for its writer, and refused where it is read.
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        self._turn = threading.Lock()

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes, fewer where the file ends."""
        pieces = []
        while length > 0 and (piece := self._read_once(offset, length)):
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_once(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.number, length, offset)
        with self._turn:  # Windows: threads share the position
            os.lseek(self.number, offset, os.SEEK_SET)
            return os.read(self.number, length)


def write_new(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that is not there yet: a link is made of one that is complete, which fails where there is one."""
    there = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    if os.path.lexists(path):
        raise there
    complete = f"{path}.{secrets.token_hex(4)}.part"
    write_whole(complete, write)
    try:
        os.link(complete, path)
    except FileExistsError:
        raise there from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise there from None
        os.rename(complete, path)
    finally:
        Path(complete).unlink(missing_ok=True)


def walk_files(root: str, prefix: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[tuple[str, int]]:
    """Yield the files below a folder, sorted by name as bytes: (name relative to ``root``, bytes).

    Links are followed, but for those that lead to a folder above them.

    Args:
        root: The folder.
        prefix: The part below it that is searched, ended by a slash.
        above: Device and inode of the folders that lead there.
    """
    folder = os.path.join(root, prefix)
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            found = [(os.fsencode(entry.name + "/" * entry.is_dir()), entry) for entry in entries]
    except FileNotFoundError:  # deleted meanwhile, as the files below may be
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for _, entry in sorted(found, key=lambda pair: pair[0]):
        if entry.is_dir():
            yield from walk_files(root, f"{prefix}{entry.name}/", (*above, here))
        elif entry.is_file():
            try:
                size = entry.stat().st_size
            except FileNotFoundError:
                continue
            yield prefix + entry.name, size
