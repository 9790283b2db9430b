"""From layers to the network's input: each rule against NumPy, OpenCV and the standard library."""

import colorsys

import cv2
import numpy as np
import pytest
import torch
from mattes import shades, soft_disc
from ranges import make_recipe

from dptmat.data.matte_batch import hsv_to_rgb, jitter, make_matte_batch, rgb_to_hsv
from dptmat.pipelines.batches import Layers
from dptmat.pipelines.crop_window import CHOICES

SIZE, RECIPE = 64, make_recipe(trimap_width=9)
SIDE = SIZE + 2 * RECIPE.margin
CROP = slice(RECIPE.margin, RECIPE.margin + SIZE)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def make_layers(**choices):
    """Two samples with different pictures and the same choices."""
    given = {"combined": 0, "fg_width": 3, "bg_width": 6, "hue": 0, "saturation": 0, "value": 0, **choices}
    row = [float(given.get(name, 1)) for name in CHOICES]
    return Layers(
        *(torch.from_numpy(np.stack(pictures)) for pictures in (
            [shades(SIDE, SIDE, seed) for seed in (0, 1)],
            [soft_disc(SIDE, SIDE)[..., None], soft_disc(SIDE, SIDE, 1.0)[..., None]],
            [shades(SIDE, SIDE, seed) for seed in (2, 3)],
            [soft_disc(SIDE, SIDE, 30.0)[::-1, ..., None], soft_disc(SIDE, SIDE)[:, ::-1, None]],
            [shades(SIZE, SIZE, seed) for seed in (4, 5)],
        )),
        torch.tensor([row, row]), torch.arange(2),
    )  # fmt: skip


def in_numpy(layers, i):
    """float64 copies of a sample's five pictures, 0..1, with margins."""
    return [layer[i].numpy().astype(np.float64) / 255 for layer in layers[:5]]


def colours_of(batch):
    """The composite as float64 [N, H, W, 3], 0..1."""
    return batch.input[:, :3].permute(0, 2, 3, 1).double().cpu().numpy() * STD + MEAN


@pytest.mark.parametrize("combined", [0, 1])
def test_composite_alpha_and_contrast_follow_the_formulas(device, combined):
    layers = make_layers(combined=combined)
    batch = make_matte_batch(Layers(*(layer.to(device) for layer in layers)), RECIPE)
    for i in range(2):
        fg, alpha, second_fg, second_alpha, bg = in_numpy(layers, i)
        if combined:
            fg = alpha * fg + (1 - alpha) * second_fg
            alpha = 1 - (1 - alpha) * (1 - second_alpha)
        fg, alpha = fg[CROP, CROP], alpha[CROP, CROP]
        assert np.abs(batch.alpha[i, 0].cpu().numpy() - alpha[..., 0]).max() < 1e-6
        composite = alpha * fg + (1 - alpha) * bg
        # one part in 10,000 of a level: float32, there and back
        assert np.abs(colours_of(batch)[i] - composite).max() < 1e-5
        contrast = (np.abs(fg - bg) / STD).sum(-1)
        assert np.abs(batch.contrast[i, 0].cpu().numpy() - contrast).max() < 1e-4
    assert batch.input.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("widths", [(1, 1), (3, 6), (9, 8)])
def test_the_trimap_is_what_opencv_erodes_of_the_whole(widths):
    """Known regions shrink by ellipses; the crop's border does not count as one of theirs."""
    layers = make_layers(fg_width=widths[0], bg_width=widths[1])
    batch = make_matte_batch(layers, RECIPE)
    for i in range(2):
        alpha = layers.alpha[i, ..., 0].numpy()
        wanted = np.ones_like(alpha)
        for value, known, width in ((2, alpha == 255, widths[0]), (0, alpha == 0, widths[1])):
            ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
            wanted[cv2.erode(known.astype(np.uint8), ellipse) > 0] = value
        assert np.array_equal(batch.trimap[i, 0].numpy(), wanted[CROP, CROP])
        one_hot = batch.input[i, 3:].numpy()
        assert np.array_equal(one_hot.argmax(0), wanted[CROP, CROP])
        assert np.array_equal(one_hot.sum(0), np.ones((SIZE, SIZE)))
        assert 0 < (wanted == 1).mean() < 1


def test_hue_saturation_and_value_equal_the_standard_library():
    rgb = np.random.default_rng(0).integers(0, 6, (500, 3)) / 5  # greys, primaries and ties among them
    given = torch.from_numpy(rgb.T.reshape(1, 3, 20, 25))
    ours = torch.cat(rgb_to_hsv(given), 1)[0].flatten(1).T.numpy()
    wanted = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in rgb]) * (360, 1, 1)
    assert np.abs(ours - wanted).max() < 1e-9
    assert torch.allclose(hsv_to_rgb(*rgb_to_hsv(given)), given, atol=1e-12)


def test_colours_change_by_the_published_rule():
    fg = torch.from_numpy(np.stack([shades(32, 32, seed) for seed in (0, 1)])).permute(0, 3, 1, 2) / 255
    alpha = torch.from_numpy(np.stack([soft_disc(32, 32)] * 2))[:, None] / 255
    choice = {name: torch.tensor(value).view(2, 1, 1, 1) for name, value in (
        ("hue", [-40.0, 39.0]), ("saturation", [1.0, -0.5]), ("value", [-0.25, 0.9])
    )}  # fmt: skip
    ours = jitter(fg, alpha, choice).permute(0, 2, 3, 1).numpy()
    for i in range(2):
        hsv = np.array([[colorsys.rgb_to_hsv(*pixel) for pixel in row] for row in fg[i].permute(1, 2, 0).tolist()])
        visible = alpha[i, 0].numpy() > 0
        hsv[..., 0] = (hsv[..., 0] + choice["hue"][i].item() / 360) % 1
        for channel, name in ((1, "saturation"), (2, "value")):
            mean = hsv[..., channel][visible].mean()
            changed = hsv[..., channel] + choice[name][i].item() * (1.1 - mean) / 10
            changed = np.where(changed > 1, 2 - changed, np.abs(changed))
            hsv[..., channel] = changed
        wanted = np.array([[colorsys.hsv_to_rgb(*pixel) for pixel in row] for row in hsv])
        assert np.abs(ours[i] - wanted).max() < 1e-5


def test_an_empty_matte_leaves_the_background_and_no_number_that_is_none():
    layers = make_layers(hue=30, saturation=1, value=1)
    layers.alpha.zero_()
    batch = make_matte_batch(layers, RECIPE)
    assert (batch.trimap == 0).all()
    assert np.abs(colours_of(batch) - layers.bg.numpy() / 255).max() < 1e-5
    assert batch.input.isfinite().all()


def test_the_refinement_gets_its_widths():
    batch = make_matte_batch(make_layers(os4_width=17, os1_width=5), RECIPE)
    assert batch.widths.tolist() == [[17, 5], [17, 5]]
