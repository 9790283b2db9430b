"""Where a fine-tuning sample is cut out: a window around unknown pixels of a foreground, and the same of a background.

The published augmentation (`Recipe`) resizes, warps and enlarges whole images and crops at the end. Here the crop is
chosen first, from a list of the foreground's unknown pixels, and only the window is ever computed.

Source: MG Matting (Yu et al., CVPR 2021) and GCA-Matting (Li and Lu, AAAI 2020), as their published code does it.
Differs: unknown pixels are those of the alpha, before the trimap is drawn; combined foregrounds count both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dptmat.kernels.philox import Stream, words
from dptmat.pipelines.augment import Augmentation, linear_map
from dptmat.pipelines.source import Photo

SQUARE = 640  # pixels: side of the square that some foregrounds are squeezed into
TURNED_FROM = 1024  # pixels: foregrounds whose longer side is less are not rotated
ENLARGED = 1.1  # a foreground smaller than the crop is enlarged to so many times its side
FEW = 10  # with fewer unknown pixels to choose from, the crop is anywhere
CELLS = 64  # of `Foreground.opaque`, in each direction
FILTERS = ("nearest", "linear", "cubic", "lanczos")  # in the order in which they are drawn
REFINE_OS4 = 29  # pixels: the widest ellipse around the uncertain region of alpha_os8; drawn from 1
REFINE_OS1 = 14  # likewise of alpha_os4
_BLOCKS = 5  # of four random words each, per sample
_BORDER = 2  # pixels around a region that filters may touch


class Foreground(NamedTuple):
    """A foreground with its alpha matte on disk, and what has to be known of them before they are decoded."""

    fg: Photo  # the colours: the path of a file, or what takes its place
    alpha: Photo  # the matte
    height: int
    width: int
    unknown: np.ndarray  # float32 [K, 2]: x and y of some unknown pixels, relative to width and height, K >= 1
    opaque: np.ndarray  # bool [CELLS, CELLS]: parts of the matte that are opaque throughout


@dataclass(frozen=True)
class Recipe:
    """Random changes to a sample; the settings of a run have their defaults."""

    augmentation: Augmentation
    combine: float  # chance of a second foreground
    squeeze: float  # chance that the foreground is resized to SQUARE x SQUARE
    interpolation: bool  # whether the filter of each resampling is drawn from FILTERS; else it is linear
    trimap_width: int  # pixels: the widest ellipse by which the known regions shrink; drawn from 1
    hue: int  # degrees: drawn from -hue..hue - 1

    @property
    def margin(self) -> int:
        """Pixels around the crop that its trimap depends on."""
        return self.trimap_width // 2 + 1


class Windows(NamedTuple):
    """Windows of N samples, in NumPy, and their other choices."""

    combined: np.ndarray  # bool [N]: whether there is a second foreground
    region: np.ndarray  # float32 [N, 2, 2]: start and end (y, x) of the part of the foreground needed, relative
    shape: np.ndarray  # float32 [N, 2]: height and width in pixels that the part is resized to
    matrix: np.ndarray  # float32 [N, 2, 3]: from a position (x, y) in the window with its margin to one in the part
    background_window: np.ndarray  # float32 [N, 2, 2]: start and end (y, x) of the window in the background, relative
    filters: np.ndarray  # int64 [N, 3]: number in FILTERS for foreground, alpha, background
    choices: np.ndarray  # float32 [N, 8], see CHOICES


# Columns of Windows.choices. Widths in pixels; hue in degrees; saturation and value in -1..1.
CHOICES = "combined", "fg_width", "bg_width", "hue", "saturation", "value", "os4_width", "os1_width"


def draw_second_foregrounds(ids: np.ndarray, seed: int, count: int) -> np.ndarray:
    """Draw the number of each sample's second foreground, uniform in [0, count): int64 [N]."""
    return words(seed, Stream.FINETUNE, ids, _BLOCKS).reshape(len(ids), -1)[:, 1].astype(np.int64) % count


def draw_windows(
    ids: np.ndarray,
    seed: int,
    foregrounds: Sequence[Foreground],
    second_foregrounds: Sequence[Foreground],
    size: int,
    recipe: Recipe,
) -> Windows:
    """Draw the windows of a batch.

    Words of stream FINETUNE, in this order: combine, second foreground, squeeze, place among the unknown pixels, x and
    y of a place anywhere, two widths of the trimap, hue, saturation, value, three filters, two widths of the
    refinement. The affine is that of stream AUGMENT, as in pre-training.

    Args:
        ids: Sample ids, int64 [N].
        seed: Seed of the run.
        foregrounds: That of each sample.
        second_foregrounds: The one that may be combined with it.
        size: Side of the square crop in pixels.
        recipe: Ranges of the random changes.
    """
    raw = words(seed, Stream.FINETUNE, ids, _BLOCKS).reshape(len(ids), -1)
    unit = raw / 2.0**32
    rotation, shear, _, zoom = recipe.augmentation.draw(ids, seed)
    squeezed = unit[:, 2] < recipe.squeeze
    frames = np.array([(first.width, first.height) for first in foregrounds], np.float64).reshape(-1, 2)  # x, y
    frames[squeezed] = SQUARE
    rotation = np.where(frames.max(1) < TURNED_FROM, 0.0, rotation)
    linear = linear_map(rotation, shear, zoom)
    combined = unit[:, 0] < recipe.combine
    # A filter other than the linear one shows where pixels come to lie between those of the file: at twice as many.
    density = np.where(recipe.interpolation & ~squeezed, 2.0, 1.0)
    places = []
    for i, (first, second) in enumerate(zip(foregrounds, second_foregrounds, strict=True)):
        unknown = _unknown_of_both(first, second) if combined[i] else first.unknown
        combined[i] &= len(unknown) > 0  # one covers what the other leaves open: nothing to find
        unknown = unknown if combined[i] else first.unknown
        scene = _Scene(frames[i], linear[i], size)
        corner = _choose_corner(scene.from_frame(unknown * frames[i]), scene.shape, unit[i, 3:6], size)
        places.append(_place(scene, corner, size, recipe.margin, density[i]))
    region, shape, matrix, background_window = (np.stack(column) for column in zip(*places, strict=True))
    filters = np.full((len(ids), 3), FILTERS.index("linear"))
    if recipe.interpolation:
        filters = (len(FILTERS) * unit[:, 11:14]).astype(np.int64)
    choices = _choices(combined, raw, unit, recipe)
    return Windows(combined, region, shape, matrix, background_window, filters, choices)


