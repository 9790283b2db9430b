"""The CPU path of `warp`: loops that numba compiles, a row of the result at a time."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ._compile import compiled, inlined

_PAD = 8  # pixels of zeros around an image
INSIDE = (..., slice(_PAD, -_PAD), slice(_PAD, -_PAD))
_TAPS = 8  # of Lanczos in each direction: from 3 pixels before the position to 4 after
_STEPS = 32  # of a pixel, to which a position is rounded for Lanczos, as OpenCV does


def _make_lanczos() -> np.ndarray:  # float32 [steps, taps]
    """Compute the weights of the pixels -3..4 around each step between pixels 0 and 1."""
    distance = np.arange(_STEPS)[:, None] / _STEPS - np.arange(-3, 5)
    weights = np.sinc(distance) * np.sinc(distance / 4) * (np.abs(distance) < 4)
    weights[0] = np.arange(-3, 5) == 0  # which NumPy's sine misses by 1e-17
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


LANCZOS = _make_lanczos()


def pad(channels: int, height: int, width: int) -> np.ndarray:  # float32 [C, H + 16, W + 16]
    """Make room for an image with zeros around it, as `move` takes it; the image's place is ``INSIDE``."""
    return np.zeros((channels, height + 2 * _PAD, width + 2 * _PAD), np.float32)


def move(
    image: np.ndarray,  # float32 [C, H + 16, W + 16]: with zeros of zeros around
    matrix: np.ndarray,  # int64 [2, 3]
    kind: int,
    out: np.ndarray,  # float32 [C, H, W]; written
) -> None:
    """Move one image as `warp` does."""
    _move(image, matrix, kind, LANCZOS, out)


def _weigh(taps: int) -> Any:
    """Make out[k + j] = (weight * across[a + j]) * pixels[p + j] for 0 <= j < taps, which are one vector.

    Numba leaves such short runs as single numbers; its LLVM packs none but whole loops.
    """

    def typed(typing_context: Any, out: Any, k: Any, weight: Any, across: Any, a: Any, pixels: Any, p: Any) -> Any:
        vector, one = ir.VectorType(ir.FloatType(), taps), ir.VectorType(ir.IntType(32), taps)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def at(array: int) -> Any:
                data = context.make_array(signature.args[array])(context, builder, args[array]).data
                return builder.bitcast(builder.gep(data, [args[array + 1]]), vector.as_pointer())

            undefined = ir.Constant(vector, ir.Undefined)
            weights = builder.insert_element(undefined, args[2], ir.Constant(ir.IntType(32), 0))
            weights = builder.shuffle_vector(weights, undefined, ir.Constant(one, [0] * taps))
            weights = builder.fmul(weights, builder.load(at(3), align=4))
            builder.store(builder.fmul(weights, builder.load(at(5), align=4)), at(0), align=4)
            return context.get_dummy_value()

        return types.void(out, k, weight, across, a, pixels, p), generate

    return intrinsic(typed)


_weigh_4: Any = _weigh(4)  # called with out, k, weight, across, a, pixels and p alone
_weigh_8: Any = _weigh(8)


@inlined
def _cubic(f: np.float32, weights: np.ndarray, k: np.uint64) -> None:
    """Write the weights of pixels -1..2 for a position f after pixel 0, from weights[k] on."""
    one, three, a = np.float32(1), np.float32(3), np.float32(-0.75)
    before, after = f + one, one - f
    first = ((a * before - np.float32(5) * a) * before + np.float32(8) * a) * before - np.float32(4) * a
    second = ((a + np.float32(2)) * f - (a + three)) * f * f + one
    third = ((a + np.float32(2)) * after - (a + three)) * after * after + one
    weights[k], weights[k + np.uint64(1)], weights[k + np.uint64(2)] = first, second, third
    weights[k + np.uint64(3)] = one - first - second - third


@compiled
def _sum_16(
    pixels: np.ndarray,  # float32 [(H + 16) (W + 16)]
    start: np.ndarray,  # uint64 [W]: of each result's first pixel
    stride: np.uint64,  # of rows
    across: np.ndarray,  # float32 [...]: weights of a pixel's column ...
    column: np.ndarray,  # uint64 [W]: ... from here on
    down: np.ndarray,  # float32 [...]: and of its row
    row: np.ndarray,  # uint64 [W]
    terms: np.ndarray,  # float32 [8 W]: room to work in
    out: np.ndarray,  # float32 [W]; written
) -> None:
    """Sum 4x4 weighted pixels, in the order of the GPU."""
    out[:] = np.float32(0)
    for i in range(4):
        down_by = np.uint64(i)
        for x in range(len(out)):
            weight = down[row[x] + down_by]
            _weigh_4(terms, np.uint64(4 * x), weight, across, column[x], pixels, start[x] + down_by * stride)
        for x in range(len(out)):
            out[x] = out[x] + terms[4 * x] + terms[4 * x + 1] + terms[4 * x + 2] + terms[4 * x + 3]


