"""The layouts of ViTMatte's checkpoints, and its published input of 4 channels as one of 6.

Sources: the checkpoints of Yao et al., ViTMatte, Information Fusion 2024, and the same in Hugging Face's transformers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PROJECT = "vitmatte"
NETWORKS = {384: "vitmatte_small", 768: "vitmatte_base"}  # by the channels of the transformer

# How transformers calls what the project calls otherwise.
_TRANSFORMERS = {
    "backbone.blocks.": "backbone.encoder.layer.",
    "backbone.pos_embed": "backbone.embeddings.position_embeddings",
    "backbone.patch_embed.proj": "backbone.embeddings.projection",
    "decoder.fusion_blks.": "decoder.fusion_blocks.",
    ".attn.": ".attention.",
    ".bn.": ".batch_norm.",
}
# The tensors that see the network's input, which are the first of their channels.
_SEEING = (
    "encoder.patch_embed.proj.weight",
    "decoder.convstream.convs.0.conv.weight",
    "decoder.fusion_blks.3.conv.conv.weight",
)


def published_name(name: str) -> str:
    """Return the name that a tensor of ours has in the checkpoints of the project."""
    return "backbone." + name.removeprefix("encoder.") if name.startswith("encoder.") else name


def transformers_name(name: str) -> str:
    """Return the name that a tensor of ours has in transformers."""
    name = published_name(name)
    for theirs, transformers in _TRANSFORMERS.items():
        name = name.replace(theirs, transformers)
    return name


def recognise(state: dict[str, Tensor]) -> tuple[str, Callable[[str], str]] | None:
    """Recognise a checkpoint of either layout, whole or in part: its network, and how our names are spelled there."""
    if not any(name.startswith("decoder.") or ".rel_pos_" in name for name in state):
        return None  # another transformer of such names
    for blocks, spell in (("backbone.blocks.", published_name), ("backbone.encoder.layer.", transformers_name)):
        norms = (value for name, value in state.items() if name.startswith(blocks) and name.endswith("norm1.bias"))
        channels = next((len(value) for value in norms if value.ndim == 1), 0)
        if channels in NETWORKS:
            return NETWORKS[channels], spell
    return None


def channels_of(state: dict[str, Tensor], spell: Callable[[str], str]) -> int | None:
    """Return the channels of the input for which a checkpoint is; None where that cannot be told."""
    weight = state.get(spell(_SEEING[0]))
    return weight.shape[1] if weight is not None and weight.ndim == 4 else None


def fit_input(state: dict[str, Tensor], spell: Callable[[str], str], in_channels: int) -> dict[str, Tensor]:
    """Fit a checkpoint for the published input of 4 channels to another one; give any other back as it is.

    Args:
        state: The checkpoint.
        spell: How our names are spelled in it.
        in_channels: 6 for the one-hot trimap, which gives the same alpha, or 3 to leave the trimap out.
    """
    if channels_of(state, spell) != 4 or in_channels == 4:
        return state
    fitted = dict(state)
    for name in map(spell, _SEEING):
        if name in state and state[name].ndim == 4:
            image, trimap, rest = state[name].split((3, 1, state[name].shape[1] - 4), 1)
            # The published value of unknown is half of that of foreground, and that of background is 0.
            one_hot = [torch.zeros_like(trimap), trimap / 2, trimap] if in_channels == 6 else []
            fitted[name] = torch.cat([image, *one_hot, rest], 1)
    return fitted


def published_input(state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Turn a state of ours for 6 channels into one for the published 4 that gives the same alpha; None if none does."""
    fitted = dict(state)
    for name in _SEEING:
        image, background, unknown, foreground, rest = state[name].split((3, 1, 1, 1, state[name].shape[1] - 6), 1)
        if background.any() or not torch.equal(unknown, foreground / 2):
            return None
        fitted[name] = torch.cat([image, foreground, rest], 1)
    return fitted


def transformers_config(channels: int, in_channels: int) -> dict[str, Any]:
    """Make the config.json by which transformers builds the network."""
    backbone = {
        "model_type": "vitdet", "hidden_size": channels, "num_attention_heads": channels // 64, "num_hidden_layers": 12,
        "num_channels": in_channels, "image_size": 512, "pretrain_image_size": 224, "patch_size": 16, "mlp_ratio": 4,
        "window_size": 14, "window_block_indices": [0, 1, 3, 4, 6, 7, 9, 10], "residual_block_indices": [2, 5, 8, 11],
        "use_absolute_position_embeddings": True, "use_relative_position_embeddings": True, "qkv_bias": True,
        "layer_norm_eps": 1e-6, "hidden_act": "gelu", "out_features": ["stage12"],
    }  # fmt: skip
    return {
        "architectures": ["VitMatteForImageMatting"], "model_type": "vitmatte", "backbone_config": backbone,
        "hidden_size": channels, "batch_norm_eps": 1e-5, "convstream_hidden_sizes": [48, 96, 192],
        "fusion_hidden_sizes": [256, 128, 64, 32],
    }  # fmt: skip
