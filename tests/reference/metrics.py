"""SAD, MSE, MAD, Grad and Conn, and regions, in plain loops over pixels, as they are defined; for small pictures."""

from math import ceil, exp, log, nan, pi, sqrt

import numpy as np

SIGMA = 1.4
HALF = ceil(SIGMA * sqrt(-2 * log(sqrt(2 * pi) * SIGMA * 0.01)))
SINGLE = np.float32


def unknown_pixels(trimap):
    return [(y, x) for y, x in np.ndindex(trimap.shape) if trimap[y, x] == 128]


def sad(pred, alpha, trimap):
    return sum(abs(int(pred[at]) - int(alpha[at])) / 255 for at in unknown_pixels(trimap)) / 1000


def mse(pred, alpha, trimap):
    unknown = unknown_pixels(trimap)
    errors = [((int(pred[at]) - int(alpha[at])) / 255) ** 2 for at in unknown]
    return sum(errors) / len(unknown) if unknown else nan


def mad(pred, alpha, trimap):
    unknown = unknown_pixels(trimap)
    return sum(abs(int(pred[at]) - int(alpha[at])) / 255 for at in unknown) / len(unknown) if unknown else nan


def whole(alpha):
    """Every pixel counts."""
    return np.array([[128 for _ in row] for row in alpha], np.uint8)


def in_ellipse(y, x):
    """Tell whether an offset lies in the ellipse of 25 pixels, as OpenCV draws it: 12 to each side."""
    return abs(y) <= 12 and abs(x) <= round(12 * sqrt((144 - y * y) / 144))


def transition(alpha):
    """A pixel counts if the ellipse about it holds one that is not empty and one that is not opaque."""
    counted = np.zeros(alpha.shape, np.uint8)
    for y, x in np.ndindex(alpha.shape):
        near = [
            alpha[v, u]
            for v in range(max(y - 12, 0), min(y + 13, alpha.shape[0]))
            for u in range(max(x - 12, 0), min(x + 13, alpha.shape[1]))
            if in_ellipse(v - y, u - x)
        ]
        is_background = all(value == 0 for value in near)
        is_foreground = all(value == 255 for value in near)
        counted[y, x] = 0 if is_background else 255 if is_foreground else 128
    return counted


def kernel():
    """The x kernel {(down, across): weight} and its Frobenius norm before the division."""

    def gaussian(x):
        return exp(-(x**2) / (2 * SIGMA**2)) / (SIGMA * sqrt(2 * pi))

    span = range(-HALF, HALF + 1)
    weights = {(i, j): gaussian(i) * -j * gaussian(j) / SIGMA**2 for i in span for j in span}
    norm = sqrt(sum(weight**2 for weight in weights.values()))
    return {at: weight / norm for at, weight in weights.items()}, norm


def amplitude(picture, y, x):
    """Magnitude of the gradient at one pixel of a picture that is stretched to 0..1."""
    low, high = int(picture.min()), int(picture.max())
    across = down = 0.0
    for (i, j), weight in kernel()[0].items():
        row = min(max(y + i, 0), picture.shape[0] - 1)
        column = min(max(x + j, 0), picture.shape[1] - 1)
        value = int(picture[row, column])
        value = (value - low) / (high - low) if high > low else min(value, 1)
        across += weight * value
        row = min(max(y + j, 0), picture.shape[0] - 1)
        column = min(max(x + i, 0), picture.shape[1] - 1)
        value = int(picture[row, column])
        value = (value - low) / (high - low) if high > low else min(value, 1)
        down += weight * value
    return sqrt(across**2 + down**2)


def grad(pred, alpha, trimap):
    errors = [(amplitude(pred, y, x) - amplitude(alpha, y, x)) ** 2 for y, x in unknown_pixels(trimap)]
    return sum(errors) / 1000


def largest_region(mask):
    """The pixels of the largest 4-connected region, found by a flood from every pixel in column-major order."""
    height, width = mask.shape
    seen, largest = set(), set()
    for x in range(width):
        for y in range(height):
            if not mask[y, x] or (y, x) in seen:
                continue
            region, front = {(y, x)}, [(y, x)]
            while front:
                v, u = front.pop()
                for near in ((v - 1, u), (v + 1, u), (v, u - 1), (v, u + 1)):
                    inside = 0 <= near[0] < height and 0 <= near[1] < width
                    if inside and mask[near] and near not in region:
                        region.add(near)
                        front.append(near)
            seen |= region
            if len(region) > len(largest):  # so the first of several wins
                largest = region
    return largest


def conn(pred, alpha, trimap):
    p, t = pred.astype(SINGLE) / SINGLE(255), alpha.astype(SINGLE) / SINGLE(255)
    level = {}
    for k in range(1, 11):
        step = SINGLE(k / 10)
        region = largest_region((p >= step) & (t >= step))
        for at in np.ndindex(pred.shape):
            if at not in region and at not in level:
                level[at] = (k - 1) / 10
    total = 0.0
    for at in unknown_pixels(trimap):
        phi = []
        for value in (p[at], t[at]):
            distance = float(value) - level.get(at, 1.0)
            phi.append(1 - distance if distance >= 0.15 else 1.0)
        total += abs(phi[0] - phi[1])
    return total / 1000
