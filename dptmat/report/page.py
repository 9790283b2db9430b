"""A run on one page: its settings, the curves of its log, its scores and images, in a file that needs no other."""

import json
import logging
import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from dptmat.config import settings as config
from dptmat.defaults import METRICS
from dptmat.errors import UserError
from dptmat.files import write_output
from dptmat.report import curves, figures
from dptmat.report.curves import Chart, chart, number
from dptmat.report.figures import Figure
from dptmat.report.log import OTHER_NUMBERS, Log, read_log

SHOWN = 24  # test images that are shown, of a larger test set
_NAMED = 100  # left-out photographs that the page names
_FACTS = {
    "model": "Network", "init": "Starts from", "data": "Photographs", "fg": "Foregrounds", "alpha": "Alphas",
    "bg": "Backgrounds", "losses": "Losses", "batch_size": "Batch size", "lr": "Peak learning rate", "seed": "Seed",
}  # fmt: skip
_METRICS = dict(zip(METRICS, ("SAD", "MSE × 10⁻³", "Grad", "Conn"), strict=True))  # as the page writes them

_logger = logging.getLogger(__name__)


def report(run: str | Path, out: str | Path) -> None:
    """Write one HTML file on a training run, which shows all without a network or other files.

    What the page has to say is missing, such as test images that have been moved, is logged as warnings.

    Args:
        run: Folder with ``log.jsonl`` and ``config.toml`` of a pre-training or a fine-tuning, also of one that still
            goes on; ``evaluation/scores.json``, ``preview.png`` and ``predictions.png`` are shown if they are there.
        out: The file to write.

    Raises:
        UserError: The folder or its log is missing, or one of its files is not what this library writes.
        OSError: ``out`` cannot be written.
    """
    run = Path(run)
    log = read_log(run)
    settings = config.read_toml(run / "config.toml", "settings")
    evaluation = _evaluation(run / "evaluation")
    found = {name: figures.read_sheet(name, run / f"{name}.png") for name in ("predictions", "preview")}
    sheets = {name: sheet for name, sheet in found.items() if sheet}
    page = _template().render(
        run=run,
        kind="Fine-tuning" if "fg" in settings else "Pre-training",
        settings=settings,
        facts={label: settings[key] for key, label in _FACTS.items() if settings.get(key, "") != ""},
        date=datetime.fromtimestamp((run / "log.jsonl").stat().st_mtime),
        log=log,
        latest=_latest(log),
        charts=_charts(log),
        evaluation=evaluation,
        evaluation_command=None if evaluation else _evaluation_command(run),
        sheets=sheets,
    )
    # Names of files need not be valid text.
    write_output(out, lambda file: file.write(page.encode("utf-8", errors="backslashreplace")))
    _name_missing(str(run), sheets)
    for row in evaluation["shown"] if evaluation else ():
        _name_missing(row["name"], row["figures"])


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    environment.globals |= {
        "chart_size": (curves.WIDTH, curves.HEIGHT),
        "chart_colors": curves.COLORS,
        "error_colors": ", ".join(f"#{bytes(color).hex()}" for color in figures.COLORS[:255:23]),
        "largest_error": figures.LARGEST_ERROR,
        "metrics": _METRICS,
        "named": _NAMED,
    }
    return environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))


def _name_missing(name: str, shown: dict[str, Figure]) -> None:
    for figure in shown.values():
        if figure.missing:
            _logger.warning("missing: %s: no %s: %s", name, figure.caption, figure.missing)


def _latest(log: Log) -> dict[str, str]:
    """Take the last numbers of the log, by what they are."""
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


