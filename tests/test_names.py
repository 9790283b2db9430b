"""Names of other projects' tensors: ours become theirs, their files are recognised, and none is lost."""

import pytest
import timm
import torch
from reference.published import expected_names

from dptmat.models import create_model
from dptmat.weights.names import (
    encoder_layout,
    official_model,
    official_name,
    tensors_of,
    timm_names,
    without_index,
)

TENSOR = torch.zeros(1)


def state_of(*names):
    return dict.fromkeys(names, TENSOR)


@pytest.mark.parametrize("model", ["gca", "mgmatting"])
def test_official_names_are_those_of_the_published_checkpoint(model):
    names = {official_name(name) for name in create_model(model).state_dict()}
    assert names == expected_names(gca=model == "gca")
    assert official_model(state_of(*names)) == model


def test_an_official_file_is_recognised_in_part():
    bar = "decoder.conv1.module.weight_bar"
    assert official_model(state_of(bar, "encoder.layers.0.blocks.0.norm1.weight")) == "matteformer"
    assert official_model(state_of(bar, "encoder.gca.W.0.weight")) == "gca"
    assert official_model(state_of(bar, "aspp.conv2.weight")) == "mgmatting"
    assert official_model(state_of(bar)) is None
    assert official_model(state_of("encoder.layers.0.blocks.0.norm1.weight")) is None  # no spectral norm: an encoder


@pytest.mark.parametrize("part", ["state_dict", "model", None])
@pytest.mark.parametrize("parallel", [False, True])
def test_tensors_are_found_wherever_they_lie(part, parallel):
    state = state_of(*(f"{'module.' * parallel}{name}" for name in ("a.module.weight_bar", "b")))
    content = {part: state, "epoch": 3} if part else {**state, "epoch": 3}
    assert tensors_of(content) == state_of("a.module.weight_bar", "b")


def test_a_module_is_stripped_once_and_from_all_or_none():
    assert tensors_of(state_of("module.module.a")) == state_of("a")
    assert tensors_of(state_of("module.a", "b")) == state_of("module.a", "b")
    assert tensors_of({}) == {}


def test_encoders_of_each_project_get_the_names_of_timm():
    plain = ["layers.0.downsample.norm.weight", "layers.1.blocks.0.attn.relative_position_bias_table", "norm.weight"]
    renamed = {"layers.1.downsample.norm.weight", *plain[1:]}
    index = "layers.0.blocks.0.attn.relative_position_index"
    state, left, kind = encoder_layout(state_of(*plain, index))
    assert (set(state), left, kind) == (renamed, {index: "made by the network itself"}, "Swin")
    within = [f"encoder.{name}" for name in plain]
    for kind, more in (("SimMIM", "decoder.0.weight"), ("MoBY", "encoder_k.norm.weight")):
        state, left, found = encoder_layout(state_of(*within, more))
        assert (set(state), left, found) == (renamed, {more: "not of the encoder"}, kind)
    state, left, kind = encoder_layout(state_of("conv1.weight", "layer1.0.conv1.weight"))
    assert (set(state), left, kind) == ({"conv1.weight", "layer1.0.conv1.weight"}, {}, "encoder")


@pytest.mark.parametrize(
    ("model", "backbone"),
    [
        ("matteformer", "swin_tiny_patch4_window7_224"),
        ("unet_resnet18", "resnet18"),
        ("unet_swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224"),
        ("unet_convnext_atto", "convnext_atto"),
    ],
)
def test_every_tensor_of_an_encoder_has_one_of_timm(model, backbone):
    theirs = timm.create_model(backbone).state_dict()
    network = create_model(model, 3)
    names = timm_names(network, theirs)
    assert names
    assert len(set(names.values())) == len(names)
    unknown = {ours: name for ours, name in names.items() if name not in theirs}
    assert unknown == {}
    state = without_index(network.state_dict())
    # The bias tables of MatteFormer have rows for its prior tokens.
    others = [name for name in names if state[name].shape != theirs[names[name]].shape]
    assert all(model == "matteformer" and name.endswith("bias_table") for name in others)
