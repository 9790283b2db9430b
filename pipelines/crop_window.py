"""Where a fine-tuning sample is cut out: a window around unknown pixels of a foreground, and the same of a background.

The published augmentation (`Recipe`) resizes, warps and enlarges whole images and crops at the end. Here the crop is
chosen first, from a list of the foreground's unknown pixels, and only the window is ever computed.

Source: MG Matting (Yu et al., CVPR 2021) and GCA-Matting (Li and Lu, AAAI 2020), as their published code does it.
Differs: unknown pixels are those of the alpha, before the trimap is drawn; combined foregrounds count both.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dptmat.kernels.philox import Stream, words
from dptmat.pipelines.augment import Augmentation, linear_map

SQUARE = 640  # pixels: side of the square that some foregrounds are squeezed into
TURNED_FROM = 1024  # pixels: foregrounds whose longer side is less are not rotated
ENLARGED = 1.1  # a foreground smaller than the crop is enlarged to so many times its side
FEW = 10  # with fewer unknown pixels to choose from, the crop is anywhere
CELLS = 64  # of `Foreground.opaque`, in each direction
FILTERS = ("nearest", "linear", "cubic", "lanczos")
_BLOCKS = 5  # of four random words each, per sample
_BORDER = 2  # pixels around a region that filters may touch


class Foreground(NamedTuple):
    """A foreground with its alpha matte on disk, and what has to be known of them before they are decoded."""

    fg: str  # path of the colours
    alpha: str  # path of the matte
    height: int
    width: int
    unknown: np.ndarray  # float32 [K, 2]: x and y of some unknown pixels, relative to width and height, K >= 1
    opaque: np.ndarray  # bool [CELLS, CELLS]: parts of the matte that are opaque throughout


@dataclass(frozen=True)
class Recipe:
    """Random changes to a sample; the defaults are the published ones."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    combine: float = 0.5  # chance of a second foreground
    squeeze: float = 0.25  # chance that the foreground is resized to SQUARE x SQUARE
    interpolation: bool = True  # whether the filter of each resampling is drawn from FILTERS; else it is linear
    trimap_width: int = 29  # pixels: the widest ellipse by which the known regions shrink; drawn from 1
    hue: int = 40  # degrees: drawn from -hue..hue - 1
    refine_os4: int = 29  # pixels: the widest ellipse around the uncertain region of alpha_os8; drawn from 1
    refine_os1: int = 14  # likewise of alpha_os4

    @property
    def margin(self):
        """Pixels around the crop that its trimap depends on."""
        return self.trimap_width // 2 + 1


class Windows(NamedTuple):
    """Windows of N samples, in NumPy, and their other choices."""

    combined: np.ndarray  # bool [N]: whether there is a second foreground
    region: np.ndarray  # float32 [N, 2, 2]: start and end (y, x) of the part of the foreground needed, relative
    shape: np.ndarray  # float32 [N, 2]: height and width in pixels that the part is resized to
    matrix: np.ndarray  # float32 [N, 2, 3]: from a position (x, y) in the window with its margin to one in the part
    background_window: np.ndarray  # float32 [N, 2, 2]: start and end (y, x) of the window in the background, relative
    filters: np.ndarray  # int [N, 3]: number in FILTERS for foreground, alpha, background
    choices: np.ndarray  # float32 [N, 8], see CHOICES


# Columns of Windows.choices. Widths in pixels; hue in degrees; saturation and value in -1..1.
CHOICES = "combined", "fg_width", "bg_width", "hue", "saturation", "value", "os4_width", "os1_width"


def draw_seconds(ids, seed, count):
    """Draw the number of each sample's second foreground, uniform in [0, count): int64 [N]."""
    return words(seed, Stream.FINETUNE, ids, _BLOCKS).reshape(len(ids), -1)[:, 1].astype(np.int64) % count


