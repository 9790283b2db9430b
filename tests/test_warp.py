"""Affine warps against OpenCV's and by properties; the CUDA source is run as host C++, and on a GPU where one is."""

import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
from reference import cuda_host

from dptmat.kernels import _launch
from dptmat.kernels.warp import INTERPOLATIONS, as_fixed_point, warp

warp_module = sys.modules["dptmat.kernels.warp"]

FLAGS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
LINEAR = np.array([[0.93, 0.21], [-0.12, 1.17]])
SHIFTS = [(0.3, -4.8), (-60.5, 11.25), (500.0, 0.0), (-1e5, 1e5)]


def draw(samples, channels, height, width):
    rng = np.random.default_rng(height)
    images = torch.from_numpy((rng.integers(0, 256, (samples, channels, height, width)) / 255).astype(np.float32))
    shifts = np.resize(SHIFTS, (samples, 2, 1))
    matrix = np.concatenate([np.tile(LINEAR, (samples, 1, 1)), shifts], axis=2)
    return images, torch.from_numpy(as_fixed_point(matrix)), matrix


@pytest.mark.parametrize("kind", range(4), ids=INTERPOLATIONS)
def test_equals_opencv(kind, device):
    images, fixed, matrix = draw(3, 3, 60, 83)
    ours = warp(*(x.to(device) for x in (images, fixed, torch.full((3,), kind)))).cpu().numpy()
    for n, image in enumerate(images):
        theirs = cv2.warpAffine(
            image.permute(1, 2, 0).numpy(), matrix[n], (83, 60), flags=FLAGS[kind] | cv2.WARP_INVERSE_MAP
        )
        error = np.abs(ours[n] - np.clip(theirs, 0, 1).transpose(2, 0, 1))
        # Some versions of OpenCV round positions to 1/32 pixel, here and there to another one than ours; in noise of
        # full contrast that is 0.004 to 0.008 on average, and a shift by a quarter of a pixel 0.05.
        assert error.mean() < 0.012


@pytest.mark.parametrize("kind", range(4), ids=INTERPOLATIONS)
def test_standing_still_and_whole_pixels_change_nothing(kind, device):
    images, _, _ = draw(2, 1, 37, 41)
    still = np.tile([[1.0, 0, 0], [0, 1, 0]], (2, 1, 1))
    still[1, :, 2] = 5, -3
    out = warp(images.to(device), torch.from_numpy(as_fixed_point(still)).to(device), torch.full((2,), kind).to(device))
    assert torch.equal(out[0].cpu(), images[0])
    moved = torch.zeros_like(images[1])
    moved[:, 3:, :-5] = images[1][:, :-3, 5:]
    assert torch.equal(out[1].cpu(), moved)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (9, 3, 33, 20), (5, 1, 64, 64), (0, 3, 8, 8)])
def test_the_source_for_the_gpu_gives_the_same_bits(shape, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("no g++ here; apt install g++")
    monkeypatch.setattr(_launch, "THREADS", cuda_host.THREADS)
    monkeypatch.setattr(warp_module, "launch", cuda_host.launch)
    images, matrix, _ = draw(*shape)
    kinds = torch.arange(shape[0]) % 4
    assert torch.equal(warp_module._warp_cuda(images, matrix, kinds), warp(images, matrix, kinds))
    turned = torch.arange(shape[0]).flip(0) % 4
    assert torch.equal(warp_module._warp_cuda(images, matrix, turned), warp(images, matrix, turned))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits():
    images, matrix, _ = draw(9, 3, 100, 130)
    kinds = torch.arange(9) % 4
    assert torch.equal(warp(images.cuda(), matrix.cuda(), kinds.cuda()).cpu(), warp(images, matrix, kinds))


def test_wrong_calls_end_in_a_sentence():
    images, matrix, _ = draw(2, 3, 8, 8)
    kinds = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TypeError, match="images must be torch.float32"):
        warp(images.byte(), matrix, kinds)
    with pytest.raises(TypeError, match="matrix must be torch.int64"):
        warp(images, matrix.float(), kinds)
    with pytest.raises(ValueError, match=r"interpolation must have the shape \[2\]"):
        warp(images, matrix, kinds[:1])
