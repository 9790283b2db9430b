"""Official checkpoints load and give the published networks' outputs; wrong files are refused in a few lines."""

import numpy as np
import pytest
import torch
from reference.matteformer import make_input as make_trimap_input
from reference.matteformer import perturb, plain_block
from reference.published import make_input, plain_gca, plain_mgmatting, published, randomise

from dptmat.models import create_model
from dptmat.weights.convert import convert
from dptmat.weights.initialize import initialize
from dptmat.weights.load import load_network

NAMES = {"matteformer": "matteformer", "gca": "gca", "mgmatting": "mgmatting", "mgmatting_mask": "mgmatting"}


@pytest.fixture(scope="module")
def networks():
    """A network of every official kind, with weights away from the values they start with."""
    torch.manual_seed(0)
    made = {name: randomise(create_model(name)).eval() for name in NAMES if name != "matteformer"}
    made["matteformer"] = perturb(create_model("matteformer")).eval()
    return made


def checkpoint_of(network, module=True):
    """What the original training scripts save: integers cast to float, everything under one ``module.``."""
    state = {("module." if module else "") + name: value.float() for name, value in published(network).items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 4e-4, "params": [0]}]}
    loss = {"mse": torch.tensor(0.01), "sad": torch.tensor(20.0)}
    return {
        "iter": 500, "loss": loss, "state_dict": state, "opt_state_dict": optimizer, "lr_state_dict": {"last_epoch": 1},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module"), [("gca", True), ("gca", False), ("mgmatting", True), ("mgmatting_mask", False)]
)
@torch.no_grad()
def test_outputs_are_those_of_the_published_network(networks, tmp_path, name, module):
    saved = checkpoint_of(networks[name], module)
    torch.save(saved, tmp_path / "official.pth")
    network, config = load_network(tmp_path / "official.pth")
    assert config == {"model": name, "trimap": True}
    assert not network.training
    state = {key.removeprefix("module.") if module else key: value for key, value in saved["state_dict"].items()}
    x = make_input(1, 96, 64, guidance=1 if name == "mgmatting_mask" else 3)
    expected = (plain_gca if name == "gca" else plain_mgmatting)(state, x)
    result = network(x)
    assert result.keys() == expected.keys()
    for key, alpha in expected.items():
        assert alpha.std() > 0.01
        torch.testing.assert_close(result[key], alpha, atol=2e-4, rtol=0)


@torch.no_grad()
@pytest.mark.slow
def test_a_matteformer_is_loaded_to_the_bit_and_its_stage_equals_plain_loops(networks, tmp_path):
    torch.save(checkpoint_of(networks["matteformer"]), tmp_path / "official.pth")
    network, config = load_network(tmp_path / "official.pth")
    assert config["model"] == "matteformer"
    loaded, expected = network.state_dict(), networks["matteformer"].state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype for key, value in expected.items())
    x = make_trimap_input(1)
    regions, tokens = x[0, [4, 3, 5], ::16, ::16], torch.randn(4, 4, 96)
    image, priors = tokens, torch.zeros(0, 96)
    stage = network.encoder.layers[0]
    for b, block in enumerate(stage.blocks):
        image, priors = plain_block(block, image, priors, regions, shifted=b % 2 == 1)
    torch.testing.assert_close(stage(tokens[None], regions[None])[0], image, atol=2e-4, rtol=1e-4)


class WarmUp(torch.optim.lr_scheduler.LRScheduler):
    """A schedule that keeps the one that follows it, and so the optimizer, in its state dict."""

    def __init__(self, optimizer, after):
        self.after = after
        super().__init__(optimizer)

    def get_lr(self):
        return self.base_lrs


