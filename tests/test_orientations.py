"""A prediction over eight orientations is the mean of eight, each turned back."""

import numpy as np
import pytest
import torch
from stand_in import StandIn

from dptmat.data.cases import pair
from dptmat.data.image_io import write_png
from dptmat.orientations import predict_oriented
from dptmat.tasks.evaluate import evaluate

SHAPES = [(1, 1), (1, 7), (5, 1), (8, 8), (9, 14)]


def sample(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    return image, image[:, :, 0] % 3


@pytest.mark.parametrize("shape", SHAPES)
def test_what_turns_with_the_image_comes_back_with_the_same_bits(shape):
    image, trimap = sample(shape)

    def predict(image, trimap):
        assert (image[:, :, 0] % 3 == trimap).all()  # both are turned alike
        return torch.from_numpy(image[:, :, 1].astype(np.float32)) / 255

    np.testing.assert_array_equal(predict_oriented(predict, image, trimap), predict(image, trimap))


@pytest.mark.parametrize("shape", [(8, 8), (9, 14)])
def test_all_eight_orientations_are_seen_once(shape):
    image, trimap = sample(shape)
    seen = []

    def predict(image, trimap):
        seen.append((image.shape, image.tobytes()))
        return torch.zeros(trimap.shape)

    assert predict_oriented(predict, image, trimap).shape == shape
    turned = [np.rot90(flat, k) for flat in (image, np.transpose(image, (1, 0, 2))) for k in range(4)]
    assert sorted(seen) == sorted((x.shape, x.tobytes()) for x in turned)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_of_a_prediction_that_looks_at_places(shape):
    """A ramp to the right becomes, over all orientations, one half everywhere."""
    image, trimap = sample(shape)

    def ramp(image, trimap):
        height, width = trimap.shape
        return ((torch.arange(width) + 0.5) / width).expand(height, width)

    np.testing.assert_allclose(predict_oriented(ramp, image, trimap), np.full(shape, 0.5), rtol=1e-6)

    def corner(image, trimap):
        alpha = torch.zeros(trimap.shape)
        alpha[0, 0] = 1
        return alpha

    expected = np.zeros(shape)
    for at in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        expected[at] += 2 / 8
    np.testing.assert_array_equal(predict_oriented(corner, image, trimap), expected)


def test_evaluate_takes_the_mean_and_then_cuts_it(tmp_path):
    for folder in ("image", "trimap", "alpha"):
        (tmp_path / folder).mkdir()
    image, _ = sample((40, 64))
    trimap = np.full((40, 64), 128, np.uint8)
    trimap[:4], trimap[-4:] = 0, 255
    for folder, content in (("image", image), ("trimap", trimap), ("alpha", image[:, :, 2])):
        write_png(tmp_path / folder / "x.png", content)
    cases = pair(**{kind: tmp_path / kind for kind in ("image", "trimap", "alpha")})
    assert evaluate(cases, StandIn()).images == evaluate(cases, StandIn(), tta=True).images

    def half(x):  # of the padded image: the left half is opaque
        alpha = torch.zeros_like(x[:, :1])
        alpha[..., : x.shape[-1] // 2] = 1
        return alpha

    network = StandIn(6, half)
    evaluate(cases, network, tta=True, out=tmp_path / "out")
    assert len(network.shown) == 8
    from dptmat.data.image_io import read_alpha

    written = read_alpha(tmp_path / "out/alpha/x.png")
    assert (written[:4] == 0).all()
    assert (written[-4:] == 255).all()
    assert (written[20, :20] == 255 * 6 // 8).all()  # of upright ones half; above the middle of the turned ones all
