"""Checkpoints on disk: written whole or not at all, the newest few kept."""

import os
from pathlib import Path

import torch

from dptmat.errors import UserError


def save(folder, step, state, keep):
    """Write ``state`` as the checkpoint of ``step`` and delete all but the newest ``keep``.

    The file appears under its name only when it is complete and on the disk, so a kill at any moment leaves the older
    ones as they are.

    Args:
        folder: Folder of the checkpoints; made if missing.
        step: Steps done.
        state: Nested dictionaries and lists of tensors and plain values.
        keep: Number of checkpoints that stay.

    Returns:
        Path of the new file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.pt"
    write_whole(path, lambda file: torch.save(state, file))
    for old in _sorted(folder)[:-keep]:
        old.unlink()
    return path


def write_whole(path, write):
    """Give ``path`` the content that ``write(file)`` writes, at once: temporary file, fsync, rename."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename itself
    finally:
        os.close(descriptor)


def latest(folder):
    """Path of the newest checkpoint in ``folder``, or None."""
    found = _sorted(Path(folder))
    return found[-1] if found else None


def load(path):
    """Read a checkpoint of this library to the CPU.

    Raises:
        UserError: The file is missing, damaged, or not one of ours.
    """
    expected = "expected a checkpoint that dptmat wrote (step-*.pt)"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged or foreign file
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"checkpoint {path} cannot be read: {first_line[:200]}; {expected}") from error
    missing = {"model", "optimizer", "step", "config"} - set(state if isinstance(state, dict) else ())
    if missing:
        raise UserError(f"checkpoint {path} has no {', '.join(sorted(missing))}; {expected}")
    return state


def _sorted(folder):
    """Checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("step-*.pt"))
