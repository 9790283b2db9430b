"""The CPU path of `dptmat.data.pair_batch`: loops that numba compiles, a sample at a time, while the cache holds it."""

import threading
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from dptmat.data.matte_batch import ComposedBatch
from dptmat.defaults import MEAN, STD
from dptmat.kernels._compile import compiled, for_each_part, inlined
from dptmat.kernels.alpha import fill_alphas
from dptmat.kernels.philox import SECOND
from dptmat.kernels.synthesize_cpu import empty
from dptmat.kernels.trimap import FOREGROUND, UNKNOWN, fill_trimaps
from dptmat.kernels.warp_cpu import INSIDE, move, pad
from dptmat.pipelines.batches import Pairs

if TYPE_CHECKING:
    from dptmat.data.pair_batch import AlphaRecipe

_MEAN, _SCALE = np.array(MEAN, np.float32), 1 / np.array(STD, np.float32)


def make_room(samples: int, height: int, width: int) -> ComposedBatch:
    """Allocate a batch, its input in channels_last."""
    image = empty((samples, 6, height, width), torch.float32, channels_last=True)
    alpha, contrast = (empty((samples, 1, height, width), torch.float32) for _ in range(2))
    return ComposedBatch(image, alpha, contrast, empty((samples, 1, height, width), torch.uint8))


def fill_pairs(pairs: Pairs, recipe: "AlphaRecipe", out: ComposedBatch) -> None:
    """Make the samples of `dptmat.data.pair_batch.make_pair_batch` over CPU tensors."""
    fgs, bgs, pairing, colors, moves, kinds, ids = (x.numpy() for x in pairs)
    samples, height, width, _ = fgs.shape
    image, alpha = out.input.permute(0, 2, 3, 1).numpy(), out.alpha.numpy()
    contrast, trimap = out.contrast.numpy(), out.trimap.numpy()
    everywhere = np.ones((height, width), np.float32)

    def work(part: slice) -> None:
        levels, cells = _draw(ids[part], (height, width), recipe)
        padded, padded_alpha, over, under = _room(threading.get_ident(), height, width)
        for n, level, cell in zip(range(part.start, part.stop), levels, cells, strict=True):
            _unpack(fgs[n], over)
            _unpack_levels(level, alpha[n, 0])
            trimap[n, 0] = cell
            if recipe.move_alpha:
                padded[INSIDE], padded_alpha[INSIDE] = over, alpha[n]
                move(padded, moves[n], kinds[n, 0], over)
                move(padded_alpha, moves[n], kinds[n, 1], alpha[n])
                _read_trimap(alpha[n, 0], trimap[n, 0])
            behind = pairing[n]
            _unpack(bgs[behind], under)
            for picture, visible, color in (
                (over, alpha[n, 0], colors[n, 0]), (under, everywhere, colors[behind, 1])
            ):  # fmt: skip
                if color.ndim == 2:
                    _mix(picture, color)
                elif color.any():
                    _jitter(picture, visible, color)
            _compose(over, under, alpha[n, 0], trimap[n, 0], image[n], contrast[n, 0])

    for_each_part(work, samples)


