import pytest
import timm
import torch
from reference.published import decode, heads, make_input, published, randomise, shortcut
from torch.nn.functional import interpolate

from dptmat.models.unet import UNet


def ready(network):
    """Evaluation after one training pass over noise, so that the statistics of the batch norms fit."""
    network.train()
    for block in [b for stage in (network.decoder.layer1, network.decoder.layer2) for b in stage]:
        torch.nn.init.ones_(block.bn2.weight)
    with torch.no_grad():
        network(torch.randn(2, network.in_channels, 64, 64))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "swin_tiny_patch4_window7_224", "convnext_atto", "vgg11", "mobilenetv3_small_100"],
)
@torch.no_grad()
def test_one_network_takes_every_multiple_of_32(backbone):
    torch.manual_seed(0)
    network = ready(UNet(backbone))
    for height, width in ((224, 224), (96, 160)):
        result = network(torch.randn(1, 6, height, width))
        assert list(result) == ["alpha_os1", "alpha_os4", "alpha_os8"]
        for alpha in result.values():
            assert alpha.shape == (1, 1, height, width)
            assert alpha.dtype == torch.float32
            assert 0 <= alpha.min() < alpha.max() <= 1


@pytest.mark.slow
@torch.no_grad()
def test_swin_takes_the_crops_of_fine_tuning():
    network = UNet("swin_tiny_patch4_window7_224").eval()
    assert network(torch.randn(1, 6, 512, 512))["alpha_os1"].shape == (1, 1, 512, 512)


@torch.no_grad()
def plain_unet(network, x, **options):
    """The maps of timm's own network with the same weights, then the published shortcuts and decoder."""
    timms = timm.create_model(network.backbone_name, features_only=True, in_chans=x.shape[1], **options)
    timms.load_state_dict(network.encoder.backbone.state_dict())
    maps = timms.eval()(x)
    if network.backbone_name.startswith("swin"):
        maps = [y.movedim(3, 1) for y in maps]
    if len(maps) == 4:  # transformers have no map at /2
        maps.insert(0, interpolate(maps[0], (x.shape[2] // 2, x.shape[3] // 2), mode="bilinear", align_corners=True))
    state = published(network)
    features = [shortcut(state, i, y) for i, y in enumerate([x, *maps])]
    return heads(state, decode(state, features), x.shape[2:])


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("resnet18", {}), ("convnext_atto", {}), ("swin_tiny_patch4_window7_224", {"strict_img_size": False})],
)
@torch.no_grad()
@pytest.mark.slow
def test_the_maps_of_timm_meet_the_published_decoder(backbone, options):
    torch.manual_seed(0)
    network = randomise(UNet(backbone)).eval()
    x = make_input(1, 64, 96)
    expected = plain_unet(network, x, **options)
    result = network(x)
    assert list(result) == list(expected)
    for name, alpha in expected.items():
        assert alpha.std() > 0.01
        torch.testing.assert_close(result[name], alpha, atol=2e-4, rtol=0)


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    network = UNet("resnet18").train()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))  # no weight stays 0
    result = network(torch.randn(2, 6, 64, 64))
    sum((alpha * torch.randn_like(alpha)).sum() for alpha in result.values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_batch_members_do_not_interact():
    torch.manual_seed(0)
    network = ready(UNet("resnet18"))
    x = torch.randn(3, 6, 64, 64)
    together = network(x)
    for i in range(3):
        for name, alpha in network(x[i : i + 1]).items():
            # Sums run in another order for another batch size.
            torch.testing.assert_close(together[name][i : i + 1], alpha, atol=1e-4, rtol=0)


@torch.no_grad()
def test_three_channels_need_no_trimap():
    result = UNet("resnet18", in_channels=3).eval()(torch.randn(1, 3, 64, 64))
    assert result["alpha_os1"].shape == (1, 1, 64, 64)


@pytest.mark.exhaustive
def test_compiles_without_a_graph_break():
    network = ready(UNet("resnet18"))
    x = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        expected = network(x)
        result = torch.compile(network, backend="eager", fullgraph=True)(x)
    for name, alpha in expected.items():
        torch.testing.assert_close(result[name], alpha, atol=1e-5, rtol=0)


def test_unknown_backbone_gets_the_nearest_names_of_timm():
    with pytest.raises(
        ValueError, match="model 'unet_resnet333' .* timm has no 'resnet333'; did you mean 'unet_resnet33ts'"
    ):
        UNet("resnet333")
    with pytest.raises(ValueError, match="timm has no ''; did you mean 'unet_resnet34'"):
        UNet("")


def test_backbone_without_a_pyramid_is_refused():
    with pytest.raises(
        ValueError,
        match="'vit_tiny_patch16_224' gives .* at /16, but .*choose a ResNet.*, or take vit_vit_tiny_patch16_224",
    ):
        UNet("vit_tiny_patch16_224")


def test_backbone_without_feature_maps_is_refused(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("features_only not implemented for such models.")  # as timm does for some of its models

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match=r"'resnet18' gives no feature maps \(features_only not implemented"):
        UNet("resnet18")
