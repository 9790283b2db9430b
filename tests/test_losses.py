"""The losses against NumPy written from the papers, over the unknown region only, and safe without one."""

import cv2
import numpy as np
import pytest
import torch
from reference import losses as reference
from scipy.ndimage import sobel

from dptmat import losses
from dptmat.errors import UserError
from dptmat.kernels import Batch, synthesize
from dptmat.losses import keep_coarsest, matting_losses, refine


@pytest.fixture
def maps():
    """Prediction, alpha and weight (1 where unknown): float32 [2, 1, 64, 96] each."""
    random = torch.Generator().manual_seed(0)
    prediction, alpha = (torch.rand(2, 1, 64, 96, generator=random) for _ in range(2))
    weight = (torch.rand(2, 1, 64, 96, generator=random) < 0.4).float()
    return prediction, alpha, weight


def pyramid_in_numpy(picture, levels=5):
    """Laplacian pyramid of one picture [H, W] by full 2-d convolution in float64."""
    row = np.array([1, 4, 6, 4, 1]) / 16
    taps = np.outer(row, row)

    def convolve(x):
        padded = np.pad(x, 2, mode="reflect")
        return sum(taps[i, j] * padded[i : i + x.shape[0], j : j + x.shape[1]] for i in range(5) for j in range(5))

    bands = []
    for _ in range(levels):
        smaller = convolve(picture)[::2, ::2]
        spread = np.zeros_like(picture)
        spread[::2, ::2] = smaller
        bands.append(picture - 4 * convolve(spread))
        picture = smaller
    return bands


def test_l1_is_the_mean_over_unknown_pixels(maps):
    prediction, alpha, weight = maps
    unknown = weight.bool()
    assert losses.l1(*maps).item() == pytest.approx(
        (prediction[unknown] - alpha[unknown]).abs().mean().item(), rel=1e-6
    )


def test_laplacian_equals_the_difference_of_two_pyramids(maps):
    prediction, alpha, weight = (m.double().numpy()[:, 0] for m in maps)
    expected = 0
    for level in range(5):
        w = weight[:, :: 2**level, :: 2**level]
        error = [
            abs(pyramid_in_numpy(p)[level] - pyramid_in_numpy(a)[level]) for p, a in zip(prediction, alpha, strict=True)
        ]
        expected += 2**level * (np.stack(error) * w).sum() / w.sum()
    assert losses.laplacian(*maps).item() == pytest.approx(expected, rel=1e-5)


def gradient_in_scipy(prediction, alpha, weight):
    """ViTMatte's gradient penalty of maps [N, H, W] in float64, by SciPy's own Sobel filter."""
    total, unknown = 0, weight == 1
    for axis in (1, 2):
        found, true = (np.stack([sobel(m, axis - 1, mode="constant") for m in maps]) for maps in (prediction, alpha))
        total += abs(found - true)[unknown].mean() + 0.01 * abs(found)[unknown].mean()
    return total


