"""Any plain transformer of timm under ViTMatte's decoder."""

import pytest
import timm
import torch
from reference.vitmatte import stirred
from torch.nn.functional import interpolate

from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.weights.export import to_timm
from dptmat.weights.initialize import initialize
from dptmat.weights.load import load_network

TINY = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        (TINY, 16),
        ("vit_small_patch14_dinov2", 14),
        pytest.param("vit_small_patch16_dinov3", 16, marks=pytest.mark.slow),
        pytest.param("vit_base_patch32_224", 32, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_the_last_map_of_timm_meets_the_decoder(name, patch):
    torch.manual_seed(0)
    network = stirred(create_model(f"vit_{name}"))
    model = timm.create_model(name, in_chans=6, num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(
        {key.removeprefix("model."): value for key, value in network.encoder.backbone.state_dict().items()},
        strict=False,
    )
    for height, width in ((224, 224), (64, 96)):
        x = torch.randn(1, 6, height, width)
        resized = interpolate(x, (height // 16 * patch, width // 16 * patch), mode="bilinear")
        features = model.forward_intermediates(resized, 1, intermediates_only=True)[-1]
        assert features.shape[2:] == (height // 16, width // 16)
        alpha = network(x)["alpha_os1"]
        assert alpha.std() > 0.005
        torch.testing.assert_close(alpha, network.decoder(x, features), atol=1e-5, rtol=0)


def test_other_backbones_are_refused_and_the_right_name_is_told():
    refused = {
        "vit_vit_tiny_patch16_225": "did you mean 'vit_vit_tiny_patch16_224'",
        "vit_small_patch14_dinov2": "did you mean 'vit_vit_small_patch14_dinov2'",
        "vit_swin_tiny_patch4_window7_224": "gives feature maps at /4, /8, /16, /32; use unet_swin_tiny",
        "vit_resnet18": "no plain transformer for images of any size; choose such as vit_vit_small_patch14_dinov2",
        "unet_vit_small_patch14_dinov2": "gives feature maps at /14, .*or take vit_vit_small_patch14_dinov2",
    }
    for name, message in refused.items():
        with pytest.raises(UserError, match=message):
            create_model(name)


def test_a_run_starts_from_timm_and_gives_back(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "dptmat")
    torch.manual_seed(0)
    create, source = timm.create_model, timm.create_model(TINY, num_classes=0)
    network = create_model(f"vit_{TINY}")
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, pretrained: source)
        initialize(network, f"vit_{TINY}", "timm")
    state = source.state_dict()
    backbone = network.encoder.backbone.model.state_dict()
    patches = backbone["patch_embed.proj.weight"]
    assert torch.equal(patches[:, :3], state["patch_embed.proj.weight"])
    assert not patches[:, 3:].any()
    others = backbone.keys() - {"patch_embed.proj.weight"}
    assert len(others) > 140
    assert all(torch.equal(backbone[key], state[key]) for key in others)
    torch.save({"model": network.state_dict(), "config": {"model": f"vit_{TINY}"}}, tmp_path / "ours.pt")
    assert load_network(tmp_path / "ours.pt")[1]["model"] == f"vit_{TINY}"
    to_timm(tmp_path / "ours.pt", tmp_path / "encoder.safetensors")
    model = create(TINY, in_chans=6, num_classes=0, checkpoint_path=str(tmp_path / "encoder.safetensors"))
    assert all(torch.equal(value, backbone[key]) for key, value in model.state_dict().items() if key in backbone)
