"""What a network costs: parameters and multiply-adds against a count by hand of every layer."""

import pytest
import torch
from torch import nn

from dptmat import create_model
from dptmat.models.cost import cost


def count_by_hand(name, size):
    """Add up, layer by layer as it runs, inputs of a neuron times neurons; networks without attention."""
    network, total = create_model(name).eval(), 0

    def count(layer, inputs, output):
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):  # each input pixel goes to kernel * kernel * out_channels
            total += inputs[0].numel() * layer.out_channels * layer.kernel_size[0] ** 2
        else:
            total += output.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] ** 2

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, network.in_channels, size, size))
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mgmatting", "mgmatting_mask", "unet_resnet18"])
def test_multiply_adds_of_convolutions(name):
    _, (at_64, at_96) = cost(name, (64, 96))
    assert (at_64, at_96) == (count_by_hand(name, 64), count_by_hand(name, 96))


@pytest.mark.slow
def test_attention_counts_too():
    """GCA's two attentions: L * L * 576 for the scores and L * L * 2048 for the values, L = (size / 16)**2."""
    _, (ours,) = cost("gca", (64,))
    assert ours == count_by_hand("gca", 64) + 2 * 16**2 * (576 + 2048)


def test_parameters_are_the_published_ones():
    assert cost("gca", ())[0] == 25_164_529
    assert cost("matteformer", ())[0] == 44_747_130
