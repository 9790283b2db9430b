import pytest
import torch
from reference.published import encode, expected_names, make_input, published, randomise
from torch import nn

from dptmat.models.decoder import CHANNELS
from dptmat.models.layers import sn_conv
from dptmat.models.resnet import ResNetEncoder


class Holder(nn.Module):
    """Gives the encoder the place that it has in a network."""

    def __init__(self, in_channels):
        super().__init__()
        self.encoder = ResNetEncoder(in_channels)


@pytest.fixture(scope="module")
def holder():
    torch.manual_seed(0)
    return randomise(Holder(6)).eval()


def test_names_are_the_published_ones(holder):
    assert set(published(holder)) == {name for name in expected_names(gca=False) if name.startswith("encoder.")}


@pytest.mark.parametrize(("n", "height", "width"), [(1, 32, 32), (3, 64, 96), (1, 160, 224)])
@torch.no_grad()
def test_equals_plain_functions(holder, n, height, width):
    x = make_input(n, height, width)
    got, expected = holder.encoder(x), encode(published(holder), x)
    strides = (1, 2, 4, 8, 16, 32)
    assert [tuple(f.shape) for f in got] == [
        (n, c, height // s, width // s) for c, s in zip(CHANNELS, strides, strict=True)
    ]
    for one, other in zip(got, expected, strict=True):
        # Two orders of the same sums; values are of order 1 to 10.
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_channels_of_the_input_change_two_convolutions_only():
    one, other = (published(Holder(channels)) for channels in (4, 6))
    different = {name for name in one if one[name].shape != other[name].shape}
    assert different == {
        f"encoder.{conv}.module.weight_{part}" for conv in ("conv1", "shortcut.0.0") for part in ("bar", "v")
    }


def test_blocks_start_as_their_identity_path():
    encoder = ResNetEncoder(6)
    for stage in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer_bottleneck):
        for block in stage:
            assert not block.bn2.weight.any()
            assert block.bn1.weight.all()
    # Xavier-uniform: bound sqrt(6 / (9 * (256 + 512))) = 0.0295 against PyTorch's 1 / sqrt(9 * 256) = 0.0208.
    first = encoder.layer_bottleneck[0].conv1.parametrizations.weight.original
    assert 0.029 < first.abs().max() <= 0.0295


def test_convolution_takes_stride_and_padding():
    x = torch.randn(1, 3, 8, 10)
    assert sn_conv(3, 4, 3, stride=2)(x).shape == (1, 4, 4, 5)
    assert sn_conv(3, 4, 3, stride=2, padding=0)(x).shape == (1, 4, 3, 4)
    assert sn_conv(3, 4, 1)(x).shape == (1, 4, 8, 10)
