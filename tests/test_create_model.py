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


@pytest.mark.parametrize(
    # Widths, blocks and parameters of Swin-T, Swin-S and Swin-B for RGB, without the last norm and the classifier.
    ("name", "widths", "blocks", "swin"),
    [
        ("matteformer", [96, 192, 384, 768], [2, 2, 6, 2], 27_517_818),
        ("matteformer_small", [96, 192, 384, 768], [2, 2, 18, 2], 48_835_722),
        ("matteformer_base", [128, 256, 512, 1024], [2, 2, 18, 2], 86_741_176),
    ],
)
def test_matteformers_have_the_sizes_of_swin(name, widths, blocks, swin):
    with torch.device("meta"):
        encoder = create_model(name, in_channels=3).encoder
    assert [len(stage.blocks) for stage in encoder.layers] == blocks
    assert [stage.blocks[0].norm1.normalized_shape[0] for stage in encoder.layers] == widths
    prior_rows = 3 * sum((b + 1) * width // 32 for width, n in zip(widths, blocks, strict=True) for b in range(n))
    parts = [*encoder.patch_embed.parameters(), *encoder.layers.parameters()]
    assert sum(p.numel() for p in parts) == swin + prior_rows
