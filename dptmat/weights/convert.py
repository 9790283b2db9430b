"""The network of any file as a file of this library, without an optimizer's state."""

import logging
from pathlib import Path

import torch

from dptmat.files import write_output
from dptmat.weights.load import load_network

_logger = logging.getLogger(__name__)


def convert(path: str | Path, out: str | Path, official: str | None = None) -> None:
    """Write the network of a file alone, without an optimizer's state, as a file of this library.

    Logs what was written.

    Args:
        path, official: As for `dptmat.weights.load.load_network`, at whose head the file's content is described.
        out: The file to write.

    Raises:
        UserError: As for `load_network`.
        OSError: The file cannot be written.
    """
    network, config = load_network(path, official=official)
    write_output(out, lambda file: torch.save({"model": network.state_dict(), "config": config}, file))
    parameters = sum(p.numel() for p in network.parameters())
    _logger.info("%s: %s, %s parameters", out, config["model"], f"{parameters:,}")
