"""Writes that survive a kill and a full disk: whole files, and lines that are added as they come."""

import errno
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_logger = logging.getLogger(__name__)


def cause(error: Exception) -> BaseException:
    """Return what the system said when a file could not be written: torch hides it behind an error of its own."""
    return error if isinstance(error, OSError) else error.__context__ or error


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Give ``path`` the content that ``write(file)`` writes, all or nothing: temporary file, fsync, rename.

    A kill or a full disk at any moment leaves the old content as it was. No link is followed: where there is one, it is
    replaced.

    Args:
        path: The file to make or to replace; its folder exists.
        write: Function that is given a binary file.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    # A name that nobody can have prepared a link under.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # half a file would keep a full disk full
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, and a rename needs no more
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the rename itself
        finally:
            os.close(descriptor)


def write_output(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that a user has named, whole: a link is followed, and a device or a pipe written into.

    Args:
        path: The file; its folder exists.
        write: Function that is given a binary file.

    Raises:
        OSError: The file cannot be written, as where it is a folder.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as file:
            write(file)
    else:
        write_whole(path, write)


def drop_link(path: str | Path) -> None:
    """Remove a link where a file is to be made that no user has named, so that nothing elsewhere is written into."""
    if os.path.islink(path):
        os.unlink(path)


def refusal_to_write(path: str | Path) -> str:
    """Say why `write_output` could not write ``path``, or ""; nothing is made, and nothing changed, by asking.

    It says less than a write would where a file system cannot be asked without making a file.
    """
    path = Path(os.path.realpath(path))
    into = path if path.exists() and not path.is_file() else path.parent
    if not os.access(into, os.W_OK | (os.X_OK if into.is_dir() else 0)):
        return os.strerror(errno.EROFS if _is_read_only(into) else errno.EACCES)
    if into.is_dir() and hasattr(os, "O_TMPFILE"):
        try:
            os.close(os.open(into, os.O_TMPFILE | os.O_WRONLY))  # a file without a name, gone when it is closed
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
                return os.strerror(error.errno)
    return ""


def _is_read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


class Journal:
    """A file that grows by lines; on a full disk they wait for room, are tried again with the next line, and said once.

    Args:
        path: The file; made if it is missing. A link is replaced.

    Raises:
        OSError: It cannot be made, or is a pipe or a device.
    """

    def __init__(self, path: str | Path) -> None:
        self._path, self._waiting, self._failed = path, b"", False
        drop_link(path)
        if os.path.lexists(path) and not os.path.isfile(path):  # opening a pipe would wait
            raise OSError(errno.EINVAL, "it is there and is no file", str(path))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        self._descriptor = os.open(path, flags, 0o666)

    def add(self, line: str) -> None:
        """Add a line, without its end; names of files in it need not be valid text."""
        self._waiting += os.fsencode(line) + b"\n"
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]
        except OSError as error:
            if not self._failed:
                _logger.warning("%s cannot be written: %s; its lines wait for room", self._path, error.strerror)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        os.close(self._descriptor)
