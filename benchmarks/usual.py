"""What the loader is measured against: a PyTorch ``DataLoader`` with OpenCV per sample, as matting repositories load.

Written from what MatteFormer, GCA-Matting and MG Matting do for each sample, without dptmat: two photographs decoded,
each warped as a whole by a random affine, resized and cropped, either with a random interpolation, its hue changed in
float HSV; then random trimap, random alpha, composite, normalised tensors. In favour of this side, foreground and
background are not handed on as floats. ``direct`` is what a careful author could make of it: one linear warp straight
from the photograph to the view. ``albumentations`` is the same by that library, in bytes, and shrunk before it is
warped. ``released`` is the way of the released code of the method's authors, written anew from what it does: both
photographs squashed, foreground and alpha warped each by a filter of its own, the trimap read from the moved alpha.
None is antialiased.
"""

from functools import partial

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

CELL, UNKNOWN, FOREGROUND = 7, 0.75, 0.125  # side in pixels, shares of the cells
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)  # ImageNet's
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
ROTATION, SCALE, SHEAR, FLIP, HUE = 30, (0.8, 1.25), 10, 0.5, 40  # degrees, factors, degrees, chance, degrees
FILTERS = cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4


class Photographs(Dataset):
    """Photographs, a sample for each of them.

    Args:
        paths: Paths of the photographs; sample i has the i-th in front of a random one.
        size: Side of the square views in pixels.
        seed: Of the random changes, with the number of the sample.
    """

    def __init__(self, paths, size, seed=0):
        self._paths, self._size, self._seed = paths, size, seed

    def __len__(self):
        return len(self._paths)

    def _draw(self, i):
        """Decode the photographs of a sample: foreground and background, uint8 [H, W, 3] RGB, and its generator."""
        rng = np.random.default_rng((self._seed, i))
        paths = self._paths[i], self._paths[rng.integers(len(self._paths))]
        return *(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in paths), rng


class Composites(Photographs):
    """Random composites of photographs: input float32 [6, H, W], alpha float32 [1, H, W], trimap uint8 [1, H, W].

    Args:
        paths, size, seed: As of `Photographs`; albumentations has a seed of its own.
        way: "usual", "direct" or "albumentations".
    """

    def __init__(self, paths, size, way="usual", seed=0):
        super().__init__(paths, size, seed)
        ways = {"usual": change_usually, "direct": change_directly}
        self._change = make_albumentations(size) if way == "albumentations" else ways[way]

    def __getitem__(self, i):
        *photos, rng = self._draw(i)
        fg, bg = (self._change(photo, self._size, rng) for photo in photos)
        trimap = draw_trimap(self._size, rng)
        alpha = np.where(trimap == 1, rng.integers(0, 256, trimap.shape) / 255, trimap == 2).astype(np.float32)
        return compose(fg, bg, alpha, trimap)


class Released(Photographs):
    """Samples of the same kind as those of `Composites`, by the way of the authors' released code."""

    def __getitem__(self, i):
        size = self._size, self._size
        *photos, rng = self._draw(i)
        fg, bg = (cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR) for photo in photos)
        cells = draw_trimap(self._size, rng)
        alpha = np.where(cells == 1, rng.integers(0, 255, size) / 255, cells == 2).astype(np.float32)
        matrix = draw_affine_of_view(self._size, rng)
        fg, alpha = (
            cv2.warpAffine(x, matrix, size, flags=int(rng.choice(FILTERS)) | cv2.WARP_INVERSE_MAP) for x in (fg, alpha)
        )
        alpha = alpha.clip(0, 1)
        trimap = np.where(alpha == 0, 0, np.where(alpha == 1, 2, 1)).astype(np.uint8)
        return compose(change_colors(fg, alpha, rng), bg, alpha, trimap)


def compose(fg, bg, alpha, trimap):
    """Compose [H, W, 3] of 0..255 by alpha and trimap [H, W], with the input normalised and one-hot."""
    image = fg * alpha[..., None] + bg * (1 - alpha[..., None])
    image = (image.transpose(2, 0, 1).astype(np.float32) / 255 - MEAN) / STD
    one_hot = (trimap == np.arange(3).reshape(3, 1, 1)).astype(np.float32)
    return np.concatenate([image, one_hot]), alpha[None], trimap[None]


