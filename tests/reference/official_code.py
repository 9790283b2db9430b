"""Samples of DPT's released code, in plain NumPy and OpenCV, written from a list of what it does.

In their own order and with NumPy's random numbers: they are to be compared as distributions.
"""

import cv2
import numpy as np

SIZE, CELL = 224, 7
KINDS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def read_squashed(path):
    """A photograph of 224x224 pixels whatever its shape: uint8 [H, W, 3], red first."""
    return cv2.resize(cv2.imread(str(path))[..., ::-1], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def draw_alpha(random):
    """128 cells of background, 128 of foreground, the others a level of 0..254 for each pixel: float32 in 0..1."""
    cells = random.permutation(np.repeat([0, 255, -1], [128, 128, 768])).reshape(32, 32)
    levels = cells.repeat(CELL, 0).repeat(CELL, 1)
    noise = random.integers(0, 255, levels.shape)
    return (np.where(levels < 0, noise, levels).astype(np.float32)) / np.float32(255)


def draw_matrix(random):
    """From a pixel of the result to one of the picture: zoom (shear (x - 112.5)) + 112.5."""
    shear = np.radians(random.uniform(-10, 10))
    zoom = random.choice([-1, 1], 2) / random.uniform(0.8, 1.25, 2)
    linear = np.diag(zoom) @ np.array([[1, np.sin(shear)], [0, np.cos(shear)]]) / np.cos(shear)
    centre = np.array([112.5, 112.5])
    return np.column_stack([linear, centre - linear @ centre])


def move(picture, matrix, kind):
    """Zero outside."""
    return cv2.warpAffine(picture, matrix, (SIZE, SIZE), flags=kind | cv2.WARP_INVERSE_MAP)


def change_colors(fg, alpha, random):
    """Hue by whole degrees, saturation and value by up to (1.1 - mean) / 10, folded at 0 and 1; 0..1."""
    hsv = cv2.cvtColor(fg, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + random.integers(-40, 40)) % 360
    for channel in (1, 2):
        plane = hsv[..., channel]
        plane = np.abs(plane + (1.1 - plane[alpha > 0].mean()) / 10 * random.uniform(-1, 1))
        hsv[..., channel] = np.where(plane > 1, 2 - plane, plane)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def draw_sample(fg, bg, random):
    """Composite float32 [H, W, 3] in 0..1, alpha float32 [H, W] and trimap uint8 [H, W] of two squashed photographs."""
    alpha, matrix = draw_alpha(random), draw_matrix(random)
    alpha = np.clip(move(alpha, matrix, KINDS[random.integers(4)]), 0, 1)
    fg = move(fg, matrix, KINDS[random.integers(4)]).astype(np.float32) / 255
    trimap = np.where(alpha == 0, 0, np.where(alpha == 1, 2, 1))
    fg = change_colors(fg, alpha, random)
    return alpha[..., None] * fg + (1 - alpha[..., None]) * (bg.astype(np.float32) / 255), alpha, trimap
