"""What the networks share: their type, spectrally normalised convolutions, the shortcut branch, the check of the input.

Source: Miyato et al., Spectral Normalization for Generative Adversarial Networks, ICLR 2018; Li and Lu, Natural Image
Matting via Guided Contextual Attention, AAAI 2020 (the shortcut branch).
Differs: the normalisation is PyTorch's own. In training its power iteration updates u before v where the published
networks update v before u; in evaluation both divide by u . (M v) with the stored u and v, so the outputs are equal.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.utils.parametrizations import spectral_norm


class MattingNetwork(nn.Module):
    """A network from x to a dictionary of alphas, as told at the head of `dptmat.models`."""

    in_channels: int  # of x: 3 of the image, and those of its guidance
    trimap_levels = False  # whether a fourth channel is the trimap as 0, 0.5 and 1, not a mask
    outputs: tuple[str, ...] = ("alpha_os1", "alpha_os4", "alpha_os8")

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters of the encoder's layers, from the input on, for rates that fall towards it.

        The decoder, and what the encoder has beside its layers, is left out. Networks without such layers have none.
        """
        return []


def _normalized_weight(conv: nn.Conv2d | nn.ConvTranspose2d, device: torch.device) -> Tensor:
    # Autocast would run the power iteration in half precision. Each read of .weight iterates once: read it only once.
    with torch.autocast(device.type, enabled=False):
        return conv.weight


class _SNConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, _normalized_weight(self, x.device), None, self.stride, self.padding)


class _SNConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return conv_transpose2d(x, _normalized_weight(self, x.device), None, stride=2, padding=1)  # doubles


def sn_conv(
    n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int | None = None, xavier: bool = False
) -> nn.Module:
    """Make a spectrally normalised convolution without bias.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        kernel: Side of the kernel in pixels, odd.
        stride: Pixels from one output to the next.
        padding: Zeros added at every side, in pixels; by default what keeps the size over stride.
        xavier: Start from Xavier-uniform weights instead of PyTorch's default.

    Returns:
        A module with the parameter ``parametrizations.weight.original`` and, beside it in the state dict, the vectors
        ``parametrizations.weight.0._u`` and ``._v``: one power iteration per forward pass in training, none in
        evaluation. The normalisation is computed in float32, also under autocast.
    """
    padding = kernel // 2 if padding is None else padding
    conv = _SNConv2d(n_in, n_out, kernel, stride, padding, bias=False)
    if xavier:
        nn.init.xavier_uniform_(conv.weight)
    return spectral_norm(conv, dim=0)


def sn_double(channels: int) -> nn.Module:
    """Make a spectrally normalised transposed convolution that doubles height and width; see `sn_conv`."""
    conv = _SNConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    # PyTorch would take dimension 1, the output channels; the published weights were trained with dimension 0.
    return spectral_norm(conv, dim=0)


def iterate_spectral_norms(model: nn.Module, iterate: bool) -> None:
    """Choose whether the next forward pass in training does a power iteration, or takes the vectors as they are.

    One for each value of the weights is enough: the micro-batches of a step then see the same normalised weights, in
    however many passes and processes they come.
    """
    for module in model.modules():
        if isinstance(module, (_SNConv2d, _SNConvTranspose2d)):
            module.get_submodule("parametrizations.weight.0").train(iterate)


def shortcut_branch(n_in: int, n_out: int) -> nn.Sequential:
    """Make the branch through which a feature map of the encoder enters the decoder: [N, n_in, H, W] to n_out."""
    return nn.Sequential(
        sn_conv(n_in, n_out, 3),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(n_out),
        sn_conv(n_out, n_out, 3),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(n_out),
    )


def require_input(x: Tensor, in_channels: int) -> None:
    """Check that a network can take x.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is not [N, in_channels, H, W], or H or W is not a multiple of 32.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}; normalize the image before the network")
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise ValueError(f"x must be [N, {in_channels}, H, W], got {list(x.shape)}; see in_channels of create_model()")
    height, width = x.shape[2:]
    if height % 32 or width % 32 or not height or not width:
        fitting = " x ".join(str(max(32, -(-side // 32) * 32)) for side in (height, width))
        raise ValueError(f"x is {height} x {width}, but both must be multiples of 32; pad it to {fitting}")
