"""What leaves the library: timm loads the encoder, and onnxruntime computes what PyTorch does, at any size."""

import re

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from reference.published import make_input, randomise
from reference.vitmatte import stirred
from torch.nn.functional import one_hot

from dptmat.errors import UserError
from dptmat.models import create_model, gca
from dptmat.models.matteformer import Stage
from dptmat.weights.export import to_onnx, to_timm


def save(network, name, path):
    torch.save({"model": network.state_dict(), "config": {"model": name, "trimap": network.in_channels > 3}}, path)
    return path


@pytest.fixture
def report(caplog):
    """What the library has logged, as a function that gives it as one text."""
    caplog.set_level("INFO", logger="dptmat")
    return lambda: "\n".join(caplog.messages)


def called(report):
    """Run the call of timm that the report shows."""
    return eval(re.search(r"timm\.create_model\(.*\)", report)[0], {"timm": timm})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "channels"), [("resnet18", 6), ("swin_tiny_patch4_window7_224", 3), ("convnext_atto", 6)]
)
@torch.no_grad()
def test_timm_gives_the_same_features(tmp_path, report, backbone, channels):
    torch.manual_seed(0)
    network = randomise(create_model(f"unet_{backbone}", channels)).eval()
    to_timm(save(network, f"unet_{backbone}", tmp_path / "ours.pt"), tmp_path / "encoder.safetensors")
    model = called(report()).eval()
    x = make_input(1, 224, 224)[:, :channels]
    features = model.forward_intermediates(x, intermediates_only=True)
    for mine, theirs in zip(network.encoder.backbone(x), features, strict=True):
        mine = mine.permute(0, 3, 1, 2) if network.encoder.channels_last else mine
        assert mine.std() > 1e-3
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    new = [] if backbone == "resnet18" else ["norm.weight"]
    assert all(name in report() for name in new)
    assert ("not in the network" in report()) == bool(new)


def test_timm_takes_the_swin_of_a_matteformer(tmp_path, report):
    network = randomise(create_model("matteformer"))
    to_timm(save(network, "matteformer", tmp_path / "ours.pt"), tmp_path / "encoder.safetensors")
    assert "left out: the prior tokens" in report()
    assert "not in the network" not in report()
    model, encoder = called(report()), network.encoder
    assert torch.equal(model.patch_embed.proj.weight, encoder.patch_embed.proj.weight)
    assert torch.equal(model.norm.weight, encoder.norm3.weight)
    for s in range(4):
        if s < 3:
            assert torch.equal(model.layers[s + 1].downsample.norm.bias, encoder.layers[s].downsample.norm.bias)
        for mine, theirs in zip(encoder.layers[s].blocks, model.layers[s].blocks, strict=True):
            theirs = theirs.state_dict()
            for key, value in mine.state_dict().items():
                if not key.endswith("index"):
                    assert torch.equal(theirs[key], value[: len(theirs[key])])


def test_an_encoder_that_timm_does_not_have_is_refused(tmp_path):
    path = save(create_model("gca"), "gca", tmp_path / "ours.pt")
    with pytest.raises(UserError, match="holds gca, whose encoder is not one of timm"):
        to_timm(path, tmp_path / "encoder.safetensors")


@pytest.mark.slow
@torch.no_grad()
def test_onnxruntime_gives_the_same_alphas_at_other_sizes(tmp_path, dptmat):
    torch.manual_seed(0)
    network = randomise(create_model("unet_resnet10t")).eval()
    path = save(network, "unet_resnet10t", tmp_path / "ours.pt")
    status, printed, _ = dptmat("convert", "--to", "onnx", path, tmp_path / "network.onnx")
    assert not status
    assert printed.count("\n") == 1
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    for n, height, width in ((1, 32, 96), (3, 128, 64)):
        x = make_input(n, height, width)
        results = session.run(["alpha_os1", "alpha_os4", "alpha_os8"], {"x": x.numpy()})
        for result, (name, alpha) in zip(results, network(x).items(), strict=True):
            assert alpha.std() > 0.01, name
            np.testing.assert_allclose(result, alpha.numpy(), atol=1e-5)
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".pt", ".onnx")]  # the weights are inside


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.exhaustive
def test_onnxruntime_gives_the_alpha_of_vitmatte_at_other_sizes(tmp_path):
    torch.manual_seed(0)
    network = stirred(create_model("vitmatte_small"))
    to_onnx(save(network, "vitmatte_small", tmp_path / "ours.pt"), tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    for n, height, width in ((1, 32, 96), (2, 256, 320)):
        x = make_input(n, height, width)
        alpha = network(x)["alpha_os1"]
        assert alpha.std() > 0.01
        np.testing.assert_allclose(session.run(["alpha_os1"], {"x": x.numpy()})[0], alpha.numpy(), atol=1e-5)


class Attention(torch.nn.Module):
    """GCA's attention alone, which is what its export depends on."""

    def __init__(self):
        super().__init__()
        self.block = gca.GuidedAttention()

    def forward(self, guidance, x, trimap):
        return self.block(guidance, x, *gca.key_weights(trimap))


def export(module, inputs, shapes, path):
    torch.onnx.export(module, inputs, path, dynamo=True, dynamic_shapes=shapes, opset_version=18, verbose=False)
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    return lambda *values: session.run(None, {name: value.numpy() for name, value in zip(names, values, strict=True)})[
        0
    ]


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:# The axis name")
@torch.no_grad()
def test_windows_of_any_number_can_be_exported(tmp_path):
    torch.manual_seed(0)
    stage = Stage(32, [0.0, 0.0], torch.nn.Identity()).eval()
    n, h, w = (torch.export.Dim(name, max=256) for name in "nhw")

    def make(n, h, w):
        return torch.randn(n, h, w, 32), one_hot(torch.randint(0, 3, (n, h, w)), 3).permute(0, 3, 1, 2).float()

    run = export(stage, make(2, 15, 23), ({0: n, 1: h, 2: w}, {0: n, 2: h, 3: w}), tmp_path / "stage.onnx")
    for size in ((1, 1, 1), (1, 7, 9), (3, 14, 30)):  # the first has two regions that are absent
        values = make(*size)
        np.testing.assert_allclose(run(*values), stage(*values).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:# The axis name")
@torch.no_grad()
def test_attention_over_any_number_of_patches_can_be_exported(tmp_path):
    torch.manual_seed(0)
    module = Attention().eval()
    module.block.W[1].weight.fill_(1)
    n, h, w = (torch.export.Dim(name, min=2 if name != "n" else 1, max=256) for name in "nhw")

    def make(n, h, w):
        trimap = (torch.rand(n, 1, h, w) > 0.5).float()
        return torch.randn(n, 128, 2 * h, 2 * w), torch.randn(n, 128, 2 * h, 2 * w), trimap

    doubled = {0: n, 2: 2 * h, 3: 2 * w}
    run = export(module, make(2, 5, 7), (doubled, doubled, {0: n, 2: h, 3: w}), tmp_path / "attention.onnx")
    for size in ((1, 2, 3), (3, 6, 4)):
        values = make(*size)
        np.testing.assert_allclose(run(*values), module(*values).numpy(), atol=1e-4)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install it by pip install 'dptmat\[onnx\]'"):
        to_onnx(tmp_path / "ours.pt", tmp_path / "network.onnx")
