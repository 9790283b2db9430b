"""ViTMatte by transformers, and its weights under the names of the two layouts in which they are published."""

import torch
from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

# Beginnings and parts of names: of this library, of the project, of transformers.
NAMES = (
    ("encoder.blocks.", "backbone.blocks.", "backbone.encoder.layer."),
    ("encoder.pos_embed", "backbone.pos_embed", "backbone.embeddings.position_embeddings"),
    ("encoder.patch_embed.proj.", "backbone.patch_embed.proj.", "backbone.embeddings.projection."),
    ("decoder.fusion_blks.", "decoder.fusion_blks.", "decoder.fusion_blocks."),
    (".attn.", ".attn.", ".attention."),
    (".bn.", ".bn.", ".batch_norm."),
)


def named(state, layout):
    """Rename a state dict of this library as the project (1) or transformers (2) does."""
    renamed = {}
    for key, value in state.items():
        for names in NAMES:
            key = key.replace(names[0], names[layout])
        renamed[key] = value
    return renamed


def by_transformers(channels, in_channels=4):
    """The network that the published configurations make, in evaluation mode."""
    backbone = VitDetConfig(
        hidden_size=channels, num_attention_heads=channels // 64, num_channels=in_channels, image_size=512,
        pretrain_image_size=224, window_size=14, window_block_indices=[0, 1, 3, 4, 6, 7, 9, 10],
        residual_block_indices=[2, 5, 8, 11], use_relative_position_embeddings=True, out_features=["stage12"],
    )  # fmt: skip
    # Lists, since some versions cannot add up their own defaults.
    sizes = {"convstream_hidden_sizes": [48, 96, 192], "fusion_hidden_sizes": [256, 128, 64, 32]}
    return VitMatteForImageMatting(VitMatteConfig(backbone_config=backbone, hidden_size=channels, **sizes)).eval()


def stirred(network, seed=0):
    """Give every weight and statistic a random value that keeps alpha away from 0 and 1, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.8, 1.5, generator=generator)
            elif value.is_floating_point():
                wide = 0.02 if value.ndim < 2 or value[0].numel() > 400 else 0.05
                value.add_(wide * torch.randn(value.shape, generator=generator))
    return network.eval()
