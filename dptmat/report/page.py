"""A run on one page: its settings, the curves of its log, its scores and pictures, in a file that needs no other."""

import json
import math
import shlex
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import jinja2
import numpy as np

from dptmat.config import settings as config
from dptmat.errors import UserError
from dptmat.files import write_whole
from dptmat.report import figures
from dptmat.report.curves import chart, number
from dptmat.training import checkpoint

PICTURED = 24  # test images of which the page has pictures, of a larger test set
_NAMED = 100  # left-out photographs that the page names
_FACTS = {
    "model": "Network", "init": "Starts from", "data": "Photographs", "fg": "Foregrounds", "alpha": "Alphas",
    "bg": "Backgrounds", "losses": "Losses", "batch_size": "Batch size", "lr": "Peak learning rate", "seed": "Seed",
}  # fmt: skip


def report(run: str | Path, out: str | Path) -> list[str]:
    """Write one HTML file on a training run, which shows all without a network or other files.

    Args:
        run: Folder with ``log.jsonl`` and ``config.toml`` of a pre-training or a fine-tuning, also of one that still
            goes on; ``evaluation/scores.json``, ``preview.png`` and ``predictions.png`` are shown if they are there.
        out: The file to write.

    Returns:
        What the page has to say is missing, such as test images that have been moved: a line each.

    Raises:
        UserError: The folder or its log is missing, or one of its files is not what this library writes.
        OSError: ``out`` cannot be written.
    """
    run = Path(run)
    log = read_log(run)
    settings = config.read_toml(run / "config.toml", "settings")
    evaluation = _evaluation(run / "evaluation")
    sheets = {name: figures.sheet(name, run / f"{name}.png") for name in ("predictions", "preview")}
    sheets = {name: sheet for name, sheet in sheets.items() if sheet}
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    page = environment.from_string(template).render(
        run=run,
        kind="Fine-tuning" if "fg" in settings else "Pre-training",
        settings=settings,
        facts={label: settings[key] for key, label in _FACTS.items() if settings.get(key, "") != ""},
        date=datetime.fromtimestamp((run / "log.jsonl").stat().st_mtime),
        log=log,
        latest=_latest(log),
        charts=_charts(log),
        evaluation=evaluation,
        evaluation_folder=shlex.quote(str(run / "evaluation")),
        checkpoint=shlex.quote(str(checkpoint.latest(run / "checkpoints") or "FILE")),
        sheets=sheets,
        colours=", ".join(f"#{bytes(colour).hex()}" for colour in figures.COLOURS[:255:23]),
        largest_error=figures.LARGEST_ERROR,
        named=_NAMED,
    )
    # Names of files need not be valid text.
    write_whole(out, lambda file: file.write(page.encode("utf-8", errors="backslashreplace")))
    shown = [(str(run), picture) for picture in sheets.values()]
    for row in evaluation["pictured"] if evaluation else ():
        shown += [(row["name"], picture) for picture in row["pictures"].values()]
    return [f"{name}: no {picture.caption}: {picture.missing}" for name, picture in shown if picture.missing]


@dataclass(frozen=True)
class Log:
    """What ``log.jsonl`` holds, in ascending order of the steps."""

    rows: list[dict] = field(default_factory=list)  # "step", int, and numbers, NaN where there is none
    validations: list[dict] = field(default_factory=list)  # the same
    left_out: list[dict] = field(default_factory=list)  # "left_out", "reason"


