"""Reading the log of a run, ``log.jsonl``, which ``dptmat.training.log`` writes: a JSON object on each line, one of

- ``{"step": 20, "loss": 0.41, "l1": 0.2, ..., "grad_norm": null, "learning_rate": 1e-4, "images_per_second": 812.5,
  "waited": 0.01, "waited_host": 0.2}``: numbers of a step, null where not finite; the waits are shares of the time;
- ``{"step": 20, "validation": {"sad": 12.5, "mse": 0.01, "grad": 3.1, "conn": 11.0}}``: scores of a validation; in a
  pre-training also ``sad_without_trimap`` and so on, of the whole images where the network is shown no trimap;
- ``{"step": 20, "skipped": [17, 4]}``: a step without update, since loss or gradient was not finite, and its samples;
- ``{"step": 20, "advice": "..."}``: what would make the run faster;
- ``{"left_out": "photos/a.jpg", "reason": "..."}``: a file that cannot be used.

A run that goes on after a kill drops the lines of the steps that it does again; a kill can cut the last line short.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from dptmat.defaults import WITHOUT_TRIMAP
from dptmat.errors import UserError
from dptmat.report.inside import require_inside

_LARGEST = 1 << 30  # bytes of a log; one of a million lines has 300 million
_LONGEST = 1 << 20  # bytes of a line; the longest names the samples of a batch
_MOST_NAMES = 64  # of numbers, in the whole log
_MOST = 1e38  # that a number can be: more is none of float32
_LETTERS = 4096  # of a name or a reason
WITHOUT = f"sad{WITHOUT_TRIMAP}"
OTHER_NUMBERS = ("grad_norm", "learning_rate", "images_per_second", "waited", "waited_host")  # no parts of the loss


@dataclass(frozen=True)
class Log:
    """What a log holds, in ascending order of the steps."""

    rows: list[dict[str, float]] = field(default_factory=list)  # "step" and numbers, NaN where there is none
    validations: list[dict[str, float]] = field(default_factory=list)  # the same
    left_out: list[dict[str, str]] = field(default_factory=list)  # "left_out", "reason"


def read_log(run: str | Path) -> Log:
    """Read the log of a run; a last line that a kill has cut short is skipped.

    Raises:
        UserError: There is no log, or a line of it is not of one.
    """
    path = Path(run) / "log.jsonl"
    if not Path(run).is_dir():
        raise UserError(f"`run` {run} is no folder; give the folder that a training wrote, its `out`")
    if not path.is_file():
        raise UserError(f"`run` {run} holds no log.jsonl; give the folder that a training wrote, its `out`")
    require_inside(path, Path(run), _LARGEST)
    log, names = Log(), set[str]()
    with open(path, "rb") as file:
        for at, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
            if not line.endswith(b"\n") and len(line) < _LONGEST:
                break
            try:
                _add(log, json.loads(line), names)
            except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
                raise UserError(f"{path}: line {at} is not of a training's log; restore the file") from error
    for rows in (log.rows, log.validations):
        rows.sort(key=lambda row: row["step"])
    return log


def _add(log: Log, entry: dict, names: set[str]) -> None:
    if "left_out" in entry:
        log.left_out.append({name: _text(entry[name]) for name in ("left_out", "reason")})
    elif "validation" in entry:
        log.validations.append(_numbers(entry["validation"], names) | {"step": _step(entry)})
    elif "skipped" not in entry and "advice" not in entry:  # the former is a gap in the curves
        log.rows.append(_numbers(entry, names) | {"step": _step(entry)})


def _step(entry: dict) -> int:
    step = entry["step"]
    if type(step) is not int or not 0 <= step < 1 << 53:
        raise ValueError("it is no number of steps")
    return step


def _text(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    return value[:_LETTERS]


def _numbers(entry: dict, names: set[str]) -> dict[str, float]:
    """Take numbers by name, NaN for what is none of float32; ``names`` are all that there were before."""
    numbers = {}
    for name, value in entry.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError("it is no number")
        names.add(name[:_LETTERS])
        numbers[name[:_LETTERS]] = float(value) if value is not None and abs(value) < _MOST else math.nan
    if len(names) > _MOST_NAMES:
        raise ValueError("there are too many kinds of numbers")
    return numbers
