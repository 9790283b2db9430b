"""ViTMatte against transformers, its attention against the plain formula, and what it costs."""

import math

import pytest
import torch
from reference.vitmatte import by_transformers, named, stirred
from torch.nn.functional import interpolate, one_hot
from torch.utils._python_dispatch import TorchDispatchMode

from dptmat.inference import predict_alpha
from dptmat.models import create_model, vitmatte
from dptmat.models.vitmatte import Attention, Neck, ViTMatte
from dptmat.weights.vitmatte import fit_input, published_input


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vitmatte_small", [(224, 224), (256, 480)]),
        pytest.param("vitmatte_small", [(512, 512), (32, 64), (448, 32)], marks=pytest.mark.exhaustive),
        pytest.param("vitmatte_base", [(96, 160)], marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_alpha_is_that_of_transformers(name, sizes):
    torch.manual_seed(0)
    network = stirred(create_model(name, 4))
    reference = by_transformers(network.encoder.pos_embed.shape[2])
    reference.load_state_dict(named(network.state_dict(), 2), strict=True)
    for height, width in sizes:
        x = torch.randn(1, 4, height, width)
        alpha = network(x)["alpha_os1"]
        assert alpha.std() > 0.01
        torch.testing.assert_close(alpha, reference(pixel_values=x).alphas, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vitmatte_small", (25_814_753, 26_012_801)), ("vitmatte_base", (96_686_561, 97_081_217))],
)
def test_sizes_are_the_published_ones(name, parameters):
    with torch.device("meta"):
        networks = [create_model(name, channels) for channels in (4, 6)]
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == parameters
    assert all(len(network.state_dict()) == 258 for network in networks)


def plain_attention(module, x):
    """The formula of Li et al. 2022, position by position: softmax(q k / 8 + q (r_row + r_column)) v."""
    images, height, width, channels = x.shape
    qkv = module.qkv(x).reshape(images, height * width, 3, module.heads, 64).permute(2, 0, 3, 1, 4)
    query, key, value = qkv
    scores = query @ key.transpose(2, 3) / 8
    for axis, side, table in ((0, height, module.rel_pos_h), (1, width, module.rel_pos_w)):
        table = interpolate(table.T[None], 2 * side - 1, mode="linear", align_corners=False)[0].T
        place = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))[axis].flatten()
        relative = table[place[:, None] - place + side - 1]  # [L, L, 64]
        scores = scores + torch.einsum("bhqc,qkc->bhqk", query, relative)
    attended = scores.softmax(3) @ value
    return module.proj(attended.transpose(1, 2).reshape(x.shape))


def random_attention(channels, side):
    module = Attention(channels, side)
    for table in (module.rel_pos_h, module.rel_pos_w):
        torch.nn.init.normal_(table, std=0.3)
    return module