def _choices(
    combined: np.ndarray,  # bool [N]
    raw: np.ndarray,  # the words of stream FINETUNE, uint32 [N, 20]
    unit: np.ndarray,  # the same in 0..1, float64
    recipe: Recipe,
) -> np.ndarray:  # float32 [N, 8]
    def one_to(limit: int, column: int) -> np.ndarray:
        return 1 + raw[:, column] % limit

    columns = {
        "combined": combined,
        "fg_width": one_to(recipe.trimap_width, 6),
        "bg_width": one_to(recipe.trimap_width, 7),
        "hue": raw[:, 8] % max(2 * recipe.hue, 1) - float(recipe.hue),
        "saturation": 2 * unit[:, 9] - 1,
        "value": 2 * unit[:, 10] - 1,
        "os4_width": one_to(REFINE_OS4, 14),
        "os1_width": one_to(REFINE_OS1, 15),
    }
    return np.stack([columns[name] for name in CHOICES], axis=1).astype(np.float32)


def _unknown_of_both(first: Foreground, second: Foreground) -> np.ndarray:
    """Find the unknown pixels of either foreground that the other one does not cover: float32 [K, 2]."""
    return np.concatenate([_uncovered(first.unknown, second.opaque), _uncovered(second.unknown, first.opaque)])


def _uncovered(
    points: np.ndarray,  # float32 [K, 2]
    opaque: np.ndarray,  # bool [CELLS, CELLS]
) -> np.ndarray:  # float32 [K', 2]
    x, y = np.minimum((points * CELLS).astype(np.int64), CELLS - 1).T
    return points[~opaque[y, x]]


class _Scene:
    """What crops are cut from: a foreground's frame after the affine about its centre and the enlargement.

    Of three systems of coordinates, each (x, y) in pixels from the upper left corner, it joins two::

        frame                     scene                           window
        the foreground as    -->  the frame after affine     -->  size + 2 * margin from
        it is resized             and enlargement                 corner - margin on

    Args:
        frame: Width and height of the frame, float64 [2].
        linear: The affine, from the scene to the frame, float64 [2, 2].
        size: Side of the square crop in pixels.
    """

    def __init__(self, frame: np.ndarray, linear: np.ndarray, size: int) -> None:
        self.frame, self._linear, self._centre = frame, linear, frame / 2
        self._enlarged = ENLARGED * size / frame.min() if frame.min() <= size else 1.0
        self.shape = frame * self._enlarged  # width and height

    def from_frame(self, points: np.ndarray) -> np.ndarray:
        """Map positions in the frame to those in the scene: [K, 2]."""
        to_scene = self._enlarged * np.linalg.inv(self._linear)
        return (points - self._centre) @ to_scene.T + self._enlarged * self._centre

    def to_frame(self, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map a window that starts there in the scene to the frame: matrix [2, 2] and offset [2]."""
        offset = self._linear @ (start / self._enlarged - self._centre) + self._centre
        return self._linear / self._enlarged, offset


def _choose_corner(
    points: np.ndarray,  # of unknown pixels in the scene, [K, 2]
    scene: np.ndarray,  # width and height of the scene, [2]
    unit: np.ndarray,  # random numbers in 0..1, [3]
    size: int,
) -> np.ndarray:  # float64 [2], x and y
    """Choose the upper left corner of a crop within the scene, centred on one of the points where enough allow it."""
    inside = points[((points >= size / 2) & (points <= scene - size / 2)).all(1)]
    corner = inside[int(unit[0] * len(inside))] - size / 2 if len(inside) >= FEW else unit[1:3] * (scene - size)
    return np.clip(np.floor(corner), 0, np.maximum(scene - size, 0))


def _place(scene: _Scene, corner: np.ndarray, size: int, margin: int, density: float) -> tuple[np.ndarray, ...]:
    """Say how one sample's crop at ``corner`` is made: region, shape, matrix and background_window of ``Windows``."""
    matrix, offset = scene.to_frame(corner - margin)
    low, high = _reach(matrix, offset, size + 2 * margin, scene.frame)
    return (
        _rows(np.stack([low, high]) / scene.frame),
        _rows(density * (high - low)),
        (density * np.column_stack([matrix, offset - low])).astype(np.float32),
        _rows(np.stack([corner, corner + size]) / scene.shape),
    )


def _reach(
    matrix: np.ndarray, offset: np.ndarray, side: int, frame: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # float64 [2] each
    """Find the part of the frame that a square window shows, with a border for the filters: its start and its end."""
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * side
    reached = corners @ matrix.T + offset
    low = np.clip(np.floor(reached.min(0)) - _BORDER, 0, frame - 1)
    high = np.clip(np.ceil(reached.max(0)) + _BORDER, low + 1, frame)
    return low, high


def _rows(xy: np.ndarray) -> np.ndarray:
    """Turn (x, y) into (y, x), as DALI has them: float32."""
    return xy[..., ::-1].astype(np.float32)
