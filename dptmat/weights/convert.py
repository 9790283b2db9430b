"""The network of any file as a file of this library, without an optimizer's state."""

from pathlib import Path

import torch

from dptmat.files import write_whole
from dptmat.weights.load import load_network


def convert(path: str | Path, out: str | Path, official: str | None = None) -> str:
    """Write the network of a file alone, without an optimiser's state, as a file of this library.

    Args:
        path, official: As for `load_network`.
        out: The file to write, as of ``torch.save``: ``model``, the weights, and ``config`` with ``model``, its name,
            and ``trimap``.

    Returns:
        One line on what was written.

    Raises:
        UserError: As for `load_network`.
    """
    network, config = load_network(path, official=official)
    write_whole(out, lambda file: torch.save({"model": network.state_dict(), "config": config}, file))
    return f"{out}: {config['model']}, {sum(p.numel() for p in network.parameters()):,} parameters"
