import subprocess
import sys

import pytest
import torch

from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.models.gca import GCAMatting
from dptmat.models.matteformer import MatteFormer
from dptmat.models.mgmatting import MGMatting
from dptmat.models.unet import UNet


def test_names_give_their_networks():
    assert isinstance(create_model("matteformer"), MatteFormer)
    network = create_model("unet_resnet18")
    assert isinstance(network, UNet)
    assert network.encoder.backbone.conv1.in_channels == 6
    assert isinstance(create_model("gca"), GCAMatting)
    network = create_model("mgmatting")
    assert isinstance(network, MGMatting)
    assert network.encoder.conv1.in_channels == 6
    assert create_model("mgmatting_mask").encoder.conv1.in_channels == 4


@pytest.mark.parametrize("name", ["matteformer", "unet_resnet18", "gca", "mgmatting", "mgmatting_mask"])
@torch.no_grad()
def test_every_network_keeps_the_contract(name):
    for in_channels in (3, 4 if name == "mgmatting_mask" else 6):
        network = create_model(name, in_channels=in_channels).eval()
        result = network(torch.randn(2, in_channels, 32, 64))
        assert list(result) == (["alpha_os1"] if name == "gca" else ["alpha_os1", "alpha_os4", "alpha_os8"])
        for alpha in result.values():
            assert alpha.shape == (2, 1, 32, 64)
            assert alpha.dtype == torch.float32
            assert 0 <= alpha.min() < alpha.max() <= 1
        with pytest.raises(ValueError, match="33 x 64, but both must be multiples of 32; pad it to 64 x 64"):
            network(torch.randn(1, in_channels, 33, 64))
        with pytest.raises(ValueError, match=rf"\[N, {in_channels}, H, W\]"):
            network(torch.randn(1, 9 - in_channels, 32, 32))


def test_unknown_name_gets_the_nearest_one():
    with pytest.raises(ValueError, match="model 'matteforner' is unknown; did you mean 'matteformer'"):
        create_model("matteforner")
    with pytest.raises(
        ValueError, match="model 'xyz' is unknown; there are 'matteformer'.* 'gca', .* and 'unet_' with a name of timm"
    ):
        create_model("xyz")
    with pytest.raises(ValueError, match="timm has no 'resnet3'; did you mean 'unet_resnet"):
        create_model("unet_resnet3")


@pytest.mark.parametrize("name", [None, 7, ["gca"], b"gca"])
def test_a_name_must_be_a_string(name):
    with pytest.raises(UserError, match=r"must be a string, got .*; there are 'matteformer'"):
        create_model(name)


@pytest.mark.parametrize("name", ["matteformer", "gca", "mgmatting", "unet_resnet18"])
def test_only_three_or_six_channels(name):
    with pytest.raises(UserError, match=r"must be 6 \(image and trimap\) or 3 \(image alone\), got 4"):
        create_model(name, in_channels=4)


def test_only_three_or_four_channels_with_a_mask():
    with pytest.raises(UserError, match=r"'mgmatting_mask' must be 4 \(image and mask\) or 3 \(image alone\), got 6"):
        create_model("mgmatting_mask", in_channels=6)


def test_import_leaves_timm_alone():
    code = "import sys, dptmat.models as m; m.create_model('matteformer'); assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
