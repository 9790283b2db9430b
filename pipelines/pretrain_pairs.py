"""Pre-training's samples where a photograph looks otherwise behind a sample than in front, or alpha moves with it."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dptmat.kernels.philox import SECOND, Stream, words
from dptmat.kernels.synthesize_cpu import draw_pairing
from dptmat.pipelines._dali import DataNode, Pipeline, fn, pipeline_def, types
from dptmat.pipelines.augment import Augmentation, draw_interpolations
from dptmat.pipelines.batches import Pairs
from dptmat.pipelines.pretrain import PretrainSource, shrink_photograph, warp_photograph
from dptmat.pipelines.probe import decode
from dptmat.pipelines.source import Order, Photo, Photographs, Read


@dataclass(frozen=True)
class Pairing:
    """How a sample is put together of two photographs; the settings of a run have their defaults."""

    background: str  # "pairing": another one of the batch; "anew": any of all photographs
    augment_background: bool  # whether it is moved and its colours changed, or left as it is
    move_alpha: bool  # whether the foreground is moved together with its alpha, after that was made
    interpolation: bool  # whether that is done by interpolations that are drawn; else by the linear one
    colors: str  # "hue": rotated as a matrix does it; "hsv": hue, saturation and value

    @property
    def within_batch(self) -> bool:
        """Whether a sample's background is another photograph of its batch; else it is drawn from all."""
        return self.background == "pairing"

    @property
    def one_view(self) -> bool:
        """Whether a photograph looks the same in front of a sample and behind another one."""
        return self.within_batch and self.augment_background and not self.move_alpha

    def warped(self, fit: str) -> tuple[bool, bool]:
        """Tell whether the graph warps foregrounds, and backgrounds; what is squashed and stays needs no warp."""
        foregrounds, backgrounds = not self.move_alpha, self.augment_background and not self.one_view
        return foregrounds or fit != "squash", backgrounds or (fit != "squash" and not self.one_view)


