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

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dptmat.errors import UserError, few
from dptmat.models import backbone_of, create_model
from dptmat.models.layers import MattingNetwork
from dptmat.weights import vitmatte
from dptmat.weights.names import OFFICIAL, averaged_over_plain, describe, official_model, spelling, tensors_of
from dptmat.weights.read import read

_logger = logging.getLogger(__name__)

_REAL = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}  # and all of floating point
_LONGEST = 100  # letters of a network's name
_SLACK = 1 << 26  # numbers by which a network may be larger than its file holds, such as a classifier of timm


def is_ours(content: dict[str, Any]) -> bool:
    """Tell whether this library wrote the file: a run's checkpoint, or what `convert` wrote."""
    config = content.get("config")
    name = config.get("model") if isinstance(config, dict) else None
    return isinstance(content.get("model"), dict) and isinstance(name, str) and len(name) <= _LONGEST


def find_weights(path: str | Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """Find the state dict in what `read` returned; say which one is taken where there are averaged and plain weights.

    Raises:
        UserError: A tensor is of a type that is no real number.
    """
    state = tensors_of(content)
    if choice := averaged_over_plain(content):
        _logger.info("%s: the averaged weights, %s, are taken, and %s are left", path, *choice)
    for name, value in state.items():
        if value.dtype not in _REAL and (not value.is_floating_point() or "float4" in str(value.dtype)):
            raise UserError(f"{path} holds {name} of type {value.dtype}; a network's weights are real numbers")
    return state


def is_finite(value: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether all numbers of a tensor are finite in the type in which a network holds them."""
    return bool(value.to(dtype).isfinite().all())


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
        state, spell = find_weights(path, content), str
        _require_plausible(path, name, state)
    else:
        state = find_weights(path, content)
        spell = spelling(state)
        name, trimap = _official_network(path, content, state, official)
        if name.startswith("vitmatte_"):
            state = vitmatte.fit_input(state, spell, 6)
    network = create_model(name, None if trimap else 3)
    _fill(network, state, spell, f"{path} is no whole checkpoint of {name}")
    return network.eval().to(device), {"model": name, "trimap": trimap}


def _official_network(
    path: str | Path, content: dict[str, Any], state: dict[str, Tensor], official: str | None
) -> tuple[str, bool]:
    """Tell which network a checkpoint of an original project is for: its name, and whether it takes a trimap.

    Raises:
        UserError: It is none, or not of the project ``official``.
    """
    found = official_model(state)
    if official and found not in OFFICIAL.get(official, ()):
        kind = f"a checkpoint of {found}" if found else "not a checkpoint of " + " or ".join(OFFICIAL)
        raise UserError(f"{path} is {kind}; expected one that the project of {official} published")
    if found is None:
        raise UserError(
            f"{path} holds no matting network, but {describe(content)}; expected a checkpoint of dptmat or one "
            f"that the project of {', '.join(OFFICIAL)} published"
        )
    if found.startswith("vitmatte_"):
        return found, vitmatte.channels_of(state, spelling(state)) != 3
    stem = state.get("encoder.conv1.module.weight_bar")
    mask = found == "mgmatting" and stem is not None and stem.ndim == 4 and stem.shape[1] == 4
    return "mgmatting_mask" if mask else found, True


def _require_plausible(path: str | Path, name: str, state: dict[str, Tensor]) -> None:
    """Refuse a file that names a network of timm which is far larger than its weights, before memory is taken for it.

    Raises:
        UserError: It is so, or the name is none.
    """
    import timm

    backbone = backbone_of(name)
    if not backbone or not timm.is_model(backbone):
        return  # a known size, or unknown, of which `create_model` tells
    with torch.device("meta"):  # shapes without memory
        wanted = sum(p.numel() for p in timm.create_model(backbone, pretrained=False).parameters())
    held = sum(value.numel() for value in state.values())
    if wanted > held + _SLACK:
        raise UserError(
            f"{path} names {name}, of more than {wanted / 1e6:.0f} million numbers, and holds {held / 1e6:.1f} million "
            "of them; expected a whole checkpoint"
        )


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
    if spoilt := [name for name, value in expected.items() if not is_finite(state[name], value.dtype)]:
        raise UserError(f"{complaint}: {len(spoilt)} tensors hold numbers that are not finite: {few(spoilt)}")
    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(state[name])  # also casts back integers that were saved as floats