@compiled
def _sum_64(
    pixels: np.ndarray,
    start: np.ndarray,
    stride: np.uint64,
    across: np.ndarray,
    column: np.ndarray,
    down: np.ndarray,
    row: np.ndarray,
    terms: np.ndarray,
    out: np.ndarray,
) -> None:
    """Sum 8x8 weighted pixels likewise."""
    out[:] = np.float32(0)
    for i in range(8):
        down_by = np.uint64(i)
        for x in range(len(out)):
            weight = down[row[x] + down_by]
            _weigh_8(terms, np.uint64(8 * x), weight, across, column[x], pixels, start[x] + down_by * stride)
        for x in range(len(out)):
            half = out[x] + terms[8 * x] + terms[8 * x + 1] + terms[8 * x + 2] + terms[8 * x + 3]
            out[x] = half + terms[8 * x + 4] + terms[8 * x + 5] + terms[8 * x + 6] + terms[8 * x + 7]


@compiled
def _blend(
    pixels: np.ndarray,  # float32 [(H + 16) (W + 16)]
    start: np.ndarray,  # uint64 [W]
    stride: np.uint64,
    fx: np.ndarray,  # float32 [W]: how far a position is after its pixel
    fy: np.ndarray,  # float32 [W]
    out: np.ndarray,  # float32 [W]; written
) -> None:
    for x in range(len(out)):
        first, second = start[x], start[x] + stride
        here, below = pixels[first], pixels[second]
        here += fx[x] * (pixels[first + np.uint64(1)] - here)
        below += fx[x] * (pixels[second + np.uint64(1)] - below)
        out[x] = here + fy[x] * (below - here)


@compiled
def _clip(out: np.ndarray) -> None:
    for x in range(len(out)):
        value = np.float32(0) if out[x] < np.float32(0) else out[x]
        out[x] = np.float32(1) if value > np.float32(1) else value


@compiled
def _move(  # noqa: C901 - a branch for each interpolation
    image: np.ndarray,  # float32 [C, H + 16, W + 16]
    matrix: np.ndarray,  # int64 [2, 3]
    kind: int,
    lanczos: np.ndarray,  # float32 [steps, taps]
    out: np.ndarray,  # float32 [C, H, W]; written
) -> None:
    channels, height, width = out.shape
    stride, taps = np.uint64(width + 16), 2 << max(kind - 1, 0)
    half = np.int64(32768 if kind == 0 else 1024 if kind == 3 else 0)  # to the nearest pixel, or 1/32 of one
    # unsigned, since Python's negative indices cost a test each
    start, column, row = np.empty(width, np.uint64), np.empty(width, np.uint64), np.empty(width, np.uint64)
    fx, fy = np.empty(width, np.float32), np.empty(width, np.float32)
    across, down = np.empty(4 * width, np.float32), np.empty(4 * width, np.float32)
    terms = np.empty(8 * width, np.float32)
    table = lanczos.reshape(lanczos.size)
    for y in range(height):
        for x in range(width):
            sx = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + half
            sy = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + half
            # what is far away sees zeros alone
            left, top = min(max(sx >> 16, -5), width + 3) + 8, min(max(sy >> 16, -5), height + 3) + 8
            start[x] = np.uint64(top + 1 - taps // 2) * stride + np.uint64(left + 1 - taps // 2)
            fx[x], fy[x] = np.float32(sx & 65535) / np.float32(65536), np.float32(sy & 65535) / np.float32(65536)
            column[x], row[x] = np.uint64((sx >> 11 & 31) * 8), np.uint64((sy >> 11 & 31) * 8)
        if kind == 2:
            for x in range(width):
                column[x] = row[x] = np.uint64(4 * x)
                _cubic(fx[x], across, column[x])
                _cubic(fy[x], down, row[x])
        for c in range(channels):
            pixels, line = image[c].reshape(image[c].size), out[c, y]
            if kind == 0:
                for x in range(width):
                    line[x] = pixels[start[x]]
            elif kind == 1:
                _blend(pixels, start, stride, fx, fy, line)
            elif kind == 2:
                _sum_16(pixels, start, stride, across, column, down, row, terms, line)
                _clip(line)
            else:
                _sum_64(pixels, start, stride, table, column, table, row, terms, line)
                _clip(line)