def change_usually(photo, size, rng):
    return change_hue(warp(photo, draw_affine(photo.shape, rng), size, rng), rng)


def change_directly(photo, size, rng):
    return change_hue(warp_directly(photo, draw_affine(photo.shape, rng), size), rng)


def make_albumentations(size):
    """Make the same changes by albumentations, which has to be installed."""
    import albumentations

    change = albumentations.Compose([
        albumentations.SmallestMaxSize(size),
        albumentations.Affine(
            rotate=(-ROTATION, ROTATION), scale={"x": SCALE, "y": SCALE}, shear={"x": (-SHEAR, SHEAR), "y": 0},
            border_mode=cv2.BORDER_REPLICATE, p=1,
        ),
        albumentations.HorizontalFlip(FLIP),
        albumentations.VerticalFlip(FLIP),
        albumentations.CenterCrop(size, size),
        albumentations.HueSaturationValue(HUE // 2, 0, 0, p=1),  # in steps of two degrees
    ])  # fmt: skip
    return partial(change_by_albumentations, change)


def change_by_albumentations(change, photo, size, rng):
    return change(image=photo)["image"].astype(np.float32)


def change_hue(view, rng):
    """Change the hue of a view as uint8 [H, W, 3]: float32 [H, W, 3], 0..255."""
    hsv = cv2.cvtColor(view.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = np.remainder(hsv[..., 0] + rng.uniform(-HUE, HUE), 360)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255


def change_colors(view, alpha, rng):
    """Change hue, saturation and value of a view as uint8 [H, W, 3], as the released code does: float32, 0..255.

    The shift of the latter two is up to (1.1 - m) / 10 to either side, m their mean where alpha is not 0, and values
    beyond 0 and 1 are folded back.
    """
    hsv = cv2.cvtColor(view.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = np.remainder(hsv[..., 0] + rng.integers(-HUE, HUE), 360)
    for channel in (1, 2):
        limit = (1.1 - hsv[..., channel][alpha > 0].mean()) / 10
        moved = np.abs(hsv[..., channel] + rng.uniform(-limit, limit))
        hsv[..., channel] = np.where(moved > 1, 2 - moved, moved)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255


def draw_affine_of_view(size, rng):
    """Draw an affine without rotation, from the view to what is moved: float64 [2, 3]."""
    shear = np.radians(rng.uniform(-SHEAR, SHEAR))
    zoom = np.where(rng.random(2) < FLIP, -1, 1) / rng.uniform(*SCALE, 2)
    linear = np.array([[1, np.sin(shear)], [0, np.cos(shear)]]) / np.cos(shear) * zoom[:, None]
    centre = np.full(2, (size + 1) / 2)
    return np.column_stack([linear, centre - linear @ centre])


def draw_affine(shape, rng):
    """Draw an affine of a photograph about its centre: float64 [2, 3]."""
    height, width, _ = shape
    turn, shear = np.radians(rng.uniform(-ROTATION, ROTATION)), np.radians(rng.uniform(-SHEAR, SHEAR))
    scale = np.where(rng.random(2) < FLIP, -1, 1) * rng.uniform(*SCALE, 2)
    linear = np.array([[np.cos(turn), -np.sin(turn + shear)], [np.sin(turn), np.cos(turn + shear)]]) * scale
    centre = np.array([width, height]) / 2
    return np.column_stack([linear, centre - linear @ centre])


def warp(photo, matrix, size, rng):
    """Warp a whole photograph, resize its shorter side to ``size``, crop the middle: uint8 [size, size, 3]."""
    height, width, _ = photo.shape
    border = {"borderMode": cv2.BORDER_REPLICATE}
    photo = cv2.warpAffine(photo, matrix, (width, height), flags=int(rng.choice(FILTERS)), **border)
    scale = size / min(height, width)
    height, width = (max(size, round(scale * side)) for side in (height, width))
    photo = cv2.resize(photo, (width, height), interpolation=int(rng.choice(FILTERS)))
    top, left = (height - size) // 2, (width - size) // 2
    return photo[top : top + size, left : left + size]


def warp_directly(photo, matrix, size):
    """Likewise by one linear warp."""
    height, width, _ = photo.shape
    matrix = size / min(height, width) * (matrix - [[0, 0, width / 2], [0, 0, height / 2]]) + [[0, 0, size / 2]] * 2
    return cv2.warpAffine(photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def draw_trimap(size, rng):
    """Draw a trimap with exact shares of its cells: uint8 [size, size]: 0 background, 1 unknown, 2 foreground."""
    cells = -(-size // CELL)
    unknown, foreground = (int(share * cells**2 + 0.5) for share in (UNKNOWN, FOREGROUND))
    states = np.zeros(cells**2, np.uint8)
    states[:unknown], states[unknown : unknown + foreground] = 1, 2
    grid = rng.permutation(states).reshape(cells, cells)
    return grid.repeat(CELL, 0).repeat(CELL, 1)[:size, :size]


def make_batches(paths, size, batch, workers, device, way="usual"):
    """Load batches without end, as a trainer does: shuffled, each by one of ``workers`` processes.

    Yields:
        input float32 [N, 6, H, W], alpha float32 [N, 1, H, W], trimap uint8 [N, 1, H, W], all on ``device``.
    """
    samples = Released(paths, size) if way == "released" else Composites(paths, size, way)
    loader = DataLoader(
        samples, batch, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=True, worker_init_fn=use_one_thread, pin_memory=device == "cuda",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    while True:
        for outputs in loader:
            yield [x.to(device, non_blocking=True) for x in outputs]


def use_one_thread(worker):
    """Keep OpenCV to the core that the worker has, as its authors advise for a ``DataLoader``."""
    cv2.setNumThreads(0)


def describe(network_input, alpha, trimap):
    """Describe a batch by what two ways of making it must have in common."""
    image, one_hot = network_input[:, :3], network_input[:, 3:]
    states = [trimap == state for state in range(3)]
    unknown = alpha[states[1]]
    return {
        "shapes": [list(x.shape) for x in (network_input, alpha, trimap)],
        "dtypes": [str(x.dtype) for x in (network_input, alpha, trimap)],
        "one_hot": all(bool((one_hot[:, i : i + 1] == states[i]).all()) for i in range(3)),
        "known": bool((alpha[states[0]] == 0).all() and (alpha[states[2]] == 1).all()),
        "shares": [float(state.float().mean()) for state in states],
        "unknown": [float(unknown.mean()), float(unknown.std())],
        "image": image.mean((0, 2, 3)).tolist() + image.std((0, 2, 3)).tolist(),
    }


# Shares: cells that the border cuts are of random states. Alphas: 2 million random numbers. Image, in standard
# deviations of ImageNet: other photographs, whose mean brightness differs by 0.1 for 64 of them.
TOLERANCES = {"shares": 0.01, "unknown": 0.01, "image": 0.5}


# Of the released code itself: 1,500 samples on 200 photographs of ImageNet at 224x224. Its trimap is that of the moved
# alpha, in which interpolated edges are unknown, and what comes from outside the frame is background.
RELEASED = {"shares": [0.188, 0.724, 0.088], "unknown": [0.500, 0.260]}
RELEASED_TOLERANCES = TOLERANCES | {"shares": 0.05, "unknown": 0.02}  # shares deviate by 0.075 from sample to sample


def require_alike(ours, theirs, tolerances=TOLERANCES):
    """Refuse two descriptions that do not agree."""
    for name, value in ours.items():
        limit = tolerances.get(name)
        alike = value == theirs[name] if limit is None else np.allclose(value, theirs[name], rtol=0, atol=limit)
        if not alike or value is False:
            raise ValueError(f"{name} is {value} with dptmat and {theirs[name]} with the DataLoader")
