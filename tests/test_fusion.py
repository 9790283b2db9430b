import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from dptmat.fusion import fuse_alphas, uncertain_region


def random_alphas(n, height, width, seed=0):
    """Three alphas of patches that are 0, 1 or between, of different sizes, so that each level has certain pixels."""
    generator = torch.Generator().manual_seed(seed)

    def patches(cell):
        small = torch.rand(n, 1, -(-height // cell), -(-width // cell), generator=generator) * 8 - 3.5
        return interpolate(small, scale_factor=cell, mode="bilinear").clamp(0, 1)[:, :, :height, :width].contiguous()

    return {"alpha_os8": patches(41), "alpha_os4": patches(23), "alpha_os1": patches(9)}


def nearest(length, target):
    """Source of each of the target's pixels as PyTorch's CPU and CUDA kernels find it, in float32."""
    return np.floor(np.arange(target, dtype=np.float32) * (np.float32(length) / np.float32(target))).astype(np.int64)


def plain_fusion(os8, os4, os1, side):
    """The published fusion of float32 [H, W] by OpenCV, literally."""
    alpha = os8.copy()
    for finer, width in ((os4, 15), (os1, 7)):
        small = alpha
        if side:
            small = alpha[nearest(alpha.shape[0], side)][:, nearest(alpha.shape[1], side)]
        uncertain = np.ones(small.shape, np.uint8)
        uncertain[small < 1 / 255] = 0
        uncertain[small > 1 - 1 / 255] = 0
        region = cv2.dilate(uncertain, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
        if side:
            region = region[nearest(side, alpha.shape[0])][:, nearest(side, alpha.shape[1])]
        alpha[region > 0] = finer[region > 0]
    return alpha


# 672: PyTorch's float32 finds another pixel than integers do. 5 x 7: smaller than the ellipse.
@pytest.mark.parametrize(("height", "width"), [(672, 160), (96, 1344), (640, 640), (32, 32), (5, 7)])
@pytest.mark.parametrize("side", [None, 640])
def test_equals_the_published_fusion(height, width, side):
    alphas = random_alphas(2, height, width)
    fused = fuse_alphas(alphas, side).numpy()
    for i in range(2):
        levels = [alphas[f"alpha_os{k}"][i, 0].numpy() for k in (8, 4, 1)]
        np.testing.assert_array_equal(fused[i, 0], plain_fusion(*levels, side))
    if height >= 96:  # each level is seen somewhere, or the test would not tell much
        assert all((fused == alphas[name].numpy()).mean() > 0.02 for name in alphas)


@pytest.mark.parametrize("width", [1, 3, 7, 15, 29])
@pytest.mark.parametrize("size", [(1, 1), (2, 40), (90, 70)])
def test_dilation_is_that_of_opencv(width, size):
    mask = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1)) < 0.01
    mask[..., 0, 0] = True
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    expected = cv2.dilate(mask[0, 0].byte().numpy(), ellipse)
    np.testing.assert_array_equal(uncertain_region(mask * 0.5, width)[0, 0].numpy(), expected)


@pytest.mark.parametrize(
    ("width", "rows"),
    [(7, [1, 5, 7, 7, 7, 5, 1]), (15, [1, 9, 11, 13, 13, 15, 15, 15, 15, 15, 13, 13, 11, 9, 1])],
)
def test_one_pixel_becomes_the_ellipse(width, rows):
    alpha = torch.zeros(1, 1, 31, 31)
    alpha[..., 15, 15] = 0.5
    region = uncertain_region(alpha, width)[0, 0]
    first = 15 - width // 2
    assert region.sum(1).tolist() == [0] * first + rows + [0] * first
    assert torch.equal(region, region.flip(1))


def test_both_bounds_are_uncertain():
    low, high = np.float32(1 / 255), np.float32(254 / 255)
    inside = [low, high, np.float32(0.5)]
    outside = [np.nextafter(low, np.float32(0)), np.nextafter(high, np.float32(1)), np.float32(0), np.float32(1)]
    alpha = torch.from_numpy(np.array(inside + outside, np.float32))[:, None, None, None]
    assert uncertain_region(alpha, 7).flatten().tolist() == [True] * 3 + [False] * 4


def test_a_single_alpha_needs_no_fusion():
    alpha = torch.rand(1, 1, 8, 8)
    assert fuse_alphas({"alpha_os1": alpha}) is alpha


def test_the_alphas_are_not_changed():
    alphas = random_alphas(1, 64, 64)
    before = {name: alpha.clone() for name, alpha in alphas.items()}
    fuse_alphas(alphas)
    assert all(torch.equal(alphas[name], alpha) for name, alpha in before.items())


@pytest.mark.gpu
@pytest.mark.parametrize("side", [None, 640])
def test_cuda_equals_cpu(side):
    alphas = random_alphas(2, 672, 416)
    on_cuda = fuse_alphas({name: alpha.cuda() for name, alpha in alphas.items()}, side)
    assert torch.equal(on_cuda.cpu(), fuse_alphas(alphas, side))
