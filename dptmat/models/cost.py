"""What a network costs: its parameters and multiply-adds, counted without running it, and what has been counted."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dptmat.models import create_model

# What `benchmarks/costs.py` has counted of the networks by their names: parameters, multiply-adds, bytes of memory.
COSTS = Path(__file__).with_name("costs.json")
# SAD on Composition-1k as it was published for the official weights or, "pre-trained", after this method; and where.
PUBLISHED = {
    "matteformer": "23.8, pre-trained 21.0 (Li et al., WACV 2024)",
    "gca": "35.3, pre-trained 33.0 (Li et al., WACV 2024)",
    "mgmatting_mask": "31.5 (Yu et al., CVPR 2021)",
    "vitmatte_small": "21.46 (Yao et al., Information Fusion 2024)",
    "vitmatte_base": "20.33 (Yao et al., Information Fusion 2024)",
}


def cost(name: str, sizes: Sequence[int] = (224, 512)) -> tuple[int, list[int]]:
    """Count the parameters of a network and the multiply-adds of one image.

    Args:
        name: A name for `create_model`.
        sizes: Sides of square inputs in pixels, multiples of 32.

    Returns:
        The trainable parameters, and a list of multiply-adds for the sizes: those of convolutions and matrix products
        in evaluation, half of the floating-point operations that PyTorch counts.

    Raises:
        UserError: The name is unknown, or its backbone does not fit.
    """
    network = create_model(name).eval()
    counts = []
    for size in sizes:
        with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, network.in_channels, size, size))  # shapes without memory and without work
        counts.append(counter.get_total_flops() // 2)
    return sum(p.numel() for p in network.parameters() if p.requires_grad), counts
