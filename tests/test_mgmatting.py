import copy

import pytest
import torch
from reference.published import expected_names, make_input, plain_mgmatting, published, randomise, sizes

from dptmat.models.mgmatting import ASPP, MGMatting


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return randomise(MGMatting()).eval()


def test_sizes_are_those_of_the_published_checkpoints(network):
    assert sizes(network) == (596, 29_701_775, 29_597_795, 25_548)
    assert sizes(MGMatting(in_channels=4)) == (596, 29_700_587, 29_596_643, 25_548)


def test_names_are_the_published_ones(network):
    assert set(published(network)) == expected_names(gca=False)


@pytest.mark.parametrize(
    ("n", "height", "width", "guidance"), [(1, 32, 32, 3), (3, 64, 96, 3), (1, 160, 224, 3), (1, 64, 64, 1)]
)
@torch.no_grad()
def test_equals_plain_functions(network, n, height, width, guidance):
    if guidance == 1:
        network = randomise(MGMatting(in_channels=4)).eval()
    x = make_input(n, height, width, guidance)
    got, expected = network(x), plain_mgmatting(published(network), x)
    assert list(got) == ["alpha_os1", "alpha_os4", "alpha_os8"]
    for name, alpha in got.items():
        assert alpha.shape == (n, 1, height, width)
        assert alpha.std() > 0.01  # not saturated, or nothing would be compared
        # Two orders of the same sums; 1e-6 was seen.
        torch.testing.assert_close(alpha, expected[name], atol=1e-5, rtol=0)


@torch.no_grad()
def test_every_level_of_the_pyramid_counts():
    pyramid = ASPP().eval()
    x = torch.rand(1, 512, 20, 20)
    before = pyramid(x)
    for i in range(1, 6):
        changed = copy.deepcopy(pyramid)
        getattr(changed, f"aspp{i}").weight.zero_()
        assert not torch.allclose(changed(x), before, atol=1e-4)


def test_gradient_reaches_every_parameter():
    network = randomise(MGMatting()).train()
    result = network(make_input(2, 64, 96))
    sum((alpha * torch.randn_like(alpha)).sum() for alpha in result.values()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@torch.no_grad()
def test_batch_members_do_not_interact(network):
    x = make_input(3, 64, 32)
    together = network(x)
    for i in range(3):
        for name, alpha in network(x[i : i + 1]).items():
            torch.testing.assert_close(together[name][i : i + 1], alpha, atol=1e-5, rtol=0)


@torch.no_grad()
def test_memory_format_does_not_matter(network):
    x = make_input(2, 64, 64)
    expected = network(x)
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    result = other(x.contiguous(memory_format=torch.channels_last))
    for name, alpha in expected.items():
        torch.testing.assert_close(result[name], alpha, atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.exhaustive
def test_compiles_without_a_graph_break(network):
    network = copy.deepcopy(network).train()  # evaluation does less; test_gca.py compiles it
    x = make_input(2, 32, 64)
    expected = copy.deepcopy(network)(x)
    torch.compiler.reset()
    result = torch.compile(network, backend="eager", fullgraph=True)(x)
    for name, alpha in expected.items():
        torch.testing.assert_close(result[name], alpha, atol=1e-5, rtol=0)


@torch.no_grad()
def test_autocast_stays_close_and_finite(network):
    x = make_input(2, 64, 64)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(x.bfloat16())
    for name, alpha in result.items():
        assert alpha.dtype == torch.float32
        # bfloat16 has 8 bits, and about 60 layers follow each other.
        torch.testing.assert_close(alpha, expected[name], atol=0.1, rtol=0)


@torch.no_grad()
def test_state_dict_and_deepcopy_give_the_same_network(network):
    x = make_input(1, 32, 64)
    expected = network(x)
    fresh = MGMatting().eval()
    fresh.load_state_dict(network.state_dict())
    for other in (fresh, copy.deepcopy(network)):
        result = other(x)
        assert all(torch.equal(result[name], alpha) for name, alpha in expected.items())
