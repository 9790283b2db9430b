"""ViTMatte's checkpoints in and out: the project's layout, that of transformers, and the starts of its transformer."""

import json

import pytest
import timm
import torch
from reference.vitmatte import by_transformers, named, stirred
from safetensors.torch import save_file
from torch.nn.functional import one_hot
from transformers import VitMatteForImageMatting

from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.weights.export import to_timm
from dptmat.weights.initialize import initialize
from dptmat.weights.load import load_network

SMALL = "vitmatte_small"


@pytest.fixture(scope="module")
def published():
    """A network of 4 channels, as the project has it."""
    torch.manual_seed(0)
    return stirred(create_model(SMALL, 4))


@pytest.fixture(scope="module")
def files(published, tmp_path_factory):
    """The same in every way in which it is published, by name."""
    folder = tmp_path_factory.mktemp("published")
    official, transformers = (named(published.state_dict(), layout) for layout in (1, 2))
    by_transformers(384).load_state_dict(transformers, strict=True)  # or the names would be wrong here
    assert len(official) == len(transformers) == 258
    torch.save(official, folder / "bare.pth")
    torch.save({"model": official, "iteration": 3}, folder / "detectron.pth")
    torch.save(transformers, folder / "pytorch_model.bin")
    save_file(transformers, folder / "model.safetensors", {"format": "pt"})
    return folder