class PairSource(PretrainSource):
    """What a batch of sample ids shows: foregrounds as in `PretrainSource`, and what lies behind them.

    Args:
        index, sampler, augmentation, size, fit: As for `PretrainSource`.
        pairing: How samples are put together.
    """

    outputs: Callable[..., Any] = Pairs

    def __init__(
        self,
        index: Photographs,
        sampler: Order,
        augmentation: Augmentation,
        size: int,
        fit: str,
        pairing: Pairing,
    ) -> None:
        super().__init__(index, sampler, augmentation, size, fit)
        self._pairing = pairing

    def graph(self, feed: Callable[[], tuple], **options: Any) -> Pipeline:
        """Build the graph that ``feed`` gives the arguments of; ``options`` are its others and those of a pipeline."""
        return pairs_graph(feed, self._size, self._fit, self._pairing, **options)

    def arguments(self, ids: np.ndarray, bad: Mapping[str, str], read: Read) -> tuple:
        """Return the arguments of one batch of the graph: see `pairs_graph`."""
        pairing, seed, count = self._pairing, self._sampler.seed, len(ids)
        moved, color = self._draw_look(ids)
        if pairing.augment_background:
            moved_behind, color_behind = (moved, color) if pairing.within_batch else self._draw_look(ids + SECOND)
        else:
            none = np.eye(3, dtype=np.float32) if pairing.colors == "hue" else np.zeros(3, np.float32)
            moved_behind, color_behind = self._stay(count), np.broadcast_to(none, color.shape)
        affines = self._stay(count) if pairing.move_alpha else moved, moved_behind
        return (
            *(read(photos) for photos in self._columns(ids, bad)),
            *itertools.compress(affines, pairing.warped(self._fit)),
            draw_pairing(ids[:1], seed, count) if pairing.within_batch else np.arange(count),
            np.stack([color, color_behind], 1),
            self._augmentation.moves(ids, seed, self._size),
            draw_interpolations(ids, seed) if pairing.interpolation else np.ones((count, 2), np.int64),
            ids,
        )

    def _draw_look(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw affines, float32 [N, 2, 3], and changes of colour: matrices, or in HSV [N, 3]."""
        affine, color = self._augmentation.matrices(ids, self._sampler.seed, self._size)
        return affine, self._augmentation.jitters(ids, self._sampler.seed) if self._pairing.colors == "hsv" else color

    def _stay(self, count: int) -> np.ndarray:
        """Return affines that only cut a picture out of the middle: float32 [N, 2, 3]."""
        return np.tile(np.array([[1, 0, -self._size / 2], [0, 1, -self._size / 2]], np.float32), (count, 1, 1))

    def files(self, ids: np.ndarray, bad: Mapping[str, str]) -> list[Photo]:
        """Return the photographs that the graph reads for samples ``ids``, each once."""
        return list(dict.fromkeys(itertools.chain(*self._columns(ids, bad))))

    def _columns(self, ids: np.ndarray, bad: Mapping[str, str]) -> list[list[Photo]]:
        """List the photographs of the foregrounds and, where they are others, those of the backgrounds."""
        foregrounds = super().files(ids, bad)
        if self._pairing.within_batch:
            return [foregrounds]
        return [foregrounds, list(self._index.take(self._backgrounds(ids, bad)))]

    def _backgrounds(self, ids: np.ndarray, bad: Mapping[str, str]) -> list[int]:
        """Draw the numbers of the photographs behind samples ``ids``, with substitutes for the bad ones."""
        drawn = words(self._sampler.seed, Stream.BACKGROUND, ids, 1)[:, 0].astype(np.uint64)
        images = (drawn[:, 0] | drawn[:, 1] << np.uint64(32)) % np.uint64(len(self._index))
        return self._substitute(images.tolist(), ids + SECOND, bad)


@pipeline_def
def pairs_graph(
    feed: Callable[[], tuple],
    size: int,
    fit: str,
    pairing: Pairing,
    gpu: bool,
    hw_decoder_load: float,
    last_stage: str = "warp",
) -> tuple[DataNode, ...]:
    """Decode, shrink, and warp what is not to be moved later.

    Args:
        feed: Callable that gives the arguments of one batch: photographs as uint8 [bytes] each, and backgrounds where
            they are others; the affines of both, where they are warped, float32 [N, 2, 3] (see
            ``Augmentation.matrices``); and the fields of ``Pairs`` from ``pairing`` on.
        size: Side of the square pictures in pixels.
        fit: As for `PretrainSource`.
        pairing: How samples are put together.
        gpu: Whether to decode, shrink and warp on the GPU.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1.
        last_stage: The last one to run, "read", "decode", "shrink" or "warp": to measure what each takes.

    Returns:
        The fields of ``Pairs``, or in place of the images what the last stage has made of them.
    """
    columns, warped = 1 if pairing.within_batch else 2, pairing.warped(fit)
    affines = columns + sum(warped)
    dtypes = [types.UINT8] * columns + [types.FLOAT] * sum(warped) + [types.INT64, types.FLOAT] + [types.INT64] * 3
    ndim = [1] * columns + [2] * sum(warped) + [0, 3 if pairing.colors == "hue" else 2, 2, 1, 0]
    given = list(fn.external_source(feed, num_outputs=len(ndim), batch=True, no_copy=True, dtype=dtypes, ndim=ndim))
    matrices = iter(given[columns:affines])
    views = [next(matrices) if needed else None for needed in warped]

    def pictures(encoded: DataNode, views: list[DataNode | None]) -> list[DataNode]:
        if last_stage == "read":
            return [encoded] * len(views)
        photo = decode(encoded, types.RGB, gpu, hw_decoder_load)
        if last_stage == "decode":
            return [photo] * len(views)
        photo, shape = shrink_photograph(encoded, photo, size, fit, gpu)
        unchanged = last_stage == "shrink"
        return [
            photo if unchanged or matrix is None else warp_photograph(photo, matrix, shape, size, gpu)
            for matrix in views
        ]

    if columns == 2:
        fg, bg = (pictures(one, [view])[0] for one, view in zip(given, views, strict=False))
    elif pairing.one_view:
        fg, bg = pictures(given[0], views[:1]) * 2
    else:
        fg, bg = pictures(given[0], views)
    return fg, bg, *(other.gpu() if gpu else other for other in given[affines:])
