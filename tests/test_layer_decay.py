"""Rates that fall from layer to layer: which parameters have which, what a checkpoint holds, and what a step does."""

import pytest
import timm
import torch
from networks import CPU, Pointwise, batch_of
from timm.optim import param_groups_layer_decay

from dptmat.errors import UserError
from dptmat.losses import matting_losses
from dptmat.models import create_model
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.training.optim import adamw
from dptmat.training.trainer import Trainer
from dptmat.weights.names import timm_names


def scales_of(model, layer_decay):
    """Map the names of a network's parameters to their rates as shares of the full one."""
    groups = adamw(model, 0.1, (0.9, 0.999), layers=model.layers(), layer_decay=layer_decay).param_groups
    of = {id(p): group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_the_rates_of_vitmatte_are_the_published_ones():
    """0.65 ** (13 - id): 0 for patches and positions, b + 1 for block b, 13 for its neck and the decoder."""
    with torch.device("meta"):
        scales = scales_of(create_model("vitmatte_small"), 0.65)
    assert len(scales) == sum(1 for _ in create_model("vitmatte_small").parameters())
    for name, scale in scales.items():
        ident = 13
        if name.startswith(("encoder.patch_embed.", "encoder.pos_embed")):
            ident = 0
        elif name.startswith("encoder.blocks.") and ".residual." not in name:
            ident = int(name.split(".")[2]) + 1
        assert scale == pytest.approx(0.65 ** (13 - ident)), name
    assert scales["encoder.blocks.2.attn.rel_pos_h"] == pytest.approx(0.65**10)
    assert scales["encoder.blocks.11.residual.conv1.weight"] == 1


@pytest.mark.parametrize(
    ("name", "backbone", "layers"),
    [
        ("matteformer", "swin_tiny_patch4_window7_224", 13),
        ("unet_resnet18", "resnet18", 9),
        ("unet_swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224", 13),
        ("unet_convnext_atto", "convnext_atto", 13),
        ("unet_densenet121", "densenet121", 59),
        ("vit_vit_small_patch14_dinov2", "vit_small_patch14_dinov2", 13),
        ("vit_vit_small_patch16_dinov3", "vit_small_patch16_dinov3", 13),
    ],
)
def test_the_rates_of_other_encoders_are_those_of_timm(name, backbone, layers):
    """timm's own groups of the whole classifier, whose head has the full rate as our decoder has."""
    with torch.device("meta"):
        network = create_model(name)
        whole = timm.create_model(backbone, num_classes=1)
    reference = {
        id(p): group["lr_scale"] for group in param_groups_layer_decay(whole, layer_decay=0.7) for p in group["params"]
    }
    theirs = {key: reference[id(parameter)] for key, parameter in whole.named_parameters()}
    ours = scales_of(network, 0.7)
    assert len(network.layers()) == layers
    shared = {key: other for key, other in timm_names(network, theirs).items() if other in theirs and key in ours}
    assert len(shared) > 0.9 * sum(key not in ("head.weight", "head.bias") for key in theirs)
    for key, other in shared.items():
        assert ours[key] == pytest.approx(theirs[other]), key
    assert all(ours[key] == 1 for key in ours.keys() - shared.keys())


def test_without_it_the_optimizer_is_what_it_was():
    """Two groups without a key of their own, so that the checkpoints of earlier runs fit, and later ones those runs."""
    model = create_model("unet_resnet10t")
    plain, unlayered = (adamw(model, 0.1, (0.9, 0.999), layers=layers) for layers in ((), model.layers()))
    assert plain.state_dict() == unlayered.state_dict()
    assert len(plain.param_groups) == 2
    assert "lr_scale" not in plain.param_groups[0]


def test_a_step_moves_a_layer_by_its_share():
    """The first step of Adam moves each weight by its rate."""
    torch.manual_seed(0)
    model = Pointwise(0.0)
    optimizer = adamw(model, 0.0, (0.9, 0.95), layers=[[model.conv.bias], [model.conv.weight]], layer_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = Trainer(
        model, lambda outputs, batch, step: matting_losses(outputs, batch, ["l1"]), optimizer, lambda step: 0.01, CPU,
        seed=3, accumulate=1, clip=1e9, clip_factor=1e9, amp="off", compile=False,
    )  # fmt: skip
    trainer.step(0, iter([batch_of([0, 1])]))
    moved = {name: (parameter - before[name]).abs().max().item() for name, parameter in model.named_parameters()}
    assert moved == pytest.approx({"conv.weight": 0.005, "conv.bias": 0.0025}, rel=1e-3)


@pytest.mark.slow
def test_a_run_with_rates_by_layer_and_milestones_goes_on_to_the_same_bits(photographs, tmp_path):
    options = {"model": "unet_resnet10t", "size": 64, "batch_size": 4, "steps": 4, "device": "cpu", "save_every": 2}
    options |= {"layer_decay": 0.5, "schedule": "milestones", "milestones": "0.5:0.1,0.75:0.05", "warmup": 0.25}
    options |= {"data": str(photographs), "out": str(tmp_path / "run"), "losses": "l1,l1_known,lap_whole,grad"}
    last = pretrain(**options)
    whole = checkpoint.load(last)
    last.unlink()
    again = checkpoint.load(pretrain(**options, resume="auto"))
    assert all(torch.equal(value, again["model"][name]) for name, value in whole["model"].items())
    groups, groups_again = whole["optimizer"]["param_groups"], again["optimizer"]["param_groups"]
    assert groups == groups_again
    assert min(group["lr"] for group in groups) == pytest.approx(3e-4 * 0.05 * 0.5**5)


def test_a_backbone_of_which_timm_tells_no_layers_is_named():
    with pytest.raises(UserError, match="timm tells no layers of 'poolformer_s12', so that there is no `layer_decay`"):
        create_model("unet_poolformer_s12").layers()
