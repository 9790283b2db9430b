"""Every start of a training: what is loaded is the file's, tensor by tensor, and what is not is told."""

import sys
import types

import pytest
import timm
import torch
from reference.published import published
from torch.nn.functional import interpolate

from dptmat.config.pretrain import PretrainConfig
from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.weights.initialize import initialize

SWIN_T = "swin_tiny_patch4_window7_224"


@pytest.fixture
def logged(caplog):
    """What the library has logged, as a function that gives it as one text."""
    caplog.set_level("INFO", logger="dptmat")
    return lambda: "\n".join(caplog.messages)


def noise(state, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in state.items()
    }


@pytest.fixture(scope="module")
def swin():
    """Swin-T as its authors save it: random values under their names, by the rules of the architecture."""
    state = {
        "patch_embed.proj.weight": torch.empty(96, 3, 4, 4), "patch_embed.proj.bias": torch.empty(96),
        "patch_embed.norm.weight": torch.empty(96), "patch_embed.norm.bias": torch.empty(96),
    }  # fmt: skip
    for s, (blocks, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        c = 96 * 2**s
        for b in range(blocks):
            shapes = {
                "norm1.weight": (c,), "norm1.bias": (c,), "attn.relative_position_bias_table": (169, heads),
                "attn.qkv.weight": (3 * c, c), "attn.qkv.bias": (3 * c,), "attn.proj.weight": (c, c),
                "attn.proj.bias": (c,), "norm2.weight": (c,), "norm2.bias": (c,), "mlp.fc1.weight": (4 * c, c),
                "mlp.fc1.bias": (4 * c,), "mlp.fc2.weight": (c, 4 * c), "mlp.fc2.bias": (c,),
            }  # fmt: skip
            state.update({f"layers.{s}.blocks.{b}.{key}": torch.empty(shape) for key, shape in shapes.items()})
            state[f"layers.{s}.blocks.{b}.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
            if b % 2 and s < 3:
                state[f"layers.{s}.blocks.{b}.attn_mask"] = torch.zeros(64 // 4**s, 49, 49)
        if s < 3:
            state[f"layers.{s}.downsample.reduction.weight"] = torch.empty(2 * c, 4 * c)
            state.update({f"layers.{s}.downsample.norm.{part}": torch.empty(4 * c) for part in ("weight", "bias")})
    head = {"norm.weight": (768,), "norm.bias": (768,), "head.weight": (1000, 768), "head.bias": (1000,)}
    return noise({**state, **{key: torch.empty(shape) for key, shape in head.items()}})


def weights(swin):
    """What is to be loaded, under the names of the authors of Swin."""
    return {
        key: value
        for key, value in swin.items()
        if key.startswith(("patch_embed.", "layers.")) and not key.endswith(("_index", "attn_mask"))
    }


def assert_matteformer_holds(network, swin):
    state = network.state_dict()
    assert len(weights(swin)) == 4 + 12 * 13 + 3 * 3
    for key, value in weights(swin).items():
        mine = state[f"encoder.{key}"]
        if key == "patch_embed.proj.weight":
            mine = mine[:, :3]
        elif key.endswith("table"):
            mine = mine[:169]
        assert torch.equal(mine, value), key


def test_swin_fills_matteformer(swin, tmp_path, logged):
    torch.save({"model": swin}, tmp_path / "swin.pth")
    network = create_model("matteformer")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    initialize(network, "matteformer", str(tmp_path / "swin.pth"))
    assert_matteformer_holds(network, swin)
    state = network.state_dict()
    others = [key for key in state if key.removeprefix("encoder.") not in weights(swin)]
    assert all(torch.equal(state[key], before[key]) for key in others)
    # Xavier-normal for the whole tensors: the variance is 2 / (fans in and out).
    channels = state["encoder.patch_embed.proj.weight"][:, 3:]
    assert channels.std().item() == pytest.approx((2 / (6 * 16 + 96 * 16)) ** 0.5, rel=0.06)
    rows = state["encoder.layers.2.blocks.5.attn.relative_position_bias_table"][169:]
    assert rows.std().item() == pytest.approx((2 / (187 + 12)) ** 0.5, rel=0.2)  # 216 values: 5 % of standard error
    assert logged().splitlines() == [
        f"init {tmp_path}/swin.pth (Swin): 169 of 497 tensors of matteformer",
        "  loaded: encoder.patch_embed 4, encoder.layers 165; of these 1 RGB kept, new channels for the guidance, "
        "12 new rows for prior tokens",
        "  new:    encoder.norm0 2, encoder.norm1 2, encoder.norm2 2, encoder.norm3 2, encoder.shortcut 96, "
        "decoder 224",
        "  left:   layers 17: made by the network itself",
        "  left:   norm 2, head 2: not in matteformer",
    ]


def test_swin_fills_the_swin_of_timm(swin, tmp_path):
    torch.save({"model": swin}, tmp_path / "swin.pth")
    network = create_model(f"unet_{SWIN_T}", 3)
    initialize(network, f"unet_{SWIN_T}", str(tmp_path / "swin.pth"))
    reference = timm.create_model(SWIN_T, features_only=True, strict_img_size=False)
    state = {}
    for key, value in weights(swin).items():
        first, stage, rest = key.split(".", 2)
        later = rest.startswith("downsample")
        state[f"layers_{int(stage) + later}.{rest}" if first == "layers" else key] = value
    reference.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(network.encoder.backbone.eval()(x), reference.eval()(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["SimMIM", "MoBY"])
def test_tables_of_other_windows_are_resampled(swin, tmp_path, monkeypatch, logged, kind):
    module = types.ModuleType("yacs.config")  # its settings lie in the published files
    module.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    small = {
        key: torch.randn(11 * 11, value.shape[1]) if key.endswith("table") else value for key, value in swin.items()
    }
    extra = {"encoder.mask_token": torch.zeros(1, 1, 96), "decoder.0.weight": torch.zeros(3072, 768, 1, 1)}
    if kind == "MoBY":
        copies = {f"encoder_k.{key}": torch.zeros_like(value) for key, value in small.items()}
        extra = {**copies, "projector.linear_hidden.0.weight": torch.zeros(2), "queue1": torch.zeros(2)}
    config = module.CfgNode(MODEL=module.CfgNode(NAME="pretrain"))
    config.frozen = True
    content = {"model": {**{f"encoder.{key}": value for key, value in small.items()}, **extra}, "config": config}
    torch.save(content, tmp_path / "file.pth")
    monkeypatch.undo()
    network = create_model("matteformer")
    initialize(network, "matteformer", str(tmp_path / "file.pth"), "encoder")
    expected = {}
    for key, value in small.items():
        if key.endswith("table"):
            heads = value.shape[1]
            value = interpolate(value.T.reshape(1, heads, 11, 11), size=(13, 13), mode="bicubic")
            value = torch.stack([value[0, :, i, j] for i in range(13) for j in range(13)])
        expected[key] = value
    assert_matteformer_holds(network, expected)
    assert f"({kind}): 169 of 497" in logged()
    assert "12 resampled from 11 x 11 to 13 x 13 positions, new rows for prior tokens" in logged()
    assert ("mask_token 1" if kind == "SimMIM" else "encoder_k 190, projector 1, queue1 1: not of") in logged()


def test_resnet_of_torchvision_fills_a_unet_but_for_the_trimap(tmp_path, logged):
    from torchvision.models import resnet18

    file = noise(resnet18().state_dict())
    torch.save(file, tmp_path / "resnet18.pth")
    network = create_model("unet_resnet18")
    initialize(network, "unet_resnet18", str(tmp_path / "resnet18.pth"))
    state = network.encoder.backbone.state_dict()
    assert state.keys() == file.keys() - {"fc.weight", "fc.bias"}
    assert torch.equal(state.pop("conv1.weight")[:, :3], file["conv1.weight"])
    assert all(torch.equal(value, file[key]) for key, value in state.items())
    assert "left:   fc 2: not in unet_resnet18" in logged()


def test_an_official_checkpoint_loads_in_part_or_whole(tmp_path, logged, caplog):
    torch.manual_seed(1)
    source = create_model("gca")
    file = {f"module.{key}": value for key, value in published(source).items()}
    torch.save({"state_dict": file}, tmp_path / "gca.pth")
    for load in ("encoder", "all"):
        network = create_model("gca")
        decoder = {key: value.clone() for key, value in network.decoder.state_dict().items()}
        caplog.clear()
        initialize(network, "gca", str(tmp_path / "gca.pth"), load)
        expected = source.state_dict()
        if load == "encoder":
            expected.update({f"decoder.{key}": value for key, value in decoder.items()})
            assert "left:   decoder 210: only the encoder is asked for" in logged()
        else:
            assert "578 of 578" in logged()
            assert "new:" not in logged()
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_other_guidance_keeps_rgb_and_settles_the_norm(tmp_path):
    source = create_model("mgmatting_mask")
    torch.save({"model": source.state_dict(), "config": {"model": "mgmatting_mask"}}, tmp_path / "mask.pt")
    network = create_model("mgmatting")
    initialize(network, "mgmatting", str(tmp_path / "mask.pt"))
    for conv, other in (
        (network.encoder.conv1, source.encoder.conv1),
        (network.encoder.shortcut[0][0], source.encoder.shortcut[0][0]),
    ):
        weight = conv.parametrizations.weight
        assert torch.equal(weight.original[:, :3], other.parametrizations.weight.original[:, :3])
        sigma = weight[0]._u @ weight.original.flatten(1) @ weight[0]._v
        # The largest singular value, from below; 20 iterations come this close.
        assert 0.97 < (sigma / torch.linalg.matrix_norm(weight.original.flatten(1), 2)).item() < 1 + 1e-5


def test_what_fits_nothing_is_refused(swin, tmp_path):
    torch.save({"model": swin}, tmp_path / "swin.pth")
    for name in ("gca", "unet_resnet18"):
        network = create_model(name)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(UserError, match=f"holds nothing that fits the encoder of {name}; "):
            initialize(network, name, str(tmp_path / "swin.pth"))
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_timm_names_what_it_cannot_give(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect\nto the hub")

    with pytest.raises(UserError, match="timm has no weights for gca; its encoder is a ResNet of its own"):
        initialize(create_model("gca"), "gca", "timm")
    network = create_model("unet_resnet18")
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match=r"resnet18 cannot be downloaded \(We couldn't connect\)") as raised:
        initialize(network, "unet_resnet18", "timm")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["matteformer", "unet_resnet18"])
def test_weights_of_timm(monkeypatch, logged, name):
    original = timm.create_model("swin_tiny_patch4_window7_224" if name == "matteformer" else "resnet18")
    asked = []
    network = create_model(name)
    monkeypatch.setattr(timm, "create_model", lambda source, pretrained: asked.append((source, pretrained)) or original)
    initialize(network, name, "timm")
    assert asked == [(f"{SWIN_T}.ms_in1k" if name == "matteformer" else "resnet18", True)]
    state, file = network.state_dict(), original.state_dict()
    if name == "matteformer":
        key = "downsample.reduction.weight"
        assert all(torch.equal(state[f"encoder.layers.{s}.{key}"], file[f"layers.{s + 1}.{key}"]) for s in range(3))
        assert "169 of 497" in logged()
    else:
        assert torch.equal(state["encoder.backbone.layer4.1.conv2.weight"], file["layer4.1.conv2.weight"])


def test_random_is_told(logged):
    initialize(create_model("unet_resnet18"), "unet_resnet18", "random")
    assert logged() == "init random: all weights of unet_resnet18 are new"


@pytest.mark.slow
def test_a_run_starts_from_the_file_and_goes_on_without_it(photographs, tmp_path, logged, caplog):
    torch.manual_seed(5)
    begun, file = create_model("unet_resnet18").state_dict(), tmp_path / "first.pt"
    torch.save({"model": begun, "config": {"model": "unet_resnet18"}}, file)
    small = {"data": str(photographs), "size": 64, "batch_size": 4, "model": "unet_resnet18"}
    options = {"out": str(tmp_path / "run"), "init": str(file), "load": "encoder", "steps": 1, "lr": 0.0, **small}
    then = checkpoint.load(pretrain(PretrainConfig(**options)))["model"]
    assert f"init {file} (dptmat's unet_resnet18)" in logged()
    weights = [key for key in begun if key.endswith(("weight", "bias", "original"))]
    same = {key for key in weights if torch.equal(begun[key], then[key])}  # a learning rate of 0 changes nothing
    assert {key for key in weights if key.startswith("encoder.")} <= same
    assert "decoder.layer1.0.conv2.parametrizations.weight.original" not in same
    file.unlink()
    caplog.clear()
    pretrain(PretrainConfig(**options, resume="auto"))
    assert "init " not in logged()
    with pytest.raises(UserError, match="`load` is all, but the run of .* was begun with encoder"):
        pretrain(PretrainConfig(**{**options, "load": "all"}, resume="auto"))


@pytest.mark.parametrize(
    ("init", "message"),
    [("missing.pth", "missing.pth does not exist; give random, timm"), ("text.pth", "cannot be read")],
)
def test_a_wrong_file_is_one_line(photographs, tmp_path, dptmat, init, message):
    (tmp_path / "text.pth").write_text("no weights\n")
    words = ["--data", photographs, "--out", tmp_path / "run", "--init", tmp_path / init, "--model", "unet_resnet18"]
    words += ["--batch-size", 4, "--size", 64, "--steps", 1]
    status, _, error = dptmat("pretrain", *words)
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
