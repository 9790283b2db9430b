"""The network that others have shared, by its name."""

from pathlib import Path

import torch

from dptmat.errors import UserError
from dptmat.models.layers import MattingNetwork
from dptmat.weights.hub import is_address, is_name
from dptmat.weights.load import load_network


def from_pretrained(name: str | Path, device: str | torch.device = "cpu") -> MattingNetwork:
    """Load a matting network from the Hub or from a folder, in evaluation mode, as `dptmat.load_network` does.

    Args:
        name: ``user/name`` on the Hub; its address, ``hf://user/name``, or ``hf://user/name@revision`` for a branch, a
            tag or a commit; a folder that `dptmat.push_to_hub` wrote, which wins over a name on the Hub; or a file.
        device: Where the network goes.

    Returns:
        The network, for `dptmat.predict_alpha`; ``in_channels`` is 3 if it takes the image alone.

    Raises:
        UserError: There is no such network, it is not for this user, the Hub is not reached and its cache has no copy,
            or as for `load_network`.
    """
    if is_address(name) or Path(name).exists():
        return load_network(name, device)[0]
    if not is_name(str(name)):
        raise UserError(f"`name` {name} is no folder, and no name on the Hub; expected user/name, or a folder's path")
    return load_network(f"hf://{name}", device)[0]
