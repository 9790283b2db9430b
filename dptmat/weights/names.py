"""The names that other projects give to the tensors of our networks.

Sources: the published checkpoints of MatteFormer (Park et al., CVPR 2022), GCA-Matting (Li and Lu, AAAI 2020) and
MG-Matting (Yu et al., CVPR 2021), whose modules' names are ours but for the spectral norm; that of DPT (Li et al., WACV
2024), a MatteFormer, and what its pre-training saves; `dptmat.weights.vitmatte`; those of Swin (Liu et al.,
ICCV 2021), SimMIM (Xie et al., CVPR 2022) and MoBY (Xie et al., 2021); timm and torchvision, whose ResNets agree.
"""

from collections.abc import Callable, Container
from typing import Any

from torch import Tensor, nn

from dptmat.errors import few
from dptmat.weights import vitmatte

# The networks of the projects that have published checkpoints, by the projects' names.
OFFICIAL = {
    "matteformer": ("matteformer",),
    "gca": ("gca",),
    "mgmatting": ("mgmatting",),
    "dpt": ("matteformer",),
    vitmatte.PROJECT: tuple(vitmatte.NETWORKS.values()),
}

# timm's weights of the same encoder, trained on ImageNet-1k with labels.
SWIN = {
    "matteformer": "swin_tiny_patch4_window7_224.ms_in1k",
    "matteformer_small": "swin_small_patch4_window7_224.ms_in1k",
    "matteformer_base": "swin_base_patch4_window7_224.ms_in1k",
}

# timm's weights of the same transformer, trained without labels, from which the published ones began.
PLAIN = {"vitmatte_small": "vit_small_patch16_224.dino", "vitmatte_base": "vit_base_patch16_224.mae"}

# Swin's bias for the relative positions in a window, and which of its rows each pair of positions takes.
BIAS_TABLE = "relative_position_bias_table"
BIAS_INDEX = "relative_position_index"

# How a spectrally normalized convolution is stored: by us and by the original projects, which wrap the convolution.
_SPECTRAL = {
    ".parametrizations.weight.original": ".module.weight_bar",
    ".parametrizations.weight.0._u": ".module.weight_u",
    ".parametrizations.weight.0._v": ".module.weight_v",
}


# Where training scripts put a network's weights, the averaged ones first, which their authors evaluate.
_AVERAGED = ("params_ema", "state_dict_ema", "model_ema", "ema_state_dict", "ema")
_PLAIN = ("state_dict", "model", "params", "model_state_dict", "network", "net", "generator", "module", "weights")
# What parallel training, compiling and the modules around a network put in front of all names.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "generator.")
_DEEPEST = 4  # dictionaries around the weights


def tensors_of(content: dict[Any, Any]) -> dict[str, Tensor]:
    """Find the state dict in what `read` returned, and strip what stands in front of all its names."""
    for _ in range(_DEEPEST):
        part = place_of_weights(content)
        if part is None:
            break
        content = content[part]
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if len(state) > 1:
        state.pop("n_averaged", None)  # of PyTorch's averaging
    state = {name.replace("._orig_mod.", "."): value for name, value in state.items()}  # a part that was compiled
    while state and (prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def place_of_weights(content: dict[Any, Any]) -> str | None:
    """Find under which key of a dictionary the weights are, as a dictionary; None where they lie in it, or nowhere."""
    filled = {key: part for key, part in content.items() if isinstance(part, dict) and _holds_tensors(part)}
    known = [key for key in (*_AVERAGED, *_PLAIN) if key in filled]
    if known:
        return known[0]
    bare = any(isinstance(value, Tensor) for value in content.values())
    return next(iter(filled)) if len(filled) == 1 and not bare else None


def averaged_over_plain(content: dict[Any, Any]) -> tuple[str, str] | None:
    """Tell which averaged weights `tensors_of` takes, and which plain ones it leaves; None if there is no choice."""
    taken = place_of_weights(content)
    plain = [key for key in _PLAIN if isinstance(content.get(key), dict) and _holds_tensors(content[key])]
    return (taken, plain[0]) if taken in _AVERAGED and plain else None


def _holds_tensors(part: dict[Any, Any]) -> bool:
    """Tell whether there are named tensors in a dictionary, or in those that lie in it."""
    level = [part]
    for _ in range(_DEEPEST):
        if any(isinstance(key, str) and isinstance(value, Tensor) for each in level for key, value in each.items()):
            return True
        inside = {id(value): value for each in level for value in each.values() if isinstance(value, dict)}
        level = list(inside.values())
    return False


def describe(content: dict[Any, Any]) -> str:
    """Say in a few words what a file holds: its tensors' names, or else its keys."""
    state = tensors_of(content)
    names = [name[:60] if isinstance(name, str) else type(name).__name__ for name in (state or content)]
    if state:
        return f"{len(state)} tensors: {few(names)}"
    return f"no tensors, but {few(names)}" if names else "nothing"


def official_name(name: str) -> str:
    """Return the name that a tensor of ours has in the checkpoints of the original projects."""
    for ours, theirs in _SPECTRAL.items():
        name = name.replace(ours, theirs)
    return name


def official_model(state: dict[str, Tensor]) -> str | None:
    """Recognise a checkpoint of an original project, whole or in part, by its names: its network, or None."""
    if found := vitmatte.recognise(state):
        return found[0]
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


def spelling(state: dict[str, Tensor]) -> Callable[[str], str]:
    """Tell how our names are spelled in a checkpoint of an original project."""
    found = vitmatte.recognise(state)
    return found[1] if found else official_name


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
        network: MatteFormer, ViTMatte, a UNet or a ViT; other networks have no encoder of timm.
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
        elif key.startswith(("encoder.patch_embed.", "encoder.layers.", "encoder.pos_embed", "encoder.blocks.")):
            result[key] = _downsample_next(key.removeprefix("encoder."))
    return result


def _downsample_next(key: str) -> str:
    """Count a downsampling to the stage that follows it, as timm does: layers.0.downsample is layers.1.downsample."""
    parts = key.split(".")
    if parts[0] == "layers" and parts[2:3] == ["downsample"] and parts[1].isdecimal():
        parts[1] = str(int(parts[1]) + 1)
    return ".".join(parts)


def without_index(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the tables of indices, which a network makes by itself."""
    return {key: value for key, value in state.items() if not key.endswith(BIAS_INDEX)}
