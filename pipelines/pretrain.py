"""Pre-training's samples, and the graph that makes augmented square views of them, on the GPU where there is one."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dptmat.errors import UserError
from dptmat.pipelines._dali import DataNode, Pipeline, fn, math, pipeline_def, types
from dptmat.pipelines.augment import Augmentation
from dptmat.pipelines.batches import Views
from dptmat.pipelines.probe import decode
from dptmat.pipelines.resample import LONGEST_ASPECT
from dptmat.pipelines.source import Count, Order, Photo, Photographs, Read, name_of
from dptmat.pipelines.views_cpu import shrink_on_cpu, squash_on_cpu, warp_on_cpu


class PretrainSource:
    """What a batch of sample ids shows: each photograph once in an epoch. A `dptmat.pipelines.source.Source`.

    Args:
        index: The photographs.
        sampler: Their order.
        augmentation: Ranges of the random changes.
        size: Side of the square views in pixels.
        fit: "crop" to cut the views out of photographs with ``size`` pixels on their shorter side, "squash" to give
            all photographs this size, whatever their shape.
    """

    outputs: Callable[..., Any] = Views

    def __init__(
        self, index: Photographs, sampler: Order, augmentation: Augmentation, size: int, fit: str = "crop"
    ) -> None:
        self._index, self._sampler, self._augmentation = index, sampler, augmentation
        self._size, self._fit = size, fit

    def graph(self, feed: Callable[[], tuple], **options: Any) -> Pipeline:
        """Build the graph that ``feed`` gives the arguments of; ``options`` are its others and those of a pipeline."""
        return pretrain_graph(feed, self._size, fit=self._fit, **options)

    def arguments(self, ids: np.ndarray, bad: Mapping[str, str], read: Read) -> tuple:
        """Return the arguments of one batch of the graph: encoded photographs, affine, color and ids."""
        affine, color = self._augmentation.matrices(ids, self._sampler.seed, self._size)
        return read(self.files(ids, bad)), affine, color, ids

    def files(self, ids: np.ndarray, bad: Mapping[str, str]) -> list[Photo]:
        """Return the photographs that the graph reads for samples ``ids``."""
        return list(self._index.take(self._images(ids, bad)))

    def require_some(self, bad: Mapping[str, str]) -> None:
        """Refuse to go on where nothing is left.

        Raises:
            UserError: All photographs are bad.
        """
        count = len(self._index)
        if bad and all(self._is_bad(image, bad) for image in range(count)):
            name = name_of(self._index[count - 1])
            raise UserError(f"none of the {count} photographs can be decoded, the last one {name}: {bad[name]}")

    def own(self, bad: Mapping[str, str]) -> dict[str, str]:
        """Take those of some bad files that are among the photographs."""
        return {name: bad[name] for name, times in zip(bad, self._index.occurrences(bad), strict=True) if times}

    def count_bad(self, bad: Mapping[str, str]) -> list[Count]:
        """Count the photographs that are bad; files of other data sets do not count."""
        return [Count("photographs", int(self._index.occurrences(bad).sum()), len(self._index))]

    def _is_bad(self, image: int, bad: Mapping[str, str]) -> bool:
        return name_of(self._index[image]) in bad

    def _images(self, ids: np.ndarray, bad: Mapping[str, str]) -> list[int]:
        """Return the numbers of the photographs shown by samples ``ids``, with substitutes for the bad ones."""
        return self._substitute(self._sampler.images_of(ids).tolist(), ids, bad)

    def _substitute(self, images: list[int], ids: np.ndarray, bad: Mapping[str, str]) -> list[int]:
        """Put others, drawn by the ids, in place of the numbers of bad photographs."""
        for i, ident in enumerate(ids if bad else ()):
            others = itertools.chain([images[i]], self._sampler.substitutes(int(ident)))
            images[i] = next(other for other in others if not self._is_bad(other, bad))
        return images


@pipeline_def
def pretrain_graph(
    feed: Callable[[], tuple],
    size: int,
    gpu: bool,
    hw_decoder_load: float,
    last_stage: str = "warp",
    fit: str = "crop",
) -> tuple[DataNode, ...]:
    """Decode, shrink, warp.

    Args:
        feed: Callable that gives the arguments of one batch: photographs as uint8 [bytes] each, affine
            float32 [N, 2, 3], color float32 [N, 3, 3], ids int64 [N] (see ``Augmentation.matrices``).
        size: Side of the square views in pixels.
        gpu: Whether to decode, shrink and warp on the GPU.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1.
        last_stage: The last one to run, "read", "decode", "shrink" or "warp": to measure what each takes.
        fit: As for `PretrainSource`.

    Returns:
        views uint8 [N, size, size, 3] RGB, or what the last stage has made; color float32 [N, 3, 3], ids int64 [N].
    """
    encoded, affine, color, ids = fn.external_source(
        feed, num_outputs=4, batch=True, no_copy=True, dtype=[types.UINT8, types.FLOAT, types.FLOAT, types.INT64],
        ndim=[1, 2, 2, 0],
    )  # fmt: skip
    others = (color.gpu(), ids.gpu()) if gpu else (color, ids)
    if last_stage == "read":
        return encoded, *others
    photo = decode(encoded, types.RGB, gpu, hw_decoder_load)  # from here on the GPU
    if last_stage == "decode":
        return photo, *others
    photo, shape = shrink_photograph(encoded, photo, size, fit, gpu)
    if last_stage == "shrink":
        return photo, *others
    return warp_photograph(photo, affine, shape, size, gpu), *others


def shrink_photograph(
    encoded: DataNode, photo: DataNode, size: int, fit: str, gpu: bool
) -> tuple[DataNode, DataNode | None]:
    """Resize photographs in a graph: uint8 [H, W, 3], and on the GPU their height and width, float32 [2]."""
    if fit == "squash":
        if not gpu:
            return squash_on_cpu(photo, size), None
        squashed = fn.resize(photo, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=False)
        return squashed, types.Constant(np.array([size, size], np.float32))
    if not gpu:
        return shrink_on_cpu(photo, size), None
    shape = shrunk_shape(encoded, size)
    return fn.resize(photo, size=shape, interp_type=types.INTERP_LINEAR, antialias=True), shape


def warp_photograph(photo: DataNode, affine: DataNode, shape: DataNode | None, size: int, gpu: bool) -> DataNode:
    """Warp photographs in a graph to square views; ``shape`` is that of `shrink_photograph`."""
    return _warp_on_gpu(photo, affine, shape, size) if gpu else warp_on_cpu(photo, affine, size)


def shrunk_shape(encoded: DataNode, size: int) -> DataNode:
    """Compute the height and width of photographs as `resample.shrink` makes them, from their heads alone.

    To ask a decoded photograph would let the CPU wait for the GPU's decoder, and the GPU for the CPU's answer.

    Args:
        encoded: uint8 [bytes] of each file.
        size: Pixels on the shorter side.

    Returns:
        float32 [2] each.
    """
    shape = fn.slice(fn.peek_image_shape(encoded, dtype=types.FLOAT), 0, 2, axes=[0])
    shorter, longer = math.min(shape[0], shape[1]), math.max(shape[0], shape[1])
    scale = math.min(float(size) / shorter, float(LONGEST_ASPECT * size) / longer)
    return math.max(1.0, math.floor(scale * shape + 0.5))


def _warp_on_gpu(photo: DataNode, affine: DataNode, shape: DataNode, size: int) -> DataNode:
    centre = fn.stack(shape[1], shape[0]) * 0.5  # x, y
    affine = fn.transforms.translation(affine, offset=centre)
    # Without a fill value, pixels from outside the photograph repeat its edge.
    return fn.warp_affine(photo, matrix=affine, size=[size, size], interp_type=types.INTERP_LINEAR, inverse_map=True)
