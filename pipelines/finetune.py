"""Fine-tuning's samples: their foregrounds, backgrounds and windows, and the graph that cuts them out of the files."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dptmat.errors import UserError
from dptmat.kernels.permutation import permute, round_keys
from dptmat.kernels.philox import Stream
from dptmat.pipelines._dali import DataNode, Pipeline, fn, pipeline_def, types
from dptmat.pipelines.batches import Layers
from dptmat.pipelines.crop_window import (
    FILTERS,
    Foreground,
    Recipe,
    Windows,
    draw_second_foregrounds,
    draw_windows,
)
from dptmat.pipelines.probe import decode
from dptmat.pipelines.source import Count, Order, Photo, Photographs, Read, name_of

_FILTERS = {
    "nearest": types.INTERP_NN,
    "linear": types.INTERP_LINEAR,
    "cubic": types.INTERP_CUBIC,
    "lanczos": types.INTERP_LANCZOS3,
}
# What the graph is given of a batch, in this order: type and dimensions of a sample's share.
_FILES = dict.fromkeys(("fg", "alpha", "second_fg", "second_alpha", "bg"), (types.UINT8, 1))
_WINDOWS = {
    "combined": (types.BOOL, 0),
    "region": (types.FLOAT, 2),
    "shape": (types.FLOAT, 1),
    "matrix": (types.FLOAT, 2),
    "background_window": (types.FLOAT, 2),
    "filters": (types.INT32, 1),
    "choices": (types.FLOAT, 1),
}
_INPUTS = {**_FILES, **{name: _WINDOWS[name] for name in Windows._fields}, "ids": (types.INT64, 0)}


class FinetuneSource:
    """What a batch of sample ids shows: each background once in an epoch, the foregrounds in rounds of their own.

    A `dptmat.pipelines.source.Source`.

    Args:
        foregrounds: The foregrounds.
        backgrounds: The backgrounds.
        sampler: Order of the backgrounds.
        recipe: Ranges of the random changes.
        size: Side of the square crops in pixels.
    """

    outputs = Layers

    def __init__(
        self, foregrounds: Sequence[Foreground], backgrounds: Photographs, sampler: Order, recipe: Recipe, size: int
    ) -> None:
        self._foregrounds, self._backgrounds, self._sampler = foregrounds, backgrounds, sampler
        self._recipe, self._size = recipe, size

    def graph(self, feed: Callable[[], tuple], **options: Any) -> Pipeline:
        """Build the graph that ``feed`` gives the arguments of; ``options`` are its others and those of a pipeline."""
        return finetune_graph(feed, self._size, self._recipe.margin, **options)

    def arguments(self, ids: np.ndarray, bad: Mapping[str, str], read: Read) -> tuple:
        """Return the arguments of one batch of the graph, as `_INPUTS` names them."""
        foregrounds, second_foregrounds, backgrounds = self._shown(ids, bad)
        windows = draw_windows(ids, self._sampler.seed, foregrounds, second_foregrounds, self._size, self._recipe)
        kinds = np.array([int(_FILTERS[name]) for name in FILTERS], np.int32)
        columns: dict[str, list[Photo]] = {
            "fg": [foreground.fg for foreground in foregrounds],
            "alpha": [foreground.alpha for foreground in foregrounds],
            "second_fg": [second.fg for second in second_foregrounds],
            "second_alpha": [second.alpha for second in second_foregrounds],
            "bg": list(self._backgrounds.take(backgrounds)),
        }
        given: dict[str, Any] = {
            **{name: read(column, srgb="alpha" not in name) for name, column in columns.items()},
            **windows._replace(filters=kinds[windows.filters])._asdict(),
            "ids": ids,
        }
        return tuple(given[name] for name in _INPUTS)

    def files(self, ids: np.ndarray, bad: Mapping[str, str]) -> list[Photo]:
        """Return what the graph reads for samples ``ids``, each once."""
        foregrounds, second_foregrounds, backgrounds = self._shown(ids, bad)
        both = (*foregrounds, *second_foregrounds)
        photos: list[Photo] = [photo for foreground in both for photo in (foreground.fg, foreground.alpha)]
        return list(dict.fromkeys([*photos, *self._backgrounds.take(backgrounds)]))

    def require_some(self, bad: Mapping[str, str]) -> None:
        """Refuse to go on where nothing is left.

        Raises:
            UserError: All foregrounds are bad, or all backgrounds.
        """
        if not bad:
            return
        kinds = {
            "foregrounds": (len(self._foregrounds), self._is_bad_foreground),
            "backgrounds": (len(self._backgrounds), self._is_bad_background),
        }
        for kind, (count, is_bad) in kinds.items():
            if all(is_bad(number, bad) for number in range(count)):
                raise UserError(f"none of the {count} {kind} can be decoded; the messages above say why")

    def own(self, bad: Mapping[str, str]) -> dict[str, str]:
        """Take those of some bad files that are of a foreground or a background."""
        of_foregrounds = {name_of(photo) for f in self._foregrounds for photo in (f.fg, f.alpha)}
        times = zip(bad, self._backgrounds.occurrences(bad), strict=True)
        return {path: bad[path] for path, count in times if count or path in of_foregrounds}

    def count_bad(self, bad: Mapping[str, str]) -> list[Count]:
        """Count the foregrounds and the backgrounds that are bad; files of other data sets do not count."""
        foregrounds = sum(self._is_bad_foreground(number, bad) for number in range(len(self._foregrounds)))
        return [
            Count("foregrounds", foregrounds, len(self._foregrounds)),
            Count("backgrounds", int(self._backgrounds.occurrences(bad).sum()), len(self._backgrounds)),
        ]

    def _is_bad_foreground(self, number: int, bad: Mapping[str, str]) -> bool:
        foreground = self._foregrounds[number]
        return name_of(foreground.fg) in bad or name_of(foreground.alpha) in bad

    def _is_bad_background(self, number: int, bad: Mapping[str, str]) -> bool:
        return name_of(self._backgrounds[number]) in bad

    def _shown(self, ids: np.ndarray, bad: Mapping[str, str]) -> tuple[list[Foreground], list[Foreground], list[int]]:
        """Choose foregrounds, second foregrounds and the numbers of the backgrounds of samples ``ids``."""
        seed, count = self._sampler.seed, len(self._foregrounds)
        rounds, positions = np.divmod(ids, count)
        first = permute(positions, count, round_keys(seed, Stream.FOREGROUND, rounds)).tolist()
        second = draw_second_foregrounds(ids, seed, count).tolist()
        backgrounds = self._sampler.images_of(ids).tolist()
        if bad:
            for i, ident in enumerate(ids):
                others = itertools.chain([backgrounds[i]], self._sampler.substitutes(ident))
                backgrounds[i] = next(n for n in others if not self._is_bad_background(n, bad))
                first[i] = self._good_foreground(first[i], ident, bad)
                second[i] = self._good_foreground(second[i], ident, bad)
        foregrounds = self._foregrounds
        return [foregrounds[n] for n in first], [foregrounds[n] for n in second], backgrounds

    def _good_foreground(self, number: int, ident: int, bad: Mapping[str, str]) -> int:
        """Return ``number``, or if its files are bad one that (seed, sample id) chooses."""
        count, keys = len(self._foregrounds), round_keys(self._sampler.seed, Stream.SUBSTITUTE, ident)
        others = (int(permute(k, count, keys)[0]) for k in range(count))
        return next(n for n in itertools.chain([number], others) if not self._is_bad_foreground(n, bad))


@pipeline_def(enable_conditionals=True)
def finetune_graph(
    feed: Callable[[], tuple], size: int, margin: int, gpu: bool, hw_decoder_load: float, last_stage: str = "warp"
) -> tuple[DataNode, ...]:
    """Decode, resize the part that is needed, warp it to the window; five images of a sample.

    Args:
        feed: Callable that gives the arguments of one batch: five files as uint8 [bytes] each (foreground, alpha,
            second foreground, second alpha, background), the fields of ``Windows`` with DALI's filters, and the ids.
        size: Side of the square crop in pixels.
        margin: Pixels around the crop in all layers but the background.
        gpu: Whether to decode, resize and warp on the GPU.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1.
        last_stage: The last one to run, "read", "decode" or "warp": to measure what each takes.

    Returns:
        The fields of ``Layers``, or in place of the images what the last stage has made of them.
    """
    given = _take_inputs(feed)
    windows = Windows(*(given[name] for name in Windows._fields))
    fg_filter, alpha_filter, bg_filter = (fn.reinterpret(windows.filters[i], dtype=types.INTERP_TYPE) for i in range(3))
    side = size + 2 * margin

    def decoded(name: str, output_type: Any) -> DataNode:
        return given[name] if last_stage == "read" else decode(given[name], output_type, gpu, hw_decoder_load)

    def cut(image: DataNode, kind: DataNode, **fill: Any) -> DataNode:
        if last_stage != "warp":
            return image
        part = fn.resize(
            image, size=windows.shape, roi_start=windows.region[0], roi_end=windows.region[1], roi_relative=True,
            interp_type=kind, antialias=True,
        )  # fmt: skip
        return fn.warp_affine(
            part, matrix=windows.matrix, size=[side, side], interp_type=types.INTERP_LINEAR, inverse_map=True, **fill
        )

    # Beyond the frame the matte is empty, and the colour that of the edge.
    fg = cut(decoded("fg", types.RGB), fg_filter)
    alpha = cut(decoded("alpha", types.GRAY), alpha_filter, fill_value=0)
    if windows.combined:
        second_fg = cut(decoded("second_fg", types.RGB), fg_filter)
        second_alpha = cut(decoded("second_alpha", types.GRAY), alpha_filter, fill_value=0)
    else:
        second_fg, second_alpha = fg, alpha
    bg = decoded("bg", types.RGB)
    if last_stage == "warp":
        bg = fn.resize(
            bg, size=[size, size], roi_start=windows.background_window[0], roi_end=windows.background_window[1],
            roi_relative=True, interp_type=bg_filter, antialias=True,
        )  # fmt: skip
    choices, ids = given["choices"], given["ids"]
    return fg, alpha, second_fg, second_alpha, bg, choices.gpu() if gpu else choices, ids.gpu() if gpu else ids


def _take_inputs(feed: Callable[[], tuple]) -> dict[str, DataNode]:
    """Take what ``feed`` gives by its names."""
    dtypes, dimensions = [dtype for dtype, _ in _INPUTS.values()], [ndim for _, ndim in _INPUTS.values()]
    inputs = fn.external_source(feed, num_outputs=len(_INPUTS), batch=True, no_copy=True, dtype=dtypes, ndim=dimensions)
    return {name: inputs[i] for i, name in enumerate(_INPUTS)}
