"""Files that appear under their name only when they are complete."""

import os
from pathlib import Path


def cause(error):
    """What the system said when a file could not be written: torch hides it behind an error of its own."""
    return error if isinstance(error, OSError) else error.__context__ or error


def write_whole(path, write):
    """Give ``path`` the content that ``write(file)`` writes, at once: temporary file, fsync, rename.

    A kill or a full disk at any moment leaves the old content as it was.

    Args:
        path: The file to make or to replace; its folder exists.
        write: Function that is given a binary file.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # half a file would keep a full disk full
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename itself
    finally:
        os.close(descriptor)
