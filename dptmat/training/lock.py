"""One run in a folder at a time: a lock that the system releases however its holder ends."""

import contextlib
import errno
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from dptmat.errors import UserError
from dptmat.files import drop_link, write_whole

_logger = logging.getLogger(__name__)

_LOCK, _HOLDER = ".lock", ".lock-holder"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that have none, as some of clusters


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold ``folder`` for this process; it is made if it is missing.

    Raises:
        UserError: Another process holds it, or nothing can be written there.
    """
    folder = Path(folder)
    lock = filelock.FileLock(folder / _LOCK, blocking=False)
    try:
        drop_link(folder / _LOCK)
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"`out` {folder} is in use by {_read_holder(folder)}; wait until that run has ended, or choose "
            "another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise UserError(
                f"`out` {folder} cannot be written: {error.strerror}; choose a folder that this user may write to"
            ) from error
        _logger.warning("%s is on a file system without locks: start no second run there", folder)
    else:
        with contextlib.suppress(OSError):  # on a full disk the holder has no name
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            write_whole(folder / _HOLDER, lambda file: file.write(holder.encode()))
    try:
        yield
    finally:
        lock.release()


def _read_holder(folder: Path) -> str:
    path = folder / _HOLDER
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with open(path, errors="replace") as file:
                return "".join(c for c in file.read(200) if c.isprintable()) or "another process"
    return "another process"


class Place:
    """The output folder of a run as what it is, whatever its name leads to later.

    Args:
        path: The folder, which this process holds.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        # An open folder keeps its number on every file system, and can be found under another name.
        self._descriptor = os.open(path, os.O_RDONLY) if os.name == "posix" else None
        self._lock = _identity(self._path / _LOCK)

    def loss(self) -> str:
        """Say what has become of the folder, or ""."""
        if self._descriptor is None:
            return ""
        now = _identity(self._path)
        if now is None:
            return "is gone"
        held = os.fstat(self._descriptor)
        if now != (held.st_dev, held.st_ino):
            return "is another folder now"
        lock = _identity(self._path / _LOCK)
        return "was taken by another run" if lock and self._lock and lock != self._lock else ""

    def refuge(self) -> Path:
        """Find where the state can still be saved: the folder under its new name, or one beside it."""
        with contextlib.suppress(OSError):
            path = Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))
            held = os.fstat(self._descriptor or 0)
            if path != self._path.absolute() and _identity(path) == (held.st_dev, held.st_ino):
                return path
        if not self._path.exists():
            return self._path
        return self._path.absolute().with_name(f"{self._path.absolute().name}.{secrets.token_hex(4)}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from every other one, or None if it is not there."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
