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
from dptmat.models.vit import ViT
from dptmat.models.vitmatte import ViTMatte

NETWORKS = [
    "matteformer", "gca", "mgmatting", "mgmatting_mask", "unet_resnet18", "vitmatte_small", "vit_vit_tiny_patch16_224",
]  # fmt: skip


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
    network = create_model("vitmatte_small")
    assert isinstance(network, ViTMatte)
    assert network.encoder.patch_embed.proj.in_channels == 6
    assert isinstance(create_model("vit_vit_tiny_patch16_224"), ViT)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
@pytest.mark.slow
def test_every_network_keeps_the_contract(name):
    for in_channels in (3, 4 if name == "mgmatting_mask" else 6):
        network = create_model(name, in_channels=in_channels).eval()
        result = network(torch.randn(2, in_channels, 32, 64))
        one = name in ("gca", "vitmatte_small", "vit_vit_tiny_patch16_224")
        assert list(result) == (["alpha_os1"] if one else ["alpha_os1", "alpha_os4", "alpha_os8"])
        assert network.outputs == tuple(result)
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
        ValueError,
        match="model 'xyz' is unknown; there are 'matteformer'.* 'gca', .* and 'unet_' or 'vit_' with a name of timm",
    ):
        create_model("xyz")
    with pytest.raises(ValueError, match="timm has no 'resnet3'; did you mean 'unet_resnet"):
        create_model("unet_resnet3")


@pytest.mark.parametrize("name", [None, 7, ["gca"], b"gca"])
def test_a_name_must_be_a_string(name):
    with pytest.raises(UserError, match=r"must be a string, got .*; there are 'matteformer'"):
        create_model(name)


@pytest.mark.parametrize("name", ["matteformer", "gca", "mgmatting", "unet_resnet18", "vit_vit_tiny_patch16_224"])
def test_only_three_or_six_channels(name):
    with pytest.raises(UserError, match=r"must be 6 \(image and trimap\) or 3 \(image alone\), got 4"):
        create_model(name, in_channels=4)


def test_only_three_or_four_channels_with_a_mask():
    with pytest.raises(UserError, match=r"'mgmatting_mask' must be 4 \(image and mask\) or 3 \(image alone\), got 6"):
        create_model("mgmatting_mask", in_channels=6)


@pytest.mark.slow
def test_import_leaves_timm_alone():
    made = "[m.create_model(name) for name in ('matteformer', 'vitmatte_small')]"
    code = f"import sys, dptmat.models as m; {made}; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
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


def gradients_and_saved_bytes(network, x):
    """The gradients of one step, and the bytes that the forward pass keeps for it."""
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)  # stochastic depth
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(alpha.mean() for alpha in network(x).values())
    loss.backward()
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    return {name: p.grad for name, p in network.named_parameters()}, sum(
        size for place, size in saved.items() if place not in weights
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "matteformer",
        "unet_swin_tiny_patch4_window7_224",
        "vitmatte_small",
        "vit_vit_tiny_patch16_224",
        "unet_mvitv2_tiny",
    ],
)
def test_grad_checkpointing_gives_the_same_gradients_from_less_memory(name):
    kept, checkpointed = create_model(name), create_model(name, grad_checkpointing=True)
    checkpointed.load_state_dict(kept.state_dict())
    x = torch.randn(2, 6, 64, 64)
    expected, much = gradients_and_saved_bytes(kept, x)
    ours, little = gradients_and_saved_bytes(checkpointed, x)
    for gradient, reference in zip(ours.values(), expected.values(), strict=True):
        torch.testing.assert_close(gradient, reference)
    assert little < 0.85 * much  # the decoder keeps most of it at this size


@pytest.mark.slow
def test_a_backbone_that_timm_keeps_under_another_name_is_checkpointed():
    """Hiera, which takes the size in its name alone."""
    kept, checkpointed = (create_model("unet_hiera_tiny_224", grad_checkpointing=on) for on in (False, True))
    checkpointed.load_state_dict(kept.state_dict())
    x = torch.randn(1, 6, 224, 224)
    expected, much = gradients_and_saved_bytes(kept, x)
    ours, little = gradients_and_saved_bytes(checkpointed, x)
    for name, reference in expected.items():
        torch.testing.assert_close(ours[name], reference, atol=1e-5, rtol=1e-3)
    assert little < 0.9 * much


def test_a_backbone_that_timm_cannot_checkpoint_is_named():
    with pytest.raises(UserError, match="timm cannot checkpoint 'twins_svt_small'; do without `grad_checkpointing`"):
        create_model("unet_twins_svt_small", grad_checkpointing=True)


@pytest.mark.parametrize("name", ["gca", "mgmatting", "unet_resnet18", "unet_efficientnet_b0"])
def test_networks_of_batch_norms_refuse_grad_checkpointing(name):
    with pytest.raises(
        UserError, match="holds batch norms.*must not see a batch twice; do without `grad_checkpointing`"
    ):
        create_model(name, grad_checkpointing=True)


@pytest.mark.slow
@pytest.mark.parametrize("present", [(0, 1), (1, 2), (0, 2), (1,), (0,)])
@pytest.mark.parametrize("name", ["matteformer", "unet_resnet18"])  # GCA is compared with plain functions on these
def test_a_trimap_may_lack_regions_and_its_gradients_are_finite(name, present):
    torch.manual_seed(0)
    network = create_model(name)
    cells = torch.tensor(present)[torch.randint(0, len(present), (2, 4, 4))]
    trimap = torch.nn.functional.one_hot(cells.repeat_interleave(16, 1).repeat_interleave(16, 2), 3)
    x = torch.cat([torch.randn(2, 3, 64, 64), trimap.permute(0, 3, 1, 2)], 1).requires_grad_()
    sum(alpha.mean() for alpha in network(x).values()).backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


# The others have a test of their own.
@pytest.mark.parametrize("name", ["matteformer", "unet_resnet18", "vitmatte_small", "vit_vit_tiny_patch16_224"])
@torch.no_grad()
@pytest.mark.slow
def test_memory_format_does_not_matter(name):
    torch.manual_seed(0)
    network, x = create_model(name).eval(), torch.randn(2, 6, 64, 96)
    expected = network(x)
    result = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for key, alpha in expected.items():
        # Other kernels add up in another order, in some 60 layers.
        torch.testing.assert_close(result[key], alpha, atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_gpu_half_precision_at_512_stays_close_and_finite(name, dtype):
    torch.manual_seed(0)
    network = create_model(name).cuda().eval()
    x = torch.randn(2, network.in_channels, 512, 512, device="cuda")
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cuda", dtype):
            result = network(x)
    for key, alpha in expected.items():
        # bfloat16 has 8 bits, and about 60 layers follow each other
        torch.testing.assert_close(result[key], alpha, atol=0.1 if dtype == torch.bfloat16 else 0.02, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_gpu_compiled_training_equals_eager(name):
    torch.manual_seed(0)
    network = create_model(name).cuda().eval()  # statistics and stochastic depth would differ between two runs
    x = torch.randn(2, network.in_channels, 96, 96, device="cuda")
    compiled = torch.compile(network, fullgraph=True)
    for key, alpha in compiled(x).items():
        torch.testing.assert_close(alpha, network(x)[key], atol=1e-3, rtol=0)
