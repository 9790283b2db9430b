"""Checkpoints on disk: written whole or not at all, the newest few kept."""

from pathlib import Path

import torch

from dptmat.errors import UserError
from dptmat.files import write_whole

_PARTS = {"model", "optimizer", "scaler", "step", "config", "micro_batch", "photographs"}


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

    Raises:
        UserError: The file cannot be written, as on a full disk; the older checkpoints are as they were.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, step)
    try:
        write_whole(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # on a full disk torch hides the one behind the other
        reason = error if isinstance(error, OSError) else error.__context__ or error
        raise UserError(
            f"checkpoint {path} cannot be written: {reason}; make room and go on by --resume auto"
        ) from error
    for old in _sorted(folder)[:-keep]:
        old.unlink()
    return path


def path_of(folder, step):
    """Path of the checkpoint after ``step`` steps."""
    return Path(folder) / f"step-{step:09d}.pt"


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
    missing = _PARTS - set(state if isinstance(state, dict) else ())
    if missing:
        raise UserError(f"checkpoint {path} has no {', '.join(sorted(missing))}; {expected}")
    if not isinstance(state["config"], dict) or not isinstance(state["step"], int):
        raise UserError(f"checkpoint {path} holds no settings or no step; {expected}")
    return state


def drop_after(folder, step):
    """Delete the checkpoints of later steps: a run that goes on at ``step`` makes them again."""
    for path in _sorted(Path(folder)):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()


def _sorted(folder):
    """Checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("step-*.pt"))