@cache  # fresh memory costs as much time as a loop
def _room(thread: int, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Allocate room for a sample: foreground and alpha with zeros around, and the two pictures, float32 [C, H, W]."""
    return pad(3, height, width), pad(1, height, width), *np.empty((2, 3, height, width), np.float32)


def _draw(
    ids: np.ndarray,  # int64 [N]
    size: tuple[int, int],
    recipe: "AlphaRecipe",
) -> tuple[np.ndarray, np.ndarray]:  # uint8 [N, H, W] each
    """Draw alphas and trimaps as `dptmat.data.pair_batch.draw_alpha` does."""
    seed, block = recipe.seed % 2**64, recipe.alpha_mode == "block"
    trimap, alpha = np.empty((2, len(ids), *size), np.uint8)
    fill_trimaps(trimap, ids, seed, recipe.cell, recipe.unknown, recipe.foreground)
    fill_alphas(alpha, trimap, ids, seed, block, recipe.cell)
    if recipe.alpha_levels == 255:
        another = np.empty_like(alpha)
        fill_alphas(another, trimap, ids + SECOND, seed, block, recipe.cell)
        _lower(alpha, trimap, another)
    return alpha, trimap


@compiled
def _lower(
    alpha: np.ndarray,  # uint8 [N, H, W]; changed
    trimap: np.ndarray,  # uint8 [N, H, W]
    another: np.ndarray,  # uint8 [N, H, W]
) -> None:
    """Put lower levels in place of 255 in all but the foreground."""
    samples, height, width = alpha.shape
    for n in range(samples):
        for y in range(height):
            for x in range(width):
                level, lower = alpha[n, y, x], np.uint8(np.int32(another[n, y, x]) * np.int32(255) >> np.int32(8))
                alpha[n, y, x] = lower if level == 255 and trimap[n, y, x] != FOREGROUND else level


@compiled
def _unpack(
    pixels: np.ndarray,  # uint8 [H, W, 3]
    out: np.ndarray,  # float32 [3, H, W] in 0..1; written
) -> None:
    height, width, channels = pixels.shape
    rows, top = pixels.reshape(height, width * channels), np.float32(255)
    for y in range(height):
        row, red, green, blue = rows[y], out[0, y], out[1, y], out[2, y]
        for x in range(width):
            red[x] = np.float32(row[3 * x]) / top
            green[x] = np.float32(row[3 * x + 1]) / top
            blue[x] = np.float32(row[3 * x + 2]) / top


@compiled
def _unpack_levels(
    levels: np.ndarray,  # uint8 [H, W]
    out: np.ndarray,  # float32 [H, W] in 0..1; written
) -> None:
    height, width = levels.shape
    for y in range(height):
        for x in range(width):
            out[y, x] = np.float32(levels[y, x]) / np.float32(255)


@compiled
def _read_trimap(
    alpha: np.ndarray,  # float32 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]; written
) -> None:
    height, width = alpha.shape
    for y in range(height):
        for x in range(width):
            a = alpha[y, x]
            trimap[y, x] = np.uint8(UNKNOWN) + np.uint8(a == np.float32(1)) - np.uint8(a == np.float32(0))


@compiled
def _mix(
    picture: np.ndarray,  # float32 [3, H, W] in 0..1; changed
    matrix: np.ndarray,  # float32 [3, 3]
) -> None:
    """Multiply colours with a matrix."""
    _, height, width = picture.shape
    for y in range(height):
        for x in range(width):
            red, green, blue = picture[0, y, x], picture[1, y, x], picture[2, y, x]
            for c in range(3):
                mixed = matrix[c, 0] * red + matrix[c, 1] * green + matrix[c, 2] * blue
                mixed = np.float32(0) if mixed < np.float32(0) else mixed
                picture[c, y, x] = np.float32(1) if mixed > np.float32(1) else mixed


@inlined
def _largest(red: np.float32, green: np.float32, blue: np.float32) -> np.float32:
    value = red if red > green else green
    return value if value > blue else blue


@inlined
def _smallest(red: np.float32, green: np.float32, blue: np.float32) -> np.float32:
    value = red if red < green else green
    return value if value < blue else blue


@inlined
def _fold(x: np.float32) -> np.float32:
    x = abs(x)
    return np.float32(2) - x if x > np.float32(1) else x


@compiled
def _measure(
    picture: np.ndarray,  # float32 [3, H, W]
    alpha: np.ndarray,  # float32 [H, W]
) -> tuple[float, float]:
    """Take the means of saturation and value over the pixels of alpha > 0."""
    _, height, width = picture.shape
    saturation, value = np.empty(width, np.float32), np.empty(width, np.float32)
    count, saturations, values, zero = 0, 0.0, 0.0, np.float32(0)
    for y in range(height):
        reds, greens, blues, visible = picture[0, y], picture[1, y], picture[2, y], alpha[y]
        for x in range(width):
            most = _largest(reds[x], greens[x], blues[x])
            chroma = most - _smallest(reds[x], greens[x], blues[x])
            shown = visible[x] > zero
            saturation[x] = chroma / most if shown and most > zero else zero
            value[x] = most if shown else zero
            count += shown
        for x in range(width):
            saturations += np.float64(saturation[x])
            values += np.float64(value[x])
    count = max(count, 1)
    return saturations / count, values / count


@compiled
def _jitter(
    picture: np.ndarray,  # float32 [3, H, W] in 0..1; changed
    alpha: np.ndarray,  # float32 [H, W]
    color: np.ndarray,  # float32 [3]: hue in degrees, -180..180; saturation and value in -1..1
) -> None:
    """Change colours as `dptmat.data.matte_batch.jitter` does."""
    _, height, width = picture.shape
    zero, one, four, six = np.float32(0), np.float32(1), np.float32(4), np.float32(6)
    saturations, values = _measure(picture, alpha)
    by_saturation = np.float32(color[1] * (1.1 - saturations) / 10)
    by_value = np.float32(color[2] * (1.1 - values) / 10)
    turn = color[0] / np.float32(60) + six  # above 0, where a remainder is one of C
    for y in range(height):
        reds, greens, blues = picture[0, y], picture[1, y], picture[2, y]
        for x in range(width):
            red, green, blue = reds[x], greens[x], blues[x]
            value = _largest(red, green, blue)
            chroma = value - _smallest(red, green, blue)
            divisor = chroma if chroma > zero else one
            sextant = (red - green) / divisor + four
            sextant = (blue - red) / divisor + np.float32(2) if value == green else sextant
            sextant = (green - blue) / divisor if value == red else sextant
            sextant += turn
            saturation = _fold(chroma / (value if value > zero else one) + by_saturation)
            value = _fold(value + by_value)
            for c in range(3):
                k = sextant + np.float32(5 - 2 * c)
                for _ in range(3):  # from 19 at most
                    k = k - six if k >= six else k
                weight = k if k < four - k else four - k
                weight = one if weight > one else weight
                weight = zero if weight < zero else weight
                shade = value * (one - saturation * weight)
                if c == 0:
                    reds[x] = shade
                elif c == 1:
                    greens[x] = shade
                else:
                    blues[x] = shade


@compiled
def _compose(
    fg: np.ndarray,  # float32 [3, H, W]
    bg: np.ndarray,  # float32 [3, H, W]
    alpha: np.ndarray,  # float32 [H, W]
    trimap: np.ndarray,  # uint8 [H, W]
    image: np.ndarray,  # float32 [H, W, 6]; written
    contrast: np.ndarray,  # float32 [H, W]; written
) -> None:
    _, height, width = fg.shape
    channels = np.empty((6, width), np.float32)
    for y in range(height):
        a, state, total = alpha[y], trimap[y], contrast[y]
        for c in range(3):
            over, under, mixed, one_hot = fg[c, y], bg[c, y], channels[c], channels[3 + c]
            mean, scale = _MEAN[c], _SCALE[c]
            for x in range(width):
                mixed[x] = (a[x] * over[x] + (np.float32(1) - a[x]) * under[x] - mean) * scale
                difference = abs(over[x] - under[x]) * scale
                total[x] = total[x] + difference if c else difference
            for x in range(width):
                one_hot[x] = np.float32(state[x] == c)
        pixels = image[y]
        for x in range(width):
            for c in range(6):
                pixels[x, c] = channels[c, x]