def _charts(log: Log) -> list[Chart]:
    every = [int(row["step"]) for row in (*log.rows, *log.validations)]
    span = (min(every), max(every)) if every and min(every) < max(every) else (0, max(every, default=0))
    steps, values = _columns(log.rows)
    parts = {name: column for name, column in values.items() if name not in ("step", *OTHER_NUMBERS)}
    validation_steps, validation = _columns(log.validations)
    wanted: list[tuple[str, np.ndarray, dict[str, np.ndarray], dict[str, Any]]] = [
        ("Loss and its parts" if len(parts) > 1 else "Loss", steps, parts, {"may_be_log": True}),
        ("SAD of the validation", validation_steps, _only(validation, "sad"), {}),
        ("Images per second", steps, _only(values, "images_per_second"), {}),
        ("Share of the time waited for data, %", steps, _only(values, "waited", 100), {"top": 5}),
        ("Learning rate", steps, _only(values, "learning_rate"), {}),
        ("Norm of the gradient", steps, _only(values, "grad_norm"), {"may_be_log": True}),
    ]
    return [
        chart(title, at, numbers, span, **options)
        for title, at, numbers, options in wanted
        if any(np.isfinite(series).any() for series in numbers.values())
    ]


def _columns(rows: list[dict[str, float]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Turn N rows into columns: steps, int [N], and each number by its name, float [N], NaN where there is none."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
    return np.array([row["step"] for row in rows], int), table


def _only(values: dict[str, np.ndarray], name: str, factor: float = 1) -> dict[str, np.ndarray]:
    return {name.replace("_", " "): values[name] * factor} if name in values else {}


def _evaluation(folder: Path) -> dict[str, Any] | None:
    """Read what the page has on ``scores.json``, or None if there is none."""
    path = folder / "scores.json"
    if not path.is_file():
        return None
    try:
        scores = json.loads(path.read_bytes())
        rows: list[dict[str, Any]] = [
            {"number": at + 1, "name": entry["name"], "unknown_pixels": entry["unknown_pixels"], "figures": {}}
            | _scores(entry)
            for at, entry in enumerate(scores["images"])
        ]
        chosen = _choose([row["sad"] for row in rows])
        for at in chosen:
            rows[at]["figures"] = figures.read_figures(scores["images"][at], folder)
            rows[at]["comparable"] = figures.comparable(rows[at]["figures"])
        return {
            "rows": rows,
            "mean": _scores(scores["mean"]),
            "left_out": [(entry["name"], entry["reason"]) for entry in scores["left_out"]],
            "facts": {
                key.replace("_", " "): scores[key]
                for key in ("checkpoint", "trimap", "seed", "known_regions")
                if scores.get(key) is not None
            },
            "shown": [rows[at] for at in chosen],
        }
    except (ValueError, TypeError, KeyError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is not what dptmat evaluate writes: {reason}; evaluate again") from error


def _scores(entry: dict[str, Any]) -> dict[str, float | None]:
    scores = {name: entry[name] for name in METRICS}
    scores = {name: value if value is not None and math.isfinite(value) else None for name, value in scores.items()}
    return scores | {"mse": None if scores["mse"] is None else 1000 * scores["mse"]}


def _choose(errors: Sequence[float | None]) -> list[int]:
    """Choose which images are shown, the worst first: all of a few, else as many worst, middle and best ones."""
    scored = sorted(((error, at) for at, error in enumerate(errors) if error is not None), key=lambda pair: -pair[0])
    ranked = [at for _, at in scored]
    if len(ranked) <= SHOWN:
        return (ranked + [at for at, error in enumerate(errors) if error is None])[:SHOWN]
    part = SHOWN // 3
    middle = (len(ranked) - part) // 2
    return ranked[:part] + ranked[middle : middle + part] + ranked[-part:]


def _evaluation_command(run: Path) -> str:
    """Write the command that makes the scores which the run does not have."""
    from dptmat.training import checkpoint  # imports PyTorch, which a page needs for nothing else

    weights = shlex.quote(str(checkpoint.latest(run / "checkpoints") or "FILE"))
    return (
        f"dptmat evaluate --checkpoint {weights} \\\n"
        f"  --image DIR --trimap DIR --alpha DIR --out {shlex.quote(str(run / 'evaluation'))}"
    )
