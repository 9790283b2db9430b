"""Scores of a test set: a network's predictions, or alphas that anything else made, against the true ones."""

import csv
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from math import nan
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import nn

from dptmat import metrics
from dptmat.data.image_io import LEVELS, read_alpha, read_image, read_trimap, require_same_size, write_png
from dptmat.data.trimaps import from_alpha
from dptmat.defaults import TRIMAP_SOURCES
from dptmat.device import choose_dtype, count_cores
from dptmat.errors import UserError
from dptmat.files import write_whole
from dptmat.inference import original_of, predict_within_memory
from dptmat.tiles import require_tile

METRICS = ("sad", "mse", "grad", "conn")
READERS = {"image": read_image, "trimap": read_trimap, "alpha": read_alpha, "prediction": read_alpha}

AT_ONCE = 16  # images at most that are read or scored together: each takes 50 bytes per pixel


@dataclass(frozen=True)
class Score:
    """The errors of one image; `dptmat.metrics` tells their units. Without unknown pixels ``mse`` is NaN."""

    name: str
    image: str | None  # absolute paths of what was read; of what was written, relative to the folder of scores.json
    trimap: str | None
    alpha: str
    prediction: str | None
    unknown_pixels: int
    sad: float
    mse: float
    grad: float
    conn: float


@dataclass(frozen=True)
class Evaluation:
    """The scores of a test set."""

    images: list[Score]
    mean: dict[str, float]  # by METRICS, over the images that have unknown pixels; NaN if there is none
    left_out: list[dict[str, str]]  # name and reason of each image that could not be scored
    checkpoint: str | None
    trimap: str  # "files", "all-unknown" or "from-alpha"
    seed: int | None  # of the trimaps from alphas
    known_regions: str  # of the predictions: "from trimap" if they were set to 0 and 255 there, or "as predicted"


