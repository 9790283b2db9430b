"""What a GPU is told to do for a batch stays few orders: counted on tensors without values, the same on any machine.

The numbers may only fall. Where one has, the new one is to be recorded here.
"""

import pytest
import torch
from ranges import make_recipe
from without_gpu import empty, empty_layers, without_values

from dptmat.data.matte_batch import make_matte_batch
from dptmat.kernels import synthesize
from dptmat.losses import matting_losses, refine
from dptmat.pipelines.crop_window import REFINE_OS1, REFINE_OS4

NAMES = "l1", "comp", "lap"


@pytest.fixture
def launches(import_benchmark):
    """Function that counts the launches of a call: (its result, the number)."""
    module = import_benchmark("launches")

    def count(call):
        with module.Launches() as counted:
            result = call()
        return result, counted.total

    return count


def make_outputs(*strides):
    return {f"alpha_os{stride}": empty(4, 1, 128, 128, dtype=torch.float32) for stride in strides}


def test_an_operator_that_computes_counts_and_a_view_does_not(launches):
    x = torch.rand(4, 6)
    assert launches(lambda: x.view(6, 4).T[1:].unsqueeze(0).detach())[1] == 0
    assert launches(lambda: torch.empty(3))[1] == 0
    assert launches(lambda: (x.T + 1).sum())[1] == 2
    assert launches(lambda: x.T.contiguous())[1] == 1
    x.requires_grad_()
    assert launches(lambda: (2 * x).sum().backward())[1] == 4  # product, sum; ones to start from, product


def test_a_pre_training_batch_is_one_launch(launches):
    with without_values():
        views, ids, color = empty(4, 64, 64, 3), empty(4, dtype=torch.int64), empty(4, 3, 3, dtype=torch.float32)
        assert launches(lambda: synthesize(views, ids, 0, color))[1] == 1


@pytest.mark.parametrize(("strides", "recorded"), [((1,), 208), ((1, 4, 8), 234)])
def test_losses(launches, strides, recorded):
    with without_values():
        batch = make_matte_batch(empty_layers(4, 128, 15), make_recipe())
        assert launches(lambda: matting_losses(make_outputs(*strides), batch, NAMES))[1] <= recorded


def test_fine_tuning(launches):
    recipe = make_recipe()
    with without_values():
        layers = empty_layers(4, 128, recipe.margin)
        batch, composition = launches(lambda: make_matte_batch(layers, recipe))
        assert composition <= 214
        outputs = make_outputs(1, 4, 8)
        (fused, regions), refinement = launches(lambda: refine(outputs, batch.widths, (REFINE_OS4, REFINE_OS1), 640))
        assert refinement <= 169
        assert launches(lambda: matting_losses(fused, batch, NAMES, regions))[1] <= 255