def inputs(height=64, width=96):
    """The same image and trimap in 4 and in 6 channels."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, height, width, generator=generator)
    trimap = torch.randint(0, 3, (1, height, width), generator=generator)
    return torch.cat([image, trimap[:, None] / 2], 1), torch.cat([image, one_hot(trimap, 3).movedim(3, 1)], 1)


@pytest.mark.parametrize("official", [None, "vitmatte"])
@pytest.mark.parametrize("name", ["bare.pth", "detectron.pth", "pytorch_model.bin", "model.safetensors"])
@torch.no_grad()
def test_every_layout_gives_the_published_alpha_in_six_channels(files, published, name, official):
    network, config = load_network(files / name, official=official)
    assert config == {"model": SMALL, "trimap": True}
    assert network.in_channels == 6
    if official is None:
        x4, x6 = inputs()
        torch.testing.assert_close(network(x6)["alpha_os1"], published(x4)["alpha_os1"], atol=1e-6, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_the_larger_network_is_known_by_its_width(tmp_path):
    torch.manual_seed(0)
    base = stirred(create_model("vitmatte_base", 4))
    save_file(named(base.state_dict(), 2), tmp_path / "model.safetensors")
    network, config = load_network(tmp_path / "model.safetensors")
    assert config["model"] == "vitmatte_base"
    x4, x6 = inputs(32, 32)
    torch.testing.assert_close(network(x6)["alpha_os1"], base(x4)["alpha_os1"], atol=1e-6, rtol=0)


@torch.no_grad()
def test_transformers_gets_back_what_it_gave(files, published, tmp_path, dptmat):
    ours, folder = tmp_path / "ours.pt", tmp_path / "folder"
    assert dptmat("convert", "--from", "vitmatte", files / "detectron.pth", ours)[0] == 0
    status, printed, _ = dptmat("convert", "--to", "transformers", ours, folder)
    assert (status, printed) == (
        0, f'{folder}: vitmatte_small; VitMatteForImageMatting.from_pretrained("{folder}")\n'
    )  # fmt: skip
    model = VitMatteForImageMatting.from_pretrained(folder)
    assert model.config.backbone_config.num_channels == 4
    x4, _ = inputs()
    torch.testing.assert_close(model(pixel_values=x4).alphas, published(x4)["alpha_os1"], atol=1e-6, rtol=0)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.485, 0.456, 0.406]
    again, _ = load_network(folder / "model.safetensors")
    first, _ = load_network(ours)
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in again.state_dict().items())


@torch.no_grad()
def test_the_project_gets_back_what_it_gave(files, tmp_path, dptmat):
    ours, theirs = tmp_path / "ours.pt", tmp_path / "theirs.pth"
    assert dptmat("convert", files / "model.safetensors", ours)[0] == 0
    assert dptmat("convert", "--to", "vitmatte", ours, theirs)[0] == 0
    expected = torch.load(files / "bare.pth")
    written = torch.load(theirs, weights_only=True)["model"]
    assert written.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in written.items())


@pytest.mark.parametrize("in_channels", [6, 3])
@torch.no_grad()
def test_trained_channels_go_to_transformers_as_they_are(tmp_path, dptmat, in_channels):
    torch.manual_seed(0)
    network = stirred(create_model(SMALL, in_channels))
    ours = tmp_path / "ours.pt"
    torch.save({"model": network.state_dict(), "config": {"model": SMALL, "trimap": in_channels == 6}}, ours)
    status, printed, error = dptmat("convert", "--to", "vitmatte", ours, tmp_path / "theirs.pth")
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert f"whose {in_channels} input channels are no image of the published 4" in error
    assert not (tmp_path / "theirs.pth").exists()
    status, printed, _ = dptmat("convert", "--to", "transformers", ours, tmp_path / "folder")
    assert status == 0
    assert ("pixel_values have 6 channels" in printed) == (in_channels == 6)
    x = inputs()[1][:, :in_channels]
    model = VitMatteForImageMatting.from_pretrained(tmp_path / "folder")
    torch.testing.assert_close(model(pixel_values=x).alphas, network(x)["alpha_os1"], atol=1e-5, rtol=0)
    again, config = load_network(tmp_path / "folder/model.safetensors")
    assert (again.in_channels, config["trimap"]) == (in_channels, in_channels == 6)


def test_other_files_are_refused(files, tmp_path, dptmat):
    state = torch.load(files / "pytorch_model.bin")
    wrong = {
        "cut": dict(list(state.items())[:200]),
        "wide": {key: value.repeat(2, 1, 1) if "position_emb" in key else value for key, value in state.items()},
        "more": {**state, "backbone.routers.0.weight": torch.zeros(2)},
        "odd": {key: value[..., :380] if value.shape[-1:] == (384,) else value for key, value in state.items()},
        "five": {
            key: torch.cat([value, value[:, :1]], 1) if "projection.weight" in key else value
            for key, value in state.items()
        },
        "spoilt": {key: value / 0 if "norm1.bias" in key else value for key, value in state.items()},
    }
    expected = {
        "cut": "58 missing", "wide": "1 of another shape: backbone.embeddings.position_embeddings [2, 197, 384]",
        "more": "1 unknown: backbone.routers.0.weight", "odd": "holds no matting network",
        "five": "backbone.embeddings.projection.weight [384, 5, 16, 16] instead of [384, 6, 16, 16]",
        "spoilt": "not finite",
    }  # fmt: skip
    for name, content in wrong.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError) as refused:
            load_network(tmp_path / name)
        assert expected[name] in str(refused.value), name
    content = (files / "model.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_network(tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="is a checkpoint of vitmatte_small; expected one that the project of gca"):
        load_network(files / "bare.pth", official="gca")
    published = {"model": create_model(SMALL, 4).state_dict(), "config": {"model": SMALL}}
    torch.save(published, tmp_path / "four.pt")
    with pytest.raises(UserError, match=r"patch_embed.proj.weight \[384, 4, 16, 16\] instead of \[384, 6, 16, 16\]"):
        load_network(tmp_path / "four.pt")


@pytest.mark.parametrize("form", ["transformers", "vitmatte"])
def test_another_network_has_no_such_form(tmp_path, dptmat, form):
    path = tmp_path / "ours.pt"
    torch.save({"model": create_model("unet_resnet10t").state_dict(), "config": {"model": "unet_resnet10t"}}, path)
    status, _, error = dptmat("convert", "--to", form, path, tmp_path / "out")
    assert status == 2
    assert "holds unet_resnet10t; this form is for vitmatte_small and vitmatte_base alone" in error
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_not_written_into(files, tmp_path, dptmat):
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file.write_text("mine")
    words = {full: "holds other files already, such as notes.txt", file: "is a file", tmp_path / "a/b": "in no folder"}
    for out, message in words.items():
        status, _, error = dptmat("convert", "--to", "transformers", files / "bare.pth", out)
        assert status == 2
        assert message in error
        assert error.count("\n") == 1
    assert [path.name for path in full.iterdir()] == ["notes.txt"]


def test_a_run_starts_from_a_published_checkpoint(files, published, caplog):
    caplog.set_level("INFO", "dptmat")
    for in_channels, name in ((6, "model.safetensors"), (4, "bare.pth"), (3, "detectron.pth")):
        network = create_model(SMALL, in_channels)
        initialize(network, SMALL, str(files / name))
        assert f"(official {SMALL}): 258 of 258 tensors" in caplog.text
        caplog.clear()
        seen = network.state_dict()["decoder.fusion_blks.3.conv.conv.weight"]
        original = published.state_dict()["decoder.fusion_blks.3.conv.conv.weight"]
        assert torch.equal(seen[:, :3], original[:, :3])
        assert torch.equal(seen[:, in_channels:], original[:, 4:])


def plain_transformer(seed=0):
    """ViT-S/16 under the names of DINO, MAE and timm: random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = timm.create_model("vit_small_patch16_224", num_classes=0)
    return {key: torch.randn(value.shape, generator=generator) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["dino", "mae", "timm"])
