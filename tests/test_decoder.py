import copy

import pytest
import torch
from reference.published import decode, heads, published
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, leaky_relu, normalize, relu
from torch.nn.utils import parametrize

from dptmat.models.decoder import CHANNELS, Decoder
from dptmat.models.layers import require_input, shortcut_branch, sn_conv, sn_double


def make_features(n=2, height=64, width=32):
    """What an encoder hands to the decoder for an input of height x width."""
    return [torch.randn(n, c, height // s, width // s) for c, s in zip(CHANNELS, (1, 2, 4, 8, 16, 32), strict=True)]


def perturb(module):
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                value.mul_(1 + torch.rand_like(value))
            elif value.is_floating_point() and not name.endswith(("_u", "_v")):
                value.add_(0.1 * torch.randn_like(value))
    return module


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return perturb(Decoder()).eval()


def stored(conv):
    """weight_bar, u and v of the published checkpoints."""
    norm = conv.parametrizations.weight
    return norm.original, norm[0]._u, norm[0]._v


def plain_weight(conv):
    """weight_bar / (u . (M v)) with M of [weight.shape[0], rest], also for transposed convolutions."""
    weight, u, v = stored(conv)
    return weight / (u @ (weight.flatten(1) @ v))


def plain_norm(norm, x):
    return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)


# --- spectral norm ---


@pytest.mark.parametrize("make", [lambda: sn_conv(6, 8, 3), lambda: sn_double(6)])
@torch.no_grad()
def test_evaluation_divides_by_sigma_of_the_stored_vectors(make):
    torch.manual_seed(0)
    conv = make().eval()
    original, u, v = stored(conv)
    assert u.shape == original.shape[:1]
    assert v.shape == original[0].flatten().shape
    u.copy_(normalize(torch.randn_like(u), dim=0))  # far from the singular vectors, as a published u may be
    v.copy_(normalize(torch.randn_like(v), dim=0))
    expected = plain_weight(conv)
    x = torch.randn(2, 6, 5, 7)
    if original.shape[2] == 3:
        expected = conv2d(x, expected, padding=1)
    else:
        expected = conv_transpose2d(x, expected, stride=2, padding=1)
    # sigma of random vectors is small, so the outputs are large: relative.
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: sn_conv(6, 8, 3), lambda: sn_double(6)])
@torch.no_grad()
def test_training_iterates_once_per_forward_pass_along_dimension_0(make):
    conv = make().train()
    original, u, v = stored(conv)
    v.copy_(normalize(torch.randn_like(v), dim=0))
    matrix = original.flatten(1)
    expected_u = normalize(matrix @ v, dim=0)
    expected_v = normalize(matrix.T @ expected_u, dim=0)
    conv(torch.randn(1, 6, 4, 4))
    torch.testing.assert_close(u, expected_u)
    torch.testing.assert_close(v, expected_v)


def test_gradient_flows_through_sigma():
    conv = sn_conv(3, 4, 3).train()
    (conv(torch.randn(1, 3, 5, 5)) ** 2).sum().backward()
    weight, _, _ = stored(conv)
    # The normalised weight does not change with the length of weight_bar, so the gradient is orthogonal to it.
    assert weight.grad.norm() > 1e-2
    assert abs((weight.grad * weight).sum()) < 1e-4 * weight.grad.norm() * weight.norm()