def evaluate(
    cases: Iterable[dict[str, str | Path]],
    network: nn.Module | None = None,
    *,
    out: str | Path | None = None,
    trimap: str = "files",
    seed: int = 0,
    tile: int = 0,
    amp: str = "off",
    checkpoint: str | Path | None = None,
    report: Callable[[str], object] = print,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Score the alphas that a network predicts for the images of a test set, or that are there as files.

    The network sees each image at full size, on its own device, and its alphas are cut to 8 bits (255 alpha without the
    fraction), as in the published validation runs. Where the trimap is known they become 0 and 255, also those of
    MG-Matting, unless the network takes no trimap. Files are scored as they are. Meanwhile threads read the next images
    and score the last ones, on all cores up to AT_ONCE.

    An image that cannot be read, or whose pictures differ in size, is left out and the rest scored. One without unknown
    pixels is scored, but does not enter the mean, since its MSE is undefined.

    Args:
        cases: What `dptmat.data.image_io.pair` returns: ``name``, and paths by ``alpha``; by ``image`` for a network,
            by ``prediction`` without one; and by ``trimap`` unless trimaps are made. An ``image`` that is not needed is
            passed on.
        network: A network of `dptmat.create_model`, on any device.
        out: Folder to make and to write to: ``scores.csv`` and ``scores.json``; ``alpha/NAME.png``, what the network
            predicted; ``trimap/NAME.png``, the trimaps that were made.
        trimap: "files"; "all-unknown", to show the network nothing and score the whole image; or "from-alpha", to make
            it from the true alpha by `dptmat.data.trimaps.from_alpha`.
        seed: For "from-alpha", 0 <= seed < 2**64.
        tile: As for `dptmat.inference.predict_alpha`; 0 cuts an image only where the memory runs out.
        amp: Mixed precision: "off", "auto", "bf16" or "fp16", as for the trainer.
        checkpoint: File that the network is from, to be noted in scores.json.
        report: Is told, a line each, what is left out and why, and where smaller tiles are taken.
        progress: Is called after each image.

    Returns:
        The scores, in the order of ``cases``.

    Raises:
        ValueError: A case lacks a path, or an option is out of its range.
        UserError: What would be written lies among what is read, ``tile`` is out of its range, or the network's device
            does not compute in the precision of ``amp``.
        OSError: The results cannot be written.
    """
    if trimap not in ("files", *TRIMAP_SOURCES):
        raise ValueError(f"trimap must be files, {' or '.join(TRIMAP_SOURCES)}, got {trimap!r}")
    cases = list(cases)
    guided = network is not None and original_of(network).in_channels != 3
    # What is made instead of read, and the folder it goes to.
    made = ({} if network is None else {"prediction": "alpha"}) | (
        {"trimap": "trimap"} if trimap in TRIMAP_SOURCES else {}
    )
    wanted = [key for key in READERS if key not in made and (key != "image" or network is not None)]
    _require_cases(cases, wanted)
    options = {}
    if network is not None:
        require_tile(tile)
        dtype = choose_dtype(amp, next(network.parameters()).device)
        options = {"tile": tile, "override": guided, "autocast": None if dtype == torch.float32 else dtype}
    if out is not None:
        out = Path(out)
        _make_folders(out, made.values(), cases)

    images, left_out = [], []
    at_once = min(count_cores(), AT_ONCE)
    with ThreadPoolExecutor(at_once) as threads:
        samples = _map(threads, partial(_read, wanted=wanted, trimap=trimap, seed=seed), cases, at_once)
        if network is not None:
            samples = (_predict(network, sample, options, report) for sample in samples)
        for result in _map(threads, partial(_score, made=made, out=out), samples, at_once):
            progress()
            if isinstance(result, Score):
                images.append(result)
                if not result.unknown_pixels:
                    report(f"{result.name}: its trimap has no unknown pixel; MSE is undefined, the mean is without it")
            else:
                left_out.append(result)
                report(f"left out: {result['reason']}")
    evaluation = Evaluation(
        images=images,
        mean=mean_scores(images),
        left_out=left_out,
        checkpoint=os.path.abspath(checkpoint) if checkpoint else None,
        trimap=trimap,
        seed=seed if trimap == "from-alpha" else None,
        known_regions="from trimap" if guided and trimap != "all-unknown" else "as predicted",
    )
    if out is not None:
        _write_scores(out, evaluation)
    return evaluation


def mean_scores(images: Iterable[Score]) -> dict[str, float]:
    """Average the scores of the images that have unknown pixels, by METRICS; NaN if there is none."""
    counted = [score for score in images if score.unknown_pixels]
    return {name: fmean(getattr(score, name) for score in counted) if counted else nan for name in METRICS}


def table(evaluation: Evaluation) -> str:
    """Lay out the mean as papers print it, MSE times 1000, and the images' scores above it if they are 20 or fewer."""
    counted = sum(score.unknown_pixels > 0 for score in evaluation.images)
    rows = [(score.name, asdict(score)) for score in evaluation.images] if len(evaluation.images) <= 20 else []
    rows.append((f"mean of {counted}", evaluation.mean))
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  {'SAD':>9}  {'MSE x 1e-3':>10}  {'Grad':>9}  {'Conn':>9}"]
    for name, errors in rows:
        sad, mse, grad, conn = (errors[metric] for metric in METRICS)
        lines.append(f"{name:{width}}  {sad:9.3f}  {1000 * mse:10.3f}  {grad:9.3f}  {conn:9.3f}")
    return "\n".join(lines)


@dataclass
class _Sample:
    """An image on its way from its files to its score."""

    case: dict[str, str | Path]
    pictures: dict[str, np.ndarray]  # by the keys of READERS: uint8 [H, W], the image [H, W, 3]; trimap 0, 1, 2
    reason: str | None = None  # why it is left out


def _map(threads: ThreadPoolExecutor, work: Callable, items: Iterable, ahead: int) -> Iterator:
    """Yield work(item) in order; threads do it, and are ``ahead`` items ahead at most."""
    waiting = deque()
    for item in items:
        waiting.append(threads.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(case: dict[str, str | Path], wanted: list[str], trimap: str, seed: int) -> _Sample:
    try:
        pictures = {key: READERS[key](case[key]) for key in wanted}
        require_same_size(case["name"], **pictures)
    except UserError as error:
        return _Sample(case, {}, str(error))
    if trimap == "all-unknown":
        pictures["trimap"] = np.ones_like(pictures["alpha"])
    elif trimap == "from-alpha":
        pictures["trimap"] = from_alpha(pictures["alpha"], case["name"], seed)
    return _Sample(case, pictures)


def _predict(network: nn.Module, sample: _Sample, options: dict, report: Callable[[str], object]) -> _Sample:
    if sample.reason is not None:
        return sample
    name, pictures = sample.case["name"], sample.pictures

    def tell(line):
        report(f"{name}: {line}")

    try:
        alpha = predict_within_memory(network, pictures["image"], pictures["trimap"], name=name, **options)
        if not alpha.isfinite().all():
            raise UserError("the network's alpha is not finite everywhere; try --amp off")
    except UserError as error:
        return _Sample(sample.case, {}, f"{name}: {error}")
    pictures["prediction"] = (alpha * 255).byte().cpu().numpy()  # cut, not rounded
    return sample


def _score(sample: _Sample, made: dict[str, str], out: Path | None) -> Score | dict[str, str]:
    name = sample.case["name"]
    if sample.reason is not None:
        return {"name": name, "reason": sample.reason}
    pictures = sample.pictures | {"trimap": LEVELS[sample.pictures["trimap"]]}
    paths = {key: os.path.abspath(sample.case[key]) if key in sample.case else None for key in READERS}
    for key, folder in made.items():
        paths[key] = None if out is None else f"{folder}/{name}.png"
        if out is not None:
            write_png(out / paths[key], pictures[key])
    compared = [pictures[key] for key in ("prediction", "alpha", "trimap")]
    errors = {metric: getattr(metrics, metric)(*compared) for metric in METRICS}
    return Score(name, **paths, unknown_pixels=int(np.count_nonzero(pictures["trimap"] == 128)), **errors)


def _write_scores(out: Path, evaluation: Evaluation) -> None:
    columns = ["name", *METRICS, "unknown_pixels"]
    rows = [asdict(score) for score in evaluation.images]
    mean = {"name": "mean", **evaluation.mean, "unknown_pixels": ""}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *([row[column] for column in columns] for row in [*rows, mean])])
    write_whole(out / "scores.csv", lambda file: file.write(text.getvalue().encode(errors="surrogateescape")))
    # JSON has no NaN: reading it back turns each into None.
    content = json.loads(json.dumps(asdict(evaluation)), parse_constant=lambda constant: None)
    write_whole(out / "scores.json", lambda file: file.write(json.dumps(content, indent=1).encode()))


def _make_folders(out: Path, written: Iterable[str], cases: list[dict[str, str | Path]]) -> None:
    """Make the folders to write to, unless ``out`` is the test set's own: what it holds need not be what is read."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give the name of a folder")
    written = [out / name for name in written]
    for folder in {Path(case[key]).parent for case in cases for key in ("image", "trimap", "alpha") if key in case}:
        if folder.parent.resolve() == out.resolve() or folder.resolve() in [other.resolve() for other in written]:
            raise UserError(f"--out {out} holds {folder}, which is read; give another folder")
    for folder in (out, *written):
        folder.mkdir(parents=True, exist_ok=True)


def _require_cases(cases: list[dict[str, str | Path]], wanted: list[str]) -> None:
    for case in cases:
        if lacking := [key for key in ("name", *wanted) if key not in case]:
            raise ValueError(f"a case must have name, {', '.join(wanted)}; {case} lacks {', '.join(lacking)}")