def beside_the_weights(loss):
    """What the training of DPT's authors saves beside the network, of a small one."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 3e-4, (0.9, 0.95), weight_decay=0.05)
    schedule = WarmUp(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 90))
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    schedule.step()
    return {"iter": 500, "loss": loss, "opt_state_dict": optimizer.state_dict(), "lr_state_dict": schedule.state_dict()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "old"), [(None, True), (np.float64(0.25), False), (torch.tensor(0.25), True), ({"l1": 0.25}, False)]
)
def test_files_of_the_methods_authors_are_a_matteformer(networks, tmp_path, dptmat, loss, old):
    """None: the fine-tuned network alone."""
    state = {f"module.{name}": value for name, value in published(networks["matteformer"]).items()}
    assert len(state) == 509
    path = tmp_path / "dpt.pth"
    rest = {} if loss is None else beside_the_weights(loss)
    torch.save({**rest, "state_dict": state}, path, _use_new_zipfile_serialization=not old)
    assert dptmat("convert", "--from", "dpt", path, tmp_path / "ours.pt") == (
        0, f"{tmp_path}/ours.pt: matteformer, 44,747,130 parameters\n", "",
    )  # fmt: skip
    converted, config = load_network(tmp_path / "ours.pt")
    assert config == load_network(path, official="matteformer")[1] == {"model": "matteformer", "trimap": True}
    begun = create_model("matteformer")
    initialize(begun, "matteformer", str(path))
    for network in (converted, begun):
        loaded = network.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in networks["matteformer"].state_dict().items())


@torch.no_grad()
def test_the_converted_file_is_the_same_network_without_the_optimiser(networks, tmp_path, dptmat):
    torch.save(checkpoint_of(networks["gca"]), tmp_path / "official.pth")
    status, printed, error = dptmat("convert", "--from", "gca", tmp_path / "official.pth", tmp_path / "ours.pt")
    assert (status, error) == (0, "")
    assert printed == f"{tmp_path}/ours.pt: gca, 25,164,529 parameters\n"
    content = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert content.keys() == {"model", "config"}
    network, config = load_network(tmp_path / "ours.pt")
    assert config == content["config"] == {"model": "gca", "trimap": True}
    x = make_input(2, 32, 64)
    assert torch.equal(network(x)["alpha_os1"], networks["gca"](x)["alpha_os1"])


def test_a_network_without_trimap_stays_one(tmp_path):
    network = create_model("unet_resnet18", 3)
    torch.save(
        {"model": network.state_dict(), "config": {"model": "unet_resnet18", "trimap": False}}, tmp_path / "a.pt"
    )
    convert(tmp_path / "a.pt", tmp_path / "b.pt")
    loaded, config = load_network(tmp_path / "b.pt")
    assert config["trimap"] is False
    assert loaded.in_channels == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda state: [state.pop(key) for key in list(state) if key.startswith("module.decoder.layer")],
            ["192 missing: decoder.layer1.0.conv1.module.weight_bar", "and 189 more"],
        ),
        (
            lambda state: state.update({"module.decoder.conv2.bias": torch.zeros(3)}),
            ["1 of another shape: decoder.conv2.bias [3] instead of [1]"],
        ),
        (
            lambda state: state.update({"module.extra.weight": torch.zeros(3)}),
            ["1 unknown: extra.weight"],
        ),
    ],
)
def test_a_partial_file_is_told_in_a_few_lines(networks, tmp_path, dptmat, change, expected):
    saved = checkpoint_of(networks["gca"])
    change(saved["state_dict"])
    torch.save(saved, tmp_path / "partial.pth")
    status, printed, error = dptmat("convert", tmp_path / "partial.pth", tmp_path / "out.pt")
    assert (status, printed) == (2, "")
    assert error.startswith(f"dptmat: {tmp_path}/partial.pth is no whole checkpoint of gca:\n")
    assert all(words in error for words in expected)
    assert error.count("\n") == 2
    assert not (tmp_path / "out.pt").exists()


class Foreign:
    pass


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ({"state_dict": {"fc.weight": torch.zeros(2)}}, [], "holds no matting network"),
        ({"state_dict": {}}, [], "holds no matting network"),
        ([1, 2], [], "holds a list"),
        ({"state_dict": {}, "loss": Foreign()}, [], "holds an object of test_convert.Foreign, not only tensors"),
        (b"text", [], "cannot be read"),
        (None, [], "No such file"),
        ("gca", ["--from", "dpt"], "is a checkpoint of gca; expected one that the project of dpt"),
        ("gca", ["--from", "mgmatting"], "is a checkpoint of gca; expected one that the project of mgmatting"),
        ({"fc.weight": torch.zeros(2)}, ["--from", "gca"], "is not a checkpoint of matteformer or gca or mgmatting"),
        ({"model": {}, "config": {"model": "gcaa"}}, [], "did you mean 'gca'"),
        ({"model": {"a": 1}, "config": {"model": "unet_resnet18"}}, [], "is no whole checkpoint of unet_resnet18"),
        ("gca", ["--to", "timm"], "must end in .safetensors"),
        ("gca", ["--to", "jpeg"], "'jpeg' is not one of"),
    ],
)
def test_a_wrong_file_is_refused(networks, tmp_path, dptmat, content, words, message):
    path = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "gca":
        torch.save(checkpoint_of(networks["gca"]), path)
    elif content is not None:
        torch.save(content, path)
    status, printed, error = dptmat("convert", *words, path, tmp_path / "out.pt")
    assert (status, printed) == (2, "")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("prefix", ["module.module.", "_orig_mod.module.", "model.", "model.module.", "net.model."])
def test_what_stands_in_front_of_all_names_is_stripped(networks, tmp_path, prefix):
    state = {prefix + key: value for key, value in published(networks["gca"]).items()}
    torch.save({"state_dict": state}, tmp_path / "official.pth")
    assert load_network(tmp_path / "official.pth")[1]["model"] == "gca"
