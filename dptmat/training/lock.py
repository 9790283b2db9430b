"""One run in a folder at a time: a lock that the kernel releases however its holder ends."""

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

from dptmat.errors import UserError

_NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that have none, as some of clusters


@contextlib.contextmanager
def locked(folder):
    """Hold ``folder`` for this process; it is made if it is missing.

    Raises:
        UserError: Another process holds it, or nothing can be written there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(
            f"--out {folder} cannot be written: {error.strerror}; choose a folder that this user may write to"
        ) from error
    try:
        _hold(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _hold(descriptor, folder):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise UserError(
            f"--out {folder} is in use by {holder}; wait until that run has ended, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(f"--out {folder} is on a file system without locks: start no second run there", flush=True)
        return
    with contextlib.suppress(OSError):  # on a full disk the holder has no name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
