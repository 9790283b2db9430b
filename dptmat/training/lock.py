"""One run in a folder at a time: a lock that the system releases however its holder ends."""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from dptmat.errors import UserError

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
            (folder / _HOLDER).write_text(f"process {os.getpid()} on {socket.gethostname()}")
    try:
        yield
    finally:
        lock.release()


def _read_holder(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / _HOLDER).read_text(errors="replace")[:200] or "another process"
    return "another process"
