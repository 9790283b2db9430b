"""The scores of images, one after the other: of what a network predicts, or of alphas that are there as files."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dptmat import metrics
from dptmat.data.cases import Case, require_folder
from dptmat.data.image_io import LEVELS, read_alpha, read_image, read_trimap, require_same_size, write_png
from dptmat.data.regions import mark_region, require_region
from dptmat.data.trimaps import from_alpha
from dptmat.defaults import ERRORS, TRIMAP_SOURCES
from dptmat.device import choose_dtype, count_cores
from dptmat.errors import UserError
from dptmat.inference import original_of, predict_within_memory
from dptmat.orientations import predict_oriented
from dptmat.tiles import require_tile

_logger = logging.getLogger(__name__)

READERS = {"image": read_image, "trimap": read_trimap, "alpha": read_alpha, "prediction": read_alpha}
NOT_FINITE = (  # with mixed precision, and without
    "the network's alpha is not finite everywhere; use `amp` off, or another checkpoint",
    "the network's alpha is not finite everywhere; use another checkpoint",
)
AT_ONCE = 16  # images at most that are read or scored simultaneously: each takes 50 bytes per pixel

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Score:
    """The errors of one image in a region; `dptmat.metrics` tells their units. Of no pixel ``mse``, ``mad`` are NaN."""

    name: str
    image: str | None  # absolute paths of what was read; of what was written, relative to the folder of scores.json
    trimap: str | None
    alpha: str | None
    prediction: str | None
    unknown_pixels: int | None  # of the trimap, if there is one
    sad: float
    mse: float
    grad: float
    conn: float
    mad: float
    region_pixels: int  # that these errors count
    group: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """An image that could not be scored, and why; the reason does not begin with the name."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Sample:
    """An image on its way from its files to its score."""

    case: Case
    layers: dict[str, np.ndarray]  # by the keys of READERS: uint8 [H, W], the image [H, W, 3]; trimap 0, 1, 2


def score_network(
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
) -> Iterator[Score | LeftOut]:
    """Score what a network predicts for images.

    Args:
        cases, network, out, trimap, seed, tile, amp, region, tta: As for `dptmat.tasks.evaluate.evaluate`.

    Returns:
        An iterator that predicts as it goes, in the order of ``cases``.

    Raises:
        ValueError: A case lacks a path, or ``trimap`` or ``region`` is none of its choices.
        UserError: What would be written lies among what is read, ``tile`` is out of its range, or the network's device
            does not compute in the precision of ``amp``.
        OSError: The results cannot be written.
    """
    cases, made = list(cases), {"prediction": "alpha", **_made_trimaps(trimap)}
    wanted = [kind for kind in READERS if kind not in made]
    require_region(region)
    _require_cases(cases, wanted)
    require_tile(tile)
    dtype = choose_dtype(amp, next(network.parameters()).device)
    options = {"tile": tile, "autocast": None if dtype == torch.float32 else dtype}
    folder = _make_folders(out, made, cases)
    read = partial(_read, wanted=wanted, trimap=trimap, seed=seed)
    finish = partial(_finish, made=made, out=folder, region=region)
    return _run(cases, read, partial(_predict, network, options, tta), finish)


def score_files(
    cases: Iterable[Case],
    *,
    out: str | Path | None = None,
    trimap: str = "files",
    seed: int = 0,
    region: str = "unknown",
) -> Iterator[Score | LeftOut]:
    """Score alphas that are there as files.

    Args:
        cases, out, trimap, seed, region: As for `dptmat.tasks.evaluate.evaluate_files`.

    Returns:
        An iterator that reads as it goes, in the order of ``cases``.

    Raises:
        ValueError: A case lacks a path, or ``trimap`` or ``region`` is none of its choices.
        UserError: What would be written lies among what is read.
        OSError: The results cannot be written.
    """
    cases, made = list(cases), _made_trimaps(trimap)
    require_region(region)
    needless = region != "unknown" and not any(case.trimap for case in cases)
    without = {"image", *made, *(["trimap"] if needless else [])}
    wanted = [kind for kind in READERS if kind not in without]
    _require_cases(cases, wanted)
    folder = _make_folders(out, made, cases)
    read = partial(_read, wanted=wanted, trimap=trimap, seed=seed)
    return _run(cases, read, lambda sample: sample, partial(_finish, made=made, out=folder, region=region))


def takes_trimap(network: nn.Module) -> bool:
    """Tell whether a network is shown a trimap, or a mask of its foreground; the others see the image alone."""
    return bool(original_of(network).in_channels != 3)


def _made_trimaps(trimap: str) -> dict[str, str]:
    """Return the folder of the trimaps that are made instead of read, if any."""
    if trimap not in ("files", *TRIMAP_SOURCES):
        raise ValueError(f"`trimap` must be files, {' or '.join(TRIMAP_SOURCES)}, got {trimap!r}")
    return {} if trimap == "files" else {"trimap": "trimap"}