def read_log(run: str | Path) -> Log:
    """Read the log of a run; a last line that a kill has cut short is skipped.

    Raises:
        UserError: There is no log, or a line of it is none of `Progress`.
    """
    path = Path(run) / "log.jsonl"
    if not Path(run).is_dir():
        raise UserError(f"--run {run} is no folder; give the folder that a training wrote, its --out")
    if not path.is_file():
        raise UserError(f"--run {run} holds no log.jsonl; give the folder that a training wrote, its --out")
    log = Log()
    for at, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            entry = json.loads(line)
            if "left_out" in entry:
                log.left_out.append(entry)
            elif "skipped" in entry or "advice" in entry:
                continue  # the former is a gap in the curves
            elif "validation" in entry:
                log.validations.append(_numbers(entry["validation"]) | {"step": int(entry["step"])})
            else:
                log.rows.append(_numbers(entry) | {"step": int(entry["step"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: line {at} is not of a training's log; restore the file") from error
    for entries in (log.rows, log.validations):
        entries.sort(key=lambda entry: entry["step"])
    return log


def _numbers(entry):
    numbers = {name: math.nan if value is None else float(value) for name, value in entry.items()}
    return {name: value if math.isfinite(value) else math.nan for name, value in numbers.items()}


def _latest(log):
    """The last numbers of the log, by what they are: text."""
    latest = {}
    if log.rows:
        row = log.rows[-1]
        latest["step"] = f"{row['step']:,}"
        latest["loss"] = number(row.get("loss"))
        latest["images per second"] = number(row.get("images_per_second"))
        latest["of the time waited for data"] = f"{100 * row.get('waited', math.nan):.1f} %".replace("nan %", "–")
    if log.validations:
        latest["SAD of the last validation"] = number(log.validations[-1].get("sad"))
    return latest


def _charts(log):
    span = [entry["step"] for entry in (*log.rows, *log.validations)]
    span = (min(span), max(span)) if span and min(span) < max(span) else (0, max(span, default=0))
    steps, values = _columns(log.rows)
    others = ("step", "grad_norm", "learning_rate", "images_per_second", "waited", "waited_host")
    parts = {name: column for name, column in values.items() if name not in others}
    validation_steps, validation = _columns(log.validations)
    wanted = [
        ("Loss and its parts" if len(parts) > 1 else "Loss", steps, parts, {"may_be_log": True}),
        ("SAD of the validation", validation_steps, _only(validation, "sad"), {}),
        ("Images per second", steps, _only(values, "images_per_second"), {}),
        ("Share of the time waited for data, %", steps, _only(values, "waited", 100), {"top": 5}),
        ("Learning rate", steps, _only(values, "learning_rate"), {}),
        ("Norm of the gradient", steps, _only(values, "grad_norm"), {"may_be_log": True}),
    ]
    return [
        chart(title, steps, numbers, span, **options)
        for title, steps, numbers, options in wanted
        if any(np.isfinite(series).any() for series in numbers.values())
    ]


def _columns(rows):
    """Steps, int [N], and each number by its name, float [N], NaN where there is none."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
    return np.array([row["step"] for row in rows], int), table


def _only(values, name, factor=1):
    return {name.replace("_", " "): values[name] * factor} if name in values else {}


def _evaluation(folder):
    """What the page has on ``scores.json``, or None if there is none."""
    path = folder / "scores.json"
    if not path.is_file():
        return None
    try:
        scores = json.loads(path.read_bytes())
        rows = [
            {"number": at + 1, "name": entry["name"], "unknown_pixels": entry["unknown_pixels"], "pictures": {}}
            | _scores(entry)
            for at, entry in enumerate(scores["images"])
        ]
        chosen = _chosen([row["sad"] for row in rows])
        for at in chosen:
            rows[at]["pictures"] = figures.pictures(scores["images"][at], folder)
            rows[at]["comparable"] = figures.comparable(rows[at]["pictures"])
        return {
            "rows": rows,
            "mean": _scores(scores["mean"]),
            "left_out": [(entry["name"], entry["reason"]) for entry in scores["left_out"]],
            "facts": {
                key.replace("_", " "): scores[key]
                for key in ("checkpoint", "trimap", "seed", "known_regions")
                if scores.get(key) is not None
            },
            "pictured": [rows[at] for at in chosen],
        }
    except (ValueError, TypeError, KeyError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is not what dptmat evaluate writes: {reason}; evaluate again") from error


def _scores(entry):
    scores = {name: entry[name] for name in ("sad", "mse", "grad", "conn")}
    scores = {name: value if value is not None and math.isfinite(value) else None for name, value in scores.items()}
    return scores | {"mse": None if scores["mse"] is None else 1000 * scores["mse"]}


def _chosen(errors):
    """Which images are pictured, the worst first: all of a few, else as many of the worst, the middle and the best."""
    scored = sorted((at for at, error in enumerate(errors) if error is not None), key=lambda at: -errors[at])
    ranked = scored + [at for at, error in enumerate(errors) if error is None]
    if len(scored) <= PICTURED:
        return ranked[:PICTURED]
    part = PICTURED // 3
    middle = (len(scored) - part) // 2
    return scored[:part] + scored[middle : middle + part] + scored[-part:]
