"""Files of weights, ours and those of the original projects, become a network.

Those of this library are dictionaries that ``torch.save`` wrote, of tensors and plain values alone. Each has ``model``,
the network's state dict, and ``config``, of which two keys count here: ``model``, its name for `create_model`, and
``trimap``, False if it takes the image alone. What else is in them depends on what wrote them:

    a run's checkpoint, ``checkpoints/step-*.pt``: what the run goes on from (``optimizer``, ``scaler``,
        ``running_norm``, ``step``, ``micro_batch``, ``data_fingerprint`` ...); ``config`` holds all its settings
    a fine-tuning's best network, ``checkpoints/best.pt``: ``step`` and ``scores``; ``config`` likewise
    `dptmat.weights.convert.convert`: nothing else

The names of the tensors in files of other projects are in `dptmat.weights.names`.
"""

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dptmat.errors import UserError, few, first_line
from dptmat.models import create_model
from dptmat.models.layers import MattingNetwork
from dptmat.weights.names import OFFICIAL, official_model, official_name, tensors_of


def read(path: str | Path) -> dict[str, Any]:
    """Read a file of weights to the CPU without running any code from it.

    Args:
        path: What ``torch.save`` wrote, or a file that ends in ``.safetensors``.

    Returns:
        Its dictionary: of tensors, or with the tensors deeper inside.

    Raises:
        UserError: The file is missing or damaged, needs code of its own to be read, or holds no dictionary.
    """
    if str(path).endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read as safetensors: {error}") from error
    # Settings that Swin's, SimMIM's and other training scripts save beside the weights; nothing of them is used.
    harmless: list[Any] = [(OrderedDict, "yacs.config.CfgNode"), argparse.Namespace]
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged or foreign file
        raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a dictionary of weights")
    return content


def _reason(error: Exception) -> str:
    foreign = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if foreign:
        return f"it holds an object of {foreign[1]}, not only tensors and plain values; save its state dict alone"
    if "weights_only" in str(error):
        return "it holds more than tensors and plain values; save its state dict alone"
    return first_line(error)


def is_ours(content: dict[str, Any]) -> bool:
    """Tell whether this library wrote the file: a run's checkpoint, or what `convert` wrote."""
    config = content.get("config")
    return isinstance(content.get("model"), dict) and isinstance(config, dict) and isinstance(config.get("model"), str)


def load_network(
    path: str | Path, device: str | torch.device = "cpu", *, official: str | None = None
) -> tuple[MattingNetwork, dict[str, Any]]:
    """Load a matting network with the weights of a file, in evaluation mode.

    Args:
        path: A checkpoint of a run, what `convert` wrote, or a checkpoint of an original project as it was published.
        device: Where the network goes.
        official: One of OFFICIAL if the file is known to be of that project; by default this is recognised.

    Returns:
        The network, and its settings: ``model`` (a name for `create_model`) and ``trimap`` (False if it takes the
        image alone).

    Raises:
        UserError: The file cannot be read, is of another kind, or does not hold exactly the network's weights; the
            message then has a few lines on what is missing, has another shape, or is unknown.
    """
    content = read(path)
    spell: Callable[[str], str]
    if official is None and is_ours(content):
        name, trimap = content["config"]["model"], bool(content["config"].get("trimap", True))
        state, spell = tensors_of(content), str
    else:
        state, spell = tensors_of(content), official_name
        found = official_model(state)
        if official and found != official:
            kind = f"a checkpoint of {found}" if found else "not a checkpoint of " + " or ".join(OFFICIAL)
            raise UserError(f"{path} is {kind}; expected one that the project of {official} published")
        if found is None:
            raise UserError(
                f"{path} holds no matting network; expected a checkpoint of dptmat or one that the project of "
                f"{', '.join(OFFICIAL)} published"
            )
        stem = state.get("encoder.conv1.module.weight_bar")
        mask = found == "mgmatting" and stem is not None and stem.ndim == 4 and stem.shape[1] == 4
        name, trimap = "mgmatting_mask" if mask else found, True
    network = create_model(name, None if trimap else 3)
    _fill(network, state, spell, f"{path} is no whole checkpoint of {name}")
    return network.eval().to(device), {"model": name, "trimap": trimap}


def _fill(network: nn.Module, state: dict[str, Tensor], spell: Callable[[str], str], complaint: str) -> None:
    """Copy weights into a network, all of them or none; ``spell`` turns our names into the file's."""
    expected = {spell(name): value for name, value in network.state_dict().items()}
    shapes = {name: list(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    other = [
        f"{name} {shapes[name]} instead of {list(value.shape)}"
        for name, value in expected.items()
        if name in shapes and shapes[name] != list(value.shape)
    ]
    problems = [
        ("missing", [name for name in expected if name not in shapes]),
        ("of another shape", other),
        ("unknown", [name for name in state if name not in expected]),
    ]
    lines = [f"  {len(names)} {what}: {few(names)}" for what, names in problems if names]
    if lines:
        raise UserError("\n".join([f"{complaint}:", *lines]))
    if spoilt := [name for name in expected if not state[name].isfinite().all()]:
        raise UserError(f"{complaint}: {len(spoilt)} tensors hold numbers that are not finite: {few(spoilt)}")
    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(state[name])  # also casts back integers that were saved as floats
