"""The matting networks, by name.

Every network takes x, float [N, in_channels, H, W] with H and W multiples of 32: RGB normalised by ImageNet's mean and
standard deviation, then the guidance: the one-hot trimap (0 background, 1 unknown, 2 foreground) where in_channels is
6, for ``mgmatting_mask`` a mask (1 in the foreground) where it is 4. It returns a dictionary with ``alpha_os1``, and
except for ``gca`` with ``alpha_os4`` and ``alpha_os8``, each float32 [N, 1, H, W] in 0..1.
"""

from collections.abc import Callable
from difflib import get_close_matches

from dptmat.errors import UserError
from dptmat.models.gca import GCAMatting
from dptmat.models.layers import MattingNetwork
from dptmat.models.matteformer import matteformer, matteformer_base, matteformer_small
from dptmat.models.mgmatting import MGMatting

MODELS: dict[str, Callable[[int], MattingNetwork]] = {
    "matteformer": matteformer,
    "matteformer_small": matteformer_small,
    "matteformer_base": matteformer_base,
    "gca": GCAMatting,
    "mgmatting": MGMatting,
    "mgmatting_mask": MGMatting,
}


def create_model(name: str, in_channels: int | None = None, grad_checkpointing: bool = False) -> MattingNetwork:
    """Make a matting network with random weights.

    Args:
        name: A name of ``MODELS``, or ``unet_`` and a name of timm, such as ``unet_resnet34``.
        in_channels: Channels of the image and its guidance, as at the head of `dptmat.models`: 4 for
            ``mgmatting_mask`` and 6 for all others, which is the default, or 3 for an image alone.
        grad_checkpointing: Whether the activations of the encoder's blocks are computed again in the backward pass
            instead of kept: less memory, more time, the same gradients. For ``matteformer`` of any size, and ``unet_``
            over Swin, ConvNeXt and the like.

    Returns:
        A module from x to a dictionary of alphas, as told at the head of `dptmat.models`.

    Raises:
        UserError: The name is unknown, its backbone does not fit, or the network does not take in_channels or cannot
            do gradient checkpointing.
    """
    if not isinstance(name, str):
        raise UserError(f"the name of a model must be a string, got {name!r}; {_known()}")
    if not name.startswith("unet_") and name not in MODELS:
        near = get_close_matches(name, MODELS, n=3)
        hint = f"did you mean {', '.join(map(repr, near))}? " if near else ""
        raise UserError(f"model {name!r} is unknown; {hint}{_known()}")
    full, guidance = (4, "mask") if name == "mgmatting_mask" else (6, "trimap")
    if in_channels is None:
        in_channels = full
    if in_channels not in (3, full):
        raise UserError(
            f"in_channels of {name!r} must be {full} (image and {guidance}) or 3 (image alone), got {in_channels!r}"
        )
    if name.startswith("unet_"):
        from dptmat.models.unet import UNet  # timm takes seconds to import

        network: MattingNetwork = UNet(name.removeprefix("unet_"), in_channels)
    else:
        network = MODELS[name](in_channels)
    if grad_checkpointing:
        enable = getattr(network, "grad_checkpointing", None)
        if enable is None:
            raise UserError(
                f"{name!r} holds batch norms in every block, which must not see a batch twice; do without "
                "`grad_checkpointing`, or take matteformer or a Swin or ConvNeXt"
            )
        enable()
    return network


def _known() -> str:
    return f"there are {', '.join(map(repr, MODELS))} and 'unet_' with a name of timm"
