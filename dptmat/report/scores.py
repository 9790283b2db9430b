"""What the page has on the test images: ``evaluation/scores.json``, which `dptmat.tasks.evaluate` writes."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from dptmat.defaults import ERRORS, METRICS, REGIONS, name_region
from dptmat.errors import UserError, first_line
from dptmat.report import figures
from dptmat.report.inside import require_inside

SHOWN = 24  # test images that are shown, of a larger test set
_LARGEST = 1 << 27  # bytes of the file; one with 10,000 images has 5 million
_LONGEST = 4096  # letters of a name or a reason
_TRIMAPS = {"files": "those of the test set", "all-unknown": "none was shown"}
_KNOWN_REGIONS = {
    "from trimap": "0 and 1 where the trimap is known, and of the network elsewhere",
    "as predicted": "of the network everywhere",
}
_FACTS = {
    "checkpoint": "checkpoint", "trimap": "trimap", "seed": "seed", "known_regions": "known regions",
    "region_from": "region from", "tta": "mean over eight orientations",
}  # fmt: skip
_MOST = 1e38  # that a score can be: more is no number of float32


def read_scores(run: Path, images: Sequence[str | Path]) -> dict[str, Any] | None:
    """Read what the page has on the scores of a run, or None if there are none.

    Args:
        run: Its folder.
        images: Further folders whose pictures may be shown.

    Raises:
        UserError: The file is not what this library writes.
    """
    folder = run / "evaluation"
    with _read(run) as scores:
        if scores is None:
            return None
        rows = [_row(entry) | {"number": at + 1} for at, entry in enumerate(scores["images"])]
        shown = choose([row["sad"] for row in rows])
        for at in shown:
            rows[at]["figures"] = figures.read_figures(
                scores["images"][at], folder, [run, *images], whole=scores["region"] == "whole"
            )
            rows[at]["comparable"] = figures.comparable(rows[at]["figures"])
        return {
            "rows": rows,
            "mean": _errors(scores["mean"]),
            "region": name_region(scores["region"], scores.get("trimap", "files")),
            "region_key": scores["region"],
            "errors": [error for error in ERRORS if error in scores["mean"]],
            "groups": _groups(scores),
            "left_out": [(_text(entry["name"]), _text(entry["reason"])) for entry in scores["left_out"]],
            "facts": {
                label: _text(str(scores[key]) if isinstance(scores[key], int) else scores[key])
                for key, label in _FACTS.items()
                if scores.get(key) is not None and scores[key] is not False
            },
            "shown": [rows[at] for at in shown],
        }


def read_means(run: Path) -> dict[str, Any] | None:
    """Read the mean scores of a run and what they are of, without names or places of files, or None if there are none.

    Returns:
        ``mean``, MSE times 1000; ``images``, their number; ``region``, ``trimap`` and ``known_regions`` in words;
        ``checkpoint``, the name of the file that was judged.

    Raises:
        UserError: The file is not what this library writes.
    """
    with _read(run) as scores:
        if scores is None:
            return None
        source, seed = scores["trimap"], scores["seed"]
        made = f"made from the true alphas, seed {int(seed)}" if source == "from-alpha" else _TRIMAPS[source]
        return {
            "mean": _errors(scores["mean"]),
            "images": sum(bool(entry.get("region_pixels", entry["unknown_pixels"])) for entry in scores["images"]),
            "region": name_region(scores["region"], source),
            "trimap": made,
            "known_regions": _KNOWN_REGIONS[scores["known_regions"]],
            "checkpoint": PurePath(_text(scores["checkpoint"] or "").replace("\\", "/")).name,
        }


@contextmanager
def _read(run: Path) -> Iterator[dict[str, Any] | None]:
    """Read the scores of a run, if there are any, and tell in a line what is found wrong with them."""
    path = run / "evaluation" / "scores.json"
    if not path.exists():
        yield None
        return
    require_inside(path, run, _LARGEST)
    try:
        scores = {"region": "unknown"} | json.loads(path.read_bytes())  # former versions knew no other one
        if scores["region"] not in REGIONS:
            raise ValueError(f"it knows no region {_text(scores['region'])[:80]!r}")
        yield scores
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{path} is not what dptmat evaluate writes: {reason}; evaluate again") from error


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    pixels = entry.get("region_pixels", entry["unknown_pixels"])
    if pixels is not None and (type(pixels) is not int or not 0 <= pixels < 1 << 53):
        raise TypeError("a number of pixels is none")
    for kind in figures.KINDS:
        if entry[kind] is not None and "\0" in _text(entry[kind]):
            raise ValueError("a path holds a zero byte")
    return {"name": _text(entry["name"]), "pixels": pixels, "figures": {}, **_errors(entry)}


def _groups(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the means of the groups of images, and the mean of these."""
    rows = []
    for group, means in scores.get("groups", {}).items():
        if type(means["images"]) is not int:
            raise TypeError("a number of images is none")
        rows.append({"name": _text(group), "images": means["images"], **_errors(means)})
    if rows and scores.get("mean_of_groups"):
        rows.append({"name": "Mean of these means", "images": None, **_errors(scores["mean_of_groups"])})
    return rows


def _errors(entry: dict[str, Any]) -> dict[str, float | None]:
    errors: dict[str, float | None] = {}
    for name in ERRORS:
        value = entry[name] if name in METRICS else entry.get(name)  # former versions had no others
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError(f"{name} is no number")
        if value is None or not math.isfinite(value) or abs(value) >= _MOST:
            errors[name] = None
        else:
            errors[name] = float(value) * (1000 if name in ("mse", "mad") else 1)
    return errors


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"it has a {type(value).__name__} where a text belongs")
    return value[:_LONGEST]


def choose(errors: Sequence[float | None]) -> list[int]:
    """Choose which images are shown, the worst first: all of a few, else as many worst, middle and best ones."""
    scored = sorted(((error, at) for at, error in enumerate(errors) if error is not None), key=lambda pair: -pair[0])
    ranked = [at for _, at in scored]
    if len(ranked) <= SHOWN:
        return (ranked + [at for at, error in enumerate(errors) if error is None])[:SHOWN]
    part = SHOWN // 3
    middle = (len(ranked) - part) // 2
    return ranked[:part] + ranked[middle : middle + part] + ranked[-part:]