def test_gradient_is_that_of_sobels_filter(maps):
    expected = gradient_in_scipy(*(m.double().numpy()[:, 0] for m in maps))
    assert losses.gradient(*maps).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_of_a_ramp_by_hand():
    """Along a ramp of 1/64 a column the filter gives 8/64; a flat prediction errs by that, a true one is penalized."""
    ramp = (torch.arange(64) / 64).expand(1, 1, 64, 64)
    inside = torch.zeros(1, 1, 64, 64)
    inside[..., 1:-1, 1:-1] = 1
    assert losses.gradient(torch.full_like(ramp, 0.5), ramp, inside).item() == pytest.approx(8 / 64)
    assert losses.gradient(ramp, ramp, inside).item() == pytest.approx(0.01 * 8 / 64)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_losses_of_vitmatte(maps, n_outputs):
    """Against formulas of whole pictures in NumPy, for one output and for three."""
    prediction, alpha, weight = maps
    outputs = {"alpha_os1": prediction}
    if n_outputs == 3:
        outputs |= {"alpha_os4": prediction.flip(0), "alpha_os8": prediction.flip(3)}
    trimap = (2 - weight).byte()  # known pixels are foreground
    trimap[0, :, ::2][trimap[0, :, ::2] == 2] = 0
    found = matting_losses(
        outputs, Batch(None, alpha, None, trimap, None), ["grad", "l1_known", "lap_whole"], compile=False
    )
    expected = dict.fromkeys(found, 0.0)
    shares = {"alpha_os1": 2 / 5, "alpha_os4": 1 / 5, "alpha_os8": 1 / 5} if n_outputs == 3 else {"alpha_os1": 1.0}
    for name, share in shares.items():
        p, a, w = (x.double().numpy()[:, 0] for x in (outputs[name], alpha, weight))
        expected["grad"] += share * gradient_in_scipy(p, a, w)
        expected["l1_known"] += share * abs(p - a)[w == 0].mean()
        for level in range(5):
            errors = [abs(pyramid_in_numpy(x)[level] - pyramid_in_numpy(y)[level]) for x, y in zip(p, a, strict=True)]
            expected["lap_whole"] += share * 2**level / 5 * np.mean(errors)
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-5)


def test_composition_equals_compositing_again_with_the_predicted_alpha():
    random = torch.Generator().manual_seed(1)
    views = torch.randint(0, 256, (3, 64, 64, 3), generator=random, dtype=torch.uint8)
    batch = synthesize(views, torch.arange(3), 5)
    prediction = torch.rand(3, 1, 64, 64, generator=random)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    fg = (views.permute(0, 3, 1, 2) / 255 - mean) / std
    again = prediction * fg + (1 - prediction) * fg[batch.pairing]
    unknown = (batch.trimap == 1).float()
    expected = ((again - batch.input[:, :3]).abs() * unknown).sum() / unknown.sum()
    assert losses.composition(prediction, batch.alpha, batch.contrast, unknown).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_known_pixels_do_not_count(maps):
    prediction, alpha, weight = maps
    changed = torch.where(weight.bool(), prediction, prediction + 1)
    assert losses.l1(changed, alpha, weight) == losses.l1(prediction, alpha, weight)
    contrast = torch.rand_like(alpha)
    assert losses.composition(changed, alpha, contrast, weight) == losses.composition(
        prediction, alpha, contrast, weight
    )


def test_without_unknown_pixels_loss_and_gradient_are_zero(maps):
    prediction, alpha, weight = maps
    prediction.requires_grad_()
    nothing = torch.zeros_like(weight)
    total = (
        losses.l1(prediction, alpha, nothing)
        + losses.laplacian(prediction, alpha, nothing)
        + losses.composition(prediction, alpha, torch.ones_like(alpha), nothing)
        + losses.gradient(prediction, alpha, nothing)
    )
    total.backward()
    assert total.item() == 0
    assert (prediction.grad == 0).all()


def test_half_precision_sums_in_float32():
    """A million pixels of error 1/4 add up beyond what float16 can hold (65,504)."""
    prediction, alpha = torch.full((1, 1, 1024, 1024), 0.75).half(), torch.full((1, 1, 1024, 1024), 0.5).half()
    assert losses.l1(prediction, alpha, torch.ones_like(alpha)).item() == 0.25
    inside = torch.ones_like(alpha)
    inside[..., 0] = inside[..., -1] = inside[..., 0, :] = inside[..., -1, :] = 0
    assert losses.gradient(prediction, alpha, inside).item() == 0
    steep = torch.linspace(0, 1, 1024).expand_as(alpha)
    assert losses.gradient(steep.half(), alpha, inside).item() == pytest.approx(1.01 * 8 / 1023, rel=1e-3)