def test_a_plain_transformer_fills_the_encoder(tmp_path, monkeypatch, caplog, kind):
    caplog.set_level("INFO", "dptmat")
    state, init = plain_transformer(), "timm"
    if kind == "timm":
        model = timm.create_model("vit_small_patch16_224", num_classes=0)
        model.load_state_dict(state)
        monkeypatch.setattr(timm, "create_model", lambda name, pretrained: {"vit_small_patch16_224.dino": model}[name])
    else:
        init = str(tmp_path / "start.pth")
        torch.save(state if kind == "dino" else {"model": {**state, "mask_token": torch.zeros(1, 1, 384)}}, init)
    network = create_model(SMALL)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    initialize(network, SMALL, init)
    ours = network.state_dict()
    patches = ours["encoder.patch_embed.proj.weight"]
    assert torch.equal(patches[:, :3], state["patch_embed.proj.weight"])
    assert not patches[:, 3:].any()
    loaded = {f"encoder.{key}" for key in state} & ours.keys()
    assert len(loaded) == 3 + 12 * 12
    assert all(torch.equal(ours[k], state[k.removeprefix("encoder.")]) for k in loaded if "patch_embed.proj.w" not in k)
    assert all(torch.equal(value, before[key]) for key, value in ours.items() if key not in loaded)
    assert not any(value.any() for key, value in ours.items() if ".rel_pos_" in key)
    assert "1 RGB kept, zeros for the guidance" in caplog.text


def test_timm_takes_the_transformer(files, tmp_path, caplog):
    caplog.set_level("INFO", "dptmat")
    to_timm(files / "bare.pth", tmp_path / "encoder.safetensors")
    assert "left out: the windows, relative positions and necks" in caplog.text
    out = tmp_path / "encoder.safetensors"
    model = timm.create_model("vit_small_patch16_224", in_chans=6, num_classes=0, checkpoint_path=str(out))
    encoder = load_network(files / "bare.pth")[0].encoder.state_dict()
    taken = [key for key in model.state_dict() if key in encoder]
    assert len(taken) == 3 + 12 * 12
    assert all(torch.equal(model.state_dict()[key], encoder[key]) for key in taken)
