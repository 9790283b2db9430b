"""The files of a run, which may be a stranger's: nothing outside of its folder is read, nor more than there can be."""

import os
from collections.abc import Iterable
from pathlib import Path

from dptmat.errors import UserError


def is_inside(path: str | Path, folders: Iterable[str | Path]) -> bool:
    """Tell whether a path lies below one of some folders, wherever links lead."""
    real = os.path.realpath(path)
    return any(real.startswith(os.path.join(os.path.realpath(folder), "")) for folder in folders)


def require_inside(path: Path, run: Path, most: int) -> None:
    """Refuse a file of a run that is none, leads out of the folder ``run``, or has more than ``most`` bytes.

    Raises:
        UserError: It is so.
    """
    if not is_inside(path, [run]):
        raise UserError(f"{path} leads out of the folder of the run; put the file itself there")
    if not path.is_file():
        raise UserError(f"{path} is missing, or no file; give the folder that a training wrote, its `out`")
    if path.stat().st_size > most:
        raise UserError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB, and a run's has {most / 1e6:.0f} at most; restore the file"
        )
