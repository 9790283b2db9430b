import subprocess
import sys

import pytest
import torch

from dptmat.models import create_model
from dptmat.models.matteformer import MatteFormer
from dptmat.models.unet import UNet


def test_names_give_their_networks():
    assert isinstance(create_model("matteformer"), MatteFormer)
    network = create_model("unet_resnet18")
    assert isinstance(network, UNet)
    assert network.encoder.backbone.conv1.in_channels == 6


@pytest.mark.parametrize("name", ["matteformer", "unet_resnet18"])
@torch.no_grad()
def test_every_network_keeps_the_contract(name):
    for in_channels in (3, 6):
        network = create_model(name, in_channels=in_channels).eval()
        result = network(torch.randn(2, in_channels, 32, 64))
        assert {key: tuple(alpha.shape) for key, alpha in result.items()} == {
            "alpha_os1": (2, 1, 32, 64),
            "alpha_os4": (2, 1, 32, 64),
            "alpha_os8": (2, 1, 32, 64),
        }
        with pytest.raises(ValueError, match="33 x 64, but both must be multiples of 32; pad it to 64 x 64"):
            network(torch.randn(1, in_channels, 33, 64))
        with pytest.raises(ValueError, match=rf"\[N, {in_channels}, H, W\]"):
            network(torch.randn(1, 9 - in_channels, 32, 32))


def test_unknown_name_gets_the_nearest_one():
    with pytest.raises(ValueError, match="model 'matteforner' is unknown; did you mean 'matteformer'"):
        create_model("matteforner")
    with pytest.raises(
        ValueError, match="model 'xyz' is unknown; there are 'matteformer' and 'unet_' with a name of timm"
    ):
        create_model("xyz")
    with pytest.raises(ValueError, match="timm has no 'resnet3'; did you mean 'unet_resnet"):
        create_model("unet_resnet3")


def test_only_three_or_six_channels():
    with pytest.raises(ValueError, match=r"in_channels must be 6 \(image and trimap\) or 3 \(image alone\), got 4"):
        create_model("matteformer", in_channels=4)


def test_import_leaves_timm_alone():
    code = "import sys, dptmat.models as m; m.create_model('matteformer'); assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
