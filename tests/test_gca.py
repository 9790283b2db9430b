import copy

import pytest
import torch
from reference.published import expected_names, guided_attention, make_input, plain_gca, published, randomise, sizes
from torch import nn

from dptmat.models.gca import GCAMatting, GuidedAttention, attention, key_weights, unknown_map


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return randomise(GCAMatting()).eval()


@pytest.fixture(scope="module")
def block():
    """A block of attention under the name that it has in a network."""
    torch.manual_seed(0)
    holder = nn.Module()
    holder.decoder = nn.Module()
    holder.decoder.gca = GuidedAttention()
    return randomise(holder).eval()


def test_sizes_are_those_of_the_published_checkpoint(network):
    assert sizes(network) == (578, 25_269_144, 25_164_529, 22_632)


def test_names_are_the_published_ones(network):
    assert set(published(network)) == expected_names(gca=True)


@pytest.mark.parametrize(("n", "height", "width"), [(1, 32, 32), (3, 64, 96), (1, 160, 224)])
@torch.no_grad()
def test_equals_plain_functions(network, n, height, width):
    x = make_input(n, height, width)
    got, expected = network(x), plain_gca(published(network), x)
    assert list(got) == ["alpha_os1"]
    assert got["alpha_os1"].shape == (n, 1, height, width)
    assert got["alpha_os1"].std() > 0.05  # not saturated, or nothing would be compared
    # Two orders of the same sums; 4e-7 was seen.
    torch.testing.assert_close(got["alpha_os1"], expected["alpha_os1"], atol=1e-5, rtol=0)


def label_maps():
    """Trimaps [64, 96] by what they lack."""
    trimap = torch.randint(0, 3, (4, 6), generator=torch.Generator().manual_seed(0)).repeat_interleave(16, 0)
    trimap = trimap.repeat_interleave(16, 1)
    return {
        "nothing": trimap,
        "foreground": trimap.clamp(max=1),
        "background": trimap.clamp(min=1),
        "unknown": 2 * (trimap > 0),
        "all but unknown": torch.ones_like(trimap),
    }


@pytest.mark.parametrize("lacks", ["nothing", "foreground", "background", "unknown", "all but unknown"])
@torch.no_grad()
def test_any_trimap_equals_plain_functions(network, lacks):
    x = make_input(1, 64, 96)
    x[0, 3:] = torch.nn.functional.one_hot(label_maps()[lacks], 3).permute(2, 0, 1)
    expected = plain_gca(published(network), x)["alpha_os1"]
    torch.testing.assert_close(network(x)["alpha_os1"], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_a_trimap_everything_is_unknown():
    network = randomise(GCAMatting(in_channels=3)).eval()
    x = make_input(2, 64, 64)[:, :3]
    assert unknown_map(x).all()
    torch.testing.assert_close(
        network(x)["alpha_os1"], plain_gca(published(network), x)["alpha_os1"], atol=1e-5, rtol=0
    )


# --- attention ---


def test_unknown_is_the_top_left_pixel_of_each_cell():
    x = torch.zeros(1, 6, 32, 64)
    x[0, 4, 0, 16] = 1
    x[0, 4, 20:, 20:30] = 1  # misses the cell's top left: does not count
    assert unknown_map(x).tolist() == [[[[0, 1, 0, 0], [0, 0, 0, 0]]]]


def test_keys_are_weighed_by_the_share_of_the_unknown():
    unknown = torch.zeros(4, 1, 4, 5)
    unknown[0, 0, 0, 0] = 1  # 1 of 20: sqrt(1 / 19) for itself and its three neighbours, sqrt(19) for the others
    unknown[1, 0, :, :4] = 1  # 16 of 20: no key without an unknown neighbour
    unknown[2] = 1
    scale, own = key_weights(unknown)
    assert scale[0].tolist() == pytest.approx([(1 / 19) ** 0.5 if k in (0, 1, 5, 6) else 19**0.5 for k in range(20)])
    assert own[0].tolist() == [-1e4 if k in (0, 1, 5, 6) else 0 for k in range(20)]
    assert scale[1].tolist() == pytest.approx([2] * 20)
    assert scale[2].tolist() == [10] * 20
    assert (own[1:3] == -1e4).all()
    assert scale[3].tolist() == [10] * 20
    assert not own[3].any()


def test_scale_is_at_least_a_tenth():
    unknown = torch.zeros(1, 1, 20, 20)
    unknown[0, 0, 7, 7] = 1  # sqrt(1 / 399) = 0.05
    scale, _ = key_weights(unknown)
    assert scale.min().item() == pytest.approx(0.1)
    assert scale.max().item() == 10  # sqrt(399) = 19.97


def test_an_unknown_key_sees_everything_but_itself():
    patches = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [0.0, 5e-5]]])
    scale, own = torch.tensor([[0.5, 2.0, 1.0]]), torch.tensor([[-1e4, 0.0, 0.0]])
    # Keys divided by their length, at least 1e-4, and scaled: (0.3, 0.4), (0, 2), (0, 0.5). Queries are plain patches.
    scores = torch.tensor([[[2.5 - 1e4, 8.0, 2.0], [0.8, 4.0, 1.0], [2e-5, 1e-4, 2.5e-5]]])
    weights = attention(patches, scale, own)
    torch.testing.assert_close(weights, scores.softmax(2))
    assert weights[0, 0, 0] == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 8)])
