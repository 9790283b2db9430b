"""A run on one page: its settings, the curves of its log, its scores and images, in a file that needs no other."""

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
from dptmat.defaults import ERRORS, name_region
from dptmat.errors import UserError
from dptmat.files import write_output
from dptmat.report import curves, figures
from dptmat.report.curves import Chart, chart, number
from dptmat.report.figures import Figure
from dptmat.report.inside import require_inside
from dptmat.report.log import OTHER_NUMBERS, WITHOUT, Log, read_log
from dptmat.report.scores import read_scores

_NAMED = 100  # left-out photographs that the page names
_LARGEST_SETTINGS = 1 << 20  # bytes
_FACTS = {
    "model": "Network", "init": "Starts from", "data": "Photographs", "fg": "Foregrounds", "alpha": "Alphas",
    "bg": "Backgrounds", "losses": "Losses", "batch_size": "Batch size", "lr": "Peak learning rate", "seed": "Seed",
}  # fmt: skip
# As the page writes them.
_METRICS = dict(zip(ERRORS, ("SAD", "MSE × 10⁻³", "Grad", "Conn", "MAD × 10⁻³"), strict=True))

_logger = logging.getLogger(__name__)


def report(run: str | Path, out: str | Path, images: Sequence[str | Path] = ()) -> None:
    """Write one HTML file on a training run, which shows all without a network or other files.

    What the page has to say is missing, such as test images that have been moved, is logged as warnings.

    Args:
        run: Folder with ``log.jsonl`` and ``config.toml`` of a pre-training or a fine-tuning, also of one that still
            goes on; ``evaluation/scores.json``, ``preview.png`` and ``predictions.png`` are shown if they are there.
        out: The file to write.
        images: Folders outside of ``run`` whose pictures may be shown, such as those of the test set.

    Raises:
        UserError: The folder or its log is missing, or one of its files is not what this library writes.
        OSError: ``out`` cannot be written.
    """
    run = Path(run)
    log = read_log(run)
    settings = _read_settings(run / "config.toml", run)
    for folder in images:
        if not Path(folder).is_dir():
            raise UserError(f"`images` {folder} is no folder; give one that holds images of the run's scores")
    evaluation = read_scores(run, images)
    found = {name: figures.read_sheet(name, run / f"{name}.png", run) for name in ("predictions", "preview")}
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
        validated_in=name_region("unknown", str(settings.get("val_trimap", ""))),
        evaluation_command=None if evaluation else _evaluation_command(run),
        sheets=sheets,
    )
    # Names of files need not be valid text.
    write_output(out, lambda file: file.write(page.encode("utf-8", errors="backslashreplace")))
    shown = [
        (str(run), sheets),
        *((row["name"], row["figures"]) for row in (evaluation["shown"] if evaluation else ())),
    ]
    _name_missing(run, [(name, figure) for name, some in shown for figure in some.values() if figure.missing])


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


def _name_missing(run: Path, missing: list[tuple[str, Figure]]) -> None:
    """Log which images are missing; those that lie elsewhere in one line."""
    outside = [figure for _, figure in missing if figure.outside]
    for name, figure in missing:
        if not figure.outside:
            _logger.warning("missing: %s: no %s: %s", name, figure.caption, figure.missing)
    if outside:
        _logger.warning(
            "left out: %s images that are not in `run` %s, such as %s; name the folder that they are in by `images`",
            len(outside), run, outside[0].outside,
        )  # fmt: skip


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
        if WITHOUT in log.validations[-1]:
            latest["without trimaps, of the whole image"] = number(log.validations[-1][WITHOUT])
    return latest


def _charts(log: Log) -> list[Chart]:
    every = [int(row["step"]) for row in (*log.rows, *log.validations)]
    span = (min(every), max(every)) if every and min(every) < max(every) else (0, max(every, default=0))
    steps, values = _columns(log.rows)
    parts = {name: column for name, column in values.items() if name not in ("step", *OTHER_NUMBERS)}
    validation_steps, validation = _columns(log.validations)
    without = _only(validation, WITHOUT)
    wanted: list[tuple[str, np.ndarray, dict[str, np.ndarray], dict[str, Any]]] = [
        ("Loss and its parts" if len(parts) > 1 else "Loss", steps, parts, {"may_be_log": True}),
        (_name_validation("sad" if without else ""), validation_steps, _only(validation, "sad"), {}),
        (_name_validation(WITHOUT), validation_steps, without, {}),
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


def _name_validation(which: str) -> str:
    """Name a curve of a validation: the only one, or one of two, whose regions differ."""
    shown = {"sad": ", trimaps shown: in the unknown region", WITHOUT: ", no trimaps shown: over the whole image"}
    return f"SAD of the validation{shown.get(which, '')}"


def _columns(rows: list[dict[str, float]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Turn N rows into columns: steps, int [N], and each number by its name, float [N], NaN where there is none."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
    return np.array([row["step"] for row in rows], int), table


def _only(values: dict[str, np.ndarray], name: str, factor: float = 1) -> dict[str, np.ndarray]:
    return {name.replace("_", " "): values[name] * factor} if name in values else {}


def _read_settings(path: Path, run: Path) -> dict[str, Any]:
    """Read the settings of a run, of whatever version: plain values by name.

    Raises:
        UserError: They are none.
    """
    require_inside(path, run, _LARGEST_SETTINGS)
    settings = config.read_toml(path, "settings")
    for name, value in settings.items():
        if not isinstance(value, str | int | float):
            raise UserError(
                f"settings {path} hold a {type(value).__name__} under {name[:80]!r}; restore the file of the training"
            )
    if type(settings.get("steps", 0)) is not int:
        raise UserError(f"settings {path} hold no number of steps; restore the file of the training")
    return settings


def _evaluation_command(run: Path) -> str:
    """Write the command that makes the scores which the run does not have."""
    from dptmat.training import checkpoint  # imports PyTorch, which a page needs for nothing else

    weights = shlex.quote(str(checkpoint.latest(run / "checkpoints") or "FILE"))
    return (
        f"dptmat evaluate --checkpoint {weights} \\\n"
        f"  --image DIR --trimap DIR --alpha DIR --out {shlex.quote(str(run / 'evaluation'))}"
    )
