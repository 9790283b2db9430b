"""The matting networks, by name.

Every network takes x, float [N, in_channels, H, W] with H and W multiples of 32: RGB normalised by ImageNet's mean and
standard deviation, then the one-hot trimap (0 background, 1 unknown, 2 foreground) where in_channels is 6. It returns a
dictionary with ``alpha_os1``, ``alpha_os4`` and ``alpha_os8``, each float32 [N, 1, H, W] in 0..1.
"""

from difflib import get_close_matches

from torch import nn

from dptmat.errors import UserError
from dptmat.models.matteformer import MatteFormer

MODELS = {"matteformer": MatteFormer}


def create_model(name: str, in_channels: int = 6) -> nn.Module:
    """Make a matting network with random weights.

    Args:
        name: ``matteformer``, or ``unet_`` and a name of timm, such as ``unet_resnet34``.
        in_channels: 6 for an image and its one-hot trimap, 3 for an image alone.

    Returns:
        A module from x to a dictionary of alphas, as told at the head of `dptmat.models`.

    Raises:
        UserError: The name is unknown, its backbone does not fit, or in_channels is neither 3 nor 6.
    """
    if in_channels not in (3, 6):
        raise UserError(f"in_channels must be 6 (image and trimap) or 3 (image alone), got {in_channels}")
    if name.startswith("unet_"):
        from dptmat.models.unet import UNet  # timm takes seconds to import

        return UNet(name.removeprefix("unet_"), in_channels)
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=3)
        near = f"did you mean {', '.join(map(repr, near))}? " if near else ""
        known = ", ".join(map(repr, MODELS))
        raise UserError(f"model {name!r} is unknown; {near}there are {known} and 'unet_' with a name of timm")
    return MODELS[name](in_channels)
