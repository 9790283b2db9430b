"""The matting networks, by name.

Every network takes x, float [N, in_channels, H, W] with H and W multiples of 32: RGB normalised by ImageNet's mean and
standard deviation, then the guidance: the one-hot trimap (0 background, 1 unknown, 2 foreground) where in_channels is
6, for ``mgmatting_mask`` a mask (1 in the foreground) where it is 4, and for ``vitmatte_small`` and ``vitmatte_base``
the trimap as 0, 0.5 and 1 where it is 4. It returns a dictionary with its ``outputs``: ``alpha_os1``, and except for
``gca``, ``vitmatte_`` and ``vit_`` also ``alpha_os4`` and ``alpha_os8``, each float32 [N, 1, H, W] in 0..1.
"""

from collections.abc import Callable
from difflib import get_close_matches

from dptmat.errors import UserError
from dptmat.models.gca import GCAMatting
from dptmat.models.layers import MattingNetwork
from dptmat.models.matteformer import matteformer, matteformer_base, matteformer_small
from dptmat.models.mgmatting import MGMatting
from dptmat.models.vitmatte import vitmatte_base, vitmatte_small

MODELS: dict[str, Callable[[int], MattingNetwork]] = {
    "matteformer": matteformer,
    "matteformer_small": matteformer_small,
    "matteformer_base": matteformer_base,
    "gca": GCAMatting,
    "mgmatting": MGMatting,
    "mgmatting_mask": MGMatting,
    "vitmatte_small": vitmatte_small,
    "vitmatte_base": vitmatte_base,
}
# Before a name of timm: the decoder of GCA-Matting on a pyramid, and that of ViTMatte on a plain transformer.
PREFIXES = ("unet_", "vit_")


def create_model(name: str, in_channels: int | None = None, grad_checkpointing: bool = False) -> MattingNetwork:
    """Make a matting network with random weights.

    Args:
        name: A name of ``MODELS``, or ``unet_`` or ``vit_`` and a name of timm, such as ``unet_resnet34``.
        in_channels: Channels of the image and its guidance, as at the head of `dptmat.models`: 4 for
            ``mgmatting_mask`` and 6 for all others, which is the default, or 3 for an image alone; or 4 for
            ``vitmatte_small`` and ``vitmatte_base``.
        grad_checkpointing: Whether the activations of the encoder's blocks are computed again in the backward pass
            instead of kept: less memory, more time, the same gradients. For ``matteformer`` and ``vitmatte`` of any
            size, ``vit_``, and ``unet_`` over Swin, ConvNeXt and the like.

    Returns:
        A module from x to a dictionary of alphas, as told at the head of `dptmat.models`.

    Raises:
        UserError: The name is unknown, its backbone does not fit, or the network does not take in_channels or cannot
            do gradient checkpointing.
    """
    if not isinstance(name, str):
        raise UserError(f"the name of a model must be a string, got {name!r}; {_known()}")
    if not name.startswith(PREFIXES) and name not in MODELS:
        near = get_close_matches(name, MODELS, n=3)
        hint = f"did you mean {', '.join(map(repr, near))}? " if near else ""
        raise UserError(f"model {name!r} is unknown; {hint}{_known()}")
    network = _make(name, _choose_channels(name, in_channels))
    if grad_checkpointing:
        enable = getattr(network, "grad_checkpointing", None)
        if enable is None:
            raise UserError(
                f"{name!r} holds batch norms in every block, which must not see a batch twice; do without "
                "`grad_checkpointing`, or take matteformer or a Swin or ConvNeXt"
            )
        enable()
    return network


def backbone_of(name: str) -> str | None:
    """Return the name of timm in that of a network; None where it is not made of a backbone of timm."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
    return name.removeprefix(prefix) if prefix else None


def _choose_channels(name: str, in_channels: int | None) -> int:
    full, guidance = (4, "mask") if name == "mgmatting_mask" else (6, "trimap")
    levels = (4,) if name.startswith("vitmatte_") else ()
    if in_channels is None:
        return full
    if in_channels not in (3, full, *levels):
        further = ", 4 (the trimap as 0, 0.5 and 1)" if levels else ""
        raise UserError(
            f"in_channels of {name!r} must be {full} (image and {guidance}){further} or 3 (image alone), got "
            f"{in_channels!r}"
        )
    return in_channels


def _make(name: str, in_channels: int) -> MattingNetwork:
    if name.startswith("unet_"):
        from dptmat.models.unet import UNet  # timm takes seconds to import

        return UNet(name.removeprefix("unet_"), in_channels)
    if name.startswith("vit_"):
        from dptmat.models.vit import ViT

        return ViT(name.removeprefix("vit_"), in_channels)
    return MODELS[name](in_channels)


def _known() -> str:
    return f"there are {', '.join(map(repr, MODELS))} and 'unet_' or 'vit_' with a name of timm"