def test_outputs_count_two_one_one_over_five(maps):
    prediction, alpha, _ = maps
    trimap = torch.ones(2, 1, 64, 96, dtype=torch.uint8)
    batch = Batch(input=None, alpha=alpha, contrast=torch.full_like(alpha, 3.0), trimap=trimap, pairing=None)
    outputs = {"alpha_os1": prediction, "alpha_os4": alpha, "alpha_os8": alpha}
    found = matting_losses(outputs, batch, ["l1", "comp"])
    mean = (prediction - alpha).abs().mean().item()
    assert found["l1"].item() == pytest.approx(2 / 5 * mean, rel=1e-5)
    assert found["comp"].item() == pytest.approx(3 * 2 / 5 * mean, rel=1e-5)
    outputs = {"alpha_os1": alpha, "alpha_os4": prediction, "alpha_os8": alpha}
    assert matting_losses(outputs, batch, ["l1"])["l1"].item() == pytest.approx(1 / 5 * mean, rel=1e-5)


def test_a_single_output_counts_fully(maps):
    prediction, alpha, _ = maps
    trimap = torch.ones(2, 1, 64, 96, dtype=torch.uint8)
    batch = Batch(input=None, alpha=alpha, contrast=None, trimap=trimap, pairing=None)
    found = matting_losses({"alpha_os1": prediction}, batch, ["l1"])
    assert found["l1"].item() == pytest.approx((prediction - alpha).abs().mean().item(), rel=1e-5)


def test_refinement_is_the_published_one_with_a_width_for_each_sample():
    """OpenCV's dilation on the CPU, one sample after another, as the published trainers do it."""
    random = np.random.default_rng(0)
    smooth = (
        cv2.GaussianBlur(random.standard_normal((60, 80, 9)), (0, 0), 6).transpose(2, 0, 1).reshape(3, 3, 1, 60, 80)
    )
    alphas = np.clip(smooth * 60 + 0.5, 0, 1).astype(np.float32)
    outputs = dict(zip(("alpha_os1", "alpha_os4", "alpha_os8"), torch.from_numpy(alphas), strict=True))
    widths = torch.tensor([[1, 14], [29, 1], [8, 3]])
    fused, regions = refine(outputs, widths, (29, 14))
    for i in range(3):
        alpha = alphas[2, i, 0]
        for column, (name, finer) in enumerate((("alpha_os4", alphas[1, i, 0]), ("alpha_os1", alphas[0, i, 0]))):
            width = int(widths[i, column])
            uncertain = ((alpha >= 1 / 255) & (alpha <= 254 / 255)).astype(np.uint8)
            region = cv2.dilate(uncertain, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))) > 0
            alpha = np.where(region, finer, alpha)
            assert np.array_equal(regions[name][i, 0].numpy(), region)
            assert np.array_equal(fused[name][i, 0].numpy(), alpha)
            assert 0 < region.mean() < 1
    assert regions["alpha_os8"].all()
    assert fused["alpha_os8"] is outputs["alpha_os8"]


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (224, 224)])  # the last in more than one thread
@pytest.mark.parametrize("outputs", [("alpha_os1",), ("alpha_os1", "alpha_os4", "alpha_os8")])
@pytest.mark.parametrize("in_regions", [False, True])
def test_outputs_go_together_as_one_after_the_other(size, outputs, in_regions):
    """To the bit, and so do their gradients: a run does not depend on how its losses are arranged."""
    random = torch.Generator().manual_seed(0)
    shape = 3, 1, *size
    alpha, contrast = torch.rand(shape, generator=random), 5 * torch.rand(shape, generator=random)
    trimap = torch.randint(0, 3, shape, generator=random, dtype=torch.uint8)
    regions = {key: torch.rand(shape, generator=random) < 0.4 for key in outputs} if in_regions else None
    weights = {key: (regions[key] if regions else trimap == 1).float() for key in outputs}
    logits = [4 * torch.randn(shape, generator=random) for _ in outputs]
    results = []
    for losses_of in (
        lambda given: matting_losses(given, Batch(None, alpha, contrast, trimap, None), ("l1", "comp", "lap"), regions),
        lambda given: reference.matting_losses(given, alpha, contrast, weights),
    ):
        leaves = [x.clone().requires_grad_() for x in logits]
        found = losses_of({key: (torch.tanh(x) + 1) / 2 for key, x in zip(outputs, leaves, strict=True)})
        (1024 * sum(found.values())).backward()
        results.append([*found.values(), *(x.grad for x in leaves)])
    assert all(map(torch.equal, *results))
    assert all(x.abs().max() > 0 for x in results[0])


