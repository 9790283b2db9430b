"""The model card of a network that is shared: ``README.md`` and ``loss.png``, with nothing of the machine in them."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from dptmat.files import write_whole
from dptmat.report.curves import number, thin
from dptmat.report.log import Log

CURVE = "loss.png"
_LONGEST = 200  # letters of a setting
_ORIGINS = {
    "": "How its weights were made is not known here.",
    "pretrain": "It was pre-trained by dptmat on photographs without labels, where alpha is random within random "
    "trimaps: it is a start for fine-tuning, and its mattes of photographs mean little before that.",
    "finetune": "It was fine-tuned by dptmat on foregrounds with mattes, over photographs.",
}


@dataclass(frozen=True)
class Facts:
    """What a card tells."""

    model: str
    trimap: bool
    task: str  # "pretrain", "finetune", or "" where it is not known
    settings: dict[str, Any]  # of the training; without paths
    step: int | None  # of the training
    data: dict[str, Any]  # count and digest
    version: str  # of dptmat
    log: Log = field(default_factory=Log)
    scores: dict[str, Any] | None = None  # as `dptmat.report.scores.read_means` gives them


def write_card(folder: str | Path, name: str, license: str, facts: Facts) -> None:
    """Write ``README.md``, and ``loss.png`` if the log has losses.

    Args:
        folder: Where they go.
        name: The repository, ``user/name``.
        license: As the Hub calls it.
        facts: What the card tells.

    Raises:
        OSError: A file cannot be written.
    """
    curve = _draw_loss(facts.log)
    if curve:
        write_whole(Path(folder, CURVE), lambda file: file.write(curve))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    template = environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    init = str(facts.settings.get("init", ""))
    text = template.render(
        name=name,
        license=license,
        model=facts.model,
        trimap=facts.trimap,
        base="/".join(init.removeprefix("hf://").partition("@")[0].split("/")[:2]) if init.startswith("hf://") else "",
        origin=_ORIGINS[facts.task],
        fine=facts.task == "finetune",
        scores=facts.scores,
        data=facts.data,
        curve=CURVE if curve else "",
        settings={key: _plain(value) for key, value in facts.settings.items()},
        step=facts.step,
        version=facts.version,
    )
    write_whole(Path(folder, "README.md"), lambda file: file.write(text.encode("utf-8")))


def _plain(value: object) -> str:
    """Write a value into a table of Markdown, where it could end a cell or the code in it."""
    return str(value).replace("`", "'").replace("|", "/")[:_LONGEST]


def _draw_loss(log: Log) -> bytes:
    """Draw the loss against the step as a PNG; nothing where there is none."""
    rows = [row for row in log.rows if np.isfinite(row.get("loss", np.nan))]
    if len(rows) < 2:
        return b""
    steps = np.array([int(row["step"]) for row in rows])
    losses = np.array([[row["loss"]] for row in rows])
    step, mean, least, most = (column.squeeze() for column in thin(steps, losses, (int(steps[0]), int(steps[-1]))))
    with matplotlib.style.context("default"):  # whatever the user has set
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="loss")
        axes.fill_between(step, least, most, alpha=0.25, linewidth=0)
        axes.plot(step, mean, marker="." if len(step) <= 40 else "")
        axes.grid(alpha=0.3)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    return file.getvalue()
