"""Growing and shrinking masks equals OpenCV's, for every width that is used, all at once."""

import cv2
import numpy as np
import pytest
import torch

from dptmat.morphology import dilate, erode


def masks(n, height, width, share):
    return torch.from_numpy(np.random.default_rng(n).random((n, 1, height, width)) < share)


def opencv(function, mask, width):
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return torch.from_numpy(function(mask.numpy().astype(np.uint8), ellipse) > 0)


@pytest.mark.parametrize(("height", "width"), [(60, 70), (7, 90), (1, 1), (40, 3)])
@pytest.mark.parametrize(("ours", "theirs", "share"), [(dilate, cv2.dilate, 0.003), (erode, cv2.erode, 0.997)])
def test_every_width_equals_opencv(ours, theirs, share, height, width):
    widths = torch.arange(1, 31)
    given = masks(len(widths), height, width, share)
    result = ours(given, widths, 30)
    assert 0 < result.float().mean() < 1 or height * width < 200
    for mask, k, got in zip(given, widths.tolist(), result, strict=True):
        assert torch.equal(got[0], opencv(theirs, mask[0], k)), k


def test_one_width_for_all_is_that_width_for_each():
    given = masks(4, 33, 35, 0.01)
    for k in (1, 2, 7, 15):
        assert torch.equal(dilate(given, k), dilate(given, torch.full((4,), k), 29))


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    given, widths = masks(8, 60, 70, 0.01), torch.arange(8) * 3 + 1
    assert torch.equal(dilate(given.cuda(), widths.cuda(), 29).cpu(), dilate(given, widths, 29))
