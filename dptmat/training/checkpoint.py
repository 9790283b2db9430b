"""Checkpoints on disk: written whole or not at all, the newest few kept."""

import errno
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from dptmat.errors import UserError
from dptmat.files import cause, write_whole
from dptmat.weights.read import read

_logger = logging.getLogger(__name__)

_AGAIN_AFTER = 60  # seconds
_WAITS = 1, 2, 4, 8, 15  # seconds: 30 in all, after which schedulers kill
_PARTS = {"model", "optimizer", "scaler", "running_norm", "step", "config", "micro_batch", "data_fingerprint"}
_PLAIN = str, int, float, bool, type(None)  # what settings are
MOST_STEPS = 10**9  # that the names of the files have room for
_FORMER = {"photographs": "data_fingerprint"}  # names of parts in earlier versions


class Checkpoints:
    """The checkpoints of a run, which goes on where one cannot be written, as on a full disk.

    Args:
        folder: Their folder; made if missing.
        keep: Number of them that stay.
        state: Function that gives what to save after a number of steps.
    """

    def __init__(self, folder: str | Path, keep: int, state: Callable[[int], dict[str, Any]]) -> None:
        self._folder, self._keep, self._state = Path(folder), keep, state
        self._again_at: float | None = None  # seconds of the host's clock

    @property
    def pending(self) -> bool:
        """Whether the last checkpoint could not be written yet."""
        return self._again_at is not None

    def save(self, step: int) -> None:
        """Write the checkpoint of ``step``, or say why not and leave it to ``save_if_due`` and the next ``save``."""
        self._again_at = None
        try:
            save(self._folder, step, self._state(step), self._keep)
        except UserError as error:
            kept = latest(self._folder)
            _logger.warning(
                "%s; the run goes on and tries again in %s s or with the next checkpoint; the last good one is %s",
                error, _AGAIN_AFTER, kept.name if kept else "still to come",
            )  # fmt: skip
            self._again_at = time.monotonic() + _AGAIN_AFTER

    def save_if_due(self, step: int) -> None:
        """Try again if a checkpoint could not be written some time ago."""
        if self._again_at is not None and time.monotonic() >= self._again_at:
            self.save(step)

    def save_at_last(self, step: int) -> Path:
        """Write the checkpoint with which the run ends, waiting some time for room.

        Raises:
            UserError: It cannot be written.
        """
        for wait in (*_WAITS, None):
            try:
                return save(self._folder, step, self._state(step), self._keep)
            except UserError as error:
                if wait is None:
                    raise UserError(f"{error}, and go on by `resume` auto") from error
                _logger.warning("%s; trying again in %s s", error, wait)
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def save(folder: str | Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write ``state`` as the checkpoint of ``step`` and delete all but the newest ``keep``.

    The file appears under its name only when it is complete and on the disk, so a kill at any moment leaves the older
    ones as they are. Where the disk is full and holds several older ones, all of them but the newest make room.

    Args:
        folder: Folder of the checkpoints; made if missing.
        step: Steps done.
        state: Nested dictionaries and lists of tensors and plain values.
        keep: Number of checkpoints that stay.

    Returns:
        Path of the new file.

    Raises:
        UserError: The file cannot be written, as on a full disk; the newest of the older checkpoints is as it was.
    """
    path = path_of(folder, step)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(path.parent)
        write_whole(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:
        reason = cause(error)
        older = _sorted(path.parent)[:-1]
        if older and getattr(reason, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            _logger.warning("the disk is full: deleted %s to make room", ", ".join(old.name for old in older))
            _remove(older)
            return save(folder, step, state, keep)
        raise UserError(f"checkpoint {path} cannot be written: {reason}; make room") from error
    _remove(_sorted(path.parent)[:-keep])
    return path


def path_of(folder: str | Path, step: int) -> Path:
    """Return the path of the checkpoint after ``step`` steps."""
    return Path(folder) / f"step-{step:09d}.pt"


def latest(folder: str | Path) -> Path | None:
    """Return the path of the newest checkpoint in ``folder``, or None."""
    found = _sorted(Path(folder))
    return found[-1] if found else None


def newest_whole(folder: str | Path) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    """Find the newest checkpoint in ``folder`` that is whole.

    Returns:
        (path, state, sentences on newer ones that are damaged); the first two are None where there is no checkpoint.

    Raises:
        UserError: All are damaged.
        OSError: One cannot be read, which says nothing about what it holds.
    """
    damaged: list[str] = []
    for path in reversed(_sorted(Path(folder))):
        with open(path, "rb"):
            pass
        try:
            return path, load(path), damaged
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        raise UserError(f"no checkpoint in {folder} is whole; {damaged[0]}")
    return None, None, []


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this library to the CPU.

    Raises:
        UserError: The file is missing, damaged, or not one of ours.
    """
    expected = "expected a checkpoint that dptmat wrote (step-*.pt)"
    try:
        state = read(path, whole=True)
    except UserError as error:
        raise UserError(f"checkpoint {error}; {expected}") from error
    for former, name in _FORMER.items():
        if former in state:
            state.setdefault(name, state.pop(former))
    missing = _PARTS - set(state)
    if missing:
        raise UserError(f"checkpoint {path} has no {', '.join(sorted(missing))}; {expected}")
    if not isinstance(state["config"], dict) or not all(
        isinstance(value, _PLAIN) for value in state["config"].values()
    ):
        raise UserError(f"checkpoint {path} holds no settings; {expected}")
    if type(state["step"]) is not int or not 0 <= state["step"] < MOST_STEPS:
        raise UserError(f"checkpoint {path} holds no number of steps; {expected}")
    if type(state["micro_batch"]) is not int:
        raise UserError(f"checkpoint {path} holds no size of a micro-batch; {expected}")
    return state


def drop_after(folder: str | Path, step: int) -> None:
    """Delete the checkpoints of later steps: a run that goes on at ``step`` makes them again."""
    _remove(path for path in _sorted(Path(folder)) if int(path.stem.removeprefix("step-")) > step)


def remove_parts(folder: str | Path) -> None:
    """Delete what a kill has left of files that were being written."""
    _remove(Path(folder).glob("*.part"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _sorted(folder: Path) -> list[Path]:
    """List the checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("step-*.pt"))
