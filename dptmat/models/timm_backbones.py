"""What timm tells of a backbone besides its maps: the order of its layers, and how to checkpoint its blocks."""

from collections import defaultdict
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn

from dptmat.errors import UserError


def layers_of(backbone: Any, name: str) -> list[list[nn.Parameter]]:
    """List the parameters of a backbone's layers as timm groups them, from the input on.

    What belongs to none, such as norms that its pyramid adds, is left out; a layer of which nothing is in the pyramid
    still counts.

    Args:
        backbone: What ``timm.create_model`` has made with ``features_only``.
        name: Its name.

    Raises:
        UserError: timm tells no layers of it.
    """
    with torch.device("meta"):  # its names alone: those of a pyramid are joined, and it has forgotten its layers
        whole: Any = timm.create_model(name, pretrained=False, num_classes=1)
    if not hasattr(whole, "group_matcher"):
        raise UserError(f"timm tells no layers of {name!r}, so that there is no `layer_decay` for it; leave it out")
    place = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    depth = max(place.values())  # the head's place
    layers = defaultdict(list)
    for key, parameter in backbone.named_parameters():
        # timm joins the levels of a pyramid's modules by "_", as in layers_0, and keeps some under "model".
        key = key.removeprefix("model.")
        joints = (i for i, letter in enumerate(key.partition(".")[0]) if letter == "_")
        names = (key, *(f"{key[:i]}.{key[i + 1 :]}" for i in joints))
        layers[next((place[name] for name in names if name in place), depth)].append(parameter)
    return [layers[i] for i in range(depth)]


def checkpoint_blocks(backbone: Any, name: str) -> None:
    """Keep only what enters a block or stage of a backbone, and compute the rest again in the backward pass.

    Args:
        backbone: What ``timm.create_model`` has made with ``features_only``.
        name: Its name.

    Raises:
        UserError: timm cannot do that with it.
    """
    model = backbone if hasattr(backbone, "set_grad_checkpointing") else getattr(backbone, "model", backbone)
    try:
        model.set_grad_checkpointing()
    except (AssertionError, AttributeError) as error:  # how timm says no
        raise UserError(
            f"timm cannot checkpoint {name!r}; do without `grad_checkpointing`, or take matteformer or a Swin or "
            "ConvNeXt"
        ) from error
