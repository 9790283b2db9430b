"""The evaluation of a test set: its images' scores and their mean, as a value, as files, and as a table."""

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from dptmat.data.cases import Case
from dptmat.defaults import METRICS
from dptmat.files import write_whole
from dptmat.tasks.score import LeftOut, Score, score_files, score_network, takes_trimap
from dptmat.weights.hub import is_address

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """The scores of a test set."""

    images: list[Score]
    mean: dict[str, float]  # by METRICS, over the images that have unknown pixels; NaN if there is none
    left_out: list[LeftOut]
    checkpoint: str | None
    trimap: str  # "files", "all-unknown" or "from-alpha"
    seed: int | None  # of the trimaps from alphas
    known_regions: str  # of the predictions: "from trimap" if they were set to 0 and 255 there, or "as predicted"


def evaluate(
    cases: Iterable[Case],
    network: nn.Module,
    *,
    out: str | Path | None = None,
    trimap: str = "files",
    seed: int = 0,
    tile: int = 0,
    amp: str = "off",
    checkpoint: str | Path | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Score the alphas that a network predicts for the images of a test set.

    The network sees each image at full size, on its own device, and its alphas are cut to 8 bits (255 alpha without the
    fraction), as in the published validation runs. Where the trimap is known they become 0 and 255, as `predict` has
    them, unless the network takes no trimap. Meanwhile threads read the next images and score the last ones.

    An image that cannot be read, or whose files differ in size, is left out and the rest scored. One without unknown
    pixels is scored, but does not enter the mean, since its MSE is undefined. Both are logged.

    Args:
        cases: With ``image``, ``alpha`` and, unless trimaps are made, ``trimap``.
        network: A network of `dptmat.create_model`, on any device.
        out: Folder to make and to write to: ``scores.csv`` and ``scores.json``; ``alpha/NAME.png``, what the network
            predicted; ``trimap/NAME.png``, the trimaps that were made.
        trimap: "files"; "all-unknown", to show the network nothing and score the whole image; or "from-alpha", to make
            it from the true alpha by `dptmat.data.trimaps.from_alpha`.
        seed: For "from-alpha", 0 <= seed < 2**64.
        tile: As for `dptmat.inference.predict_alpha`; 0 cuts an image only where the memory runs out.
        amp: Mixed precision, one of `dptmat.defaults.PRECISIONS`.
        checkpoint: File that the network is from, to be noted in scores.json.
        progress: Is called after each image.

    Returns:
        The scores, in the order of ``cases``.

    Raises:
        ValueError: A case lacks a path, or ``trimap`` is none of its choices.
        UserError: What would be written lies among what is read, ``tile`` is out of its range, or the network's device
            does not compute in the precision of ``amp``.
        OSError: The results cannot be written.
    """
    results = score_network(cases, network, out=out, trimap=trimap, seed=seed, tile=tile, amp=amp)
    return _evaluate(
        results,
        out,
        progress,
        checkpoint=_place_of(checkpoint) if checkpoint else None,
        trimap=trimap,
        seed=seed if trimap == "from-alpha" else None,
        known_regions="from trimap" if takes_trimap(network) and trimap != "all-unknown" else "as predicted",
    )


def evaluate_files(
    cases: Iterable[Case],
    *,
    out: str | Path | None = None,
    trimap: str = "files",
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Score alphas that are there as files, whatever made them, as they are.

    Args:
        cases: With ``prediction``, ``alpha`` and, unless trimaps are made, ``trimap``. An ``image`` is passed on.
        out: Folder to make and to write to: ``scores.csv`` and ``scores.json``; ``trimap/NAME.png``, the trimaps that
            were made.
        trimap, seed, progress: As for `evaluate`.

    Returns:
        The scores, in the order of ``cases``.

    Raises:
        ValueError: A case lacks a path, or ``trimap`` is none of its choices.
        UserError: What would be written lies among what is read.
        OSError: The results cannot be written.
    """
    return _evaluate(
        score_files(cases, out=out, trimap=trimap, seed=seed),
        out,
        progress,
        checkpoint=None,
        trimap=trimap,
        seed=seed if trimap == "from-alpha" else None,
        known_regions="as predicted",
    )


def _place_of(checkpoint: str | Path) -> str:
    return str(checkpoint) if is_address(checkpoint) else os.path.abspath(checkpoint)


def _evaluate(
    results: Iterable[Score | LeftOut], out: str | Path | None, progress: Callable[[], object], **about: Any
) -> Evaluation:
    """Take all results, and what else there is to say about them, together."""
    images, left_out = [], []
    for result in results:
        progress()
        log_exception(result)
        if isinstance(result, LeftOut):
            left_out.append(result)
        else:
            images.append(result)
    evaluation = Evaluation(images, mean_scores(images), left_out, **about)
    if out is not None:
        write_scores(out, evaluation)
    return evaluation


def log_exception(result: Score | LeftOut) -> None:
    """Log an image that is left out, or that does not enter the mean."""
    if isinstance(result, LeftOut):
        _logger.warning("left out: %s: %s", result.name, result.reason)
    elif not result.unknown_pixels:
        _logger.warning("%s: its trimap has no unknown pixel; MSE is undefined, the mean is without it", result.name)


def mean_scores(images: Iterable[Score]) -> dict[str, float]:
    """Average the scores of the images that have unknown pixels, by METRICS; NaN if there is none."""
    counted = [score for score in images if score.unknown_pixels]
    return {name: fmean(getattr(score, name) for score in counted) if counted else nan for name in METRICS}


def table(evaluation: Evaluation) -> str:
    """Lay out the mean as papers print it, MSE times 1000, and the images' scores above it if they are 20 or fewer."""
    counted = sum(score.unknown_pixels > 0 for score in evaluation.images)
    few = evaluation.images if len(evaluation.images) <= 20 else []
    rows = [(" ".join(score.name.splitlines()), asdict(score)) for score in few]
    rows.append((f"mean of {counted}", evaluation.mean))
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  {'SAD':>9}  {'MSE x 1e-3':>10}  {'Grad':>9}  {'Conn':>9}"]
    for name, errors in rows:
        sad, mse, grad, conn = (errors[metric] for metric in METRICS)
        lines.append(f"{name:{width}}  {sad:9.3f}  {1000 * mse:10.3f}  {grad:9.3f}  {conn:9.3f}")
    return "\n".join(lines)


def write_scores(out: str | Path, evaluation: Evaluation) -> None:
    """Write OUT/scores.csv, a row per image and the mean, and OUT/scores.json, all that the evaluation holds.

    A name that a spreadsheet would take for a formula has an apostrophe before it in scores.csv.

    Raises:
        OSError: They cannot be written.
    """
    columns = ["name", *METRICS, "unknown_pixels"]
    rows = [asdict(score) | {"name": _as_text(score.name)} for score in evaluation.images]
    mean = {"name": "mean", **evaluation.mean, "unknown_pixels": ""}
    text = io.StringIO(newline="")
    for row in [dict(zip(columns, columns, strict=True)), *rows, mean]:
        # Some versions of Python do not see that a CR, too, ends a row.
        writer = csv.writer(
            text, lineterminator="\n", quoting=csv.QUOTE_ALL if "\r" in row["name"] else csv.QUOTE_MINIMAL
        )
        writer.writerow([row[column] for column in columns])
    write_whole(Path(out) / "scores.csv", lambda file: file.write(text.getvalue().encode(errors="surrogateescape")))
    # JSON has no NaN: reading it back turns each into None.
    content = json.loads(json.dumps(asdict(evaluation)), parse_constant=lambda constant: None)
    write_whole(Path(out) / "scores.json", lambda file: file.write(json.dumps(content, indent=1).encode()))


def _as_text(name: str) -> str:
    """Keep a spreadsheet from computing a name."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
