"""The evaluation of a test set: its images' scores and their mean, as a value, as files, and as a table."""

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from dptmat.data.cases import Case
from dptmat.data.groups import read_groups
from dptmat.data.regions import tell_source
from dptmat.defaults import ERRORS, METRICS, name_region
from dptmat.files import write_whole
from dptmat.tasks.score import LeftOut, Score, score_files, score_network, takes_trimap
from dptmat.weights.hub import is_address

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """The scores of a test set."""

    images: list[Score]
    mean: dict[str, float]  # by ERRORS, over the images of which the region has pixels; NaN if there is none
    left_out: list[LeftOut]
    checkpoint: str | None
    trimap: str  # "files", "all-unknown" or "from-alpha"
    seed: int | None  # of the trimaps from alphas
    known_regions: str  # of the predictions: "from trimap" if they were set to 0 and 255 there, or "as predicted"
    region: str = "unknown"  # whose pixels count, one of `dptmat.defaults.REGIONS`
    region_from: str = "trimap"  # "every pixel", or what the region was made of
    tta: bool = False  # whether a prediction is the mean over eight orientations
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)  # by group: ``images`` that count, and their mean
    mean_of_groups: dict[str, float] | None = None  # each group counts once, as the column "Avg." of AIM-500


def evaluate(
    cases: Iterable[Case],
    network: nn.Module,
    *,
    out: str | Path | None = None,
    trimap: str = "files",
    seed: int = 0,
    tile: int = 0,
    amp: str = "off",
    region: str = "unknown",
    tta: bool = False,
    groups: str | Path | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Score the alphas that a network predicts for the images of a test set.

    The network sees each image at full size, on its own device, and its alphas are cut to 8 bits (255 alpha without the
    fraction), as in the published validation runs. Where the trimap is known they become 0 and 255, as `predict` has
    them, unless the network takes no trimap. Meanwhile threads read the next images and score the last ones.

    An image that cannot be read, or whose files differ in size, is left out and the rest scored. One without pixels of
    the region is scored, but does not enter the mean, since its MSE is undefined. Both are logged.

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
        region: Whose pixels count: "unknown", "whole" or "transition"; see `dptmat.data.regions`.
        tta: Whether a prediction is the mean over the eight orientations of its image, in eight times the time.
        groups: CSV file of `dptmat.data.groups.read_groups`, for means by group.
        checkpoint: File that the network is from, to be noted in scores.json.
        progress: Is called after each image.

    Returns:
        The scores, in the order of ``cases``.

    Raises:
        ValueError: A case lacks a path, or ``trimap`` or ``region`` is none of its choices.
        UserError: What would be written lies among what is read, ``tile`` is out of its range, the network's device
            does not compute in the precision of ``amp``, or ``groups`` is no such file.
        OSError: The results cannot be written.
    """
    cases = list(cases)
    by_name = _read_groups(groups, cases)
    results = score_network(
        cases, network, out=out, trimap=trimap, seed=seed, tile=tile, amp=amp, region=region, tta=tta
    )
    return _evaluate(
        results,
        out,
        progress,
        by_name,
        region=region,
        region_from=tell_source(region, trimap == "files"),
        tta=tta,
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
    region: str = "unknown",
    groups: str | Path | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Score alphas that are there as files, whatever made them, as they are.

    Args:
        cases: With ``prediction``, ``alpha`` and, unless trimaps are made or the region needs none, ``trimap``. An
            ``image`` is passed on.
        out: Folder to make and to write to: ``scores.csv`` and ``scores.json``; ``trimap/NAME.png``, the trimaps that
            were made.
        trimap, seed, region, groups, progress: As for `evaluate`.

    Returns:
        The scores, in the order of ``cases``.

    Raises:
        ValueError: A case lacks a path, or ``trimap`` or ``region`` is none of its choices.
        UserError: What would be written lies among what is read, or ``groups`` is no such file.
        OSError: The results cannot be written.
    """
    cases = list(cases)
    by_name = _read_groups(groups, cases)
    has_trimap = trimap == "files" and any(case.trimap for case in cases)
    return _evaluate(
        score_files(cases, out=out, trimap=trimap, seed=seed, region=region),
        out,
        progress,
        by_name,
        region=region,
        region_from=tell_source(region, has_trimap),
        checkpoint=None,
        trimap=trimap,
        seed=seed if trimap == "from-alpha" else None,
        known_regions="as predicted",
    )


def _place_of(checkpoint: str | Path) -> str:
    return str(checkpoint) if is_address(checkpoint) else os.path.abspath(checkpoint)


def _read_groups(path: str | Path | None, cases: list[Case]) -> dict[str, str]:
    return {} if path is None else read_groups(path, [case.name for case in cases])


def _evaluate(
    results: Iterable[Score | LeftOut],
    out: str | Path | None,
    progress: Callable[[], object],
    by_name: dict[str, str],
    **about: Any,
) -> Evaluation:
    """Take all results, and what else there is to say about them, together."""
    images, left_out = [], []
    for result in results:
        progress()
        log_exception(result)
        if isinstance(result, LeftOut):
            left_out.append(result)
        else:
            images.append(replace(result, group=by_name.get(result.name)))
    groups = {group: _mean_of_group(group, images) for group in by_name.values()}
    evaluation = Evaluation(
        images, mean_scores(images), left_out, **about, groups=groups, mean_of_groups=mean_of_groups(groups)
    )
    if out is not None:
        write_scores(out, evaluation)
    return evaluation


def log_exception(result: Score | LeftOut) -> None:
    """Log an image that is left out, or that does not enter the mean."""
    if isinstance(result, LeftOut):
        _logger.warning("left out: %s: %s", result.name, result.reason)
    elif not result.region_pixels:
        lack = "alpha has no transition" if result.unknown_pixels is None else "trimap has no unknown pixel"
        _logger.warning("%s: its %s; MSE is undefined, the mean is without it", result.name, lack)


def mean_scores(images: Iterable[Score]) -> dict[str, float]:
    """Average the scores of the images of which the region has pixels, by ERRORS; NaN if there is none."""
    counted = [score for score in images if score.region_pixels]
    return {name: fmean(getattr(score, name) for score in counted) if counted else nan for name in ERRORS}


def _mean_of_group(group: str, images: list[Score]) -> dict[str, Any]:
    members = [score for score in images if score.group == group]
    return {"images": sum(score.region_pixels > 0 for score in members), **mean_scores(members)}


def mean_of_groups(groups: dict[str, dict[str, Any]]) -> dict[str, float] | None:
    """Average the means of the groups that have images, each counted once, by ERRORS; None without groups."""
    counted = [means for means in groups.values() if means["images"]]
    return {name: fmean(means[name] for means in counted) if counted else nan for name in ERRORS} if groups else None


def table(evaluation: Evaluation) -> str:
    """Lay out the mean as papers print it, MSE and MAD times 1000, below a line that says what was counted.

    The images' scores stand above it if they are 20 or fewer, the means of groups below.
    """
    counted = sum(score.region_pixels > 0 for score in evaluation.images)
    few = evaluation.images if len(evaluation.images) <= 20 else []
    rows = [(" ".join(score.name.splitlines()), asdict(score)) for score in few]
    rows.append((f"mean of {counted}", evaluation.mean))
    rows += [(f"{group}, mean of {means['images']}", means) for group, means in evaluation.groups.items()]
    if evaluation.mean_of_groups:
        rows.append(("mean of these means", evaluation.mean_of_groups))
    width = max(len(name) for name, _ in rows)
    lines = [_head(evaluation)]
    lines.append(f"{'':{width}}  {'SAD':>9}  {'MSE x 1e-3':>10}  {'Grad':>9}  {'Conn':>9}  {'MAD x 1e-3':>10}")
    for name, errors in rows:
        sad, mse, grad, conn, mad = (errors[error] for error in ERRORS)
        lines.append(f"{name:{width}}  {sad:9.3f}  {1000 * mse:10.3f}  {grad:9.3f}  {conn:9.3f}  {1000 * mad:10.3f}")
    return "\n".join(lines)


def _head(evaluation: Evaluation) -> str:
    """Say what the numbers of a table count."""
    region = name_region(evaluation.region, evaluation.trimap)
    made = f" (from {evaluation.region_from})" if evaluation.region == "transition" else ""
    turned = ", mean over eight orientations" if evaluation.tta else ""
    return f"errors in {region}{made}; known regions {evaluation.known_regions}{turned}"


def write_scores(out: str | Path, evaluation: Evaluation) -> None:
    """Write OUT/scores.csv, a row per image and the mean, and OUT/scores.json, all that the evaluation holds.

    A name that a spreadsheet would take for a formula has an apostrophe before it in scores.csv.

    Raises:
        OSError: They cannot be written.
    """
    text = io.StringIO(newline="")
    for row in _csv_rows(evaluation):
        # Some versions of Python do not see that a CR, too, ends a row.
        has_return = any("\r" in str(cell) for cell in row)
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL)
        writer.writerow(row)
    write_whole(Path(out) / "scores.csv", lambda file: file.write(text.getvalue().encode(errors="surrogateescape")))
    # JSON has no NaN: reading it back turns each into None.
    content = json.loads(json.dumps(asdict(evaluation)), parse_constant=lambda constant: None)
    write_whole(Path(out) / "scores.json", lambda file: file.write(json.dumps(content, indent=1).encode()))


def _csv_rows(evaluation: Evaluation) -> list[list[Any]]:
    """List the rows of scores.csv: the names of the columns, each image, the mean, and the means of the groups."""
    columns = ["name", *METRICS, "unknown_pixels", "mad", "region_pixels", "region", "known_regions"]
    columns += ["group"] if evaluation.groups else []
    rows: list[dict[str, Any]] = [asdict(score) for score in evaluation.images]
    rows.append({"name": "mean", **evaluation.mean})
    rows += [{"name": f"mean of {group}", "group": group, **means} for group, means in evaluation.groups.items()]
    if evaluation.mean_of_groups:
        rows.append({"name": "mean of these means", **evaluation.mean_of_groups})
    about = {"region": evaluation.region, "known_regions": evaluation.known_regions}
    return [columns, *([_as_text((row | about).get(column, "")) for column in columns] for row in rows)]


def _as_text(cell: Any) -> Any:
    """Keep a spreadsheet from computing a name."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