def test_spectral_norm_is_computed_outside_autocast():
    for conv in (sn_conv(3, 4, 3), sn_double(3)):
        seen = []
        conv.parametrizations.weight[0].register_forward_hook(
            lambda module, args, result, seen=seen: seen.append((torch.is_autocast_enabled("cpu"), result.dtype))
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert conv(torch.randn(1, 3, 4, 4)).dtype == torch.bfloat16
        assert seen == [(False, torch.float32)]


def test_singular_value_is_one_from_the_start():
    for conv in (sn_conv(16, 32, 3, xavier=True).eval(), sn_double(16).eval()):
        singular = torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item()
        # 15 power iterations find the largest singular value of such a matrix from below, to some per cent.
        assert singular == pytest.approx(1, abs=0.05)


def test_convolutions_are_copied_and_reloaded_with_their_vectors():
    conv = sn_conv(3, 4, 3).eval()
    x = torch.randn(1, 3, 5, 5)
    fresh = sn_conv(3, 4, 3).eval()
    fresh.load_state_dict(conv.state_dict())
    assert torch.equal(fresh(x), conv(x))
    assert torch.equal(copy.deepcopy(conv)(x), conv(x))
    expected = conv(x)
    parametrize.remove_parametrizations(conv, "weight")  # as one may do before an export
    assert torch.equal(conv(x), expected)


@torch.no_grad()
def test_shortcut_branch_ends_with_a_batch_norm():
    branch = perturb(shortcut_branch(6, 8)).eval()
    x = torch.randn(2, 6, 5, 4)
    y = plain_norm(branch[2], relu(conv2d(x, plain_weight(branch[0]), padding=1)))
    y = plain_norm(branch[5], relu(conv2d(y, plain_weight(branch[3]), padding=1)))
    torch.testing.assert_close(branch(x), y, atol=1e-5, rtol=1e-5)


# --- the decoder ---


@torch.no_grad()
def test_first_block_of_a_stage_doubles_the_map(decoder):
    block = decoder.layer4[0]
    x = torch.randn(2, 64, 3, 5)
    y = conv_transpose2d(x, plain_weight(block.conv1), stride=2, padding=1)
    y = leaky_relu(plain_norm(block.bn1, y), 0.2)
    y = plain_norm(block.bn2, conv2d(y, plain_weight(block.conv2), padding=1))
    identity = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    identity = plain_norm(block.upsample[2], conv2d(identity, plain_weight(block.upsample[1])))
    torch.testing.assert_close(block(x), leaky_relu(y + identity, 0.2), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_other_blocks_keep_the_map(decoder):
    block = decoder.layer4[1]
    x = torch.randn(2, 32, 3, 5)
    y = leaky_relu(plain_norm(block.bn1, conv2d(x, plain_weight(block.conv1), padding=1)), 0.2)
    y = plain_norm(block.bn2, conv2d(y, plain_weight(block.conv2), padding=1))
    torch.testing.assert_close(block(x), leaky_relu(y + x, 0.2), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_decoder_is_the_published_one(decoder):
    features = make_features()
    state = {f"decoder.{name}": value for name, value in published(decoder).items()}
    expected = heads(state, decode(state, features), (64, 32))
    result = decoder(features)
    assert list(result) == list(expected)
    for name, alpha in expected.items():
        assert alpha.shape == (2, 1, 64, 32)
        assert alpha.std() > 0.01
        torch.testing.assert_close(result[name], alpha, atol=1e-4, rtol=0)


@torch.no_grad()
def test_heads_are_bounded_by_tanh(decoder):
    decoder = copy.deepcopy(decoder)
    for head, bias in ((decoder.refine_OS1, 50), (decoder.refine_OS4, -50), (decoder.refine_OS8, 0.5)):
        head[3].weight.zero_()
        head[3].bias.fill_(bias)
    result = decoder(make_features())
    assert (result["alpha_os1"] == 1).all()
    assert (result["alpha_os4"] == 0).all()
    torch.testing.assert_close(result["alpha_os8"], torch.full((2, 1, 64, 32), 0.7310586))  # 1 / (1 + e^-1)


def test_blocks_start_as_their_identity_path():
    decoder = Decoder()
    for stage, blocks in ((decoder.layer1, 2), (decoder.layer2, 3), (decoder.layer3, 3), (decoder.layer4, 2)):
        assert len(stage) == blocks
        for block in stage:
            assert not block.bn2.weight.any()
            assert block.bn1.weight.all()
    # Xavier-uniform: bound sqrt(6 / (9 * (512 + 256))) = 0.0295 against PyTorch's 1 / sqrt(9 * 512) = 0.0147.
    assert 0.029 < stored(decoder.layer1[0].conv2)[0].abs().max() <= 0.0295
    # sqrt(6 / (9 * (128 + 32))) = 0.0645
    assert 0.063 < decoder.refine_OS8[0].weight.abs().max() <= 0.0646
    # Transposed convolutions keep PyTorch's: 1 / sqrt(16 * 512) = 0.01105.
    assert 0.011 < stored(decoder.layer1[0].conv1)[0].abs().max() <= 0.01105


@torch.no_grad()
def test_alphas_are_float32_under_autocast(decoder):
    features = make_features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = decoder(features)
    assert all(alpha.dtype == torch.float32 and alpha.isfinite().all() for alpha in result.values())


# --- the check of the input ---


def test_input_of_a_wrong_kind_is_refused_by_a_sentence():
    with pytest.raises(ValueError, match="100 x 224, but both must be multiples of 32; pad it to 128 x 224"):
        require_input(torch.zeros(1, 6, 100, 224), 6)
    with pytest.raises(ValueError, match="pad it to 32 x 32"):
        require_input(torch.zeros(1, 6, 0, 32), 6)
    with pytest.raises(ValueError, match=r"\[N, 6, H, W\], got \[1, 3, 64, 64\]; see in_channels"):
        require_input(torch.zeros(1, 3, 64, 64), 6)
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\], got \[3, 64, 64\]"):
        require_input(torch.zeros(3, 64, 64), 3)
    with pytest.raises(TypeError, match=r"floating point, got torch\.uint8; normalize"):
        require_input(torch.zeros(1, 6, 64, 64, dtype=torch.uint8), 6)
