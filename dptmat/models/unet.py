"""Any pyramid of timm as the encoder of the matting decoder.

Source: the decoder and its shortcut branches are those of Li and Lu, Natural Image Matting via Guided Contextual
Attention, AAAI 2020; the encoders are those of PyTorch Image Models (timm).
Differs from MatteFormer with a Swin-T: no prior tokens, so the trimap is seen as input channels only.
"""

from difflib import get_close_matches
from typing import Any

import timm
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dptmat.errors import UserError
from dptmat.models.decoder import CHANNELS, Decoder
from dptmat.models.layers import MattingNetwork, require_input, shortcut_branch
from dptmat.models.timm_backbones import checkpoint_blocks, layers_of

_ADVICE = "choose a ResNet, ConvNeXt or Swin"


def _make_backbone(name: str, in_channels: int) -> Any:  # a FeatureListNet or its like, of no common type
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3) or ["resnet34", "swin_tiny_patch4_window7_224"]
        names = ", ".join(repr("unet_" + other) for other in near)
        raise UserError(f"model 'unet_{name}' is unknown, since timm has no {name!r}; did you mean {names}?")
    # Without it timm's Swin accepts only the size in its name.
    options: dict[str, Any] = {"strict_img_size": False} if "swin" in name else {}
    try:
        backbone: Any = timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels, **options)
    except RuntimeError as error:
        raise UserError(f"timm's {name!r} gives no feature maps ({error}); {_ADVICE}") from error
    strides = backbone.feature_info.reduction()
    if not {4, 8, 16, 32} <= set(strides):
        given = ", ".join(f"/{stride}" for stride in dict.fromkeys(strides))
        plain = f", or take vit_{name}" if len(set(strides)) == 1 else ""
        needed = "but /4, /8, /16 and /32 are needed"
        raise UserError(f"timm's {name!r} gives feature maps at {given}, {needed}; {_ADVICE}{plain}")
    return backbone


class Encoder(nn.Module):
    """A timm backbone and the shortcut branches of its maps."""

    def __init__(self, backbone_name: str, in_channels: int) -> None:
        super().__init__()
        self.backbone: Any = _make_backbone(backbone_name, in_channels)
        self.channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        self.strides = self.backbone.feature_info.reduction()
        channels = dict(zip(self.strides, self.backbone.feature_info.channels(), strict=True))
        channels.setdefault(2, channels[4])
        sources = (in_channels, *(channels[stride] for stride in (2, 4, 8, 16, 32)))
        self.shortcut = nn.ModuleList(map(shortcut_branch, sources, CHANNELS))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the six maps that `Decoder` takes, from [N, in_channels, H, W]."""
        features = self.backbone(x)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        maps = dict(zip(self.strides, features, strict=True))
        if 2 not in maps:  # transformers start at /4
            maps[2] = interpolate(maps[4], scale_factor=2, mode="bilinear", align_corners=True)
        maps[1] = x  # a map of the backbone at full size, as VGG's, is not needed
        return [branch(maps[stride]) for branch, stride in zip(self.shortcut, (1, 2, 4, 8, 16, 32), strict=True)]


class UNet(MattingNetwork):
    """Predict alpha from an image and its trimap with an encoder of timm, from random weights.

    Args:
        backbone_name: A name that timm knows, such as ``resnet34`` or ``swin_tiny_patch4_window7_224``. Backbones tied
            to one input size by timm (MaxViT, Hiera) take only multiples of 32 which they accept themselves.
        in_channels: 6, or 3 for images without a trimap.

    Raises:
        UserError: timm does not know the name, or the backbone gives no feature maps at /4, /8, /16 and /32.
    """

    def __init__(self, backbone_name: str, in_channels: int = 6) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.backbone_name = backbone_name
        self.encoder = Encoder(backbone_name, in_channels)
        self.decoder = Decoder()

    def grad_checkpointing(self) -> None:
        """Keep only what enters a block or stage of the backbone, and compute the rest again in the backward pass.

        Raises:
            UserError: The backbone holds batch norms, which would count a batch twice, or timm cannot do it.
        """
        backbone = self.encoder.backbone
        if any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
            raise UserError(
                f"timm's {self.backbone_name!r} holds batch norms, which must not see a batch twice; "
                "do without `grad_checkpointing`, or take matteformer or a Swin or ConvNeXt"
            )
        checkpoint_blocks(backbone, self.backbone_name)

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters of the backbone's layers, as timm tells them."""
        return layers_of(self.encoder.backbone, self.backbone_name)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``alpha_os1``, ``alpha_os4`` and ``alpha_os8``, each float32 [N, 1, H, W] in 0..1.

        Args:
            x: [N, in_channels, H, W], H and W multiples of 32: RGB normalised by ImageNet's mean and standard
                deviation, then the one-hot trimap (background, unknown, foreground).

        Raises:
            TypeError: x is not floating point.
            ValueError: x has another shape, or H or W is not a multiple of 32.
        """
        require_input(x, self.in_channels)
        return self.decoder(self.encoder(x))