def draw_windows(ids, seed, firsts, seconds, size, recipe):
    """Draw the windows of a batch.

    Words of stream FINETUNE, in this order: combine, second foreground, squeeze, place among the unknown pixels, x and
    y of a place anywhere, two widths of the trimap, hue, saturation, value, three filters, two widths of the
    refinement. The affine is that of stream AUGMENT, as in pre-training.

    Args:
        ids: Sample ids, int64 [N].
        seed: Seed of the run.
        firsts: The ``Foreground`` of each sample.
        seconds: The one that may be combined with it.
        size: Side of the square crop in pixels.
        recipe: ``Recipe``.

    Returns:
        ``Windows``.
    """
    raw = words(seed, Stream.FINETUNE, ids, _BLOCKS).reshape(len(ids), -1)
    unit = raw / 2.0**32
    rotation, shear, _, zoom = recipe.augmentation.draw(ids, seed)
    squeezed = unit[:, 2] < recipe.squeeze
    frames = np.array([(first.width, first.height) for first in firsts], np.float64).reshape(-1, 2)  # x, y
    frames[squeezed] = SQUARE
    rotation = np.where(frames.max(1) < TURNED_FROM, 0.0, rotation)
    linear = linear_map(rotation, shear, zoom)
    combined = unit[:, 0] < recipe.combine
    places = []
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        unknown = _unknown_of_both(first, second) if combined[i] else first.unknown
        combined[i] &= len(unknown) > 0  # one covers what the other leaves open: nothing to find
        unknown = unknown if combined[i] else first.unknown
        places.append(_place(unknown, frames[i], linear[i], unit[i, 3:6], size, recipe, squeezed[i]))
    columns = [np.stack(column) for column in zip(*places, strict=True)]
    filters = (4 * unit[:, 11:14]).astype(np.int64) if recipe.interpolation else np.ones((len(ids), 3), np.int64)

    def one_to(column, limit):
        return 1 + raw[:, column] % limit

    jitter = raw[:, 8] % max(2 * recipe.hue, 1) - float(recipe.hue), 2 * unit[:, 9] - 1, 2 * unit[:, 10] - 1
    widths = one_to(6, recipe.trimap_width), one_to(7, recipe.trimap_width)
    refinement = one_to(14, recipe.refine_os4), one_to(15, recipe.refine_os1)
    choices = np.stack([combined, *widths, *jitter, *refinement], axis=1).astype(np.float32)
    return Windows(combined, *columns, filters, choices)


def _unknown_of_both(first, second):
    """Unknown pixels of either foreground that the other one does not cover: float32 [K, 2]."""
    return np.concatenate([_uncovered(first.unknown, second.opaque), _uncovered(second.unknown, first.opaque)])


def _uncovered(points, opaque):
    x, y = np.minimum((points * CELLS).astype(np.int64), CELLS - 1).T
    return points[~opaque[y, x]]


def _place(unknown, frame, linear, unit, size, recipe, squeezed):
    """Choose the crop of one sample: region, shape, matrix and background_window of ``Windows``.

    Three systems of coordinates, each (x, y) in pixels: the frame is the foreground as resized, the scene the frame
    after the affine about its centre and the enlargement, the window a part of the scene.
    """
    enlarge = ENLARGED * size / frame.min() if frame.min() <= size else 1.0
    scene, centre = frame * enlarge, frame / 2
    to_scene = enlarge * np.linalg.inv(linear)
    corner = _corner((unknown * frame - centre) @ to_scene.T + enlarge * centre, scene, unit, size)
    to_frame, start = linear / enlarge, corner - recipe.margin
    offset = linear @ (start / enlarge - centre) + centre
    sides = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * (size + 2 * recipe.margin)
    reached = sides @ to_frame.T + offset
    low = np.clip(np.floor(reached.min(0)) - _BORDER, 0, frame - 1)
    high = np.clip(np.ceil(reached.max(0)) + _BORDER, low + 1, frame)
    # A filter other than the linear one shows where pixels come to lie between those of the file: at twice as many.
    density = 2.0 if recipe.interpolation and not squeezed else 1.0
    matrix = density * np.column_stack([to_frame, offset - low])
    return tuple(
        np.asarray(value, np.float32)
        for value in (
            np.stack([low, high])[:, ::-1] / frame[::-1],
            (density * (high - low))[::-1],
            matrix,
            (np.stack([corner, corner + size]) / scene)[:, ::-1],
        )
    )


def _corner(points, scene, unit, size):
    """The upper left corner of a crop within the scene, centred on one of the points where enough allow it."""
    inside = points[((points >= size / 2) & (points <= scene - size / 2)).all(1)]
    corner = inside[int(unit[0] * len(inside))] - size / 2 if len(inside) >= FEW else unit[1:3] * (scene - size)
    return np.clip(np.floor(corner), 0, np.maximum(scene - size, 0))
