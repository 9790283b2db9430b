"""Any plain vision transformer of timm as the encoder of ViTMatte's decoder.

Source: the decoder is that of Yao et al., ViTMatte, Information Fusion 2024; the encoders are those of PyTorch Image
Models (timm), such as DINOv2's and DINOv3's.
Differs from ViTMatte: every block attends over the whole map, with the positions of the encoder's own, and there are no
necks. The memory of attention is what timm and PyTorch make of it.
"""

from difflib import get_close_matches
from typing import Any

import timm
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dptmat.errors import UserError
from dptmat.models.layers import MattingNetwork, require_input
from dptmat.models.timm_backbones import checkpoint_blocks, layers_of
from dptmat.models.vitmatte import PATCH, Decoder

_ADVICE = "choose such as vit_vit_small_patch14_dinov2, vit_vit_small_patch16_dinov3 or vit_deit3_small_patch16_224"


def _make_backbone(name: str, in_channels: int) -> Any:  # a FeatureGetterNet, of no common type
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3) or ["vit_small_patch14_dinov2"]
        names = ", ".join(repr("vit_" + other) for other in near)
        raise UserError(f"model 'vit_{name}' is unknown, since timm has no {name!r}; did you mean {names}?")
    options: dict[str, Any] = {"pretrained": False, "features_only": True, "in_chans": in_channels}
    try:
        backbone: Any = timm.create_model(name, **options, dynamic_img_size=True)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"timm's {name!r} is no plain transformer for images of any size; {_ADVICE}") from error
    strides = backbone.feature_info.reduction()
    if len(set(strides)) > 1:
        given = ", ".join(f"/{stride}" for stride in strides)
        raise UserError(f"timm's {name!r} is no plain transformer, but gives feature maps at {given}; use unet_{name}")
    return backbone


class Encoder(nn.Module):
    """A transformer of timm, [N, in_channels, H, W] to the map of its last block, [N, channels, H/16, W/16]."""

    def __init__(self, backbone_name: str, in_channels: int) -> None:
        super().__init__()
        self.backbone: Any = _make_backbone(backbone_name, in_channels)
        self.patch = self.backbone.feature_info.reduction()[-1]
        self.channels = self.backbone.feature_info.channels()[-1]

    def forward(self, x: Tensor) -> Tensor:
        if self.patch != PATCH:  # resized, so that a patch of another size covers 16 pixels, too
            height, width = (side // PATCH * self.patch for side in x.shape[2:])
            x = interpolate(x, (height, width), mode="bilinear", align_corners=False)
        return self.backbone(x)[-1]


class ViT(MattingNetwork):
    """Predict alpha from an image and its trimap with a plain transformer of timm, from random weights.

    Args:
        backbone_name: A name that timm knows, such as ``vit_small_patch14_dinov2``.
        in_channels: 6, or 3 for images without a trimap.

    Raises:
        UserError: timm does not know the name, or it is no plain transformer that takes images of any size.
    """

    outputs = ("alpha_os1",)

    def __init__(self, backbone_name: str, in_channels: int = 6) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.backbone_name = backbone_name
        self.encoder = Encoder(backbone_name, in_channels)
        self.decoder = Decoder(in_channels, self.encoder.channels)

    def grad_checkpointing(self) -> None:
        """Keep only what enters a block of the backbone, and compute the rest again in the backward pass."""
        checkpoint_blocks(self.encoder.backbone, self.backbone_name)

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters of the backbone's layers, as timm tells them."""
        return layers_of(self.encoder.backbone, self.backbone_name)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``alpha_os1`` alone, float32 [N, 1, H, W] in 0..1.

        Args:
            x: [N, in_channels, H, W], H and W multiples of 32: RGB normalised by ImageNet's mean and standard
                deviation, then the one-hot trimap (background, unknown, foreground).

        Raises:
            TypeError: x is not floating point.
            ValueError: x has another shape, or H or W is not a multiple of 32.
        """
        require_input(x, self.in_channels)
        return {"alpha_os1": self.decoder(x, self.encoder(x))}