@torch.no_grad()
def test_block_equals_convolution_with_patches_as_kernels(block, height, width, share):
    generator = torch.Generator().manual_seed(0)
    guidance, x = (2 * torch.randn(2, 128, height, width, generator=generator) for _ in range(2))
    unknown = (torch.rand(2, 1, height, width, generator=generator) < share).float()
    got = block.decoder.gca(guidance, x, *key_weights(unknown[:, :, ::2, ::2]))
    for i in range(2):
        expected = guided_attention(published(block), "decoder", guidance[i : i + 1], x[i : i + 1], unknown[i, 0])
        # Values are of order 10; scores of order 100 lose 1e-5 to rounding, and weights as much.
        torch.testing.assert_close(got[i : i + 1], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_large_features_stay_finite_in_half_precision(block, dtype):
    """A query of 576 numbers of 1000, on a key scaled by 10, scores 240,000: beyond float16."""
    patches = (1000 + torch.randn(1, 9, 576)).to(dtype)
    scale, own = key_weights(torch.ones(1, 1, 3, 3))
    expected = attention(patches.float(), scale, own)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(attention(patches, scale, own), expected)
    assert expected.isfinite().all()
    with torch.autocast("cpu", dtype=dtype):
        x = torch.full((1, 128, 8, 8), 30_000.0, dtype=dtype)  # four times that is beyond float16
        seen = []
        handle = block.decoder.gca.W.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        block.decoder.gca(torch.full_like(x, 100.0), x, *key_weights(torch.ones(1, 1, 4, 4)))
        handle.remove()
    assert seen[0].dtype == dtype
    assert seen[0].isfinite().all()
    # A border row or column is covered by half of the patches, and nothing makes up for it.
    assert seen[0][0, 0, 3, 3].item() == pytest.approx(30_000, rel=0.02)
    assert seen[0][0, 0, 0, 3].item() == pytest.approx(15_000, rel=0.02)
    assert seen[0][0, 0, 0, 0].item() == pytest.approx(7_500, rel=0.02)


def test_block_starts_as_almost_nothing():
    block = GuidedAttention().eval()
    x = torch.randn(1, 128, 8, 8)
    result = block(torch.randn(1, 128, 8, 8), x, *key_weights(torch.ones(1, 1, 4, 4)))
    assert 0 < (result - x).abs().max() < 0.01


# --- the network ---


def test_gradient_reaches_every_parameter():
    network = randomise(GCAMatting()).train()
    alpha = network(make_input(2, 64, 96))["alpha_os1"]
    (alpha * torch.randn_like(alpha)).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_gradient_equals_that_of_plain_functions(network):
    """In evaluation the plain functions are differentiable too; a constant norm of the keys would show."""
    network = copy.deepcopy(network)
    x = make_input(2, 64, 64)
    state = published(network)
    for part in ("encoder", "decoder"):
        name = f"{part}.gca.guidance_conv.weight"
        parameter = network.get_parameter(name)
        state[name] = state[name].clone().requires_grad_()
        (got,) = torch.autograd.grad(network(x)["alpha_os1"].pow(2).sum(), parameter)
        (expected,) = torch.autograd.grad(plain_gca(state, x)["alpha_os1"].pow(2).sum(), state[name])
        state[name] = state[name].detach()
        torch.testing.assert_close(got, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)


@torch.no_grad()
def test_batch_members_do_not_interact(network):
    x = make_input(3, 64, 32)
    together = network(x)["alpha_os1"]
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], network(x[i : i + 1])["alpha_os1"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_memory_format_does_not_matter(network):
    x = make_input(2, 64, 64)
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    result = other(x.contiguous(memory_format=torch.channels_last))["alpha_os1"]
    torch.testing.assert_close(result, network(x)["alpha_os1"], atol=1e-5, rtol=0)


@pytest.mark.exhaustive
def test_compiles_without_a_graph_break_in_training(network):
    network = copy.deepcopy(network).train()
    x = make_input(2, 32, 64)
    expected = copy.deepcopy(network)(x)["alpha_os1"]
    torch.compiler.reset()
    result = torch.compile(network, backend="aot_eager", fullgraph=True)(x)["alpha_os1"]
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    result.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.exhaustive
def test_compiles_without_a_graph_break_in_evaluation(network):
    x = make_input(2, 32, 64)
    torch.compiler.reset()
    result = torch.compile(network, backend="aot_eager", fullgraph=True)(x)["alpha_os1"]
    torch.testing.assert_close(result, network(x)["alpha_os1"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_autocast_stays_close_and_finite(network):
    x = make_input(2, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(x.bfloat16())["alpha_os1"]
    assert result.dtype == torch.float32
    # bfloat16 has 8 bits, and about 60 layers follow each other.
    torch.testing.assert_close(result, network(x)["alpha_os1"], atol=0.1, rtol=0)


def test_learns_under_autocast():
    torch.manual_seed(0)
    network = GCAMatting().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(make_input(2, 64, 64))["alpha_os1"]
    result.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@torch.no_grad()
def test_state_dict_and_deepcopy_give_the_same_network(network):
    x = make_input(1, 32, 64)
    expected = network(x)["alpha_os1"]
    fresh = GCAMatting().eval()
    fresh.load_state_dict(network.state_dict())
    for other in (fresh, copy.deepcopy(network)):
        assert torch.equal(other(x)["alpha_os1"], expected)
