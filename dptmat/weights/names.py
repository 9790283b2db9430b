"""The names that other projects give to the tensors of our networks.

Sources: the published checkpoints of MatteFormer (Park et al., CVPR 2022), GCA-Matting (Li and Lu, AAAI 2020) and
MG-Matting (Yu et al., CVPR 2021), whose modules' names are ours but for the spectral norm; those of Swin (Liu et al.,
ICCV 2021), SimMIM (Xie et al., CVPR 2022) and MoBY (Xie et al., 2021); timm and torchvision, whose ResNets agree.
"""

from collections.abc import Container
from typing import Any

from torch import Tensor, nn

OFFICIAL = ("matteformer", "gca", "mgmatting")

# timm's weights of the same encoder, trained on ImageNet-1k with labels.
SWIN = {
    "matteformer": "swin_tiny_patch4_window7_224.ms_in1k",
    "matteformer_small": "swin_small_patch4_window7_224.ms_in1k",
    "matteformer_base": "swin_base_patch4_window7_224.ms_in1k",
}

# Swin's bias for the relative positions in a window, and which of its rows each pair of positions takes.
BIAS_TABLE = "relative_position_bias_table"
BIAS_INDEX = "relative_position_index"

# How a spectrally normalized convolution is stored: by us and by the original projects, which wrap the convolution.
_SPECTRAL = {
    ".parametrizations.weight.original": ".module.weight_bar",
    ".parametrizations.weight.0._u": ".module.weight_u",
    ".parametrizations.weight.0._v": ".module.weight_v",
}


def tensors_of(content: dict[str, Any]) -> dict[str, Tensor]:
    """Find the state dict in what `read` returned, and strip the one ``module.`` that parallel training puts first."""
    for part in ("state_dict", "model"):
        if isinstance(content.get(part), dict):
            content = content[part]
            break
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def official_name(name: str) -> str:
    """Return the name that a tensor of ours has in the checkpoints of the original projects."""
    for ours, theirs in _SPECTRAL.items():
        name = name.replace(ours, theirs)
    return name


def official_model(state: dict[str, Tensor]) -> str | None:
    """Recognise a checkpoint of an original project, whole or in part, by its names: one of OFFICIAL, or None."""
    if not any(name.endswith(".module.weight_bar") for name in state):
        return None
    for name in state:
        if name.startswith(("encoder.patch_embed.", "encoder.layers.")):
            return "matteformer"
        if name.startswith(("encoder.guidance_head.", "encoder.gca.", "decoder.gca.")):
            return "gca"
        if name.startswith("aspp."):
            return "mgmatting"
    return None


def encoder_layout(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Give an encoder's checkpoint timm's names.

    Returns:
        The encoder's tensors by timm's names; for every other name of ``state`` why it was left; the kind of file.
    """
    left, kind = {}, "encoder"
    if any(key.startswith("encoder.") for key in state):
        kind = "MoBY" if any(key.startswith("encoder_k.") for key in state) else "SimMIM"
        left = {key: "not of the encoder" for key in state if not key.startswith("encoder.")}
        state = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    if any(key.endswith(BIAS_TABLE) for key in state):
        kind = "Swin" if kind == "encoder" else kind
        derived = [key for key in state if key.endswith((BIAS_INDEX, "attn_mask"))]
        left.update(dict.fromkeys(derived, "made by the network itself"))
        state = {key: value for key, value in state.items() if key not in derived}
    if any(key.startswith("layers.0.downsample.") for key in state):  # at the end of a stage, in timm before the next
        state = {_downsample_next(key): value for key, value in state.items()}
    return state, left, kind


def timm_names(network: nn.Module, names: Container[str]) -> dict[str, str]:
    """Map the names of a network's encoder to timm's names of the same tensors.

    Args:
        network: MatteFormer or a UNet; other networks have no encoder of timm.
        names: timm's names; a name of ours may also map to one that is not among them.

    Returns:
        Dictionary from ours (``encoder. ...``) to timm's.
    """
    result = {}
    for key in without_index(network.state_dict()):
        if key.startswith("encoder.backbone."):
            theirs = key.removeprefix("encoder.backbone.")
            # timm joins the levels of a pyramid's modules by "_", as in layers_0, and keeps some under "model".
            first, _, rest = theirs.partition(".")
            split = [f"{first[:i]}.{first[i + 1 :]}.{rest}" for i, letter in enumerate(first) if letter == "_"]
            candidates = [theirs, *split, theirs.removeprefix("model.")]
            result[key] = next((name for name in candidates if name in names), theirs)
        elif key.startswith(("encoder.patch_embed.", "encoder.layers.")):
            result[key] = _downsample_next(key.removeprefix("encoder."))
    return result


def _downsample_next(key: str) -> str:
    """Count a downsampling to the stage that follows it, as timm does: layers.0.downsample is layers.1.downsample."""
    parts = key.split(".")
    if parts[0] == "layers" and parts[2] == "downsample":
        parts[1] = str(int(parts[1]) + 1)
    return ".".join(parts)


def without_index(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the tables of indices, which a network makes by itself."""
    return {key: value for key, value in state.items() if not key.endswith(BIAS_INDEX)}
