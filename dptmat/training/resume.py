"""Where a run goes on: which checkpoint, and whether it is one of this run."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from dptmat.config.run import RunConfig
from dptmat.errors import UserError, first_line
from dptmat.training import checkpoint
from dptmat.training.task import Task
from dptmat.training.trainer import Trainer

_logger = logging.getLogger(__name__)

_VALIDATED_BY = ("val_image", "val_trimap", "val_alpha")
FILES = "files.txt"  # in the output folder: the photographs that the run began with


def list_begun_with(settings: RunConfig) -> Path | None:
    """Find the list of the photographs that a resumed run began with; None where it has no checkpoint to go on from."""
    out = Path(settings.out)
    goes_on = settings.resume and (settings.resume != "auto" or checkpoint.latest(out / "checkpoints"))
    return out / FILES if goes_on else None


def refuse_another_run(settings: RunConfig) -> None:
    """Refuse an output folder that holds a run which is not the one to go on with.

    Raises:
        UserError: It does.
    """
    out = Path(settings.out)
    if not (out / "config.toml").exists() or settings.resume == "auto":
        return
    if not settings.resume:
        raise UserError(f"`out` {out} holds another run; go on with it by `resume` auto, or choose another folder")
    if Path(settings.resume).absolute().parent != (out / "checkpoints").absolute():
        raise UserError(f"`resume` {settings.resume} is not of the run that `out` {out} holds; choose another folder")


def resume(task: Task, trainer: Trainer, settings: RunConfig, *, speaks: bool) -> tuple[int, bool]:
    """Give the trainer the state of the checkpoint to go on from, if there is any.

    Args:
        task: What is trained on what.
        trainer: Its trainer; its state is replaced.
        settings: Of the run.
        speaks: Whether this process tells of damaged checkpoints.

    Returns:
        Steps done, and whether a validation is due there: the run was stopped before it, or had other images for it.

    Raises:
        UserError: The checkpoint is damaged, or of a run with other settings or other data.
    """
    path, saved = _find(settings, speaks)
    if path is None or saved is None:
        return 0, False
    _require_same_run(task, settings, path, saved)
    try:
        trainer.load_state_dict(saved)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # torch raises any of these
        raise UserError(
            f"checkpoint {path} does not fit {settings.model}: {first_line(error)}; use one of this run"
        ) from error
    others = any(getattr(settings, name) != saved["config"].get(name, "") for name in _VALIDATED_BY)
    return saved["step"], saved.get("owes_validation", False) or others


def _find(settings: RunConfig, speaks: bool) -> tuple[Path | None, dict[str, Any] | None]:
    if settings.resume != "auto":
        return (Path(settings.resume), checkpoint.load(settings.resume)) if settings.resume else (None, None)
    path, saved, damaged = checkpoint.newest_whole(Path(settings.out) / "checkpoints")
    for sentence in damaged if speaks and path else ():
        _logger.warning("%s; going on from %s instead", sentence, path.name if path else "the start")
    return path, saved


def _require_same_run(task: Task, settings: RunConfig, path: Path, saved: dict[str, Any]) -> None:
    repeat = "repeat its options, or start a new run in another folder"
    for field in dataclasses.fields(settings):
        former = saved["config"].get(field.metadata["formerly"], field.default)
        now, then = getattr(settings, field.name), saved["config"].get(field.name, former)
        if now != then and not field.metadata["changeable_on_resume"]:
            raise UserError(f"`{field.name}` is {now}, but the run of {path} was begun with {then}; {repeat}")
    if saved["micro_batch"] != task.micro_batch:
        raise UserError(
            f"`micro_batch` is {task.micro_batch}, but the run of {path} was begun with {saved['micro_batch']}, "
            f"and what is computed depends on it; {repeat}"
        )
    order, then = ({"order": "full", **data}["order"] for data in (task.data_fingerprint, saved["data_fingerprint"]))
    if order != then:
        raise UserError(
            f"the photographs are shown in the order {order}, but the run of {path} was begun with `order` {then}; "
            f"give `order` {then}, or start a new run in another folder"
        )
    if saved["data_fingerprint"] != task.data_fingerprint:
        raise UserError(
            f"{task.summary} are not what the run of {path} was begun with; restore its files, or start a new run in "
            "another folder"
        )