def _require_cases(cases: list[Case], wanted: list[str]) -> None:
    for case in cases:
        if lacking := [kind for kind in wanted if kind not in case.paths]:
            raise ValueError(f"a case must have {', '.join(wanted)}; {case} lacks {', '.join(lacking)}")


def _make_folders(out: str | Path | None, made: dict[str, str], cases: list[Case]) -> Path | None:
    """Make the folders to write to, unless ``out`` is the test set's own: what it holds need not be what is read."""
    if out is None:
        return None
    out = Path(out)
    require_folder(out)
    written = [out / name for name in made.values()]
    read = {  # without the subfolders that belong to the name
        path.parents[case.name.count("/")].resolve()
        for case in cases
        for path in (case.image, case.trimap, case.alpha)
        if path is not None
    }
    for folder in read:
        if folder.parent == out.resolve() or {folder, *folder.parents} & {other.resolve() for other in written}:
            raise UserError(f"`out` {out} holds {folder}, which is read; give another folder")
    for folder in (out, *written):
        folder.mkdir(parents=True, exist_ok=True)
    return out


def _run(
    cases: list[Case],
    read: Callable[[Case], _Sample | LeftOut],
    predict: Callable[[_Sample], _Sample | LeftOut],
    finish: Callable[[_Sample], Score],
) -> Iterator[Score | LeftOut]:
    """Take each case through the three stages: threads read ahead and finish behind, this one predicts."""
    at_once = min(count_cores(), AT_ONCE)
    with ThreadPoolExecutor(at_once) as threads:
        samples = map_ahead(threads, read, cases, at_once)
        predicted = map(_unless_left_out(predict), samples)
        yield from map_ahead(threads, _unless_left_out(finish), predicted, at_once)


def _unless_left_out(stage: Callable[[_Sample], _Result]) -> Callable[[_Sample | LeftOut], _Result | LeftOut]:
    return lambda sample: sample if isinstance(sample, LeftOut) else stage(sample)


def map_ahead(
    threads: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Yield work(item) in order; threads do it, and are ``ahead`` items ahead at most."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(threads.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def reason_of(error: UserError, case: Case) -> str:
    """Return what an error says, without the name of the image, which is told with it."""
    return str(error).removeprefix(f"{case.name}: ")


def _read(case: Case, wanted: list[str], trimap: str, seed: int) -> _Sample | LeftOut:
    try:
        layers = {kind: READERS[kind](case.path(kind)) for kind in wanted}
        require_same_size(case.name, **layers)
    except UserError as error:
        return LeftOut(case.name, reason_of(error, case))
    if trimap == "all-unknown":
        layers["trimap"] = np.ones_like(layers["alpha"])
    elif trimap == "from-alpha":
        layers["trimap"] = from_alpha(layers["alpha"], case.name, seed)
    return _Sample(case, layers)


def _predict(network: nn.Module, options: dict[str, Any], tta: bool, sample: _Sample) -> _Sample | LeftOut:
    name, layers = sample.case.name, sample.layers
    predict: Callable[[np.ndarray, np.ndarray], Tensor] = partial(predict_within_memory, network, name=name, **options)
    try:
        image, trimap = layers["image"], layers["trimap"]
        alpha = predict_oriented(predict, image, trimap) if tta else predict(image, trimap)
        if not alpha.isfinite().all():
            raise UserError(NOT_FINITE[options["autocast"] is None])
    except UserError as error:
        return LeftOut(name, str(error))
    prediction = (alpha * 255).byte().cpu().numpy()  # cut, not rounded
    return _Sample(sample.case, {**layers, "prediction": prediction})


def _finish(sample: _Sample, made: dict[str, str], out: Path | None, region: str) -> Score:
    """Write what was made for an image, and score it."""
    layers = dict(sample.layers)
    counted = mark_region(region, layers["alpha"], layers.get("trimap"), made="trimap" in made)
    if "trimap" in layers:
        layers["trimap"] = LEVELS[layers["trimap"]]
    paths: dict[str, str | None] = {kind: os.path.abspath(path) for kind, path in sample.case.paths.items()}
    for kind, folder in made.items():
        paths[kind] = None if out is None else f"{folder}/{sample.case.name}.png"
        if out is not None:
            write_png(out / folder / f"{sample.case.name}.png", layers[kind])
    files: dict[str, Any] = {kind: paths.get(kind) for kind in READERS}
    return Score(
        sample.case.name,
        **files,
        unknown_pixels=int(np.count_nonzero(layers["trimap"] == 128)) if "trimap" in layers else None,
        **{error: getattr(metrics, error)(layers["prediction"], layers["alpha"], counted) for error in ERRORS},
        region_pixels=int(np.count_nonzero(counted == 128)),
    )