def test_outputs_count_in_their_regions(maps):
    prediction, alpha, weight = maps
    batch = Batch(input=None, alpha=alpha, contrast=None, trimap=torch.zeros(2, 1, 64, 96), pairing=None)
    outputs = {"alpha_os1": prediction, "alpha_os4": prediction, "alpha_os8": alpha}
    nowhere = torch.zeros_like(weight, dtype=torch.bool)
    regions = {"alpha_os1": nowhere, "alpha_os4": weight.bool(), "alpha_os8": nowhere}
    found = matting_losses(outputs, batch, ["l1"], regions)["l1"].item()
    assert found == pytest.approx(losses.l1(prediction, alpha, weight).item() / 5)


def test_a_loss_that_there_is_not_is_named(maps):
    prediction, alpha, _ = maps
    batch = Batch(None, alpha, alpha, torch.ones_like(alpha), None)
    with pytest.raises(UserError, match="`names` must be some of l1, comp, lap, grad, .*, got 'gabor'"):
        matting_losses({"alpha_os1": prediction}, batch, ["l1", "gabor"])


def test_the_coarsest_output_counts_everywhere_and_stands_in_for_the_others(maps):
    """Against formulas of whole pictures in NumPy: known pixels of the finer outputs say nothing, not even around."""
    alpha, weight = maps[1], maps[2]
    random = torch.Generator().manual_seed(1)
    outputs = {name: torch.rand(alpha.shape, generator=random) for name in ("alpha_os1", "alpha_os4", "alpha_os8")}
    trimap, contrast = weight.byte(), torch.rand(alpha.shape, generator=random)
    given = {name: output.clone().requires_grad_() for name, output in outputs.items()}
    kept, where = keep_coarsest(given, trimap == 1)
    found = matting_losses(kept, Batch(None, alpha, contrast, trimap, None), ("l1", "comp", "lap"), where)
    unknown = weight.numpy() == 1
    fused = {name: np.where(unknown, output, outputs["alpha_os8"]) for name, output in outputs.items()}
    regions = {name: np.ones_like(unknown) if name == "alpha_os8" else unknown for name in outputs}
    shares = {"alpha_os1": 0.4, "alpha_os4": 0.2, "alpha_os8": 0.2}
    expected = {"l1": 0, "comp": 0, "lap": 0}
    for name, share in shares.items():
        error = abs(fused[name] - alpha.numpy())
        expected["l1"] += share * error[regions[name]].mean()
        expected["comp"] += share * (error * contrast.numpy())[regions[name]].mean()
        levels = [pyramid_in_numpy(x.astype(np.float64)) for x in (fused[name] - alpha.numpy())[:, 0]]
        for level in range(5):
            w = regions[name][:, 0, :: 2**level, :: 2**level]
            bands = np.stack([abs(bands[level]) for bands in levels])
            expected["lap"] += share * 2**level * bands[w].mean()
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-4)
    sum(found.values()).backward()
    assert all((given[name].grad[trimap == 0] == 0).all() for name in ("alpha_os1", "alpha_os4"))


def test_an_only_output_counts_in_the_unknown_region(maps):
    fused, regions = keep_coarsest({"alpha_os1": maps[0]}, maps[2] == 1)
    assert fused == {"alpha_os1": maps[0]}
    assert torch.equal(regions["alpha_os1"], maps[2] == 1)