@pytest.mark.parametrize("scores", [2**24, 2 * 2 * 391 * 50, 2 * 2 * 391 * 391 - 1, 1])
def test_attention_in_parts_is_the_plain_one_with_its_gradients(monkeypatch, scores):
    monkeypatch.setattr(vitmatte, "SCORES", scores)
    torch.manual_seed(0)
    module = random_attention(128, 32)
    x = torch.randn(2, 17, 23, 128, requires_grad=True)
    weight = torch.randn(2, 17, 23, 128)
    leaves = [x, *module.parameters()]
    expected = plain_attention(module, x)
    ours = module(x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    wanted = torch.autograd.grad((expected * weight).sum(), leaves)
    for result, gradient in zip(torch.autograd.grad((ours * weight).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(result, gradient, atol=1e-4 * gradient.abs().max().item(), rtol=1e-4)


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that any operator makes, and counts the calls of attention."""

    numbers = attended = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        self.attended += "scaled_dot_product" in str(function)
        return result


@pytest.mark.parametrize("gradient", [False, True])
def test_the_scores_of_a_whole_map_are_never_there(monkeypatch, gradient):
    """The matrix of a 1024x1024 image has 64 x 64 positions squared for each of the heads."""
    monkeypatch.setattr(vitmatte, "SCORES", 2**20)
    module = random_attention(64, 32)
    x = torch.randn(1, 64, 64, 64, requires_grad=gradient)
    with Largest() as largest, torch.set_grad_enabled(gradient):
        result = module(x)
        if gradient:
            result.sum().backward()
    assert largest.numbers <= max(2**20, 3 * x.numel())
    assert largest.numbers < 4096**2 / 8


def test_training_keeps_no_scores_of_a_whole_map(monkeypatch):
    monkeypatch.setattr(vitmatte, "SCORES", 2**20)
    module = random_attention(64, 32)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module(torch.randn(1, 64, 64, 64))
    assert result.requires_grad
    assert sum(kept.values()) < 4096**2 / 4


@torch.no_grad()
def test_all_windows_go_through_attention_at_once(monkeypatch):
    monkeypatch.setattr(vitmatte, "SCORES", 1)
    block = vitmatte.Block(64, windows=True)
    with Largest() as largest:
        block(torch.randn(2, 30, 17, 64))
    assert largest.attended == 1


@torch.no_grad()
def test_six_channels_are_the_published_four_where_their_weights_are():
    torch.manual_seed(0)
    four = stirred(create_model("vitmatte_small", 4))
    six = create_model("vitmatte_small").eval()
    state = fit_input(four.state_dict(), str, 6)
    six.load_state_dict(state)
    trimap = torch.randint(0, 3, (1, 64, 96))
    image = torch.randn(1, 3, 64, 96)
    x4 = torch.cat([image, trimap[:, None] / 2], 1)
    x6 = torch.cat([image, one_hot(trimap, 3).movedim(3, 1)], 1)
    expected = four(x4)["alpha_os1"]
    assert expected.std() > 0.01
    torch.testing.assert_close(six(x6)["alpha_os1"], expected, atol=1e-6, rtol=0)
    back = published_input(state)
    assert all(torch.equal(back[key], value) for key, value in four.state_dict().items())
    state["decoder.convstream.convs.0.conv.weight"][0, 3, 0, 0] += 1e-6
    assert published_input(state) is None


@torch.no_grad()
def test_prediction_shows_four_channels_the_trimap_in_halves():
    torch.manual_seed(0)
    four, six = stirred(create_model("vitmatte_small", 4)), create_model("vitmatte_small")
    six.load_state_dict(fit_input(four.state_dict(), str, 6))
    image = torch.randint(0, 256, (40, 70, 3), dtype=torch.uint8)
    trimap = torch.randint(0, 3, (40, 70), dtype=torch.uint8)
    ours = [predict_alpha(network, image, trimap, override=False) for network in (four, six)]
    torch.testing.assert_close(*ours, atol=1e-6, rtol=0)


def test_the_start_is_a_plain_transformer_without_positions_between_tokens():
    network = create_model("vitmatte_small")
    state = network.state_dict()
    assert not any(value.any() for key, value in state.items() if ".rel_pos_" in key)
    neck = Neck(64)
    x = torch.randn(1, 5, 6, 64)
    assert torch.equal(neck(x), x)


def test_every_parameter_learns_and_the_loss_falls():
    torch.manual_seed(0)
    network = create_model("vitmatte_small", 3)
    x = torch.randn(2, 3, 64, 64)
    alpha = (x[:, :1] > 0).float()
    optimizer = torch.optim.AdamW(network.parameters(), 5e-4)
    losses = []
    for _ in range(6):
        loss = (network(x)["alpha_os1"] - alpha).abs().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(later < earlier for earlier, later in zip(losses, losses[1:], strict=False))
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.exhaustive
def test_compiles_without_a_graph_break():
    torch.manual_seed(0)
    network = create_model("vitmatte_small", grad_checkpointing=True)
    x = torch.randn(2, 6, 64, 64)
    for mode in (network.eval(), network.train()):
        expected = mode(x)["alpha_os1"]
        result = torch.compile(mode, backend="eager", fullgraph=True)(x)["alpha_os1"]
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_half_precision_stays_near():
    torch.manual_seed(0)
    network = stirred(create_model("vitmatte_small"))
    x = torch.randn(1, 6, 64, 96)
    expected = network(x)["alpha_os1"]
    with torch.autocast("cpu", torch.bfloat16):
        alpha = network(x)["alpha_os1"]
    assert alpha.dtype == torch.float32
    torch.testing.assert_close(alpha, expected, atol=0.05, rtol=0)  # 8 bits, through some 60 layers


def test_other_inputs_are_refused():
    network = ViTMatte(4)
    with pytest.raises(ValueError, match=r"\[N, 4, H, W\], got \[1, 6, 32, 32\]"):
        network(torch.randn(1, 6, 32, 32))
    with pytest.raises(ValueError, match="16 x 32, but both must be multiples of 32; pad it to 32 x 32"):
        network(torch.randn(1, 4, 16, 32))
    with pytest.raises(ValueError, match=r"must be 6 .*, 4 \(the trimap as 0, 0.5 and 1\) or 3 .*, got 5"):
        create_model("vitmatte_base", 5)


def test_published_decoder_takes_the_image_itself_first():
    """The input goes unprocessed into the last fusion: 68 channels are 4 and 64."""
    decoder = ViTMatte(4).decoder
    assert decoder.fusion_blks[3].conv.conv.in_channels == 68
    assert math.prod(decoder.fusion_blks[0].conv.conv.weight.shape) == 256 * (192 + 384) * 9
